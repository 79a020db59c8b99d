//! A lock for many readers or one writer.

use crate::cpu::Cpu;
use crate::word::Word32;

const WRITER: u32 = 1 << 31;

/// Many readers or one writer; the lock of a file's rmap is of this kind.
///
/// Context: interrupts on, outside spin locks (it may wait long). Writers may starve: readers do not queue behind them.
#[repr(transparent)]
pub struct RwLock(Word32);

/// An [`RwLock`] is held for reading while this value lives.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct ReadGuard<'l, C: Cpu> {
    lock: &'l RwLock,
    cpu: &'l C,
}

/// An [`RwLock`] is held for writing while this value lives.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct WriteGuard<'l, C: Cpu> {
    lock: &'l RwLock,
    cpu: &'l C,
}

impl RwLock {
    /// A free lock.
    pub const fn new() -> Self {
        Self(Word32::new(0))
    }

    /// Waits until no writer holds the lock, and takes it for reading.
    #[inline]
    #[track_caller]
    pub fn read<'l, C: Cpu>(&'l self, cpu: &'l C) -> ReadGuard<'l, C> {
        self.take_for_reading(cpu);
        ReadGuard { lock: self, cpu }
    }

    #[inline]
    #[track_caller]
    pub(crate) fn take_for_reading<C: Cpu>(&self, cpu: &C) {
        cpu.await_update(&self.0, |state| (state < WRITER - 1).then(|| state + 1));
    }

    #[inline]
    #[track_caller]
    pub(crate) fn release_from_reading<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(&self.0, u32::MAX);
    }

    /// Waits until nobody holds the lock, and takes it for writing.
    #[inline]
    #[track_caller]
    pub fn write<'l, C: Cpu>(&'l self, cpu: &'l C) -> WriteGuard<'l, C> {
        self.take_for_writing(cpu);
        WriteGuard { lock: self, cpu }
    }

    #[inline]
    #[track_caller]
    pub(crate) fn take_for_writing<C: Cpu>(&self, cpu: &C) {
        cpu.await_update(&self.0, |state| (state == 0).then_some(WRITER));
    }

    #[inline]
    #[track_caller]
    pub(crate) fn release_from_writing<C: Cpu>(&self, cpu: &C) {
        cpu.store(&self.0, 0);
    }

    /// The lock's own word, so that a machine or a trace can name it.
    pub const fn word(&self) -> &Word32 {
        &self.0
    }
}

impl Default for RwLock {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Cpu> ReadGuard<'_, C> {
    #[inline]
    #[track_caller]
    fn release(&mut self) {
        self.lock.release_from_reading(self.cpu);
    }
}

released_once!(ReadGuard);

impl<C: Cpu> WriteGuard<'_, C> {
    #[inline]
    #[track_caller]
    fn release(&mut self) {
        self.lock.release_from_writing(self.cpu);
    }
}

released_once!(WriteGuard);
