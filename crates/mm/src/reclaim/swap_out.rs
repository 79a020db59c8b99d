//! Anonymous pages go to swap (Linux: `shrink_folio_list`, `try_to_unmap`, `swap_writeout`).
//!
//! The page is on its way like one that migrates ([`crate::reclaim`]): its entries are migration entries until it has been written, and become swap
//! entries then. So nobody reads the place before it holds the page, and nobody writes the page while it is written out.

use machine::addr::Frame;
use pagetable::{Migration, NonPresent, Swap, SwapFlags};

use crate::batched_flush::FlushBatch;
use crate::error::ReclaimError;
use crate::folio::{Folio, FolioMapping, MemoryMap, Reference};
use crate::folio_lock::FolioLock;
use crate::leaf::Held;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::rmap::{Intent, Step};
use crate::reclaim::unmap::Unmapped;
use crate::swap::{SwapError, SwapPlace, SwapStore};

/// How many folios wait for one flush. They lie on the stack of whoever reclaims.
const BATCH: usize = 16;

/// A folio on its way to swap: locked, its entries away.
struct Candidate<'c, 'm, P: Platform> {
    folio: Folio<'m>,
    lock: FolioLock<'c, P::Cpu>,
    unmapped: Unmapped,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes the anonymous folio of one page that `frame` belongs to out of memory. On return its frame is free, and the page on swap.
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock. The caller has no reference of its own to the folio. It may hold mmap
    /// locks.
    ///
    /// # Errors
    /// Why it stays. Nothing has changed then: entries, counts and contents are as they were.
    pub fn swap_out(&self, cpu: &P::Cpu, frame: Frame) -> Result<(), ReclaimError> {
        let mut result = Err(ReclaimError::NoFolio { frame });
        self.swap_out_many(cpu, &[frame], |_, outcome| result = outcome);
        result
    }

    /// [`Self::swap_out`] for many folios, with one flush for every 16 of them. Tells `done` what became of each.
    ///
    /// Context: as for [`Self::swap_out`].
    pub fn swap_out_many(&self, cpu: &P::Cpu, frames: &[Frame], mut done: impl FnMut(Frame, Result<(), ReclaimError>)) {
        for frames in frames.chunks(BATCH) {
            let mut batch: [Option<Candidate<'_, 'm, P>>; BATCH] = [const { None }; BATCH];
            let mut owed = FlushBatch::default();
            for (slot, &frame) in batch.iter_mut().zip(frames) {
                match self.candidate(cpu, frame, &mut owed) {
                    Ok(candidate) => *slot = Some(candidate),
                    Err(error) => done(frame, Err(error)),
                }
            }
            // Dirty or not: nothing is written out while somebody may still write to it, and no frame freed that somebody may still read.
            owed.flush(cpu, self);
            for (slot, &frame) in batch.iter_mut().zip(frames) {
                if let Some(candidate) = slot.take() {
                    done(frame, self.write_out(cpu, candidate));
                }
            }
        }
    }

