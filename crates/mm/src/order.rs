//! Two protocols: when TLBs are flushed relative to the page-table lock, and how fast GUP notices a special entry.

use pagetable::software::SpecialBit;
use pagetable::{Entry, Level, Mark};

/// When a zap flushes TLBs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushMoment {
    /// While it holds the page-table lock: nobody can fault the entry back in before every TLB has forgotten the old one.
    BeforeUnlock,
    /// After it has dropped the lock, once for many tables: what Linux does for all but dirty file pages.
    AfterUnlock,
}

/// The protocol of when a zap flushes TLBs. In every case before anything that was mapped is freed.
pub trait FlushOrder {
    /// The moment.
    fn moment(&self) -> FlushMoment;
}

/// [`FlushMoment::BeforeUnlock`]. What Peter Zijlstra sketched in October 2022 as ZAP_FLAG_FORCE_FLUSH (Y1f7YvKuwOl1XEwU@hirez).
#[derive(Clone, Copy, Debug, Default)]
pub struct FlushBeforeUnlock;

/// [`FlushMoment::AfterUnlock`].
#[derive(Clone, Copy, Debug, Default)]
pub struct FlushAfterUnlock;

impl FlushOrder for FlushBeforeUnlock {
    #[inline(always)]
    fn moment(&self) -> FlushMoment {
        FlushMoment::BeforeUnlock
    }
}

impl FlushOrder for FlushAfterUnlock {
    #[inline(always)]
    fn moment(&self) -> FlushMoment {
        FlushMoment::AfterUnlock
    }
}

/// How special entries (those of driver mappings) are told from others.
///
/// Fast GUP has no area to look at: this bit is *all* that keeps it off a driver's pages.
pub trait SpecialCheck {
    /// The software bit that marks them.
    fn mark(&self) -> Mark;

    /// Whether fast GUP must leave this leaf of `level` alone.
    fn refuses(&self, level: Level, entry: Entry) -> bool;
}

/// Every level is checked for the bit (Linux since ae3c99e650da).
impl<B: SpecialBit> SpecialCheck for B {
    #[inline(always)]
    fn mark(&self) -> Mark {
        SpecialBit::mark(self)
    }

    #[inline(always)]
    fn refuses(&self, _: Level, entry: Entry) -> bool {
        entry.is_marked(SpecialBit::mark(self))
    }
}
