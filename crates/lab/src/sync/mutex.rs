//! `std::sync::Mutex` on a word of a lab.

use std::ops::Deref;
use std::sync::{LockResult, TryLockError, TryLockResult};

use machine::{Cpu, Word32};

use super::this_cpu;

/// A lock with the interface of `std::sync::Mutex`; it is also what a spin lock looks like here, since who waits for it is blocked and does not spin. It lies in an
/// [`Arena`](crate::Arena), and is never poisoned: a panic ends the run.
///
/// Its guard lends `&T` only. What changes in a `T` are [`Cell`](super::cell::Cell)s and atomics, which the lab can take back.
#[derive(Default)]
pub struct Mutex<T> {
    held: Held,
    data: T,
}

/// 1 while somebody holds the lock.
struct Held(Word32);

impl Default for Held {
    fn default() -> Self {
        Self(Word32::new(0))
    }
}

impl<T> Mutex<T> {
    /// Nobody holds it.
    pub const fn new(data: T) -> Self {
        Self { held: Held(Word32::new(0)), data }
    }

    /// The word of the lock, 1 while it is held: to give it a name.
    pub const fn word(&self) -> &Word32 {
        &self.held.0
    }

    /// Waits until nobody holds it.
    ///
    /// # Errors
    /// None; the type is that of `std`.
    ///
    /// # Panics
    /// If no CPU of a lab runs on this thread.
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let cpu = this_cpu();
        cpu.await_update(self.word(), |held| (held == 0).then_some(1));
        cpu.note_write();
        Ok(MutexGuard { lock: self })
    }

    /// Takes it, if nobody holds it.
    ///
    /// # Errors
    /// Somebody does.
    ///
    /// # Panics
    /// As [`Self::lock`].
    #[track_caller]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let cpu = this_cpu();
        match cpu.compare_exchange(self.word(), 0, 1) {
            Ok(_) => {
                cpu.note_write();
                Ok(MutexGuard { lock: self })
            }
            Err(found) => {
                cpu.noting_read(self.word(), found);
                Err(TryLockError::WouldBlock)
            }
        }
    }
}

/// The lock is held while this lives.
pub struct MutexGuard<'l, T> {
    lock: &'l Mutex<T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.lock.data
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[track_caller]
    fn drop(&mut self) {
        let cpu = this_cpu();
        cpu.store(self.lock.word(), 0);
        cpu.note_write();
    }
}
