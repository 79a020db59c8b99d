//! Giving references back.

use machine::Access;

use crate::error::ReleaseError;
use crate::folio::{Folio, FolioFlags};
use crate::gup::Run;
use crate::mm::Mm;
use crate::platform::Platform;

impl<P: Platform> Mm<'_, P> {
    /// Gives references back, with one atomic operation for the whole run (two for a large folio that is pinned). Frees the folio if they were the last.
    ///
    /// `done` says what was done to the pages: [`Access::Write`] marks the folio dirty first (Linux: `unpin_user_pages_dirty_lock`).
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
}
