//! One leaf, under the page-table lock.

use core::fmt;

use machine::Access;
use machine::addr::{Frame, VirtAddr};
use pagetable::{Attributes, Entry, Flags, Level, LockedTable, MapError, WalkError};

use crate::area::{Area, Sharing};
use crate::file::{File, FileKind};
use crate::folio::{Folio, FolioFlags, NotGrabbed, Reference};
use crate::leaf::{Held, Presence};
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::{Platform, Protocols};
use crate::space::AddressSpace;
use crate::special::frames::MappedAs;
use crate::special::leaf::{PfnLeaf, touched};

/// What became of an insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// The entry is new.
    New,
    /// The same frame was mapped already. The entry was given what it lacked of accessed, and for a store of dirty and the right to write.
    Already,
}

/// Why nothing was inserted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// No area holds the address.
    NoArea {
        /// The address.
        address: VirtAddr,
    },
    /// The area's file is neither PFN-mapped nor mixed.
    NotSpecial {
        /// The area.
        area: Area,
    },
    /// The area is private: the first store would need a copy, and of a driver's frames no copies are made.
    CopyOnWrite {
        /// The area.
        area: Area,
    },
    /// The leaf does not begin where its level does, or reaches out of the area.
    Misplaced {
        /// Where it should begin.
        address: VirtAddr,
        /// Its level.
        level: Level,
        /// The area.
        area: Area,
    },
    /// The area or the leaf does not allow the access that it was to be inserted for.
    Forbidden {
        /// The address.
        address: VirtAddr,
        /// The access.
        access: Access,
    },
    /// The frame is not aligned to the level, the machine has no such frame, or its mode no such leaves.
    BadFrame {
        /// The frame.
        frame: Frame,
        /// The level.
        level: Level,
    },
    /// Page tables may lie there.
    TableFrame {
        /// The first frame of the leaf.
        frame: Frame,
    },
    /// The file declared its frames, and this is none of them; nor has it a record.
    OutsideDeclared {
        /// The frame.
        frame: Frame,
    },
    /// The frame belongs to somebody else, or is free: see its record. Or it is the zero page.
    Foreign {
        /// The frame.
        frame: Frame,
    },
    /// Too many references to the folio.
    CountLimit {
        /// The frame.
        frame: Frame,
    },
    /// A leaf of this level does not fit: a table is in its place, or the frames are not of one kind. Smaller ones do.
    Fallback {
        /// The level.
        level: Level,
    },
    /// Something else is mapped there.
    Occupied {
        /// The address.
        address: VirtAddr,
        /// What is there.
        found: Entry,
    },
    /// No frame for a page table.
    OutOfFrames,
    /// A page table holds what it must not.
    Malformed(MapError),
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Inserts a leaf for frames of a driver at `address` (Linux: `vmf_insert_pfn_prot`, `_pmd`, `_pud`, `vmf_insert_mixed`).
    ///
    /// The rules:
    ///
    /// 1. The area is shared, and its file PFN-mapped or mixed.
    /// 2. Address and frame are aligned to the level, and the leaf ends inside the area.
    /// 3. The frames may be the driver's: no page tables, nobody else's folio ([`File::with_frames`]).
    /// 4. The entry is *special*, unless the file is mixed and the frames have records: then it is an ordinary one and holds a reference.
    /// 5. If the same frame is mapped there already, the entry is given flags and rights that `access` needs, and nothing else changes. Another frame is an error.
    /// 6. A table in the place of a huge leaf asks for [`InsertError::Fallback`].
    ///
    /// This is for insertions ahead of faults; a fault handler has [`crate::special::DriverFaultContext::insert`].
    ///
    /// Context: interrupts on; no mmap lock, no page-table lock. A lock of the driver that its fault handler takes must not be held either.
    ///
    /// # Errors
    /// Why nothing was inserted. Tables may have been added.
    pub fn insert_pfn(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        leaf: &PfnLeaf,
        access: Access,
    ) -> Result<Inserted, InsertError> {
        let mmap = space.mmap_read(cpu, (address, address));
        let result = space
            .find(cpu, address)
            .ok_or(InsertError::NoArea { address })
            .and_then(|area| self.insert_in_area(cpu, space, &area, address, leaf, access));
        mmap.unlock();
        result
    }

    /// [`Self::insert_pfn`] for a caller that holds the mmap lock and knows the area.
    pub(super) fn insert_in_area(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        address: VirtAddr,
        leaf: &PfnLeaf,
        access: Access,
    ) -> Result<Inserted, InsertError> {
        let file = self.special_file(area)?;
        if !address.is_aligned(leaf.level.size()) || !area.holds_leaf(address, leaf.level) {
            return Err(InsertError::Misplaced { address, level: leaf.level, area: *area });
        }
        if !leaf.allows(area, access) {
            return Err(InsertError::Forbidden { address, access });
        }
        self.check_frame(leaf)?;
        match self.mapped_as(cpu, (area.file, file), leaf)? {
            MappedAs::Special => {
                let entry = self.special_entry(leaf, leaf.attributes(area, access))?;
                match self.lock_place(cpu, space, address, leaf, access)? {
                    Place::Covered => Ok(Inserted::Already),
                    Place::Table(table) => self.install_leaf(table, (address, leaf.level), entry, access, |_| ()),
                }
            }
            MappedAs::Counted => self.insert_counted(cpu, space, area, address, leaf, access),
        }
    }

    /// The file of an area into which drivers may insert.
    pub(super) fn special_file(&self, area: &Area) -> Result<&'m File<'m>, InsertError> {
        let has_handler = |file: &&File<'_>| matches!(file.kind(), FileKind::PfnMapped | FileKind::Mixed);
        let file = self.file(area.file).filter(has_handler).ok_or(InsertError::NotSpecial { area: *area })?;
        match area.sharing {
            Sharing::Shared => Ok(file),
            Sharing::Private => Err(InsertError::CopyOnWrite { area: *area }),
        }
    }

    pub(super) fn special_entry(&self, leaf: &PfnLeaf, attributes: Attributes) -> Result<Entry, InsertError> {
        let PfnLeaf { frame, level, .. } = *leaf;
        let attributes = attributes.with_mark(self.protocols().special.mark());
        Entry::leaf(level, frame, attributes).map_err(|_| InsertError::BadFrame { frame, level })
    }

    /// A frame with a record in a mixed file: an ordinary entry, which takes over a reference.
    fn insert_counted(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        address: VirtAddr,
        leaf: &PfnLeaf,
        access: Access,
    ) -> Result<Inserted, InsertError> {
        let PfnLeaf { frame, level, .. } = *leaf;
        let entry = Entry::leaf(level, frame, leaf.attributes(area, access));
        let entry = entry.map_err(|_| InsertError::BadFrame { frame, level })?;
        let folio = self.grab_for_entry(cpu, leaf)?;
        let result = match self.lock_place(cpu, space, address, leaf, access) {
            Err(error) => Err(error),
            Ok(Place::Covered) => Ok(Inserted::Already),
            // Whoever takes the folio out of the file says so in its flags first and zaps under this lock second. So if the flags do not say
            // so now, a zap that is to take the entry away comes after it is there.
            Ok(Place::Table(_)) if folio.flags(cpu).contains(FolioFlags::TRUNCATED) => {
                Err(InsertError::Foreign { frame })
            }
            Ok(Place::Table(table)) => {
                self.install_leaf(table, (address, level), entry, access, |cpu| folio.add_rmap(cpu))
            }
        };
        if result != Ok(Inserted::New) {
            // Taken above, and no entry took it over: this cannot underflow.
            let _ = folio.put(cpu, self.map(), 1, Reference::Get);
        }
        result
    }

    /// Takes the reference that the entry will hold.
    pub(super) fn grab_for_entry(&self, cpu: &P::Cpu, leaf: &PfnLeaf) -> Result<Folio<'m>, InsertError> {
        let PfnLeaf { frame, level, .. } = *leaf;
        let folio = match Folio::try_grab(self.map(), cpu, frame, 1, Reference::Get) {
            Ok(folio) => folio,
            Err(NotGrabbed::CountLimit) => return Err(InsertError::CountLimit { frame }),
            Err(NotGrabbed::Free | NotGrabbed::NoRecord) => return Err(InsertError::Foreign { frame }),
        };
        if !folio.covers(frame, level) {
            // It was split since it was looked at. Taken above: this cannot underflow.
            let _ = folio.put(cpu, self.map(), 1, Reference::Get);
            return Err(InsertError::Fallback { level });
        }
        Ok(folio)
    }

    /// Locks the table that is to hold the leaf, and makes it and those above if they are missing.
    pub(super) fn lock_place<'t>(
        &'t self,
        cpu: &'t P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        leaf: &PfnLeaf,
        access: Access,
    ) -> Result<Place<'t, P>, InsertError> {
        let tables = self.page_tables(space);
        let found = tables.populate(cpu, self.tables(), &self.protocols().publish, address, leaf.level);
        match found {
            // The mmap lock is held: no table is detached.
            Ok(position) => Ok(Place::Table(position.lock(cpu))),
            // A larger leaf is there. If it maps the same frame, somebody was faster, with a better fit.
            Err(MapError::Walk(WalkError::Leaf { level, entry, .. })) => {
                let within = (address.as_u64() & (level.size() - 1)) / Level::Pte.size();
                let same = entry.leaf_frame(level).wrapping_add(within) == leaf.frame;
                if same && (access == Access::Read || entry.has(Flags::WRITE)) {
                    Ok(Place::Covered)
                } else {
                    Err(InsertError::Occupied { address, found: entry })
                }
            }
            Err(MapError::Walk(WalkError::NotPresent { entry, .. })) => {
                Err(InsertError::Occupied { address, found: entry })
            }
            Err(MapError::OutOfFrames { .. }) => Err(InsertError::OutOfFrames),
            Err(error) => Err(InsertError::Malformed(error)),
        }
    }

    /// Writes the entry, or gives one that maps the same frame what it lacks. `before` runs before a new one is written.
    fn install_leaf(
        &self,
        mut table: LockedTable<'_, P::Cpu>,
        (address, level): (VirtAddr, Level),
        entry: Entry,
        access: Access,
        before: impl FnOnce(&P::Cpu),
    ) -> Result<Inserted, InsertError> {
        let result = self.install_locked(&mut table, (address, level), entry, access, before);
        table.unlock();
        result
    }

    pub(super) fn install_locked(
        &self,
        table: &mut LockedTable<'_, P::Cpu>,
        (address, level): (VirtAddr, Level),
        entry: Entry,
        access: Access,
        before: impl FnOnce(&P::Cpu),
    ) -> Result<Inserted, InsertError> {
        let Protocols { mode, write, .. } = self.protocols();
        let found = table.entry(mode, address);
        let occupied = Err(InsertError::Occupied { address, found });
        let kept = match self.held(level, found) {
            Held::Nothing => {
                before(table.cpu());
                table.fill(write, address, entry);
                return Ok(Inserted::New);
            }
            Held::Table => return Err(InsertError::Fallback { level }),
            Held::Page(kept) if !self.is_special(entry) => kept,
            Held::Special(kept) if self.is_special(entry) => kept,
            _ => return occupied,
        };
        if kept.frame != entry.leaf_frame(level) {
            return occupied;
        }
        match kept.presence {
            Presence::Present => {
                // More rights need no flush: at worst a CPU faults once more (SDM vol. 3A, 4.10.4.3).
                let more = match access {
                    Access::Read => Flags::ACCESSED,
                    Access::Write => Flags::WRITE.and(Flags::soft_dirty(level)),
                };
                let missing = touched(access).and(more);
                if !found.has(missing) {
                    table.set_flags(write, address, missing);
                }
            }
            // The area forbade every access for a while, and nobody has touched the page since.
            Presence::ProtNone => {
                let dirty = if kept.attributes.has(Flags::DIRTY) { Flags::DIRTY } else { Flags::ACCESSED };
                table.replace(write, address, entry.with(dirty));
            }
        }
        Ok(Inserted::Already)
    }

    fn is_special(&self, entry: Entry) -> bool {
        entry.is_marked(self.protocols().special.mark())
    }
}

