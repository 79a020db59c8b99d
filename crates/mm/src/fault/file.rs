//! Shared areas: the file's own pages, and a driver's frames.

use machine::Cpu;
use machine::addr::Frame;
use pagetable::{Entry, Flags, LockedTable, Marker, Rights};

use crate::error::FaultError;
use crate::fault::{Fault, Outcome};
use crate::file::{File, PageSlot};
use crate::folio::{Folio, MemoryMap, NotGrabbed, Reference};
use crate::folio_lock::FolioLock;
use crate::guard::Guards;
use crate::leaf::{Held, Leaf, Presence};
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::{Platform, Protocols};
use crate::space::AddressSpace;
use crate::uffd::{UffdModes, UffdReason};

/// What became of an entry that was to be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Installed {
    /// It is there, where nothing was.
    New,
    /// It was there already, and allows the access now.
    Already,
    /// Something else is there that goes away by itself: look again.
    Changed,
    /// A table is there, of a huge leaf that was split.
    Table,
    /// It is there already, with a NUMA hint: its page is to move first.
    Misplaced(Frame),
}

/// Where a file's page for a fault is.
struct Piece<'f> {
    slot: &'f PageSlot,
    /// What the slot held: the first frame of a piece of the size of the file's leaves.
    first: Frame,
    /// The first frame that the fault's leaf is to map.
    frame: Frame,
}

impl<'f> Piece<'f> {
    fn find<C: machine::Cpu>(cpu: &C, fault: &Fault, file: &File<'f>) -> Result<Self, FaultError> {
        let slot = file.slot(fault.file_page()).ok_or(fault.no_page())?;
        let first = slot.get(cpu).ok_or(fault.no_page())?;
        Ok(Self { slot, first, frame: first.wrapping_add(fault.file_page() % file.leaf().frames()) })
    }
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Maps a page of a cached file. The entry takes over a reference.
    pub(super) fn fault_cached(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        file: &File<'m>,
    ) -> Result<Outcome, FaultError> {
        let piece = Piece::find(cpu, fault, file)?;
        let bad_frame = fault.bad_frame(piece.first);
        let entry = Entry::leaf(fault.level, piece.frame, fault.attributes()).map_err(|_| bad_frame)?;
        let folio = match Folio::try_grab(self.map(), cpu, piece.frame, 1, Reference::Get) {
            Ok(folio) => folio,
            Err(NotGrabbed::Free) if self.leaves_slot(cpu, piece.slot, piece.first) => return Ok(Outcome::Changed),
            Err(_) => return Err(bad_frame),
        };
        let installed = if folio.covers(piece.frame, fault.level) {
            self.map_folio(cpu, space, fault, &piece, entry, &folio)
        } else {
            Err(bad_frame)
        };
        if installed != Ok(Installed::New) {
            // Taken above, and no entry took it over: this cannot underflow.
            let _ = folio.put(cpu, self.map(), 1, Reference::Get);
        }
        installed.map(Installed::outcome)
    }

    /// Whether a frame that had no references although the slot held it is worth another look: who moves a folio or drops it freezes its count, and
    /// before it unlocks the folio it changes the slot or gives the count back. Waits for that. If nobody has done any of that, the file holds a
    /// frame that is free.
    pub(crate) fn leaves_slot(&self, cpu: &P::Cpu, slot: &PageSlot, frame: Frame) -> bool {
        let Some(head) = self.map().page(cpu, frame) else { return false };
        if FolioLock::is_locked(cpu, head) {
            FolioLock::await_unlocked(cpu, head);
            return true;
        }
        slot.get(cpu) != Some(frame) || cpu.load(head.refcount_word()) != 0
    }

    fn map_folio(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        piece: &Piece<'_>,
        entry: Entry,
        folio: &Folio<'_>,
    ) -> Result<Installed, FaultError> {
        let table = self.lock_leaf_table(cpu, space, fault)?;
        // Whoever replaces the page changes the slot first and zaps under this lock second. So if the slot still holds the frame now, a
        // zap that is to take it away comes after the entry is there.
        if self.protocols().guards.look_at_slot_again(cpu, piece.slot, piece.first) != Some(piece.first) {
            return Ok(Installed::Changed);
        }
        self.install(table, fault, entry, |cpu| folio.add_rmap(cpu))
    }

