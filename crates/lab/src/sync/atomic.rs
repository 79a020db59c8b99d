//! `std::sync::atomic` on the words of a lab.

use machine::{Cpu, Word32, Word64};

pub use std::sync::atomic::{Ordering, compiler_fence};

use super::this_cpu;

/// What loads may not say.
const NO_LOAD: &str = "there is no such thing as a load with `Release`";
/// What stores may not say.
const NO_STORE: &str = "there is no such thing as a store with `Acquire`";

/// `std::sync::atomic::fence`: an `mfence` if it is `SeqCst`. x86 keeps all other orders by itself.
///
/// # Panics
/// If the order is `Relaxed`, or if no CPU of a lab runs here.
#[track_caller]
pub fn fence(order: Ordering) {
    match order {
        Ordering::SeqCst => this_cpu().fence(),
        Ordering::Relaxed => panic!("there is no such thing as a relaxed fence"),
        _ => {}
    }
}

#[track_caller]
fn check_load(order: Ordering) {
    assert!(!matches!(order, Ordering::Release | Ordering::AcqRel), "{NO_LOAD}");
}

macro_rules! atomic_integer {
    ($name:ident, $value:ty, $word:ident, $held:ty) => {
        #[doc = concat!("`std::sync::atomic::", stringify!($name), "`. It lies in an [`Arena`](crate::Arena).")]
        ///
        /// Every operation panics if no CPU of a lab runs on this thread, and for orders that `std` refuses.
        #[repr(transparent)]
        pub struct $name($word);

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }

        impl From<$value> for $name {
            fn from(value: $value) -> Self {
                Self::new(value)
            }
        }

        impl $name {
            /// Holds `value`.
            pub const fn new(value: $value) -> Self {
                Self($word::new(value as $held))
            }

            /// The word: to give it a name ([`Lab::name`](crate::Lab::name)) and to read it in the end ([`End::read`](crate::End::read)).
            pub const fn word(&self) -> &$word {
                &self.0
            }

            /// A plain load.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                check_load(order);
                let cpu = this_cpu();
                cpu.noting_read(&self.0, cpu.load(&self.0)) as $value
            }

            /// A plain store; with `SeqCst` an `xchg`.
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                assert!(!matches!(order, Ordering::Acquire | Ordering::AcqRel), "{NO_STORE}");
                let cpu = this_cpu();
                match order {
                    Ordering::SeqCst => {
                        cpu.swap(&self.0, value as $held);
                    }
                    _ => cpu.store(&self.0, value as $held),
                }
                cpu.note_write();
            }

            /// An `xchg`.
            #[track_caller]
            pub fn swap(&self, value: $value, _: Ordering) -> $value {
                let cpu = this_cpu();
                cpu.noting_update(&self.0, cpu.swap(&self.0, value as $held), value as $held) as $value
            }

            /// A `lock cmpxchg`.
            ///
            /// # Errors
            /// The value found, if it is not `current`.
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                _success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                check_load(failure);
                let cpu = this_cpu();
                let done = cpu.compare_exchange(&self.0, current as $held, new as $held);
                match done {
                    Ok(old) => cpu.noting_update(&self.0, old, new as $held),
                    Err(found) => cpu.noting_read(&self.0, found),
                };
                done.map(|old| old as $value).map_err(|found| found as $value)
            }

            /// The same: on x86 it does not fail without a reason.
            ///
            /// # Errors
            /// The value found, if it is not `current`.
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            /// A `lock xadd`. Returns what was held before.
            #[track_caller]
            pub fn fetch_add(&self, value: $value, _: Ordering) -> $value {
                let value = value as $held;
                let cpu = this_cpu();
                let old = cpu.fetch_add(&self.0, value);
                cpu.noting_update(&self.0, old, old.wrapping_add(value)) as $value
            }

            /// A `lock xadd` of the opposite.
            #[track_caller]
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.fetch_add(value.wrapping_neg(), order)
            }

            /// A locked `and`.
            #[track_caller]
            pub fn fetch_and(&self, value: $value, _: Ordering) -> $value {
                let value = value as $held;
                let cpu = this_cpu();
                let old = cpu.fetch_and(&self.0, value);
                cpu.noting_update(&self.0, old, old & value) as $value
            }

            /// A locked `or`.
            #[track_caller]
            pub fn fetch_or(&self, value: $value, _: Ordering) -> $value {
                let value = value as $held;
                let cpu = this_cpu();
                let old = cpu.fetch_or(&self.0, value);
                cpu.noting_update(&self.0, old, old | value) as $value
            }

            /// A load, and `lock cmpxchg` until it succeeds, as compilers do it where x86 has no instruction that returns the old value.
            ///
            /// # Errors
            /// The value for which `update` returned nothing.
            #[track_caller]
            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                mut update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut seen = self.load(fetch);
                while let Some(next) = update(seen) {
                    match self.compare_exchange(seen, next, set, fetch) {
                        Ok(old) => return Ok(old),
                        Err(found) => seen = found,
                    }
                }
                Err(seen)
            }

            /// [`Self::fetch_update`] by exclusive or.
            #[track_caller]
            pub fn fetch_xor(&self, value: $value, _: Ordering) -> $value {
                self.fetched(|old| old ^ value)
            }

            /// [`Self::fetch_update`] to the greater of the two.
            #[track_caller]
            pub fn fetch_max(&self, value: $value, _: Ordering) -> $value {
                self.fetched(|old| old.max(value))
            }

            /// [`Self::fetch_update`] to the smaller of the two.
            #[track_caller]
            pub fn fetch_min(&self, value: $value, _: Ordering) -> $value {
                self.fetched(|old| old.min(value))
            }

            #[track_caller]
            fn fetched(&self, update: impl Fn($value) -> $value) -> $value {
                match self.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(update(old))) {
                    Ok(old) | Err(old) => old,
                }
            }
        }
    };
}

