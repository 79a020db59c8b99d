//! A sequence count: readers retry instead of waiting for a lock.

use crate::cpu::Cpu;
use crate::word::Word32;

/// A count that is odd while a writer is at work.
///
/// Writers exclude each other by a lock of their own. Readers read between [`Self::begin`] and [`Self::changed`], and start again if it
/// changed. On x86-TSO neither side needs a fence: stores leave in order and loads are not reordered (MODEL.md, P3, P4).
#[repr(transparent)]
pub struct SeqCount(Word32);

/// What a reader saw at [`SeqCount::begin`]. The default is what it sees before the first writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sequence(u32);

impl SeqCount {
    /// A count at rest.
    pub const fn new() -> Self {
        Self(Word32::new(0))
    }

    /// Waits until no writer is at work, and returns the count.
    #[inline]
    #[track_caller]
    pub fn begin<C: Cpu>(&self, cpu: &C) -> Sequence {
        Sequence(cpu.await_value(&self.0, |count| count & 1 == 0))
    }

    /// The count, unless a writer is at work: for readers that do something else then, instead of waiting.
    #[inline]
    #[track_caller]
    pub fn try_begin<C: Cpu>(&self, cpu: &C) -> Option<Sequence> {
        let count = cpu.load(&self.0);
        (count & 1 == 0).then_some(Sequence(count))
    }

    /// Whether a writer was or is at work since [`Self::begin`] returned `since`.
    #[inline]
    #[track_caller]
    #[must_use]
    pub fn changed<C: Cpu>(&self, cpu: &C, since: Sequence) -> bool {
        !cpu.unchanged(&self.0, since.0)
    }

    /// Runs `write` with the count odd. The caller excludes other writers.
    ///
    /// A reader with interrupts off that [waits](Self::begin) for the writer keeps it from waiting for anything meanwhile, least of all for an IPI. Where
    /// readers only [try](Self::try_begin) it may.
    #[inline]
    #[track_caller]
    pub fn write<C: Cpu, R>(&self, cpu: &C, write: impl FnOnce() -> R) -> R {
        let count = cpu.owned_load(&self.0);
        cpu.store(&self.0, count.wrapping_add(1));
        let result = write();
        cpu.store(&self.0, count.wrapping_add(2));
        result
    }

    /// The count's own word, so that a machine or a trace can name it.
    pub const fn word(&self) -> &Word32 {
        &self.0
    }
}

impl Default for SeqCount {
    fn default() -> Self {
        Self::new()
    }
}
