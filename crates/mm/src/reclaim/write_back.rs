//! A page of a file is cleaned (Linux: `folio_clear_dirty_for_io`, `folio_mkclean`).
//!
//! # Protocol
//!
//! 1. The folio's dirty flag is cleared.
//! 2. Every entry that maps the folio loses its right to write and its dirty bit, and TLBs are flushed: the next store faults.
//! 3. If the flag was set or an entry was dirty, the contents are written.
//!
//! A store before the flush is in what is written; a store after it makes an entry dirty again. A zap that takes such an entry sets the flag, which
//! stays, because it was cleared before. (The other way round, as Linux does it, whoever makes an entry writable must hold the folio's lock.)
//!
//! Step 2 is left out for a folio that nothing maps. So zap counts a mapping until it has flushed ([`crate::guard::Guards::rmap_removal`]).

use machine::Cpu;
use machine::addr::Frame;
use pagetable::Flags;

use crate::batched_flush::FlushBatch;
use crate::error::ReclaimError;
use crate::file::File;
use crate::folio::{Folio, FolioFlags, FolioMapping};
use crate::folio_lock::FolioLock;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::rmap::{Intent, Step};

impl<'m, P: Platform> Mm<'m, P> {
    /// Cleans the folio that holds page `page` of a cached file. If it is dirty, lets `write` write it out, from its first frame on, and returns what
    /// that says.
    ///
    /// `write` is called with the folio locked. If it fails, it calls for the folio to be dirty again: see [`Self::redirty`].
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock.
    ///
    /// # Errors
    /// The file has no such page, or a page table is malformed: the folio is as dirty as before.
    pub fn write_back<R>(
        &self,
        cpu: &P::Cpu,
        file: &File<'m>,
        page: u64,
        write: impl FnOnce(Frame) -> R,
    ) -> Result<Option<R>, ReclaimError> {
        let folio = self.file_folio(cpu, file, page)?;
        let lock = FolioLock::take(cpu, &folio);
        let result = self.home(cpu, &folio).and_then(|home| {
            let flag =
                cpu.fetch_and(folio.head_page().flags_word(), !FolioFlags::DIRTY.bits()) & FolioFlags::DIRTY.bits();
            let entries = self.clean_entries(cpu, &folio, home.mapping);
            if entries.is_err() && flag != 0 {
                folio.mark(cpu, FolioFlags::DIRTY);
            }
            let is_dirty = entries? == Entries::WereDirty || flag != 0;
            Ok(is_dirty.then(|| write(folio.membership().head)))
        });
        lock.unlock();
        self.drop_own_reference(cpu, &folio);
        result
    }

    /// Says that the folio of a frame is dirty: it could not be written.
    ///
    /// Context: any. The caller has a reference to the folio, or is called by [`Self::write_back`].
    pub fn redirty(&self, cpu: &P::Cpu, frame: Frame) {
        if let Some(folio) = Folio::held(self.map(), cpu, frame) {
            folio.mark(cpu, FolioFlags::DIRTY);
        }
    }

    /// Step 2. The folio is locked. On an error it is marked dirty if an entry was.
    pub(super) fn clean_entries(
        &self,
        cpu: &P::Cpu,
        folio: &Folio<'m>,
        mapping: FolioMapping,
    ) -> Result<Entries, ReclaimError> {
        let mut entries = Entries::WereClean;
        if folio.mappings(cpu) == 0 {
            return Ok(entries);
        }
        let mut owed = FlushBatch::default();
        let walked = self.for_each_mapping(cpu, mapping, folio.membership(), Intent::Take, |at, leaf| {
            let to_clear = Flags::WRITE.and(Flags::DIRTY);
            let is_clean = !leaf.attributes.has(Flags::WRITE) && !leaf.attributes.has(Flags::DIRTY);
            // A PROT_NONE leaf may remember that it was dirty, too.
            if !is_clean {
                let before = at.table.clear_flags(&self.protocols().write, at.address, to_clear);
                if before.has(Flags::DIRTY) {
                    entries = Entries::WereDirty;
                }
                owed.add(cpu, at.space);
            }
            Step::Continue(())
        });
        owed.flush(cpu, self);
        match walked {
            Ok(()) => Ok(entries),
            Err(error) => {
                if entries == Entries::WereDirty {
                    folio.mark(cpu, FolioFlags::DIRTY);
                }
                Err(ReclaimError::Table(error))
            }
        }
    }
}

/// What the entries of a folio said before they were cleaned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entries {
    WereClean,
    WereDirty,
}
