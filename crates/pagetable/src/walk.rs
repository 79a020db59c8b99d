//! The lockless walk.
//!
//! A walker reads every entry once, decides on its copy, and computes the next table from the copy, never from the
//! cell again. What it needs from its caller: *tables stay tables while it walks* (interrupts off, an RCU read-side section, or a
//! lock that keeps tables from being freed).
//!
//! Step by step, as fast GUP wants it: [`root_slot`], [`Slot::read`](crate::Slot::read), [`step`], again; at the end
//! [`Slot::recheck`](crate::Slot::recheck). Or as a whole: [`translate`].

use machine::{Cpu, Frame, VirtAddr};

use crate::entry::Entry;
use crate::error::WalkError;
use crate::level::Level;
use crate::memory::TableMemory;
use crate::mode::{Mode, Root, RootShape};
use crate::read::EntryRead;
use crate::table::Slot;

/// The slot of the root that translates `address`. Its level is [`Mode::root_level`].
///
/// # Errors
/// The mode does not translate the address, or the root is not a table.
#[inline(always)]
pub fn root_slot<'m, M: Mode, T: TableMemory>(
    mode: &M,
    memory: &'m T,
    root: Root,
    address: VirtAddr,
) -> Result<Slot<'m>, WalkError> {
    mode.check(address)?;
    let level = mode.root_level();
    match mode.root_shape() {
        RootShape::Table => memory.table(root.address().frame()).map(|table| table.slot(level, address)),
        RootShape::FourPdptes => memory.pdpt(root.address()).map(|table| table.slot(address)),
    }
    .map_err(|table| WalkError::NotATable { address, level, table })
}

/// Where an entry leads.
#[derive(Clone, Copy)]
pub enum Step<'m> {
    /// The entry maps pages itself.
    Leaf,
    /// The entry points to a table; this is the slot there, one level lower.
    Lower(Slot<'m>),
}

/// Where `entry`, a copy of what a slot of `level` held, leads on the way to `address`.
///
/// # Errors
/// It is not present, malformed, or points to something that is not a table.
#[inline(always)]
pub fn step<'m, M: Mode, T: TableMemory>(
    mode: &M,
    memory: &'m T,
    level: Level,
    entry: Entry,
    address: VirtAddr,
) -> Result<Step<'m>, WalkError> {
    if !entry.is_present() {
        return Err(WalkError::NotPresent { address, level, entry });
    }
    mode.check_entry(level, entry, address)?;
    match level.lower() {
        Some(lower) if !entry.is_leaf(level) => match memory.table(entry.table_frame()) {
            Ok(table) => Ok(Step::Lower(table.slot(lower, address))),
            Err(table) => Err(WalkError::NotATable { address, level, table }),
        },
        _ => Ok(Step::Leaf),
    }
}

/// What a walk found: the leaf that translates an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The 4 KiB frame that holds the address.
    pub frame: Frame,
    /// The level of the leaf.
    pub level: Level,
    /// The leaf.
    pub entry: Entry,
}

/// Walks from the root to the leaf that translates `address`.
///
/// # Errors
/// Why there is none.
#[inline]
pub fn translate<C: Cpu, M: Mode, T: TableMemory, R: EntryRead>(
    cpu: &C,
    mode: &M,
    memory: &T,
    reader: &R,
    root: Root,
    address: VirtAddr,
) -> Result<Translation, WalkError> {
    let mut slot = root_slot(mode, memory, root, address)?;
    let mut level = mode.root_level();
    loop {
        let entry = slot.read(cpu, reader);
        match (step(mode, memory, level, entry, address)?, level.lower()) {
            (Step::Lower(next), Some(lower)) => (slot, level) = (next, lower),
            _ => {
                let page = address.as_u64() >> machine::addr::PAGE_SHIFT & (level.frames() - 1);
                return Ok(Translation { frame: entry.leaf_frame(level).wrapping_add(page), level, entry });
            }
        }
    }
}
