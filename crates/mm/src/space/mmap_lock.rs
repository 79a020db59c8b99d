//! Holding the mmap locks of some parts of an address space.

use core::mem::ManuallyDrop;

use machine::{Cpu, PerCpuRwLock, Reader};

use super::part::SpacePart;

/// The mmap lock of a range of addresses is held while this value lives: for reading ([`Reading`]) or for writing ([`Writing`]).
///
/// That is, the locks of all parts into which the range reaches; they are taken in the order of their addresses.
#[must_use = "the lock is released as soon as this is dropped"]
pub(crate) struct MmapGuard<'s, C: Cpu, H: How> {
    parts: &'s [SpacePart<'s>],
    how: H,
    cpu: &'s C,
}

/// How a lock is held.
pub(crate) trait How: Copy {
    #[track_caller]
    fn take<C: Cpu>(self, lock: &PerCpuRwLock<'_>, cpu: &C);

    #[track_caller]
    fn release<C: Cpu>(self, lock: &PerCpuRwLock<'_>, cpu: &C);
}

/// By this reader.
#[derive(Clone, Copy)]
pub(crate) struct Reading(pub(super) Reader);

/// By the writer.
#[derive(Clone, Copy)]
pub(crate) struct Writing;

pub(crate) type MmapRead<'s, C> = MmapGuard<'s, C, Reading>;
pub(crate) type MmapWrite<'s, C> = MmapGuard<'s, C, Writing>;

impl How for Reading {
    #[inline]
    #[track_caller]
    fn take<C: Cpu>(self, lock: &PerCpuRwLock<'_>, cpu: &C) {
        lock.take_for_reading(cpu, self.0);
    }

    #[inline]
    #[track_caller]
    fn release<C: Cpu>(self, lock: &PerCpuRwLock<'_>, cpu: &C) {
        lock.release_from_reading(cpu, self.0);
    }
}

impl How for Writing {
    #[inline]
    #[track_caller]
    fn take<C: Cpu>(self, lock: &PerCpuRwLock<'_>, cpu: &C) {
        lock.take_for_writing(cpu);
    }

    #[inline]
    #[track_caller]
    fn release<C: Cpu>(self, lock: &PerCpuRwLock<'_>, cpu: &C) {
        lock.release_from_writing(cpu);
    }
}

impl<'s, C: Cpu, H: How> MmapGuard<'s, C, H> {
    #[inline]
    #[track_caller]
    pub(super) fn take(cpu: &'s C, parts: &'s [SpacePart<'s>], how: H) -> Self {
        for part in parts {
            how.take(part.mmap_lock(), cpu);
        }
        Self { parts, how, cpu }
    }

    /// Releases the lock: the same as dropping the guard, but a trace then names the caller's line.
    #[inline]
    #[track_caller]
    pub(crate) fn unlock(self) {
        ManuallyDrop::new(self).release();
    }

    #[inline]
    #[track_caller]
    fn release(&mut self) {
        for part in self.parts {
            self.how.release(part.mmap_lock(), self.cpu);
        }
    }
}

impl<C: Cpu, H: How> MmapGuard<'_, C, H> {
    /// Whether the locks of all these parts are held, which follow each other.
    pub(super) fn holds(&self, parts: &[SpacePart<'_>]) -> bool {
        let ends = |parts: &[SpacePart<'_>]| Some((parts.first()?.start(), parts.last()?.start()));
        match (ends(self.parts), ends(parts)) {
            (Some((first, last)), Some((from, to))) => first <= from && to <= last,
            _ => false,
        }
    }
}

impl<C: Cpu, H: How> Drop for MmapGuard<'_, C, H> {
    #[inline]
    #[track_caller]
    fn drop(&mut self) {
        self.release();
    }
}
