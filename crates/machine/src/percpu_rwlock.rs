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

/// By which of its locks a reader holds a [`PerCpuRwLock`], or several of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reader(usize);

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
        self.of(Reader::here(cpu)).read(cpu)
    }

    #[inline]
    fn of(&self, reader: Reader) -> &RwLock {
        match self.readers {
            [] => &self.writers,
            locks => &locks[reader.0 % locks.len()].0,
        }
    }

    /// [`Self::read`] for who holds a number of locks that only the run knows. Each is given back by [`Self::release_from_reading`] with the same reader.
    #[inline]
    #[track_caller]
    pub fn take_for_reading<C: Cpu>(&self, cpu: &C, reader: Reader) {
        self.of(reader).take_for_reading(cpu);
    }

    /// Gives back what [`Self::take_for_reading`] took.
    #[inline]
    #[track_caller]
    pub fn release_from_reading<C: Cpu>(&self, cpu: &C, reader: Reader) {
        self.of(reader).release_from_reading(cpu);
    }

    /// Waits until nobody holds the lock, and takes it for writing.
    #[inline]
    #[track_caller]
    pub fn write<'g, C: Cpu>(&'g self, cpu: &'g C) -> WriteAllGuard<'g, C> {
        self.take_for_writing(cpu);
        WriteAllGuard { lock: self, cpu }
    }

    /// [`Self::write`] for who holds a number of locks that only the run knows. Each is given back by [`Self::release_from_writing`].
    #[inline]
    #[track_caller]
    pub fn take_for_writing<C: Cpu>(&self, cpu: &C) {
        self.writers.take_for_writing(cpu);
        for lock in self.readers {
            lock.0.take_for_writing(cpu);
        }
    }

    /// Gives back what [`Self::take_for_writing`] took.
    #[inline]
    #[track_caller]
    pub fn release_from_writing<C: Cpu>(&self, cpu: &C) {
        for lock in self.readers {
            lock.0.release_from_writing(cpu);
        }
        // Last: whoever writes next waits here, and finds the others free.
        self.writers.release_from_writing(cpu);
    }
}

impl Reader {
    /// Who reads on this CPU. A thread that is moved stays the reader that it was.
    #[inline]
    pub fn here<C: Cpu>(cpu: &C) -> Self {
        Self(cpu.id().index())
    }
}

impl<C: Cpu> WriteAllGuard<'_, C> {
    #[inline]
    #[track_caller]
    fn release(&mut self) {
        self.lock.release_from_writing(self.cpu);
    }
}

released_once!(WriteAllGuard);
