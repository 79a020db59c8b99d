//! What this program asks of Linux: system calls, each with what the caller needs of it. Numbers from the kernel's published interface (man-pages: syscalls(2)).

mod call;
mod memory;
mod pin;
mod process;

use core::fmt;

use call::{Number, call};
pub(crate) use memory::{Mapping, PAGE, faults};
pub(crate) use pin::{Pipe, Registration};
pub(crate) use process::{cpus, fork, start_thread, stay_on, wait_for};

/// Linux refuses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    what: &'static str,
    /// `errno`, or 0 if it did less than it was asked for.
    error: usize,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux refuses {}: errno {}", self.what, self.error)
    }
}

/// What a call returned, or why it did not.
fn checked(what: &'static str, returned: isize) -> Result<usize, Refused> {
    // Errors are -4095 to -1; addresses of a 32-bit process may look negative, too.
    if (-4095..0).contains(&returned) {
        Err(Refused { what, error: returned.unsigned_abs() })
    } else {
        Ok(returned as usize)
    }
}

/// The cheapest call there is.
pub(crate) fn empty_call() -> Result<(), Refused> {
    // SAFETY: returns a number.
    checked("getppid", unsafe { call(Number::GETPPID, [0; 6]) }).map(drop)
}

/// Writes to the console.
pub(crate) fn write_console(bytes: &[u8]) {
    // SAFETY: reads the bytes. There is nobody to tell if it fails.
    let _ = unsafe { call(Number::WRITE, [1, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) };
}

/// Linux's monotonic clock.
pub(crate) fn nanoseconds() -> Result<u64, Refused> {
    const MONOTONIC: usize = 1;
    let mut time = [0_usize; 2];
    // SAFETY: writes two words.
    let returned = unsafe { call(Number::CLOCK_GETTIME, [MONOTONIC, time.as_mut_ptr() as usize, 0, 0, 0, 0]) };
    checked("clock_gettime", returned)?;
    Ok(time[0] as u64 * 1_000_000_000 + time[1] as u64)
}

/// Usable memory, in bytes.
pub(crate) fn memory() -> Result<u64, Refused> {
    // Uptime and three loads, then the total; the unit is behind the number of processes, and is 1 where memory is below 4 GiB.
    let mut info = [0_usize; 32];
    // SAFETY: the structure is 64 bytes long in a 32-bit process, 112 in a 64-bit one.
    checked("sysinfo", unsafe { call(Number::SYSINFO, [info.as_mut_ptr() as usize, 0, 0, 0, 0, 0]) })?;
    Ok(info[4] as u64)
}

/// Ends the machine by QEMU's device for that, or stays here.
pub(crate) fn end_machine(code: u32) -> ! {
    const PORT: u16 = 0xf4;
    const WAIT_UNTIL_WRITTEN: usize = 0x5409;
    // SAFETY: waits (`tcdrain`): lines are on their way yet.
    let _ = unsafe { call(Number::IOCTL, [1, WAIT_UNTIL_WRITTEN, 1, 0, 0, 0]) };
    // SAFETY: lets this process write to four ports, which are of that device.
    let returned = unsafe { call(Number::IOPERM, [usize::from(PORT), 4, 1, 0, 0, 0]) };
    if checked("ioperm", returned).is_ok() {
        // SAFETY: the device accesses no memory.
        unsafe { core::arch::asm!("out dx, eax", in("dx") PORT, in("eax") code, options(nomem, nostack)) };
    }
    loop {
        core::hint::spin_loop();
    }
}
