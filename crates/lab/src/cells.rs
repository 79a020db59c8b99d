//! Where the state of the simulated hardware lies.
//!
//! Registers, store buffers and what monitors remember are kept in the first bytes of the arena, so that they are undone and fingerprinted exactly
//! like memory.

use crate::arena::MACHINE_BYTES;

/// CPUs that a simulated machine may have.
pub(crate) const MAX_CPUS: usize = 16;
/// Cells of one CPU: whole cache lines.
pub(crate) const CPU_CELLS: usize = 120;
const BLOCK_CELLS_AT: usize = MAX_CPUS * CPU_CELLS;
/// Blocks of frames that a machine may have.
pub(crate) const MAX_BLOCKS: usize = 2048;
const GHOST_CELLS_AT: usize = BLOCK_CELLS_AT + MAX_BLOCKS;
/// Words that all monitors together may remember.
pub(crate) const MAX_GHOST_WORDS: usize = MACHINE_BYTES / 8 - GHOST_CELLS_AT;

/// A cell of one CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuCell(usize);

/// Bits of [`FLAGS`].
pub(crate) mod flag {
    /// `cli` was executed.
    pub(crate) const IRQ_OFF: u64 = 1;
    /// The interrupt handler runs; the hardware turned interrupts off.
    pub(crate) const IN_HANDLER: u64 = 2;
    /// A page table was loaded.
    pub(crate) const ROOT_LOADED: u64 = 4;
    /// The NMI handler runs: neither interrupts nor another NMI are taken (SDM 7.7.1).
    pub(crate) const IN_NMI: u64 = 8;
}

// What is looked at in every state lies in one cache line.

pub(crate) const FLAGS: CpuCell = CpuCell(0);
/// Pending vectors, one bit each: two of a kind are one (SDM vol. 3A, 11.8.4). The NMI is one of them.
pub(crate) const PENDING: CpuCell = CpuCell(1);
/// How many broadcasts are on their way here.
pub(crate) const ARRIVALS: CpuCell = CpuCell(2);
/// How many stores wait in the store buffer (not fingerprinted itself; see `buffer.rs`).
pub(crate) const BUFFERED: CpuCell = CpuCell(3);

/// How deep in RCU read-side sections.
pub(crate) const RCU_DEPTH: CpuCell = CpuCell(4);
/// Which CPUs a running `synchronize_rcu` still waits for; bit 63: it has begun.
pub(crate) const RCU_WAITS: CpuCell = CpuCell(5);
/// CR3.
pub(crate) const ROOT: CpuCell = CpuCell(6);
/// The four PDPTE registers of PAE paging.
pub(crate) const PDPTES: CpuCell = CpuCell(7);
/// Three cells for each broadcast on its way here: source, start, pages.
pub(crate) const ARRIVAL: CpuCell = CpuCell(PDPTES.0 + 4);
/// Broadcasts that may be on their way to one CPU.
pub(crate) const MAX_ARRIVALS: usize = 8;
/// Results written down by the test.
pub(crate) const REPORTS: CpuCell = CpuCell(ARRIVAL.0 + 3 * MAX_ARRIVALS);
/// Their number.
pub(crate) const MAX_REPORTS: usize = 16;
/// Two cells for each store that waits: where and how wide, value.
pub(crate) const BUFFER: CpuCell = CpuCell(REPORTS.0 + MAX_REPORTS);
/// Stores that may wait. Plain stores block before (see `buffer.rs`).
pub(crate) const MAX_BUFFERED: usize = 24;
/// A walker's update of accessed and dirty flags that has begun and not ended: where (and 1, so that 0 is none), the flags, the entry as it was read.
pub(crate) const WALK: CpuCell = CpuCell(BUFFER.0 + 2 * MAX_BUFFERED);

/// How many locks were not taken because they are weakened (see `weaken.rs`); then two cells for each: where, and by how much its word would have grown.
pub(crate) const UNTAKEN: CpuCell = CpuCell(WALK.0 + 3);
/// Locks that may be held at a time without being taken.
pub(crate) const MAX_UNTAKEN: usize = 6;

/// Which CPU runs the program, exclusive-or the program's own number: 0 as long as threads stay where they were (see `moves.rs`).
pub(crate) const NUMBER: CpuCell = CpuCell(UNTAKEN.0 + 1 + 2 * MAX_UNTAKEN);
/// How many sections the thread is in during which it must stay on its CPU.
pub(crate) const PREEMPT_DEPTH: CpuCell = CpuCell(NUMBER.0 + 1);
/// PKRU. It is the thread's: it goes where the thread goes.
pub(crate) const PKRU: CpuCell = CpuCell(PREEMPT_DEPTH.0 + 1);

impl CpuCell {
    /// The cell `count` further on.
    pub(crate) const fn plus(self, count: usize) -> Self {
        Self(self.0 + count)
    }

    /// Its offset into the arena.
    #[inline(always)]
    pub(crate) const fn of(self, cpu: usize) -> usize {
        (cpu * CPU_CELLS + self.0) * 8
    }
}

/// The offset of a cell by its number.
pub(crate) const fn nth(cpu: usize, cell: usize) -> usize {
    CpuCell(cell).of(cpu)
}

/// The offset of the cell that says whether a block of frames is allocated.
pub(crate) const fn block_cell(block: usize) -> usize {
    (BLOCK_CELLS_AT + block) * 8
}

/// The offset of a word that a monitor remembers.
pub(crate) const fn ghost_cell(word: usize) -> usize {
    (GHOST_CELLS_AT + word) * 8
}

const _: () = assert!(PKRU.0 < CPU_CELLS && CPU_CELLS.is_multiple_of(8));
