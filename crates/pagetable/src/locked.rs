//! Changing a table under its page-table lock, while others walk and change elsewhere.
//!
//! # Protocol
//!
//! 1. The entries of a table change only under the table's lock ([`TableMeta::lock`]). Walkers do not take it.
//! 2. The child count changes with them, under the same lock.
//! 3. A table is filled only while its parent's entry points to it. Who found it without a lock must, once it
//!    has the lock, look at the parent again ([`Position::lock_linked`]): the table may have been detached
//!    meanwhile.
//! 4. Lock order: a parent's lock before a child's.
//!
//! Accessed and dirty follow the contract of [`crate::write`].

use core::fmt;

use machine::{Cpu, Frame, SpinGuard, VirtAddr, Word64};

use crate::detach::DetachedTable;
use crate::entry::Entry;
use crate::level::Level;
use crate::memory::TableMemory;
use crate::mode::Mode;
use crate::publish::Publish;
use crate::recheck::{Recheck, Rechecked};
use crate::rights::Flags;
use crate::table::{Slot, Table, TableMeta};
use crate::width::Width;
use crate::write::EntryWrite;

/// A table on the way to an address, and how it was reached.
#[derive(Clone, Copy)]
pub struct Position<'m> {
    cells: &'m [Word64],
    meta: &'m TableMeta,
    level: Level,
    address: VirtAddr,
    parent: Option<Link<'m>>,
}

/// The entry that led to a table.
#[derive(Clone, Copy)]
pub struct Link<'m> {
    /// Where it is.
    pub slot: Slot<'m>,
    /// Its level.
    pub level: Level,
    /// What was read from it.
    pub entry: Entry,
}

/// The parent's entry no longer says what led here: walk again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unlinked;

impl<'m> Position<'m> {
    #[inline(always)]
    pub(crate) const fn new(
        cells: &'m [Word64],
        meta: &'m TableMeta,
        level: Level,
        address: VirtAddr,
        parent: Option<Link<'m>>,
    ) -> Self {
        Self { cells, meta, level, address, parent }
    }

    /// The level of the table.
    #[inline]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The entry that led to the table; `None` for the root.
    #[inline]
    pub const fn parent(&self) -> Option<Link<'m>> {
        self.parent
    }

    /// The slot that translates the address.
    #[inline(always)]
    pub fn slot(&self) -> Slot<'m> {
        Slot::new(cell_of(self.cells, self.level, self.address), self.meta)
    }

    /// Takes the page-table lock. The caller knows that the table is linked and stays so.
    #[inline]
    #[track_caller]
    pub fn lock<C: Cpu>(&self, cpu: &'m C) -> LockedTable<'m, C> {
        LockedTable { cells: self.cells, meta: self.meta, level: self.level, guard: self.meta.lock.lock(cpu) }
    }

    /// Takes the page-table lock, and makes sure that the table is still linked: `pte_offset_map_lock`.
    ///
    /// # Errors
    /// It is not; the lock is not held.
    #[inline]
    #[track_caller]
    pub fn lock_linked<C: Cpu, K: Recheck>(&self, cpu: &'m C, recheck: &K) -> Result<LockedTable<'m, C>, Unlinked> {
        let locked = self.lock(cpu);
        match self.parent.map(|link| link.slot.recheck(cpu, recheck, link.entry)) {
            None | Some(Rechecked::Unchanged) => Ok(locked),
            Some(Rechecked::Changed) => Err(Unlinked),
        }
    }
}

/// The cell of `address` among the 512 or 4 of a table.
#[inline(always)]
fn cell_of(cells: &[Word64], level: Level, address: VirtAddr) -> &Word64 {
    // Tables have a power of two of entries, so the mask keeps the index inside.
    &cells[level.index(address) & (cells.len() - 1)]
}

/// A table whose page-table lock this CPU holds.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct LockedTable<'m, C: Cpu> {
    cells: &'m [Word64],
    meta: &'m TableMeta,
    level: Level,
    guard: SpinGuard<'m, C>,
}

/// Why a table was not detached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DetachError {
    /// It has entries.
    NotEmpty {
        /// How many.
        children: u32,
    },
    /// The parent's entry does not point to it.
    NotLinked {
        /// The parent's entry.
        entry: Entry,
    },
}

impl fmt::Display for DetachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmpty { children } => write!(f, "the table has {children} entries"),
            Self::NotLinked { entry } => write!(f, "the parent's entry {entry} does not point to the table"),
        }
    }
}

impl core::error::Error for DetachError {}

