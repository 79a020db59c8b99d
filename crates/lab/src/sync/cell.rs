//! What a lock protects.

use std::marker::PhantomData;

use machine::{Cpu, Word64};

use super::this_cpu;

/// `std::cell::Cell` for what a lock protects, or what nobody else knows yet: its accesses are no steps, and that nobody else comes in between is not believed but checked
/// ([`MisuseKind::NotOwned`](crate::MisuseKind::NotOwned)). It lies in an [`Arena`](crate::Arena).
#[repr(transparent)]
pub struct Cell<T>(Word64, PhantomData<fn() -> T>);

impl<T: Into<u64> + TryFrom<u64>> Cell<T> {
    /// Holds `value`.
    pub fn new(value: T) -> Self {
        Self(Word64::new(value.into()), PhantomData)
    }

    /// The word: to give it a name ([`Lab::name`](crate::Lab::name)) and to read it in the end ([`End::read`](crate::End::read)).
    pub const fn word(&self) -> &Word64 {
        &self.0
    }

    /// What it holds.
    ///
    /// # Panics
    /// If no CPU of a lab runs on this thread.
    #[track_caller]
    pub fn get(&self) -> T {
        let held = this_cpu().owned_load(&self.0);
        T::try_from(held).ok().expect("a cell holds what was put into it")
    }

    /// Holds another value from now on.
    ///
    /// # Panics
    /// As [`Self::get`].
    #[track_caller]
    pub fn set(&self, value: T) {
        this_cpu().owned_store(&self.0, value.into());
    }
}
