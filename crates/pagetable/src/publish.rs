//! How a new table becomes reachable.
//!
//! The hardware may walk into a table the moment an entry points to it, speculatively, and without any access
//! by software. So whatever the frame held before must be gone *before* the entry is stored. On x86-TSO the
//! order of the stores is enough.

use machine::Cpu;

use crate::entry::Entry;
use crate::table::{Slot, Table};
use crate::write::EntryWrite;

/// A protocol for linking a new table.
pub trait Publish {
    /// Makes `table` empty and `parent` point to it by `link`. The caller holds the page-table lock of the
    /// parent's table (or is its single owner) and has seen that `parent` is none. The table's child count is
    /// set by the caller.
    #[track_caller]
    fn publish<C: Cpu, W: EntryWrite>(&self, cpu: &C, writer: &W, parent: Slot<'_>, table: Table<'_>, link: Entry);
}

/// Zero first, link second.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ZeroThenLink;

impl Publish for ZeroThenLink {
    #[inline]
    fn publish<C: Cpu, W: EntryWrite>(&self, cpu: &C, writer: &W, parent: Slot<'_>, table: Table<'_>, link: Entry) {
        cpu.zero(table.cells());
        parent.set(cpu, writer, link);
    }
}
