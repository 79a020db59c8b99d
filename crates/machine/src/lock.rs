//! A spin lock.

use crate::cpu::Cpu;
use crate::word::Word32;

const FREE: u32 = 0;
const HELD: u32 = 1;

/// A spin lock. What it protects lies beside it, in words that the holder accesses with [`Cpu::owned_load`] and
/// [`Cpu::owned_store`] or, where readers without the lock exist, with [`Cpu::load`] and [`Cpu::store`].
///
/// Who waits for the lock or holds it stays on its CPU.
///
/// Context: any, but a lock that an interrupt handler takes must be taken with interrupts off everywhere else.
#[repr(transparent)]
pub struct SpinLock(Word32);

/// A [`SpinLock`] is held while this value lives.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct SpinGuard<'l, C: Cpu> {
    lock: &'l SpinLock,
    cpu: &'l C,
}

impl SpinLock {
    /// A free lock.
    pub const fn new() -> Self {
        Self(Word32::new(FREE))
    }

    /// Waits for the lock and takes it.
    #[inline]
    #[track_caller]
    pub fn lock<'l, C: Cpu>(&'l self, cpu: &'l C) -> SpinGuard<'l, C> {
        cpu.preempt_disable();
        cpu.await_update(&self.0, |state| (state == FREE).then_some(HELD));
        SpinGuard { lock: self, cpu }
    }

    /// Takes the lock if it is free.
    #[inline]
    #[track_caller]
    pub fn try_lock<'l, C: Cpu>(&'l self, cpu: &'l C) -> Option<SpinGuard<'l, C>> {
        cpu.preempt_disable();
        match cpu.compare_exchange(&self.0, FREE, HELD) {
            Ok(_) => Some(SpinGuard { lock: self, cpu }),
            Err(_) => {
                cpu.preempt_enable();
                None
            }
        }
    }

    /// The lock's own word, so that a machine or a trace can name it.
    pub const fn word(&self) -> &Word32 {
        &self.0
    }
}

impl Default for SpinLock {
    fn default() -> Self {
        Self::new()
    }
}

impl<'l, C: Cpu> SpinGuard<'l, C> {
    /// The CPU that holds the lock.
    #[inline]
    pub const fn cpu(&self) -> &'l C {
        self.cpu
    }

    /// Whether this is the guard of `lock`.
    #[inline]
    pub fn guards(&self, lock: &SpinLock) -> bool {
        core::ptr::eq(self.lock, lock)
    }
}

impl<C: Cpu> SpinGuard<'_, C> {
    #[inline]
    #[track_caller]
    fn release(&mut self) {
        // A plain store: on x86 a release needs no more (MODEL.md, P3).
        self.cpu.store(&self.lock.0, FREE);
        self.cpu.preempt_enable();
    }
}

released_once!(SpinGuard);
