//! A single owner's changes: ranges, with one descent per table.
//!
//! All of them take a range as (start, length in bytes), 4 KiB aligned. A huge leaf that the range covers only
//! in part is an error, [`WalkError::Leaf`]: split it first ([`Mapper::split`]).

use machine::addr::PAGE_SHIFT;
use machine::{Cpu, Frame, VirtAddr};

use crate::entry::Entry;
use crate::error::{MapError, WalkError};
use crate::level::Level;
use crate::map::Mapper;
use crate::memory::{TableMemory, TableSource};
use crate::mode::Mode;
use crate::owner::Ownership;
use crate::rights::{Attributes, Flags, Rights};
use crate::table::Slot;
use crate::walk::{Coverage, Part, check_leaf, for_each_part};

/// One entry of a range, as it was when the operation came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passed {
    /// The first address that it translates.
    pub address: VirtAddr,
    /// Its level.
    pub level: Level,
    /// What it held, accessed and dirty exact.
    pub entry: Entry,
}

impl<C: Cpu, M: Mode, T: TableMemory, O: Ownership> Mapper<'_, C, M, T, O> {
    /// Maps a range to frames in a row from `first` on, with leaves up to level `largest`: at each place the
    /// largest that alignment and length allow.
    ///
    /// # Errors
    /// As for [`Mapper::map`]. What was mapped before the address that the error names stays mapped.
    #[track_caller]
    pub fn map_range<S: TableSource>(
        &mut self,
        source: &S,
        (start, bytes): (VirtAddr, u64),
        first: Frame,
        largest: Level,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        self.mode.check_range(start, bytes)?;
        let mut address = start;
        let mut frame = first;
        let mut left = bytes;
        while left != 0 {
            let level = largest_leaf(address, frame, left, largest);
            let done = if level == Level::Pte {
                self.map_pages(source, address, frame, left >> PAGE_SHIFT, attributes)? << PAGE_SHIFT
            } else {
                self.map(source, address, level, frame, attributes)?;
                level.size()
            };
            address = address.wrapping_add(done);
            frame = frame.wrapping_add(done >> PAGE_SHIFT);
            left -= done;
        }
        Ok(())
    }

    /// Maps up to `pages` pages, but not beyond the table that translates `address`; returns how many.
    #[inline]
    #[track_caller]
    fn map_pages<S: TableSource>(
        &mut self,
        source: &S,
        address: VirtAddr,
        frame: Frame,
        pages: u64,
        attributes: Attributes,
    ) -> Result<u64, MapError> {
        let mut new = self.leaf(address, Level::Pte, frame, attributes)?;
        let end = self.place(source, address, Level::Pte)?;
        let cells = end.cells(address, pages);
        let pages = cells.len() as u64;
        // If the last frame is legal, all before it are.
        self.leaf(address, Level::Pte, frame.wrapping_add(pages - 1), attributes)?;
        let mut mapped = 0;
        let mut taken = None;
        for cell in cells {
            let slot = Slot::new(cell, end.slot.meta());
            let found = self.load(slot);
            if !found.is_none() {
                taken = Some(found);
                break;
            }
            self.owner.set::<M::Width, C>(self.cpu, slot, new);
            new = Entry::from_bits(new.bits() + Level::Pte.size());
            mapped += 1;
        }
        self.add_children(end.slot.meta(), mapped);
        match taken {
            None => Ok(pages),
            Some(entry) => {
                let address = address.wrapping_add(u64::from(mapped) << PAGE_SHIFT);
                Err(MapError::AlreadyMapped { address, level: Level::Pte, entry })
            }
        }
    }

    /// Empties a range, and tells `gather` of every entry that held something: leaves and non-present encodings alike.
    ///
    /// # Errors
    /// A bad range, a malformed table, a huge leaf covered in part; what came before was taken away.
    #[track_caller]
    pub fn unmap_range(&mut self, range: (VirtAddr, u64), mut gather: impl FnMut(Passed)) -> Result<(), WalkError> {
        let (cpu, owner) = (self.cpu, &self.owner);
        for_each_part(
            &self.mode,
            self.memory,
            self.root,
            range,
            |slot| self.load(slot),
            |part| {
                match part {
                    Part::Pages { mut address, cells, meta } => {
                        let mut emptied = 0;
                        for cell in cells {
                            let slot = Slot::new(cell, meta);
                            let seen = self.load(slot);
                            if !seen.is_none() {
                                let entry = owner.take::<M::Width, C>(cpu, slot, seen);
                                emptied += 1;
                                gather(Passed { address, level: Level::Pte, entry });
                            }
                            address = Level::Pte.next(address);
                        }
                        self.remove_children(meta, emptied);
                    }
                    Part::Upper { address, level, entry, slot, coverage } => {
                        check_whole(&self.mode, address, level, entry, coverage)?;
                        let entry = owner.take::<M::Width, C>(cpu, slot, entry);
                        self.remove_children(slot.meta(), 1);
                        gather(Passed { address, level, entry });
                    }
                }
                Ok(())
            },
        )
    }

    /// Changes what every leaf of a range allows, and tells `passed` of each as it was. Non-present encodings
    /// stay as they are.
    ///
    /// # Errors
    /// As for [`Self::unmap_range`].
    #[track_caller]
    pub fn protect_range(
        &mut self,
        range: (VirtAddr, u64),
        rights: Rights,
        passed: impl FnMut(Passed),
    ) -> Result<(), WalkError> {
        self.update_range(range, |entry| entry.with_rights(rights), passed)
    }

    /// Clears accessed, dirty, or both in every leaf of a range, and tells `harvested` of each that had one of
    /// them set, as it was. Every bit that the hardware sets is either told or stays set.
    ///
    /// # Errors
    /// As for [`Self::unmap_range`].
    #[track_caller]
    pub fn harvest(
        &mut self,
        range: (VirtAddr, u64),
        flags: Flags,
        mut harvested: impl FnMut(Passed),
    ) -> Result<(), WalkError> {
        self.update_range(
            range,
            |entry| entry.without(flags),
            |passed| {
                if passed.entry != passed.entry.without(flags) {
                    harvested(passed);
                }
            },
        )
    }

    /// Replaces every leaf of a range by `change` of it.
    #[inline(always)]
    #[track_caller]
    fn update_range(
        &mut self,
        range: (VirtAddr, u64),
        change: impl Fn(Entry) -> Entry,
        mut passed: impl FnMut(Passed),
    ) -> Result<(), WalkError> {
        let (cpu, owner) = (self.cpu, &self.owner);
        let mut update = |address, level, seen: Entry, slot| {
            // An entry that is as it should be costs no locked instruction. If the hardware sets a bit after
            // this look, the bit stays.
            let entry = if change(seen) == seen { seen } else { owner.update::<M::Width, C>(cpu, slot, seen, &change) };
            passed(Passed { address, level, entry });
        };
        for_each_part(
            &self.mode,
            self.memory,
            self.root,
            range,
            |slot| self.load(slot),
            |part| {
                match part {
                    Part::Pages { mut address, cells, meta } => {
                        for cell in cells {
                            let slot = Slot::new(cell, meta);
                            let seen = self.load(slot);
                            if seen.is_present() {
                                update(address, Level::Pte, seen, slot);
                            }
                            address = Level::Pte.next(address);
                        }
                    }
                    Part::Upper { address, level, entry, slot, coverage } => {
                        check_whole(&self.mode, address, level, entry, coverage)?;
                        if entry.is_present() {
                            update(address, level, entry, slot);
                        }
                    }
                }
                Ok(())
            },
        )
    }
}

/// The highest level, up to `largest`, at which `address` and `frame` are aligned and `left` bytes suffice.
fn largest_leaf(address: VirtAddr, frame: Frame, left: u64, largest: Level) -> Level {
    let fits = |level: &Level| {
        *level <= largest
            && level.may_be_leaf()
            && address.is_aligned(level.size())
            && frame.start().is_aligned(level.size())
            && left >= level.size()
    };
    Level::ALL.into_iter().rev().find(fits).unwrap_or(Level::Pte)
}

/// Whether an upper entry is a well-formed leaf, or a non-present encoding, that the range covers wholly.
fn check_whole<M: Mode>(
    mode: &M,
    address: VirtAddr,
    level: Level,
    entry: Entry,
    coverage: Coverage,
) -> Result<(), WalkError> {
    if entry.is_present() {
        check_leaf(mode, level, entry, address)?;
    }
    match coverage {
        Coverage::Whole => Ok(()),
        Coverage::Partial => Err(WalkError::Leaf { address, level, entry }),
    }
}
