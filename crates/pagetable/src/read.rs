//! How an entry is read while others may write it.
//!
//! A lockless walker reads each entry **once**, through an [`EntryRead`], and decides on the copy. The
//! protocol's promise: *the value returned was in the entry, whole, at some moment of the call*. Who breaks it
//! computes frame numbers that were never stored, and touches the metadata of pages that do not exist.
//!
//! | protocol | sound when | cost on x86 |
//! |---|---|---|
//! | [`ReadOnce<Wide>`](ReadOnce) | always | one `mov` |
//! | [`ReadOnce<Split>`](ReadOnce) | nobody but the hardware's A/D bits changes the entry meanwhile (its page-table lock is held) | two `mov` |
//! | [`LowHighLow`] | at most one transition between none and present falls into the window | three `mov` |
//! | [`Cmpxchg8b`] | always | one locked instruction, and the cache line exclusive; one `movq` where vector registers may be used |
//! | [`SequenceRead`] | every writer brackets its change by the table's sequence count ([`crate::write::Sequenced`]) | four `mov` |
//!
//! Those that retry say so with [`Cpu::round`]: what an earlier round read is forgotten, and nothing that their callers know.

use core::marker::PhantomData;

use machine::{Cpu, SeqCount, Word64};

use crate::entry::Entry;
use crate::width::{Wide, Width};

/// A protocol for reading an entry that others may write at the same time.
pub trait EntryRead {
    /// Reads the entry. `sequence` is the sequence count of its table; only protocols that use one look at it.
    #[track_caller]
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry;
}

/// One plain load of the 64-bit object, as a compiler for the CPU at hand makes it: `READ_ONCE`.
///
/// The width is a type, because the same source line means one access on a 64-bit CPU and two on a 32-bit one.
/// `ReadOnce<Split>` is what Linux's `gup_pmd_range` did on PAE until v6.2 (1180e732c985).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReadOnce<W = Wide>(PhantomData<W>);

impl<W: Width> ReadOnce<W> {
    /// The protocol.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<W: Width> EntryRead for ReadOnce<W> {
    #[inline(always)]
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount) -> Entry {
        W::load(cpu, cell)
    }
}

/// Low half, high half, low half again, until both lows agree: Linux's `ptep_get_lockless` and
/// `pmdp_get_lockless` on PAE.
///
/// Equal lows do not prove that nothing happened between them: an entry that was cleared and set again to a
/// value with the same low half gives a mixture (the ABA of this project's seed). The protocol is sound for one
/// transition in the window.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LowHighLow;

impl EntryRead for LowHighLow {
    #[inline]
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount) -> Entry {
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let low = cpu.load(cell.low());
            let high = cpu.load(cell.high());
            if cpu.unchanged(cell.low(), low) {
                return Entry::from_halves(low, high);
            }
        }
    }
}

/// All 64 bits by one instruction, as a 32-bit CPU can: [`Cpu::load`] of the whole entry (on x86-64: `mov`).
///
/// Atomic against everything. A kernel that keeps its hands off vector registers, as Linux does, has `cmpxchg8b` only, after which it is called here: it writes back what it
/// read, so it needs the cache line exclusive, and the page writable. With vector registers it is `movq`, a plain load (SDM vol. 3A, 9.1.1). It is what the lab takes either for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cmpxchg8b;

impl EntryRead for Cmpxchg8b {
    #[inline(always)]
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount) -> Entry {
        Entry::from_bits(cpu.load(cell))
    }
}

/// Both halves between two looks at the table's sequence count, again and again until no writer was at work meanwhile.
///
/// Waits while a writer is at work; with interrupts off on this side, the writer must not wait for an IPI
/// inside its bracket. The hardware's A/D bits do not bump the count: they change the low half only, and are
/// exact in it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SequenceRead;

impl EntryRead for SequenceRead {
    #[inline]
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry {
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let begin = sequence.begin(cpu);
            let low = cpu.load(cell.low());
            let high = cpu.load(cell.high());
            if !sequence.changed(cpu, begin) {
                return Entry::from_halves(low, high);
            }
        }
    }
}
