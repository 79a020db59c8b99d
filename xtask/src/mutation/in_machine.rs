//! Which mutant is active, and which are reached. This is compiled into `machine` in the copy that has all mutants in it, and nowhere else.
//!
//! `FASTGUP_MUTANT` is the number of the active one. `FASTGUP_MUTANT_REACHED` names a file with a byte for each; it is mapped, and a byte becomes 1 when
//! its mutant is asked for.

use core::ffi::{c_char, c_int, c_long, c_void};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU8, Ordering::Relaxed};

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn lseek(file: c_int, offset: c_long, whence: c_int) -> c_long;
    fn mmap(at: *mut c_void, bytes: usize, rights: c_int, flags: c_int, file: c_int, offset: c_long) -> *mut c_void;
}

/// The active one. 0: none; [`RECORDING`]: none, and who asks is written down.
static ACTIVE: AtomicU32 = AtomicU32::new(0);
const RECORDING: u32 = u32::MAX;

static REACHED: AtomicPtr<AtomicU8> = AtomicPtr::new(core::ptr::null_mut());
static REACHED_BYTES: AtomicU32 = AtomicU32::new(0);

/// Before `main`: nothing of the engine has run by then, so that nothing has to ask whether the environment was read.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = read_environment;

extern "C" fn read_environment() {
    unsafe {
        let mut digits = getenv(c"FASTGUP_MUTANT".as_ptr());
        let mut active = 0;
        while !digits.is_null() && (*digits as u8).is_ascii_digit() {
            active = active * 10 + u32::from(*digits as u8 - b'0');
            digits = digits.add(1);
        }
        let file = getenv(c"FASTGUP_MUTANT_REACHED".as_ptr());
        if !file.is_null() {
            let (read_write, set_end, shared) = (2, 2, 1);
            let file = open(file, read_write);
            let bytes = lseek(file, 0, set_end);
            let at = mmap(core::ptr::null_mut(), bytes as usize, 1 | 2, shared, file, 0);
            assert!(file >= 0 && bytes > 0 && at as isize != -1, "FASTGUP_MUTANT_REACHED cannot be mapped");
            REACHED_BYTES.store(bytes as u32, Relaxed);
            REACHED.store(at.cast(), Relaxed);
            active = RECORDING;
        }
        ACTIVE.store(active, Relaxed);
    }
}

/// Whether mutant `id` is active. Never while the compiler evaluates a constant.
#[inline(always)]
pub const fn on(id: u32) -> bool {
    core::intrinsics::const_eval_select((id,), in_constants, at_run_time)
}

const fn in_constants(_: u32) -> bool {
    false
}

#[inline(always)]
fn at_run_time(id: u32) -> bool {
    let active = ACTIVE.load(Relaxed);
    if active == RECORDING {
        record(id);
    }
    active == id
}

#[cold]
#[inline(never)]
fn record(id: u32) {
    if id < REACHED_BYTES.load(Relaxed) {
        unsafe { (*REACHED.load(Relaxed).add(id as usize)).store(1, Relaxed) };
    }
}
