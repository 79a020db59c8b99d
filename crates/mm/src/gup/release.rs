//! Giving references back, and adding pins to pages that are pinned.

use machine::Access;
use machine::addr::Frame;

use crate::error::{AddPinError, ReleaseError};
use crate::folio::{Folio, FolioFlags, NotGrabbed, Reference};
use crate::folio_lock::FolioLock;
use crate::gup::Run;
use crate::mm::Mm;
use crate::platform::Platform;

impl<P: Platform> Mm<'_, P> {
    /// Gives references back, with one atomic operation for the whole run (two for a large folio that is pinned). Frees the folio if they were the last.
    ///
    /// `done` says what was done to the pages: [`Access::Write`] marks the folio dirty first. Where write-back could be at work on it at that moment,
    /// [`Self::unpin_dirty_lock`] is for writes.
    ///
    /// Context: any that the platform allows for [`crate::MemoryMap::release`].
    ///
    /// # Errors
    /// If the folio does not have that many references. Nothing is changed then.
    #[inline]
    pub fn release(&self, cpu: &P::Cpu, run: Run, done: Access) -> Result<(), ReleaseError> {
        let folio = Folio::held(self.map(), cpu, run.frame).ok_or(ReleaseError::NoRecord(run.frame))?;
        if done == Access::Write {
            folio.mark(cpu, FolioFlags::DIRTY);
        }
        folio.put(cpu, self.map(), run.pages, run.reference).map_err(ReleaseError::Underflow)
    }

    /// Gives pins of pages back that were not written (Linux: `unpin_user_page`, `unpin_folio`).
    ///
    /// Context: as for [`Self::release`].
    ///
    /// # Errors
    /// As for [`Self::release`]; or these are not pins. Nothing is changed then.
    pub fn unpin(&self, cpu: &P::Cpu, run: Run) -> Result<(), ReleaseError> {
        Self::check_pinned(&run)?;
        self.release(cpu, run, Access::Read)
    }

    /// Gives pins of pages back that were written. Marks the folio dirty under its lock, so that whoever takes it out of its file or cleans it, holding the lock, does so
    /// before or after, but not in between (Linux: `unpin_user_pages_dirty_lock`).
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock.
    ///
    /// # Errors
    /// As for [`Self::unpin`].
    pub fn unpin_dirty_lock(&self, cpu: &P::Cpu, run: Run) -> Result<(), ReleaseError> {
        Self::check_pinned(&run)?;
        let folio = Folio::held(self.map(), cpu, run.frame).ok_or(ReleaseError::NoRecord(run.frame))?;
        if !folio.flags(cpu).contains(FolioFlags::DIRTY) {
            let lock = FolioLock::take(cpu, &folio);
            folio.mark(cpu, FolioFlags::DIRTY);
            lock.unlock();
        }
        self.release(cpu, run, Access::Read)
    }

    /// [`Self::release`] for many runs. Neighbours in the list that are of one folio, and of one kind, go with one atomic operation (Linux:
    /// `unpin_user_pages`).
    ///
    /// Context: as for [`Self::release`].
    ///
    /// # Errors
    /// The first that occurs. The other runs are given back all the same; those that would have gone together with the one that failed have not been.
    pub fn release_all(
        &self,
        cpu: &P::Cpu,
        runs: impl IntoIterator<Item = Run>,
        done: Access,
    ) -> Result<(), ReleaseError> {
        let mut result = Ok(());
        let mut together: Option<(Run, Folio<'_>)> = None;
        for run in runs {
            let Some(folio) = Folio::held(self.map(), cpu, run.frame) else {
                result = result.and(Err(ReleaseError::NoRecord(run.frame)));
                continue;
            };
            if let Some((first, same)) = &mut together
                && first.reference == run.reference
                && same.membership() == folio.membership()
                && let Some(pages) = first.pages.checked_add(run.pages)
            {
                first.pages = pages;
                continue;
            }
            if let Some((before, _)) = together.replace((run, folio)) {
                result = result.and(self.release(cpu, before, done));
            }
        }
        match together {
            Some((last, _)) => result.and(self.release(cpu, last, done)),
            None => result,
        }
    }

    /// Gives one pin back of each of `pages` frames from `first` on, of however many folios, for a caller who kept frame numbers and not runs (Linux:
    /// `unpin_user_page_range_dirty_lock` without the lock). One atomic operation for each folio.
    ///
    /// Context: as for [`Self::release`].
    ///
    /// # Errors
    /// A frame has no record, or its folio not so many pins. The frames before it are given back.
    pub fn unpin_range(&self, cpu: &P::Cpu, first: Frame, pages: u64, done: Access) -> Result<(), ReleaseError> {
        let end = first.number().checked_add(pages).ok_or(ReleaseError::NoRecord(first))?;
        let mut frame = first;
        while frame.number() < end {
            let folio = Folio::held(self.map(), cpu, frame).ok_or(ReleaseError::NoRecord(frame))?;
            let membership = folio.membership();
            let behind = membership.head.number() + (1 << membership.order);
            // No folio has 2^32 frames.
            let pages = (behind.min(end) - frame.number()) as u32;
            self.release(cpu, Run { frame, pages, reference: Reference::Pin }, done)?;
            frame = frame.wrapping_add(u64::from(pages));
        }
        Ok(())
    }

    /// One more pin of each page of a run that is pinned, for another holder (Linux: `folio_add_pins`).
    ///
    /// Context: any.
    ///
    /// # Errors
    /// The run is not pinned, or there are too many references already.
    pub fn add_pin(&self, cpu: &P::Cpu, run: &Run) -> Result<Run, AddPinError> {
        if run.reference != Reference::Pin {
            return Err(AddPinError::NotPinned(run.frame));
        }
        match Folio::try_grab(self.map(), cpu, run.frame, run.pages, Reference::Pin) {
            Ok(_) => Ok(Run { frame: run.frame, pages: run.pages, reference: Reference::Pin }),
            Err(NotGrabbed::CountLimit) => Err(AddPinError::CountLimit(run.frame)),
            Err(NotGrabbed::Free | NotGrabbed::NoRecord) => Err(AddPinError::NotPinned(run.frame)),
        }
    }

    fn check_pinned(run: &Run) -> Result<(), ReleaseError> {
        match run.reference {
            Reference::Pin => Ok(()),
            Reference::Get => Err(ReleaseError::NotPinned(run.frame)),
        }
    }
}