    /// Inserts a special entry for a driver's frame (Linux: `vmf_insert_pfn`, `_pmd`, `_pud`). No reference is taken: the driver
    /// revokes before it takes the frame back.
    pub(super) fn fault_driver(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        file: &File<'m>,
    ) -> Result<Outcome, FaultError> {
        // Held until the entry is there: the driver does not move the frame while it is being mapped.
        let driver = file.driver_lock().lock(cpu);
        let result = Piece::find(cpu, fault, file).and_then(|piece| self.map_special(cpu, space, fault, piece.frame));
        driver.unlock();
        result.map(Installed::outcome)
    }

    fn map_special(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        frame: Frame,
    ) -> Result<Installed, FaultError> {
        let bad_frame = fault.bad_frame(frame);
        let attributes = fault.attributes().with_mark(self.protocols().special.mark());
        let entry = Entry::leaf(fault.level, frame, attributes).map_err(|_| bad_frame)?;
        let table = self.lock_leaf_table(cpu, space, fault)?;
        self.install(table, fault, entry, |_| ())
    }

    /// Writes the leaf, or gives one that is there already the rights and flags that are missing. `before` runs before a new one is written.
    fn install(
        &self,
        mut table: LockedTable<'_, P::Cpu>,
        fault: &Fault,
        entry: Entry,
        before: impl FnOnce(&P::Cpu),
    ) -> Result<Installed, FaultError> {
        let Protocols { mode, write, .. } = self.protocols();
        let found = table.entry(mode, fault.address);
        let held = self.held(fault.level, found);
        if self.hands_over_write(fault, held) {
            return Err(fault.handed_over(UffdReason::WriteProtected));
        }
        match held {
            Held::Page(leaf) if self.is_misplaced(table.cpu(), fault, &leaf) => Ok(Installed::Misplaced(leaf.frame)),
            Held::Nothing => {
                before(table.cpu());
                table.fill(write, fault.address, entry);
                Ok(Installed::New)
            }
            Held::Page(Leaf { frame, attributes, presence }) | Held::Special(Leaf { frame, attributes, presence })
                if frame == entry.leaf_frame(fault.level) =>
            {
                let entry = if self.is_uffd_wp(held) { entry.without(Flags::WRITE) } else { entry };
                match presence {
                    Presence::Present => {
                        // Somebody else was faster, or the entry lacks rights. More rights need no flush: at worst a CPU faults once more
                        // (SDM vol. 3A, 4.10.4.3).
                        let more = if entry.has(Flags::WRITE) { fault.writable() } else { Flags::ACCESSED };
                        let missing = more.and(fault.flags());
                        if !found.has(missing) {
                            table.set_flags(write, fault.address, missing);
                        }
                    }
                    Presence::ProtNone => {
                        let rights = fault.rights_again(attributes, entry.rights());
                        let kept = attributes.with_rights(rights).with(fault.flags());
                        let kept = if rights.allow(Rights::WRITE) { kept.with(fault.writable()) } else { kept };
                        let entry = Entry::leaf(fault.level, frame, kept).map_err(|_| fault.bad_frame(frame))?;
                        table.replace(write, fault.address, entry);
                    }
                }
                Ok(Installed::Already)
            }
            Held::Table => Ok(Installed::Table),
            Held::Marker(Marker::UffdWriteProtect) if fault.area.uffd.has(UffdModes::WRITE_PROTECT) => {
                before(table.cpu());
                let protected = self.uffd_protected(fault.level, entry);
                table.replace(write, fault.address, protected);
                Ok(Installed::New)
            }
            held => match self.non_present(table, fault, found, held)? {
                Outcome::Mapped => Ok(Installed::Already),
                Outcome::Changed => Ok(Installed::Changed),
                Outcome::Smaller => Ok(Installed::Table),
                Outcome::Misplaced(frame) => Ok(Installed::Misplaced(frame)),
            },
        }
    }
}

impl Installed {
    const fn outcome(self) -> Outcome {
        match self {
            Self::New | Self::Already => Outcome::Mapped,
            Self::Changed => Outcome::Changed,
            Self::Table => Outcome::Smaller,
            Self::Misplaced(frame) => Outcome::Misplaced(frame),
        }
    }
}