    /// Steps 1 and 2: locks the folio, and takes its entries away.
    fn candidate<'c>(
        &self,
        cpu: &'c P::Cpu,
        frame: Frame,
        owed: &mut FlushBatch,
    ) -> Result<Candidate<'c, 'm, P>, ReclaimError>
    where
        'm: 'c,
    {
        let folio = self.reclaim_begin(cpu, frame)?;
        // Tried for only: the locks of others of the batch are held.
        let Some(lock) = FolioLock::try_take(cpu, &folio) else {
            self.drop_own_reference(cpu, &folio);
            return Err(ReclaimError::Locked);
        };
        let unmapped =
            self.may_swap(cpu, &folio).and_then(|mapping| self.unmap_for_migration(cpu, &folio, mapping, owed));
        match unmapped {
            Ok(unmapped) => Ok(Candidate { folio, lock, unmapped }),
            Err(error) => {
                lock.unlock();
                self.drop_own_reference(cpu, &folio);
                Err(error)
            }
        }
    }

    /// Where a locked folio belongs that may go to swap.
    fn may_swap(&self, cpu: &P::Cpu, folio: &Folio<'m>) -> Result<FolioMapping, ReclaimError> {
        let home = self.home(cpu, folio)?;
        let order = folio.membership().order;
        if home.slot.is_some() {
            return Err(ReclaimError::Unmovable { frame: folio.membership().head });
        }
        if order > 0 {
            return Err(ReclaimError::Large { order });
        }
        // Looked at again when its entries are away; asked here, to leave alone what cannot go.
        if folio.maybe_dma_pinned(cpu) {
            return Err(ReclaimError::Pinned);
        }
        Ok(home.mapping)
    }

    /// Steps 4 to 6: writes the folio, whose entries are away and flushed, and frees it.
    fn write_out(&self, cpu: &P::Cpu, candidate: Candidate<'_, 'm, P>) -> Result<(), ReclaimError> {
        let Candidate { folio, lock, unmapped } = candidate;
        let result = self.write_unmapped(cpu, &folio, &unmapped);
        if result.is_err() {
            self.remap(cpu, folio.membership(), &folio, &unmapped);
        }
        lock.unlock();
        match result {
            // Frozen and unlocked: nobody has it, and nobody can get it.
            Ok(()) => self.map().release(cpu, folio.membership()),
            Err(_) => self.drop_own_reference(cpu, &folio),
        }
        result
    }

    /// On success the folio is frozen; else it has its references, and no entries yet.
    fn write_unmapped(&self, cpu: &P::Cpu, folio: &Folio<'m>, unmapped: &Unmapped) -> Result<(), ReclaimError> {
        folio.freeze(cpu, 1).map_err(|references| ReclaimError::Referenced { expected: 1, references })?;
        if unmapped.entries == 0 {
            // Nobody wants it any more.
            return Ok(());
        }
        let written = self.swap().allocate(cpu).and_then(|place| {
            let written = self.swap().write(cpu, place, folio.membership().head);
            let written = written.and_then(|()| self.migration_to_swap(cpu, folio, unmapped, place));
            // The entries have theirs.
            self.swap().free(cpu, place);
            written
        });
        written.map_err(|error| {
            folio.unfreeze(cpu, 1);
            ReclaimError::Swap(error)
        })
    }

    /// Makes every migration entry of the folio a swap entry, each with a count of the place.
    ///
    /// How many there are is counted first: zap may have taken some since they were made, and fork added others. Neither fork nor a new area comes in
    /// between, because the rmap lock is held.
    ///
    /// # Errors
    /// The place has no room for so many counts. No entry has changed.
    fn migration_to_swap(
        &self,
        cpu: &P::Cpu,
        folio: &Folio<'m>,
        unmapped: &Unmapped,
        place: SwapPlace,
    ) -> Result<(), SwapError> {
        let Some(file) = self.file(unmapped.mapping.file) else { return Ok(()) };
        let frame = folio.membership().head;
        let at_page = (unmapped.mapping.page, 0);
        let is_its = |held: Held| matches!(held, Held::Migration(away) if away.from == frame);
        let rmap = file.rmap_lock().read(cpu);
        let mut counts = 0;
        let mut result = Ok(());
        // Errors of these walks: what lies behind a malformed table was not reached on the way there either.
        let _ = self.for_each_place_under(cpu, &rmap, file, at_page, Intent::LookOrGive, |at| {
            if is_its(at.held) {
                result = self.swap().duplicate(cpu, place);
                counts += u32::from(result.is_ok());
            }
            if result.is_ok() { Step::Continue(()) } else { Step::Break(()) }
        });
        if result.is_ok() {
            let _ = self.for_each_place_under(cpu, &rmap, file, at_page, Intent::LookOrGive, |at| {
                if let Held::Migration(away) = at.held
                    && is_its(at.held)
                {
                    at.table.replace(&self.protocols().write, at.address, on_swap(place, &away).encode(at.level));
                    counts -= 1;
                }
                Step::Continue(())
            });
        }
        rmap.unlock();
        // Of entries that were zapped in between.
        for _ in 0..counts {
            self.swap().free(cpu, place);
        }
        result
    }

    /// Gives back the reference that this CPU took.
    pub(crate) fn drop_own_reference(&self, cpu: &P::Cpu, folio: &Folio<'m>) {
        // It is held, so this cannot underflow.
        let _ = folio.put(cpu, self.map(), 1, Reference::Get);
    }
}

/// What is remembered of a page on swap. Rights are the area's; what the hardware noted has been used.
fn on_swap(place: SwapPlace, away: &Migration) -> NonPresent {
    let mut flags = SwapFlags::default();
    for kept in [SwapFlags::SOFT_DIRTY, SwapFlags::UFFD_WP] {
        if away.flags.has(kept) {
            flags = flags.and(kept);
        }
    }
    NonPresent::Swap(Swap { device: place.device, offset: place.offset, flags })
}