impl<'m, C: Cpu> LockedTable<'m, C> {
    /// The CPU that holds the lock.
    #[inline]
    pub const fn cpu(&self) -> &'m C {
        self.guard.cpu()
    }

    /// The level of the table.
    #[inline]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Releases the lock: the same as dropping this, but a trace then names the caller's line.
    #[inline]
    #[track_caller]
    pub fn unlock(self) {
        self.guard.unlock();
    }

    /// How many entries are not none.
    #[inline]
    #[track_caller]
    pub fn children(&self) -> u32 {
        self.cpu().owned_load(&self.meta.children)
    }

    /// The table's metadata.
    #[inline]
    pub const fn meta(&self) -> &'m TableMeta {
        self.meta
    }

    /// The slot of `address`.
    #[inline(always)]
    pub fn slot(&self, address: VirtAddr) -> Slot<'m> {
        Slot::new(cell_of(self.cells, self.level, address), self.meta)
    }

    /// The entry of `address`: a plain load, which the lock makes exact, but for accessed and dirty.
    #[inline(always)]
    #[track_caller]
    pub fn entry<M: Mode>(&self, mode: &M, address: VirtAddr) -> Entry {
        let _ = mode;
        M::Width::locked_load(self.cpu(), self.slot(address).cell())
    }

    /// Writes an entry where there is none.
    ///
    /// # Errors
    /// What is there.
    #[inline]
    #[track_caller]
    pub fn set<M: Mode, W: EntryWrite>(
        &mut self,
        mode: &M,
        writer: &W,
        address: VirtAddr,
        new: Entry,
    ) -> Result<(), Entry> {
        let found = self.entry(mode, address);
        if !found.is_none() {
            return Err(found);
        }
        self.fill(writer, address, new);
        Ok(())
    }

    /// [`Self::set`] for a caller that has seen, under this lock, that there is no entry.
    #[inline]
    #[track_caller]
    pub fn fill<W: EntryWrite>(&mut self, writer: &W, address: VirtAddr, new: Entry) {
        self.slot(address).set(self.cpu(), writer, new);
        self.recount(writer, Entry::NONE, new);
    }

    /// Empties the entry and returns what it held, accessed and dirty exact.
    #[inline]
    #[track_caller]
    pub fn get_and_clear<W: EntryWrite>(&mut self, writer: &W, address: VirtAddr) -> Entry {
        let old = writer.get_and_clear(self.cpu(), self.slot(address).cell(), &self.meta.sequence);
        self.recount(writer, old, Entry::NONE);
        old
    }

    /// Replaces the entry and returns what it held, accessed and dirty exact.
    #[inline]
    #[track_caller]
    pub fn replace<W: EntryWrite>(&mut self, writer: &W, address: VirtAddr, new: Entry) -> Entry {
        let old = writer.replace(self.cpu(), self.slot(address).cell(), &self.meta.sequence, new);
        self.recount(writer, old, new);
        old
    }

    /// Replaces the entry by `change` of it, without losing an accessed or dirty bit that the hardware sets
    /// meanwhile, and returns what it held. `change` must be a pure function.
    #[inline]
    #[track_caller]
    pub fn update<W: EntryWrite>(&mut self, writer: &W, address: VirtAddr, change: impl Fn(Entry) -> Entry) -> Entry {
        let old = writer.update(self.cpu(), self.slot(address).cell(), &self.meta.sequence, &change);
        self.recount(writer, old, change(old));
        old
    }

    /// Clears flags and returns what the entry held: write-protect, clear young, clear dirty.
    #[inline]
    #[track_caller]
    pub fn clear_flags<W: EntryWrite>(&mut self, writer: &W, address: VirtAddr, flags: Flags) -> Entry {
        let old = writer.clear_flags(self.cpu(), self.slot(address).cell(), &self.meta.sequence, flags);
        writer.changed(self.cpu(), self.level, old, old.without(flags));
        old
    }

    /// Sets flags and returns what the entry held. The entry must not be none.
    #[inline]
    #[track_caller]
    pub fn set_flags<W: EntryWrite>(&mut self, writer: &W, address: VirtAddr, flags: Flags) -> Entry {
        let old = writer.set_flags(self.cpu(), self.slot(address).cell(), &self.meta.sequence, flags);
        writer.changed(self.cpu(), self.level, old, old.with(flags));
        old
    }

    /// Links a new table, that nobody else knows yet, where there is nothing: `pmd_populate`.
    ///
    /// # Errors
    /// What is there. The table is the caller's still.
    #[track_caller]
    pub fn link<M: Mode, P: Publish, W: EntryWrite>(
        &mut self,
        mode: &M,
        publish: &P,
        writer: &W,
        address: VirtAddr,
        frame: Frame,
        table: Table<'_>,
    ) -> Result<Entry, Entry> {
        let found = self.entry(mode, address);
        if !found.is_none() {
            return Err(found);
        }
        self.cpu().owned_store(&table.meta().children, 0);
        let entry = mode.table_entry(self.level, frame);
        publish.publish(self.cpu(), writer, self.slot(address), table, entry);
        self.recount(writer, Entry::NONE, entry);
        Ok(entry)
    }

    /// Unlinks the empty table `child`, whose lock is held, too. Flush before freeing it: see [`crate::detach`].
    ///
    /// # Errors
    /// It has entries, or is not linked here; nothing changed.
    #[track_caller]
    pub fn detach<M: Mode, T: TableMemory, W: EntryWrite>(
        &mut self,
        mode: &M,
        memory: &T,
        writer: &W,
        address: VirtAddr,
        child: &LockedTable<'_, C>,
    ) -> Result<DetachedTable, DetachError> {
        let entry = self.entry(mode, address);
        let is_child = entry.is_present()
            && !entry.is_leaf(self.level)
            && memory.table(entry.table_frame()).is_ok_and(|table| core::ptr::eq(table.meta(), child.meta));
        if !is_child {
            return Err(DetachError::NotLinked { entry });
        }
        match child.children() {
            0 => {
                self.get_and_clear(writer, address);
                Ok(DetachedTable::new(entry.table_frame(), child.level))
            }
            children => Err(DetachError::NotEmpty { children }),
        }
    }

    /// Adjusts the child count to one entry's change, and tells who keeps account of entries.
    #[inline(always)]
    #[track_caller]
    fn recount<W: EntryWrite>(&mut self, writer: &W, old: Entry, new: Entry) {
        writer.changed(self.cpu(), self.level, old, new);
        if old.is_none() != new.is_none() {
            let step = if new.is_none() { u32::MAX } else { 1 };
            let children = self.cpu().owned_load(&self.meta.children);
            self.cpu().owned_store(&self.meta.children, children.wrapping_add(step));
        }
    }
}
