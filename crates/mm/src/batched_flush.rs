//! Flushes that reclaim puts off, so that one flush serves many pages (Linux: TTU_BATCH_FLUSH, `arch_tlbflush_unmap_batch`).
//!
//! # Protocol
//!
//! 1. Reclaim clears an entry under the page-table lock and, still under it, notes in the address space that a flush is *pending*, and in its own
//!    `FlushBatch` which CPUs need it.
//! 2. It goes on to other pages, of other address spaces too, and flushes once for all of them, before anything happens to the pages.
//!
//! In between, entries look as if they were gone although TLBs hold them. Whoever comes upon them under the page-table lock and promises its caller
//! that nobody can reach what was there any more must flush first: zap, mprotect, mremap, madvise and fork *settle* the address space as soon as
//! they have the lock (Linux 3ea277194daa; `flush_tlb_batched_pending`).
//!
//! # Generations
//!
//! Who settles and who clears may meet in one address space, at different tables. A flag would lose: the one sees it, flushes, meanwhile the other
//! clears an entry and sets the flag again, then the first resets it (Linux 5ee2fa2f0636). So the word counts: how many flushes were asked for, and
//! up to which of them has been flushed.

use machine::{Cpu, CpuSet, Invalidation, Word64};

use crate::guard::Guards;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::shootdown::Stale;
use crate::space::AddressSpace;

/// Of an address space: whether reclaim has cleared entries that are not flushed yet.
pub struct Unflushed(Word64);

/// How many flushes have been asked for, in the lower half; how many of them are done, in the upper half.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Generations(u64);

impl Generations {
    const DONE_SHIFT: u32 = 32;

    const fn new(asked: u32, done: u32) -> Self {
        Self((done as u64) << Self::DONE_SHIFT | asked as u64)
    }

    const fn asked(self) -> u32 {
        self.0 as u32
    }

    const fn done(self) -> u32 {
        (self.0 >> Self::DONE_SHIFT) as u32
    }

    /// One more is asked for. At the end of the range the counts begin again, with one pending: a flush too many then, none too few.
    const fn asked_again(self) -> Self {
        match self.asked().checked_add(1) {
            Some(asked) => Self::new(asked, self.done()),
            None => Self::new(1, 0),
        }
    }
}

impl Unflushed {
    /// Nothing is pending.
    pub const fn new() -> Self {
        Self(Word64::new(0))
    }

    /// The word, so that a trace can name it.
    pub const fn word(&self) -> &Word64 {
        &self.0
    }

    /// An entry was cleared, and will be flushed later. The caller holds the lock of its table.
    #[track_caller]
    fn ask<C: Cpu>(&self, cpu: &C) {
        let mut seen = cpu.load(&self.0);
        while let Err(found) = cpu.compare_exchange(&self.0, seen, Generations(seen).asked_again().0) {
            seen = found;
        }
    }

    /// Flushes, if something is pending. The caller holds the lock of the table whose entries it is going to trust.
    #[inline]
    #[track_caller]
    pub fn settle<C: Cpu>(&self, cpu: &C, flush: impl FnOnce()) {
        let seen = Generations(cpu.load(&self.0));
        if seen.asked() == seen.done() {
            return;
        }
        flush();
        // If more was asked for meanwhile, it stays pending: who asked holds another lock, and may have cleared after the flush.
        let _ = cpu.compare_exchange(&self.0, seen.0, Generations::new(seen.asked(), seen.asked()).0);
    }
}

impl Default for Unflushed {
    fn default() -> Self {
        Self::new()
    }
}

/// The flush that one reclaimer owes: which CPUs need it.
#[derive(Default)]
#[must_use = "what is put off must be made up for by `flush`"]
pub(crate) struct FlushBatch {
    owed: Option<CpuSet>,
}

impl FlushBatch {
    /// Notes that an entry of `space` was cleared. The caller still holds the lock of its table.
    #[track_caller]
    pub(crate) fn add<C: Cpu>(&mut self, cpu: &C, space: &AddressSpace<'_>) {
        // The entry was cleared by a full barrier: a CPU that is not in the set yet will find it cleared.
        let cpus = space.active(cpu);
        self.owed = Some(CpuSet::from_bits(self.owed.unwrap_or(CpuSet::EMPTY).bits() | cpus.bits()));
        space.unflushed().ask(cpu);
    }

    /// What a loop that carries this from round to round adds to its digest ([`Cpu::round`]).
    pub(crate) fn digest(&self) -> u64 {
        self.owed.map_or(0, |cpus| cpus.bits() << 1 | 1)
    }

    /// Flushes what is owed. On return no CPU can reach anything by the entries that were [added](Self::add).
    ///
    /// Context: interrupts on.
    #[track_caller]
    pub(crate) fn flush<P: Platform>(&mut self, cpu: &P::Cpu, mm: &Mm<'_, P>) {
        if let Some(cpus) = self.owed.take() {
            mm.flush_on(cpu, cpus, Invalidation::All, Stale::Leaves);
        }
    }
}

impl<P: Platform> Mm<'_, P> {
    /// Flushes what reclaim has put off in this address space. Called with the lock of every table whose entries are to be trusted.
    ///
    /// Context: interrupts on, a page-table lock held.
    #[inline]
    #[track_caller]
    pub(crate) fn settle_batched_flush(&self, cpu: &P::Cpu, space: &AddressSpace<'_>) {
        self.protocols().guards.settle_batched_flush(cpu, space.unflushed(), || {
            self.flush(cpu, space, Invalidation::All, Stale::Leaves);
        });
    }
}
