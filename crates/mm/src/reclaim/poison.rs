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

/// Where a folio is mapped that fails.
enum Place<'m> {
    /// Where its record says.
    Home(Home<'m>),
    /// Anywhere: it was merged.
    Anywhere,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes the folio of one page that `frame` belongs to out of use, because its memory has failed: from every address space and from its file. GUP
    /// refuses it from now on. The frame is never handed out again: this call's reference stays.
    ///
    /// Of a page that was [merged](Mm::merge) every area of every file is looked through: nobody knows where it is mapped. Memory fails seldom.
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock. It may be called with mmap locks held.
    ///
    /// # Errors
    /// The folio is of a kind that cannot be taken out of use, or large: split it first. It is marked nevertheless, so that GUP refuses it.
    pub fn memory_failure(&self, cpu: &P::Cpu, frame: Frame) -> Result<Failure, ReclaimError> {
        let folio = self.reclaim_begin(cpu, frame)?;
        let lock = FolioLock::take(cpu, &folio);
        // Asked before it is marked: a poisoned folio stays where it is.
        let place = self.failing_place(cpu, &folio);
        // First: whoever pins or merges from here on sees the mark after the pin, or when it has the lock.
        folio.mark(cpu, FolioFlags::POISONED);
        let result = place.and_then(|place| match folio.membership().order {
            0 => self.fail_locked(cpu, &folio, &place),
            order => Err(ReclaimError::Large { order }),
        });
        lock.unlock();
        if result.is_err() {
            self.drop_own_reference(cpu, &folio);
        }
        result
    }

    /// Where a locked folio is mapped that fails.
    fn failing_place(&self, cpu: &P::Cpu, folio: &Folio<'m>) -> Result<Place<'m>, ReclaimError> {
        let flags = folio.flags(cpu);
        if flags.contains(FolioFlags::KSM) && !flags.contains(FolioFlags::POISONED) {
            Ok(Place::Anywhere)
        } else {
            self.home(cpu, folio).map(Place::Home)
        }
    }

    fn fail_locked(&self, cpu: &P::Cpu, folio: &Folio<'m>, place: &Place<'m>) -> Result<Failure, ReclaimError> {
        let of_file = match place {
            Place::Home(Home { mapping, slot: Some(slot) }) => Some((*mapping, *slot)),
            Place::Home(Home { slot: None, .. }) | Place::Anywhere => None,
        };
        let mut contents = Contents::Lost;
        if let Some((mapping, slot)) = of_file {
            let entries = self.clean_entries(cpu, folio, mapping)?;
            if entries == Entries::WereClean && !folio.flags(cpu).contains(FolioFlags::DIRTY) {
                contents = Contents::Elsewhere;
            }
            // First: no fault maps it again.
            slot.replace(cpu, None);
        }
        let mut owed = FlushBatch::default();
        let take_out = |at: At<'_, 'm, '_, P>, _| {
            self.take_out(cpu, folio, at, contents, &mut owed);
            Step::Continue(())
        };
        let walked = match place {
            Place::Home(home) => self.for_each_mapping(cpu, home.mapping, folio.membership(), Intent::Take, take_out),
            Place::Anywhere => self.for_each_mapping_anywhere(cpu, folio.membership(), Intent::Take, take_out),
        };
        owed.flush(cpu, self);
        if of_file.is_some() {
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
