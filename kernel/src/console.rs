//! The console: lines for people, and lines for programs ([`crate::report`]). Whole lines, whichever CPU writes.

use core::fmt::{Arguments, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch::Serial;

static BUSY: AtomicBool = AtomicBool::new(false);

/// Writes a line.
pub(crate) fn write_line(text: Arguments<'_>) {
    while BUSY.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    // The serial port never fails.
    let _ = writeln!(Serial, "{text}");
    BUSY.store(false, Ordering::Release);
}

/// Writes a line when all is lost: whoever was writing may never end.
pub(crate) fn write_last_line(text: Arguments<'_>) {
    let _ = writeln!(Serial, "{text}");
}

/// Writes a line, formatted as by `format_args`.
macro_rules! line {
    ($($arguments:tt)*) => {
        $crate::console::write_line(format_args!($($arguments)*))
    };
}
pub(crate) use line;
