//! What depends on the architecture. Everything else in this kernel is written on `machine` and on what is named here.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod x86;

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub(crate) use x86::*;
