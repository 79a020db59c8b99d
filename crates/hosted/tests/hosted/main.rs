//! The tests of the package from outside, in one program: each program compiles and links what it tests anew.

// Where loom explores, threads run inside of its models only.
#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod cpus;
#[cfg(not(loom))]
mod data_frames;
#[cfg(not(loom))]
mod grace_periods;
#[cfg(not(loom))]
mod interrupts;
#[cfg(loom)]
mod loom;
