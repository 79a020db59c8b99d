//! How a walker makes sure, after it pinned a page, that the entry still says so.
//!
//! Fast GUP pins first and re-checks second; whoever takes the mapping away clears the entry first and looks
//! for pins second. One of the two sees the other. That holds only if the re-check compares *all 64 bits as
//! they were at one moment*.

use machine::{Cpu, SeqCount, Word64};

use crate::entry::Entry;
use crate::read::{EntryRead, SequenceRead};

/// Whether an entry still holds what was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Rechecked {
    /// It holds the same value.
    Unchanged,
    /// It holds another value: whatever was done on the strength of the first must be undone.
    Changed,
}

impl Rechecked {
    /// The verdict of comparing two values of an entry.
    #[inline(always)]
    pub fn compare(seen: Entry, now: Entry) -> Self {
        if seen == now { Self::Unchanged } else { Self::Changed }
    }
}

/// A protocol for comparing an entry with what was read from it earlier.
pub trait Recheck {
    /// Compares the entry with `seen`. `sequence` is the sequence count of its table.
    #[track_caller]
    fn recheck<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, seen: Entry) -> Rechecked;
}

/// Compares with all 64 bits as they are at one moment: `mov` on x86-64, `cmpxchg8b` or `movq` on PAE.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Atomic;

impl Recheck for Atomic {
    #[inline(always)]
    fn recheck<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, seen: Entry) -> Rechecked {
        if cpu.unchanged(cell, seen.bits()) { Rechecked::Unchanged } else { Rechecked::Changed }
    }
}

/// Compares with what [`SequenceRead`] finds. As sound as that: every writer must bump the count.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SequenceRecheck;

impl Recheck for SequenceRecheck {
    #[inline]
    fn recheck<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, seen: Entry) -> Rechecked {
        Rechecked::compare(seen, SequenceRead.read(cpu, cell, sequence))
    }
}
