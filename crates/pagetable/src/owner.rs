//! Tables with a single owner: how it may access entries.
//!
//! A single owner excludes all other *software* writers of a tree of tables. What is left to ask is who else looks:
//!
//! | | others that look | read | set | take | change |
//! |---|---|---|---|---|---|
//! | [`Offline`] | nobody: no CPU has the root loaded, no lockless walker knows it | plain | plain | plain load, plain store | plain |
//! | [`Live`] | hardware walkers, which set accessed and dirty; lockless software walkers | the writer's | the writer's | the writer's exchange | the writer's compare-exchange |
//!
//! Both return exact accessed and dirty bits: offline, because nobody sets any.

use machine::Cpu;

use crate::entry::Entry;
use crate::publish::{Publish, ZeroThenLink};
use crate::table::{Slot, Table};
use crate::width::Width;
use crate::write::EntryWrite;

/// How a single owner accesses entries. `N` is the mode's width.
pub trait Ownership {
    /// Reads the entry.
    #[track_caller]
    fn load<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>) -> Entry;

    /// Writes an entry where there is none.
    #[track_caller]
    fn set<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, new: Entry);

    /// Empties the entry and returns what it held, accessed and dirty exact. `seen` is what [`Self::load`] has
    /// just returned.
    #[track_caller]
    fn take<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, seen: Entry) -> Entry;

    /// Replaces the entry by `change` of it and returns what it held. `seen` is what [`Self::load`] has just
    /// returned; `change` must be a pure function.
    #[track_caller]
    fn update<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, seen: Entry, change: impl Fn(Entry) -> Entry) -> Entry;

    /// Makes `table` empty, and `slot`, where there is nothing, lead to it by `link`.
    #[track_caller]
    fn link<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, table: Table<'_>, link: Entry);
}

/// Nobody but the owner can see the tables: they are being built, torn down, or belong to an address space that
/// is not loaded anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Offline;

impl Ownership for Offline {
    #[inline(always)]
    fn load<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>) -> Entry {
        N::owned_load(cpu, slot.cell())
    }

    #[inline(always)]
    fn set<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, new: Entry) {
        N::owned_store(cpu, slot.cell(), new);
    }

    #[inline(always)]
    fn take<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, seen: Entry) -> Entry {
        N::owned_store(cpu, slot.cell(), Entry::NONE);
        seen
    }

    #[inline(always)]
    fn update<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, seen: Entry, change: impl Fn(Entry) -> Entry) -> Entry {
        N::owned_store(cpu, slot.cell(), change(seen));
        seen
    }

    #[inline]
    fn link<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, table: Table<'_>, link: Entry) {
        cpu.zero(table.cells());
        N::owned_store(cpu, slot.cell(), link);
    }
}

/// Walkers of hardware and software may be in the tables; entries are written by the protocol `W`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Live<W>(
    /// How.
    pub W,
);

impl<W: EntryWrite> Ownership for Live<W> {
    #[inline(always)]
    fn load<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>) -> Entry {
        self.0.as_read(N::load(cpu, slot.cell()))
    }

    #[inline(always)]
    fn set<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, new: Entry) {
        self.0.set(cpu, slot.cell(), &slot.meta().sequence, new);
    }

    #[inline(always)]
    fn take<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, _seen: Entry) -> Entry {
        self.0.get_and_clear(cpu, slot.cell(), &slot.meta().sequence)
    }

    #[inline(always)]
    fn update<N: Width, C: Cpu>(
        &self,
        cpu: &C,
        slot: Slot<'_>,
        _seen: Entry,
        change: impl Fn(Entry) -> Entry,
    ) -> Entry {
        self.0.update(cpu, slot.cell(), &slot.meta().sequence, change)
    }

    #[inline]
    fn link<N: Width, C: Cpu>(&self, cpu: &C, slot: Slot<'_>, table: Table<'_>, link: Entry) {
        ZeroThenLink.publish(cpu, &self.0, slot, table, link);
    }
}