atomic_integer!(AtomicU32, u32, Word32, u32);
atomic_integer!(AtomicU64, u64, Word64, u64);
atomic_integer!(AtomicUsize, usize, Word64, u64);

/// `std::sync::atomic::AtomicBool`. It lies in an [`Arena`](crate::Arena), and takes 32 bits.
///
/// Every operation panics if no CPU of a lab runs on this thread, and for orders that `std` refuses.
#[derive(Default)]
#[repr(transparent)]
pub struct AtomicBool(AtomicU32);

impl From<bool> for AtomicBool {
    fn from(value: bool) -> Self {
        Self::new(value)
    }
}

impl AtomicBool {
    /// Holds `value`.
    pub const fn new(value: bool) -> Self {
        Self(AtomicU32::new(value as u32))
    }

    /// The word, as that of [`AtomicU32`]. It holds 0 or 1.
    pub const fn word(&self) -> &Word32 {
        self.0.word()
    }

    /// A plain load.
    #[track_caller]
    pub fn load(&self, order: Ordering) -> bool {
        self.0.load(order) != 0
    }

    /// A plain store; with `SeqCst` an `xchg`.
    #[track_caller]
    pub fn store(&self, value: bool, order: Ordering) {
        self.0.store(value.into(), order);
    }

    /// An `xchg`.
    #[track_caller]
    pub fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value.into(), order) != 0
    }

    /// A `lock cmpxchg`.
    ///
    /// # Errors
    /// The value found, if it is not `current`.
    #[track_caller]
    pub fn compare_exchange(
        &self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        let done = self.0.compare_exchange(current.into(), new.into(), success, failure);
        done.map(|old| old != 0).map_err(|found| found != 0)
    }

    /// The same: on x86 it does not fail without a reason.
    ///
    /// # Errors
    /// The value found, if it is not `current`.
    #[track_caller]
    pub fn compare_exchange_weak(
        &self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        self.compare_exchange(current, new, success, failure)
    }

    /// A locked `and`.
    #[track_caller]
    pub fn fetch_and(&self, value: bool, order: Ordering) -> bool {
        self.0.fetch_and(value.into(), order) != 0
    }

    /// A locked `or`.
    #[track_caller]
    pub fn fetch_or(&self, value: bool, order: Ordering) -> bool {
        self.0.fetch_or(value.into(), order) != 0
    }
}