/// Where a leaf goes.
pub(super) enum Place<'t, P: Platform> {
    /// Into this table.
    Table(LockedTable<'t, P::Cpu>),
    /// Nowhere: a larger leaf maps the frame there already, and allows the access.
    Covered,
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoArea { address } => write!(f, "no area holds {address}"),
            Self::NotSpecial { area } => {
                write!(f, "file {} of the area at {} is neither PFN-mapped nor mixed", area.file.number(), area.start)
            }
            Self::CopyOnWrite { area } => {
                write!(f, "the area at {} is private, and of a driver's frames no copies are made", area.start)
            }
            Self::Misplaced { address, level, area } => write!(
                f,
                "a {level} leaf at {address} is not aligned or reaches out of the area from {} to {}",
                area.start,
                area.end()
            ),
            Self::Forbidden { address, access } => write!(f, "a {access:?} is not allowed at {address}"),
            Self::BadFrame { frame, level } => write!(f, "frame {frame} cannot start a {level} leaf here"),
            Self::TableFrame { frame } => write!(f, "page tables lie in the frames from {frame} on"),
            Self::OutsideDeclared { frame } => write!(f, "frame {frame} is none of those that the file declared"),
            Self::Foreign { frame } => write!(f, "frame {frame} is free or belongs to somebody else"),
            Self::CountLimit { frame } => write!(f, "the folio of frame {frame} has too many references"),
            Self::Fallback { level } => write!(f, "a {level} leaf does not fit, smaller ones do"),
            Self::Occupied { address, found } => write!(f, "something else is mapped at {address}: entry {found}"),
            Self::OutOfFrames => f.write_str("no frame for a page table"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InsertError {}
