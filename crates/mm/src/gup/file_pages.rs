//! Pins on the pages of a file, mapped or not (Linux: `memfd_pin_folios`).

use machine::Cpu;

use crate::error::PinFileError;
use crate::file::{File, FileKind};
use crate::folio::{Folio, FolioFlags, NotGrabbed, Reference};
use crate::gup::Run;
use crate::mm::Mm;
use crate::platform::Platform;

impl<'m, P: Platform> Mm<'m, P> {
    /// Pins `pages` pages of a file that lives in memory, from its page `first` on, for as long as the caller likes and for writing, and hands them to `sink` in order, in
    /// runs. Returns how many pages those are. Pages that must stay movable move first.
    ///
    /// The pages stay, but the file may give them up (a hole is punched): what is written to them then is seen by nobody.
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock.
    ///
    /// # Errors
    /// If `pages` is not 0 and not a single page could be had. An error after the first page is not reported: the count is short then, and no pin is lost.
    pub fn pin_file(
        &self,
        cpu: &P::Cpu,
        file: &File<'m>,
        (first, pages): (u64, u64),
        mut sink: impl FnMut(Run),
    ) -> Result<u64, PinFileError> {
        if file.kind() != FileKind::Cached {
            return Err(PinFileError::NotInMemory { page: first });
        }
        let end = first.checked_add(pages).ok_or(PinFileError::NoPage { page: first })?;
        let mut page = first;
        while page < end {
            match self.pin_piece(cpu, file, page, end) {
                Ok(run) => {
                    page += u64::from(run.pages);
                    sink(run);
                }
                Err(error) if page == first => return Err(error),
                Err(_) => break,
            }
        }
        Ok(page - first)
    }

    /// Pins the pages from `page` on, to `end` at most, that one slot of the file holds.
    fn pin_piece(&self, cpu: &P::Cpu, file: &File<'m>, page: u64, end: u64) -> Result<Run, PinFileError> {
        let slot = file.slot(page).ok_or(PinFileError::NoPage { page })?;
        let within = page % file.leaf().frames();
        // A piece has at most 2^18 pages.
        let pages = (file.leaf().frames() - within).min(end - page) as u32;
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let piece = slot.get(cpu).ok_or(PinFileError::NoPage { page })?;
            let frame = piece.wrapping_add(within);
            let folio = match Folio::try_grab(self.map(), cpu, frame, pages, Reference::Pin) {
                Ok(folio) => folio,
                Err(NotGrabbed::CountLimit) => return Err(PinFileError::CountLimit { page }),
                Err(NotGrabbed::Free) if self.leaves_slot(cpu, slot, piece) => continue,
                Err(NotGrabbed::Free | NotGrabbed::NoRecord) => return Err(PinFileError::NotAllowed { page }),
            };
            // Whoever takes a page out of the file changes the slot first and looks for references second.
            let refused = if slot.get(cpu) != Some(piece) {
                None
            } else if !folio.holds(frame, pages) {
                Some(PinFileError::NotAllowed { page })
            } else {
                match folio.flags(cpu) {
                    flags if flags.intersects(NEVER) => Some(PinFileError::NotAllowed { page }),
                    flags if !flags.contains(FolioFlags::SHMEM) => Some(PinFileError::NotInMemory { page }),
                    flags if flags.contains(FolioFlags::MOVABLE) => {
                        self.unpin_piece(cpu, folio, pages);
                        self.migrate(cpu, frame).map_err(|error| PinFileError::NotMigrated { page, error })?;
                        continue;
                    }
                    _ => return Ok(Run { frame, pages, reference: Reference::Pin }),
                }
            };
            self.unpin_piece(cpu, folio, pages);
            if let Some(error) = refused {
                return Err(error);
            }
        }
    }

    fn unpin_piece(&self, cpu: &P::Cpu, folio: Folio<'_>, pages: u32) {
        // Taken a moment ago: this cannot underflow.
        let _ = folio.put(cpu, self.map(), pages, Reference::Pin);
    }
}

/// Flags of folios that nobody pins.
const NEVER: FolioFlags = FolioFlags::SECRET.and(FolioFlags::TRUNCATED).and(FolioFlags::POISONED);
