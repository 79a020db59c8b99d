//! All CPUs at the same piece of work.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use machine::Cpu;

use crate::arch::{BareCpu, Patience, sleep_unless, wake};

/// What every CPU does: it is told its number.
type Work<'a> = &'a (dyn Fn(&BareCpu, usize) + Sync);

struct Board {
    /// How many pieces of work were begun.
    begun: AtomicUsize,
    /// How many CPUs are done with the last.
    done: AtomicUsize,
    work: UnsafeCell<Option<Work<'static>>>,
}

// SAFETY: `work` is written by the first CPU while all others are done, before `begun` is counted up, and only read after that.
unsafe impl Sync for Board {}

static BOARD: Board = Board { begun: AtomicUsize::new(0), done: AtomicUsize::new(0), work: UnsafeCell::new(None) };

/// What CPUs do besides the first: wait for work, do it, say so.
pub(crate) fn member(cpu: BareCpu) -> ! {
    let mut seen = 0;
    loop {
        while BOARD.begun.load(Ordering::Acquire) == seen {
            sleep_unless(|| BOARD.begun.load(Ordering::Acquire) != seen);
        }
        seen += 1;
        // SAFETY: see `Board`.
        if let Some(work) = unsafe { *BOARD.work.get() } {
            work(&cpu, cpu.id().index());
        }
        BOARD.done.fetch_add(1, Ordering::AcqRel);
    }
}

/// Lets every CPU do the work at the same time, this one (the first) included, and returns when all are done.
pub(crate) fn all(cpu: &BareCpu, work: impl Fn(&BareCpu, usize) + Sync) {
    let others = BareCpu::online().without(cpu.id());
    let work: Work<'_> = &work;
    // SAFETY: the reference is used until all are done, which is before this function returns.
    let work = unsafe { core::mem::transmute::<Work<'_>, Work<'static>>(work) };
    BOARD.done.store(0, Ordering::Release);
    // SAFETY: see `Board`.
    unsafe { *BOARD.work.get() = Some(work) };
    BOARD.begun.fetch_add(1, Ordering::AcqRel);
    wake(cpu, others);
    work(cpu, 0);
    let mut patience = Patience::default();
    while BOARD.done.load(Ordering::Acquire) != others.iter().count() {
        patience.wait();
    }
}
