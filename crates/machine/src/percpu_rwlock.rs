//! A lock for many readers or one writer, of which readers on different CPUs do not write the same line.

use crate::cpu::Cpu;
use crate::rwlock::{ReadGuard, RwLock};
use crate::word::Word32;

/// One of the locks that a [`PerCpuRwLock`] is spread over.
///
/// Two cache lines' worth of alignment, as processors prefetch lines in pairs.
#[repr(align(128))]
pub struct ReaderLock(RwLock);

/// Many readers or one writer: a lock for each CPU, or for each group of CPUs, and one that only writers take. A reader takes that of its CPU, a writer takes all, in their order.
///
/// That is Linux's big-reader lock of old (`brlock`, in 2013 `lglock`); its `percpu_rw_semaphore` spares readers the locked instruction, too, and lets writers wait for a
/// grace period instead. A reader and a writer meet in the lock of the reader's CPU, so what holds of [`RwLock`] holds of this: no barrier of its own is argued for.
///
/// Without locks for CPUs, readers take the writers', too: then it is an [`RwLock`].
///
/// While a writer waits for the reader of one CPU, readers of others already wait for the writer; with [`RwLock`] they would come in. So who holds it for reading neither takes it again, as the thread may have
/// been moved, nor waits for somebody who is about to take it.
///
/// Context: interrupts on, outside spin locks (it may wait long). Writers may starve.
pub struct PerCpuRwLock<'l> {
    /// In one line with what readers read and nobody writes: so they do not take it.
    writers: RwLock,
    readers: &'l [ReaderLock],
}

/// A [`PerCpuRwLock`] is held for writing while this value lives.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct WriteAllGuard<'l, C: Cpu> {
    lock: &'l PerCpuRwLock<'l>,
    cpu: &'l C,
}

impl ReaderLock {
    /// A free lock.
    pub const fn new() -> Self {
        Self(RwLock::new())
    }

    /// The lock's own word, so that a machine or a trace can name it.
    pub const fn word(&self) -> &Word32 {
        self.0.word()
    }
}

impl Default for ReaderLock {
    fn default() -> Self {
        Self::new()
    }
}

impl<'l> PerCpuRwLock<'l> {
    /// A free lock, with these for readers: each CPU takes that of its number, modulo how many there are.
    pub const fn new(readers: &'l [ReaderLock]) -> Self {
        Self { writers: RwLock::new(), readers }
    }

    /// The words of its locks, the writers' first, so that a machine or a trace can name them.
    pub fn words(&self) -> impl Iterator<Item = &Word32> {
        core::iter::once(self.writers.word()).chain(self.readers.iter().map(ReaderLock::word))
    }

    /// Waits until no writer holds the lock, and takes it for reading. A thread that is moved meanwhile keeps what it took.
    #[inline]
    #[track_caller]
    pub fn read<'g, C: Cpu>(&'g self, cpu: &'g C) -> ReadGuard<'g, C> {
        match self.readers {
            [] => self.writers.read(cpu),
            locks => locks[cpu.id().index() % locks.len()].0.read(cpu),
        }
    }

    /// Waits until nobody holds the lock, and takes it for writing.
    #[inline]
    #[track_caller]
    pub fn write<'g, C: Cpu>(&'g self, cpu: &'g C) -> WriteAllGuard<'g, C> {
        self.writers.take_for_writing(cpu);
        for lock in self.readers {
            lock.0.take_for_writing(cpu);
        }
        WriteAllGuard { lock: self, cpu }
    }
}

impl<C: Cpu> WriteAllGuard<'_, C> {
    #[inline]
    #[track_caller]
    fn release(&mut self) {
        for lock in self.lock.readers {
            lock.0.release_from_writing(self.cpu);
        }
        // Last: whoever writes next waits here, and finds the others free.
        self.lock.writers.release_from_writing(self.cpu);
    }
}

released_once!(WriteAllGuard);
