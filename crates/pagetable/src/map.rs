//! A single owner's changes: pages one by one.

use machine::{Cpu, Frame, VirtAddr};

use crate::entry::Entry;
use crate::error::{AddressError, MapError, WalkError};
use crate::level::Level;
use crate::memory::{TableMemory, TableSource};
use crate::mode::{Mode, Root};
use crate::owner::Ownership;
use crate::read::ReadOnce;
use crate::rights::{Attributes, Rights};
use crate::table::{Slot, TableMeta};
use crate::walk::{self, Descent, Path, Translation, descend, end_of_walk};

/// The right to change a tree of tables alone.
///
/// # Contract
///
/// 1. While a `Mapper` exists, no other software changes the tables under its root. Whoever makes one says so.
/// 2. Who else *looks* is said by `O`, an [`Ownership`].
/// 3. Nothing is flushed here. On a live tree the caller invalidates what it changed or took away, before it
///    relies on the change.
/// 4. Tables that become empty stay linked, so that mapping again is cheap; [`Mapper::prune`] detaches them.
///    That costs one look at each table's child count, and no scan.
/// 5. On PAE the hardware reads the PDPTEs only when CR3 is loaded. A pmd table made later is in memory, but no
///    CPU that has the root loaded uses it before it loads the root again. Map something in each of the four 1
///    GiB parts first, or load CR3 again.
/// 6. No accessed or dirty bit is lost (see [`crate::write`]).
pub struct Mapper<'a, C, M, T, O> {
    pub(crate) cpu: &'a C,
    pub(crate) mode: M,
    pub(crate) memory: &'a T,
    pub(crate) root: Root,
    pub(crate) owner: O,
}

/// What was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmapped {
    /// The level of the leaf.
    pub level: Level,
    /// The leaf, with its accessed and dirty bits as they were at the moment it was taken away.
    pub entry: Entry,
}

impl Unmapped {
    /// The first frame of the leaf.
    #[inline]
    pub const fn frame(self) -> Frame {
        self.entry.leaf_frame(self.level)
    }
}

impl<'a, C: Cpu, M: Mode, T: TableMemory, O: Ownership> Mapper<'a, C, M, T, O> {
    /// The owner of the tables under `root`: see the contract.
    #[inline]
    pub const fn new(cpu: &'a C, mode: M, memory: &'a T, root: Root, owner: O) -> Self {
        Self { cpu, mode, memory, root, owner }
    }

    /// The root.
    #[inline]
    pub const fn root(&self) -> Root {
        self.root
    }

    #[inline(always)]
    #[track_caller]
    pub(crate) fn load(&self, slot: Slot<'_>) -> Entry {
        self.owner.load::<M::Width, C>(self.cpu, slot)
    }

