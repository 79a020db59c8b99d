//! Memory fails (Linux: `memory_failure`).

use machine::addr::Frame;
use pagetable::{Marker, NonPresent};

use crate::batched_flush::FlushBatch;
use crate::error::ReclaimError;
use crate::folio::{Folio, FolioFlags};
use crate::folio_lock::FolioLock;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::migrate::Home;
use crate::reclaim::rmap::{At, Intent, Step};
use crate::reclaim::write_back::Entries;

/// What became of a folio whose memory failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Whether what was in it can be had again.
    pub contents: Contents,
    /// How many references others still have: pins, users of GUP. They may read what is left.
    pub still_used: u32,
}

/// Whether the contents of a folio can be had again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contents {
    /// It was a clean page of a file: faults bring it back.
    Elsewhere,
    /// They are lost: whoever maps the page gets an error ([`crate::FaultError::Poisoned`]).
    Lost,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes the folio of one page that `frame` belongs to out of use, because its memory has failed: from every address space and from its file. GUP
    /// refuses it from now on. The frame is never handed out again: this call's reference stays.
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock. It may be called with mmap locks held.
    ///
    /// # Errors
    /// The folio is of a kind that cannot be taken out of use, or large: split it first. It is marked nevertheless, so that GUP refuses it.
    pub fn memory_failure(&self, cpu: &P::Cpu, frame: Frame) -> Result<Failure, ReclaimError> {
        let folio = self.reclaim_begin(cpu, frame)?;
        let lock = FolioLock::take(cpu, &folio);
        // Asked before it is marked: a poisoned folio stays where it is.
        let home = self.home(cpu, &folio);
        // First: whoever pins from here on sees the mark after the pin.
        folio.mark(cpu, FolioFlags::POISONED);
        let result = home.and_then(|home| match folio.membership().order {
            0 => self.fail_locked(cpu, &folio, &home),
            order => Err(ReclaimError::Large { order }),
        });
        lock.unlock();
        if result.is_err() {
            self.drop_own_reference(cpu, &folio);
        }
        result
    }

    fn fail_locked(&self, cpu: &P::Cpu, folio: &Folio<'m>, home: &Home<'m>) -> Result<Failure, ReclaimError> {
        let clean = home.slot.is_some()
            && self.clean_entries(cpu, folio, home.mapping)? == Entries::WereClean
            && !folio.flags(cpu).contains(FolioFlags::DIRTY);
        let contents = if clean { Contents::Elsewhere } else { Contents::Lost };
        if let Some(slot) = home.slot {
            // First: no fault maps it again.
            slot.replace(cpu, None);
        }
        let mut owed = FlushBatch::default();
        let walked = self.for_each_mapping(cpu, home.mapping, folio.membership(), Intent::Take, |at, _| {
            self.take_out(cpu, folio, at, contents, &mut owed);
            Step::Continue(())
        });
        owed.flush(cpu, self);
        if home.slot.is_some() {
            // The file's.
            self.drop_own_reference(cpu, folio);
        }
        walked.map_err(ReclaimError::Table)?;
        Ok(Failure { contents, still_used: folio.references(cpu).saturating_sub(1) })
    }

    /// One leaf becomes a marker, or nothing. Under the page-table lock.
    fn take_out(
        &self,
        cpu: &P::Cpu,
        folio: &Folio<'m>,
        at: At<'_, 'm, '_, P>,
        contents: Contents,
        owed: &mut FlushBatch,
    ) {
        let write = &self.protocols().write;
        match contents {
            Contents::Elsewhere => at.table.get_and_clear(write, at.address),
            Contents::Lost => {
                at.table.replace(write, at.address, NonPresent::Marker(Marker::Poisoned).encode(at.level))
            }
        };
        owed.add(cpu, at.space);
        folio.remove_rmap(cpu, 1);
        // This CPU has a reference besides.
        self.drop_own_reference(cpu, folio);
    }
}
