//! Clean pages of a file go (Linux: `__remove_mapping`).

use crate::batched_flush::FlushBatch;
use crate::error::ReclaimError;
use crate::file::File;
use crate::folio::{Folio, FolioFlags, MemoryMap};
use crate::folio_lock::FolioLock;
use crate::leaf::Held;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::migrate::Home;
use crate::reclaim::rmap::{Intent, Step, contains};
use crate::reclaim::unmap::Unmapped;

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes the folio that holds page `page` of a cached file out of memory, if it is clean and nobody uses it. The file has a hole there then,
    /// which whoever keeps the file fills again.
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock. It may be called with mmap locks held.
    ///
    /// # Errors
    /// Why it stays. Nothing has changed then, but that what the entries knew of dirty pages the folio knows now.
    pub fn drop_page(&self, cpu: &P::Cpu, file: &File<'m>, page: u64) -> Result<(), ReclaimError> {
        let folio = self.file_folio(cpu, file, page)?;
        let lock = FolioLock::take(cpu, &folio);
        let result = self.home(cpu, &folio).and_then(|home| self.drop_locked(cpu, &folio, &home));
        lock.unlock();
        match result {
            // Frozen and unlocked: nobody has it, and nobody can get it.
            Ok(()) => self.map().release(cpu, folio.membership()),
            Err(_) => self.drop_own_reference(cpu, &folio),
        }
        result
    }

    /// Takes a reference to the folio that holds a page of a file.
    pub(super) fn file_folio(&self, cpu: &P::Cpu, file: &File<'m>, page: u64) -> Result<Folio<'m>, ReclaimError> {
        let frame = file.slot(page).and_then(|slot| slot.get(cpu)).ok_or(ReclaimError::NoPage { page })?;
        self.reclaim_begin(cpu, frame)
    }

    /// On success the folio is frozen.
    fn drop_locked(&self, cpu: &P::Cpu, folio: &Folio<'m>, home: &Home<'m>) -> Result<(), ReclaimError> {
        let Some(slot) = home.slot else { return Err(ReclaimError::Unmovable { frame: folio.membership().head }) };
        if folio.flags(cpu).contains(FolioFlags::DIRTY) {
            return Err(ReclaimError::Dirty);
        }
        let mut owed = FlushBatch::default();
        let unmapped = self.unmap_for_migration(cpu, folio, home.mapping, &mut owed);
        owed.flush(cpu, self);
        let unmapped = unmapped?;
        let expected = home.expected_references();
        let frozen = match folio.freeze(cpu, expected) {
            // Only now: whoever had a reference until the freeze may have written, and said so before it gave the reference back.
            Ok(()) if folio.flags(cpu).contains(FolioFlags::DIRTY) => {
                folio.unfreeze(cpu, expected);
                Err(ReclaimError::Dirty)
            }
            Ok(()) => Ok(()),
            Err(references) => Err(ReclaimError::Referenced { expected, references }),
        };
        match frozen {
            Ok(()) => {
                slot.replace(cpu, None);
                self.forget(cpu, folio, &unmapped);
                Ok(())
            }
            Err(error) => {
                self.remap(cpu, folio.membership(), folio, &unmapped);
                Err(error)
            }
        }
    }

    /// Empties every migration entry of the folio: who waits there faults again.
    fn forget(&self, cpu: &P::Cpu, folio: &Folio<'m>, unmapped: &Unmapped) {
        let membership = folio.membership();
        // Errors: what lies behind a malformed table was not reached on the way there either.
        let _ = self.for_each_place(cpu, unmapped.mapping, membership.order, Intent::LookOrGive, |at| {
            if let Held::Migration(away) = at.held
                && contains(membership, away.from)
            {
                let write = &self.protocols().write;
                match self.is_uffd_wp(at.held) {
                    true => at.table.replace(write, at.address, Self::uffd_marker()),
                    false => at.table.get_and_clear(write, at.address),
                };
            }
            Step::Continue(())
        });
    }
}