    #[inline(always)]
    #[track_caller]
    fn descend(&self, address: VirtAddr, to: Level) -> Result<Descent<'a>, WalkError> {
        descend(&self.mode, self.memory, self.root, address, to, |slot| self.load(slot))
    }

    /// Goes down to the slot of `level` for `address`, and makes the tables that are missing.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn place<S: TableSource>(
        &mut self,
        source: &S,
        address: VirtAddr,
        level: Level,
    ) -> Result<Descent<'a>, MapError> {
        let end = self.descend(address, level)?;
        if end.seen.is_none() {
            return Ok(end);
        }
        self.place_slowly(source, address, level)
    }

    /// [`Self::place`] where something is missing or in the way. Goes down once more: where the first descent ended need not
    /// be kept for it, so that a descent that finds all tables stays in registers.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn place_slowly<S: TableSource>(
        &mut self,
        source: &S,
        address: VirtAddr,
        level: Level,
    ) -> Result<Descent<'a>, MapError> {
        let mut end = self.descend(address, level)?;
        while let Some(entry) = end.seen {
            if !entry.is_none() {
                if entry.is_present() {
                    self.mode.check_entry(end.level, entry, address)?;
                }
                return Err(MapError::AlreadyMapped { address, level: end.level, entry });
            }
            self.make_table(source, address, &end)?;
            end = self.descend(address, level)?;
        }
        Ok(end)
    }

    /// Fills the empty slot `end` with an empty table.
    #[track_caller]
    fn make_table<S: TableSource>(&mut self, source: &S, address: VirtAddr, end: &Descent<'a>) -> Result<(), MapError> {
        let Descent { slot, level, .. } = *end;
        let frame = source.allocate_table(self.cpu).map_err(|_| MapError::OutOfFrames { address, level })?;
        match self.memory.table(frame) {
            Ok(table) => {
                self.cpu.owned_store(&table.meta().children, 0);
                let link = self.mode.table_entry(level, frame);
                self.owner.link::<M::Width, C>(self.cpu, slot, table, link);
                self.add_children(slot.meta(), 1);
                Ok(())
            }
            Err(table) => {
                source.free_table(self.cpu, frame);
                Err(WalkError::NotATable { address, level, table }.into())
            }
        }
    }

    #[inline(always)]
    #[track_caller]
    pub(crate) fn add_children(&self, meta: &TableMeta, more: u32) {
        let children = self.cpu.owned_load(&meta.children);
        self.cpu.owned_store(&meta.children, children.wrapping_add(more));
    }

    #[inline(always)]
    #[track_caller]
    pub(crate) fn remove_children(&self, meta: &TableMeta, fewer: u32) {
        self.add_children(meta, fewer.wrapping_neg());
    }

    /// The leaf for `address` at `level`, if the machine can have it.
    #[inline(always)]
    pub(crate) fn leaf(
        &self,
        address: VirtAddr,
        level: Level,
        frame: Frame,
        attributes: Attributes,
    ) -> Result<Entry, MapError> {
        if !address.is_aligned(level.size()) {
            return Err(AddressError::Misaligned { address, size: level.size() }.into());
        }
        let entry = Entry::leaf(level, frame, attributes)?;
        if !self.mode.physical_width().holds(frame) {
            return Err(MapError::TooWide { frame, width: self.mode.physical_width().bits() });
        }
        // What is left: attributes with a bit that this mode reserves, or a leaf where it has none.
        self.mode.check_entry(level, entry, address)?;
        Ok(entry)
    }

    /// Maps one page of `level` (4 KiB, 2 MiB, 1 GiB) at `address`, and makes the tables that are missing.
    ///
    /// # Errors
    /// Something is there; the address, the frame or the attributes are wrong; no frames for tables. Nothing
    /// changed then, but for tables made on the way.
    #[inline]
    #[track_caller]
    pub fn map<S: TableSource>(
        &mut self,
        source: &S,
        address: VirtAddr,
        level: Level,
        frame: Frame,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        let new = self.leaf(address, level, frame, attributes)?;
        self.set(source, address, level, new)
    }

    /// Puts a non-present encoding, or a leaf made elsewhere, where there is nothing.
    ///
    /// # Errors
    /// As for [`Self::map`].
    #[inline]
    #[track_caller]
    pub fn set<S: TableSource>(
        &mut self,
        source: &S,
        address: VirtAddr,
        level: Level,
        new: Entry,
    ) -> Result<(), MapError> {
        let end = self.place(source, address, level)?;
        let found = self.load(end.slot);
        if !found.is_none() {
            return Err(MapError::AlreadyMapped { address, level, entry: found });
        }
        self.owner.set::<M::Width, C>(self.cpu, end.slot, new);
        self.add_children(end.slot.meta(), 1);
        Ok(())
    }

    /// Takes away the leaf that maps `address`, of whatever size.
    ///
    /// # Errors
    /// There is none: nothing at all, or a non-present encoding, which stays.
    #[inline]
    #[track_caller]
    pub fn unmap(&mut self, address: VirtAddr) -> Result<Unmapped, WalkError> {
        let (slot, level, seen) = self.find_leaf(address)?;
        let entry = self.owner.take::<M::Width, C>(self.cpu, slot, seen);
        self.remove_children(slot.meta(), 1);
        Ok(Unmapped { level, entry })
    }

    /// Changes what the leaf that maps `address` allows, and returns it as it was. Accessed, dirty and all else stays.
    ///
    /// # Errors
    /// There is no leaf.
    #[inline]
    #[track_caller]
    pub fn protect(&mut self, address: VirtAddr, rights: Rights) -> Result<Unmapped, WalkError> {
        let (slot, level, seen) = self.find_leaf(address)?;
        let entry = self.owner.update::<M::Width, C>(self.cpu, slot, seen, |entry| entry.with_rights(rights));
        Ok(Unmapped { level, entry })
    }

    /// The leaf that maps `address`: its slot, its level, and what was read there.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn find_leaf(&self, address: VirtAddr) -> Result<(Slot<'a>, Level, Entry), WalkError> {
        let end = self.descend(address, Level::Pte)?;
        if end.seen.is_none() {
            let entry = self.load(end.slot);
            if self.mode.maps_page(entry) {
                return Ok((end.slot, Level::Pte, entry));
            }
        }
        self.find_leaf_slowly(address)
    }

    /// [`Self::find_leaf`] where there is no small page: see [`Self::place_slowly`].
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn find_leaf_slowly(&self, address: VirtAddr) -> Result<(Slot<'a>, Level, Entry), WalkError> {
        let end = self.descend(address, Level::Pte)?;
        let found = end_of_walk(&self.mode, &end, address, |slot| self.load(slot))?;
        Ok((end.slot, found.level, found.entry))
    }

    /// The leaf that translates `address`.
    ///
    /// # Errors
    /// Why there is none.
    #[inline]
    #[track_caller]
    pub fn translate(&self, address: VirtAddr) -> Result<Translation, WalkError> {
        let end = self.descend(address, Level::Pte)?;
        end_of_walk(&self.mode, &end, address, |slot| self.load(slot))
    }

    /// The whole path to `address`, level by level.
    #[track_caller]
    pub fn lookup(&self, address: VirtAddr) -> Path {
        walk::lookup(self.cpu, &self.mode, self.memory, &ReadOnce::<M::Width>::new(), self.root, address)
    }
}
