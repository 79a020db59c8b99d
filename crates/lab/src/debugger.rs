//! Places for a debugger to stop at while a run is done again.
//!
//! Both functions do nothing. Their names are stable and not mangled, so that `break fastgup_step` finds them in any program that uses the lab.

use std::ffi::{CStr, c_char};
use std::hint::black_box;

/// Before a step: its number from 1, the CPU, and what is going to happen, as text.
///
/// Called by [`crate::Lab::replay`] on its own stack. `x/s $rdx` shows the text where there is no debug information for it.
// SAFETY: nobody else has a function of this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fastgup_step(number: usize, cpu: usize, what: *const c_char) {
    black_box((number, cpu, what));
}

/// After a step of a CPU's code, on that code's own stack: `up` goes to the line that made the step, `next` goes on from there.
// SAFETY: nobody else has a function of this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fastgup_code(number: usize, cpu: usize) {
    black_box((number, cpu));
}

pub(crate) fn before_step(number: usize, cpu: usize, what: &CStr) {
    fastgup_step(number, cpu, what.as_ptr());
}
