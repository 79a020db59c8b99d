//! The cores that measure.

use rustix::thread::{CpuSet, sched_setaffinity};

/// Lets the calling thread, and those it starts from here on, run on any core again.
pub(crate) fn leave_core() {
    let mut cores = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|core| cores.set(core));
    set_cores(&cores);
}

/// Ties the calling thread to one core.
///
/// Fails where the process may not use that core; then the operating system decides.
pub(crate) fn pin_to_core(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    set_cores(&cores);
}

fn set_cores(cores: &CpuSet) {
    if let Err(error) = sched_setaffinity(None, cores) {
        eprintln!("cannot choose cores: {error}");
    }
}
