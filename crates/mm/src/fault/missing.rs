//! Private areas where nothing is mapped yet.

use machine::addr::Frame;
use pagetable::{Attributes, Entry, Flags, Level, Position};

use crate::error::FaultError;
use crate::fault::{Fault, Outcome, Want};
use crate::file::{File, FileKind, PageSlot};
use crate::folio::{Folio, FolioFlags, FolioMapping, NotGrabbed, Reference};
use crate::frames::{FrameSource, allocate_folio};
use crate::guard::Guards;
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::Platform;

/// A page of a file, and the place that says so.
struct FilePage<'f> {
    slot: &'f PageSlot,
    /// What the slot held: the frame of a whole piece.
    piece: Frame,
    /// The page's own frame.
    frame: Frame,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Maps what belongs where nothing is: the zero page, a zeroed page, a page of the file, or a copy of it. `seen` is nothing, or a marker that says that userfaultfd protects what will be there.
    pub(super) fn fault_missing(
        &self,
        cpu: &P::Cpu,
        fault: &Fault,
        file: &File<'m>,
        (position, seen): (&Position<'_>, Entry),
    ) -> Result<Outcome, FaultError> {
        match (file.kind(), fault.want) {
            (FileKind::Anonymous, Want::Read) if let Some(zero) = self.frames().zero_page() => {
                self.map_zero_page(cpu, fault, position, zero)
            }
            (FileKind::Anonymous, _) => {
                let folio = self.allocate_anonymous(cpu, fault)?;
                self.frames().zero(cpu, folio.membership());
                self.map_new(cpu, fault, (position, seen), &folio, fault.attributes(), || true)
            }
            // Only pages with records are copied; drivers of the other kinds are asked before this.
            (FileKind::Cached | FileKind::Driver | FileKind::PfnMapped | FileKind::Mixed, want) => {
                let page = Self::file_page(cpu, fault, file)?;
                let guards = &self.protocols().guards;
                let grabbed = Folio::try_grab(self.map(), cpu, page.piece, 1, Reference::Get);
                let source = match grabbed {
                    Ok(source) => source,
                    Err(NotGrabbed::Free) if self.leaves_slot(cpu, page.slot, page.piece) => {
                        return Ok(Outcome::Changed);
                    }
                    Err(_) => return Err(fault.bad_frame(page.piece)),
                };
                if !source.covers(page.frame, Level::Pte) {
                    self.give_back(cpu, &source);
                    return Err(fault.bad_frame(page.piece));
                }
                if want == Want::Read {
                    let attributes = fault.read_only();
                    return self.map_new_at(cpu, fault, (position, seen), &source, page.frame, attributes, || {
                        guards.look_at_slot_again(cpu, page.slot, page.piece) == Some(page.piece)
                    });
                }
                let copied = self.allocate_anonymous(cpu, fault).and_then(|folio| {
                    self.frames().copy(cpu, page.frame, folio.membership().head, 1);
                    self.map_new(cpu, fault, (position, seen), &folio, fault.attributes(), || {
                        guards.look_at_slot_again(cpu, page.slot, page.piece) == Some(page.piece)
                    })
                });
                self.give_back(cpu, &source);
                copied
            }
        }
    }

    /// The page of the file that belongs at the fault's address.
    fn file_page<'f>(cpu: &P::Cpu, fault: &Fault, file: &'f File<'m>) -> Result<FilePage<'f>, FaultError> {
        let slot = file.slot(fault.file_page()).ok_or(fault.no_page())?;
        let piece = slot.get(cpu).ok_or(fault.no_page())?;
        let frame = piece.wrapping_add(fault.file_page() % file.leaf().frames());
        Ok(FilePage { slot, piece, frame })
    }

    /// The zero page is special and not counted (Linux: `pte_mkspecial(pfn_pte(my_zero_pfn(..)))`).
    fn map_zero_page(
        &self,
        cpu: &P::Cpu,
        fault: &Fault,
        position: &Position<'_>,
        zero: Frame,
    ) -> Result<Outcome, FaultError> {
        let attributes = fault.read_only().with_mark(self.protocols().special.mark());
        let entry = Entry::leaf(Level::Pte, zero, attributes).map_err(|_| fault.bad_frame(zero))?;
        match self.lock_unchanged(cpu, fault, position, Entry::NONE) {
            Some(mut table) => {
                table.fill(&self.protocols().write, fault.address, entry);
                Ok(Outcome::Mapped)
            }
            None => Ok(Outcome::Changed),
        }
    }

    /// A folio of one page that belongs to this address space alone. The caller has the only reference; the contents are undefined.
    pub(super) fn allocate_anonymous(&self, cpu: &P::Cpu, fault: &Fault) -> Result<Folio<'m>, FaultError> {
        let flags = FolioFlags::ANON.and(FolioFlags::EXCLUSIVE);
        let mapping = FolioMapping { file: fault.area.file, page: fault.file_page() };
        allocate_folio(self.map(), self.frames(), cpu, 0, flags, Some(mapping)).map_err(|_| FaultError::OutOfFrames)
    }

    /// [`Self::map_new_at`] for a folio of one page.
    fn map_new(
        &self,
        cpu: &P::Cpu,
        fault: &Fault,
        place: (&Position<'_>, Entry),
        folio: &Folio<'_>,
        attributes: Attributes,
        still_right: impl FnOnce() -> bool,
    ) -> Result<Outcome, FaultError> {
        self.map_new_at(cpu, fault, place, folio, folio.membership().head, attributes, still_right)
    }

    /// Maps a page where nothing is, or a marker, if that still is and it is `still_right` under the lock. Takes the caller's reference over, or gives it back.
    #[expect(clippy::too_many_arguments, reason = "one step of a protocol, with all that it decides on")]
    fn map_new_at(
        &self,
        cpu: &P::Cpu,
        fault: &Fault,
        (position, seen): (&Position<'_>, Entry),
        folio: &Folio<'_>,
        frame: Frame,
        attributes: Attributes,
        still_right: impl FnOnce() -> bool,
    ) -> Result<Outcome, FaultError> {
        let attributes = match self.uffd_wp() {
            Some(mark) if !seen.is_none() => attributes.without(Flags::WRITE).with(mark),
            _ => attributes,
        };
        let Ok(entry) = Entry::leaf(Level::Pte, frame, attributes) else {
            self.give_back(cpu, folio);
            return Err(fault.bad_frame(frame));
        };
        let mapped = match self.lock_unchanged(cpu, fault, position, seen) {
            Some(mut table) if still_right() => {
                folio.add_rmap(cpu);
                match seen.is_none() {
                    true => table.fill(&self.protocols().write, fault.address, entry),
                    false => {
                        table.replace(&self.protocols().write, fault.address, entry);
                    }
                }
                Outcome::Mapped
            }
            _ => Outcome::Changed,
        };
        if mapped == Outcome::Changed {
            self.give_back(cpu, folio);
        }
        Ok(mapped)
    }

    /// Gives back one reference that this fault holds.
    pub(super) fn give_back(&self, cpu: &P::Cpu, folio: &Folio<'_>) {
        // It is held, so this cannot underflow.
        let _ = folio.put(cpu, self.map(), 1, Reference::Get);
    }
}
