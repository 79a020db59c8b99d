//! Processes, threads and CPUs.

use core::cell::UnsafeCell;

use super::call::{self, Number, call};
use super::{Refused, checked};

const STACK: usize = 16 << 10;

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; STACK]>);

// SAFETY: nothing here but an address; the second thread alone uses it.
unsafe impl Sync for Stack {}

static STACK_BESIDE: Stack = Stack(UnsafeCell::new([0; STACK]));

/// Starts the second thread, once.
pub(crate) fn start_thread() -> Result<(), Refused> {
    /// Address space, root directory, files, signals and the process itself are shared, as of any thread.
    const SHARED: usize = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000;
    let end = STACK_BESIDE.0.get() as usize + STACK;
    // SAFETY: the stack is its own: this function is called once.
    checked("clone", unsafe { call::start(SHARED, end) }).map(drop)
}

/// Makes a child, which ends at once, and returns its number.
pub(crate) fn fork() -> Result<usize, Refused> {
    // SAFETY: the child has a copy of everything.
    let child = checked("fork", unsafe { call(Number::FORK, [0; 6]) })?;
    if child == 0 {
        // SAFETY: ends the child.
        let _ = unsafe { call(Number::EXIT, [0; 6]) };
    }
    Ok(child)
}

/// Waits until a child has ended.
pub(crate) fn wait_for(child: usize) -> Result<(), Refused> {
    // SAFETY: writes nothing.
    checked("wait4", unsafe { call(Number::WAIT4, [child, 0, 0, 0, 0, 0]) }).map(drop)
}

/// Lets the calling thread, and its children, run on one CPU only.
pub(crate) fn stay_on(cpu: usize) -> Result<(), Refused> {
    let set = 1_usize << cpu;
    let arguments = [0, size_of::<usize>(), &raw const set as usize, 0, 0, 0];
    // SAFETY: reads the set.
    checked("sched_setaffinity", unsafe { call(Number::SCHED_SETAFFINITY, arguments) }).map(drop)
}

/// How many CPUs this process may run on.
pub(crate) fn cpus() -> usize {
    let mut set = [0_u64; 128];
    let arguments = [0, size_of_val(&set), set.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: writes the set, at most its size.
    let returned = unsafe { call(Number::SCHED_GETAFFINITY, arguments) };
    if checked("sched_getaffinity", returned).is_err() {
        return 1;
    }
    set.iter().map(|word| word.count_ones() as usize).sum()
}
