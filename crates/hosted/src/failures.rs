//! Allocations that fail on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::{Cpu, Frame, PhysAddr};
use pagetable::{NotATable, OutOfFrames, Pdpt, Table, TableMemory, TableSource};

use crate::arena::FrameArena;

/// Which allocation fails. Shared by all sources of frames that are to count as one.
#[derive(Debug, Default)]
pub struct Failures {
    /// How many allocations until the one that fails, itself included; 0 = none fails.
    countdown: AtomicU64,
    /// Whether those behind it fail, too.
    lasting: AtomicBool,
    failed: AtomicU64,
}

impl Failures {
    /// No allocation fails.
    pub fn none() -> Arc<Self> {
        Arc::default()
    }

    /// Lets the `number`th allocation from now on fail, counted from 1, and only that one; 0 lets none fail.
    pub fn fail_at(&self, number: u64) {
        self.lasting.store(false, Ordering::Relaxed);
        self.countdown.store(number, Ordering::Relaxed);
    }

    /// Lets the `number`th allocation from now on fail, counted from 1, and every one behind it, until [`Self::fail_at`]: nothing is left.
    pub fn fail_from(&self, number: u64) {
        self.lasting.store(true, Ordering::Relaxed);
        self.countdown.store(number, Ordering::Relaxed);
    }

    /// How many allocations were let fail so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// An allocation is asked for.
    ///
    /// # Errors
    /// It is the one.
    pub fn ask(&self) -> Result<(), OutOfFrames> {
        if self.countdown.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let lasting = self.lasting.load(Ordering::Relaxed);
        let step = |left: u64| if lasting { Some(left.max(2) - 1) } else { left.checked_sub(1) };
        match self.countdown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(1) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                Err(OutOfFrames)
            }
            _ => Ok(()),
        }
    }
}

/// An arena of tables whose allocations fail where [`Failures`] says so.
#[derive(Debug)]
pub struct FailingTables {
    /// The tables.
    pub arena: FrameArena,
    /// Which allocation fails.
    pub failures: Arc<Failures>,
}

impl TableMemory for FailingTables {
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        self.arena.table(frame)
    }

    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        self.arena.pdpt(root)
    }

    fn holds_any(&self, first: Frame, frames: u64) -> bool {
        self.arena.holds_any(first, frames)
    }
}

impl TableSource for FailingTables {
    fn allocate_table<C: Cpu>(&self, cpu: &C) -> Result<Frame, OutOfFrames> {
        self.failures.ask()?;
        self.arena.allocate_table(cpu)
    }

    fn free_table<C: Cpu>(&self, cpu: &C, frame: Frame) {
        self.arena.free_table(cpu, frame);
    }
}
