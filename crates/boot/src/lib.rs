//! The kernel in `kernel/`, under QEMU: building an image, running it, understanding what it prints, and finding out why it stopped.
//!
//! | module | what |
//! |---|---|
//! | [`toolchain`] | a compiler that has a `core` for the image's target |
//! | [`image`] | the three images, and how they are built |
//! | [`qemu`] | the emulator: which one, with which arguments |
//! | [`console`] | what the kernel says |
//! | [`monitor`] | what QEMU says of a kernel that says nothing |
//! | [`mod@run`] | one run, with a watchdog |
//! | [`debian`] | a Linux to compare with, from Debian's packages |
//! | [`initramfs`] | what that Linux begins with |
//! | [`beside`] | our kernel and a Linux on the same machine, in turns, and the ratios |

#![forbid(unsafe_code)]

pub mod beside;
pub mod console;
pub mod debian;
pub mod image;
pub mod initramfs;
pub mod monitor;
pub mod qemu;
pub mod run;
pub mod toolchain;

pub use image::{ImageError, Mode};
pub use qemu::{Accelerator, Qemu, QemuError};
pub use run::{Ended, Machine, Report, RunError, run};
pub use toolchain::{Toolchain, ToolchainError};
