//! Atomics and a lock with the interfaces of `std`, for code that is written against those: `use lab::sync::atomic::AtomicU64` instead of `use std::sync::atomic::AtomicU64`.
//!
//! They act as the CPU of the lab whose code calls them, which nobody has to hand around. They live in the [`Arena`](crate::Arena), as words do. What an operation does is what compilers make of it for
//! x86: loads, and stores up to `Release`, are plain instructions; a `SeqCst` store is an `xchg`; read-modify-writes are locked; `fence(SeqCst)` is an `mfence`, and weaker fences are nothing. So `Ordering`s are
//! checked as far as x86 shows them. Where a weaker one would do on x86 and not elsewhere, nothing is found, and neither is what a compiler could make of `Relaxed`.
//!
//! | instead of | write | difference |
//! |---|---|---|
//! | `std::sync::atomic` | [`atomic`](mod@atomic) | no `AtomicPtr`: an address is another one in another run. Keep an index |
//! | `std::sync::Mutex<T>` | [`Mutex<T>`](Mutex) | the guard lends `&T`; what changes in it is a [`Cell`](cell::Cell) or an atomic |
//! | `std::hint::spin_loop` | [`hint::spin_loop`] | waits until the word that the loop looks at changes |
//!
//! Code on `machine::Cpu` says more ([`machine::Cpu::await_value`], interrupts, TLBs) and runs on every machine. This is for code that is not ours to change.

pub mod atomic;
pub mod cell;
mod mutex;
mod spin;

use std::cell::Cell;
use std::ptr;

use crate::agent;
use crate::cpu::LabCpu;

pub use mutex::{Mutex, MutexGuard};
pub(crate) use spin::Spin;

/// What a loop says while it spins.
pub mod hint {
    pub use super::spin::spin_loop;
}

thread_local! {
    /// The CPU as which this thread sets a machine up.
    static BOOTING: Cell<*const LabCpu> = const { Cell::new(ptr::null()) };
}

/// Code that sets a machine up acts as this CPU while it lives.
pub(crate) struct Booting<'c> {
    before: *const LabCpu,
    _cpu: &'c LabCpu,
}

impl<'c> Booting<'c> {
    pub(crate) fn new(cpu: &'c LabCpu) -> Self {
        Self { before: BOOTING.replace(cpu), _cpu: cpu }
    }
}

impl Drop for Booting<'_> {
    fn drop(&mut self) {
        BOOTING.set(self.before);
    }
}

/// The CPU whose code this is. For the one operation that asks for it: it must not be kept.
///
/// # Panics
/// If no CPU of a lab runs on this thread.
#[track_caller]
fn this_cpu<'c>() -> &'c LabCpu {
    let cpu = agent::running().unwrap_or_else(|| BOOTING.get());
    assert!(!cpu.is_null(), "no CPU of a lab runs here: set up with `Lab::boot`, and read the end with `End::read`");
    // SAFETY: the value lies on the stack of the code that runs (see `agent::run`), or is borrowed by the `Booting` that lives; it outlives the operation that was called from there.
    unsafe { &*cpu }
}
