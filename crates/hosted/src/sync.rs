//! Atomics and waiting: the real ones, or loom's while it explores the protocols ([`crate::interrupts`], [`crate::grace`]).

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
    thread::yield_now,
};

#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, compiler_fence, fence},
    thread::yield_now,
};

/// Loom reorders nothing at compile time.
#[cfg(loom)]
pub(crate) fn compiler_fence(_: Ordering) {}
