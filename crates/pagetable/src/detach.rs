//! The end of a table: detached, then flushed, and only then freed.
//!
//! When the entry that points to a table is cleared, CPUs may still be walking in it: hardware walkers with the
//! old entry in a paging-structure cache, and lockless software walkers. The table's frame may be given back
//! when
//!
//! 1. the invalidation of what the entry translated has *completed* on every CPU that may have the root loaded, and
//! 2. every lockless walker that may have read the entry has left (IPI acknowledged with interrupts on, or an
//!    RCU grace period).
//!
//! The steps are types: [`DetachedTable`] -> [`DetachedTable::after_flush`] -> [`FlushedTable`] ->
//! [`FlushedTable::free`]. Dropping a `DetachedTable` leaks its frame, which is safe.

use machine::{Cpu, Frame};

use crate::level::Level;
use crate::memory::TableSource;

/// A table that no entry points to any more, though CPUs may still be in it.
#[must_use = "dropping it leaks the table's frame: flush, then free it"]
#[derive(PartialEq, Eq, Debug)]
pub struct DetachedTable {
    frame: Frame,
    level: Level,
}

/// A value of this type says that both conditions of [the module](self) hold for every table detached before it
/// was made.
///
/// mm's gather makes one when its flush and its wait are over.
pub trait NobodyWalks {}

/// No CPU has the root loaded, and no lockless walker knows it: conditions 1 and 2 hold trivially.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeverLoaded;

impl NobodyWalks for NeverLoaded {}

/// A table that nobody can reach.
#[must_use = "dropping it leaks the table's frame: free it"]
#[derive(PartialEq, Eq, Debug)]
pub struct FlushedTable {
    frame: Frame,
    level: Level,
}

impl DetachedTable {
    /// The table of `level` in `frame`, which the caller has unlinked: for tables whose frame numbers were kept
    /// elsewhere meanwhile, or that were unlinked with entries in them (collapse).
    #[inline]
    pub const fn new(frame: Frame, level: Level) -> Self {
        Self { frame, level }
    }

    /// The frame of the table.
    #[inline]
    pub const fn frame(&self) -> Frame {
        self.frame
    }

    /// The level of the table's entries.
    #[inline]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The table, now that nobody walks it any more.
    #[inline]
    pub fn after_flush(self, proof: &impl NobodyWalks) -> FlushedTable {
        let _ = proof;
        FlushedTable { frame: self.frame, level: self.level }
    }
}

impl FlushedTable {
    /// The frame of the table.
    #[inline]
    pub const fn frame(&self) -> Frame {
        self.frame
    }

    /// The level of the table's entries.
    #[inline]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Gives the frame back.
    #[inline]
    #[track_caller]
    pub fn free<C: Cpu>(self, cpu: &C, source: &impl TableSource) {
        source.free_table(cpu, self.frame);
    }
}
