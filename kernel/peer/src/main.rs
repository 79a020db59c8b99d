//! The first and only process of a Linux beside which the kernel's load `bench` is measured: does the same work by system calls, says what it took in the
//! kernel's own words (README.md, "The console"), and ends the machine as the kernel does.
//!
//! There is no C library: a static program of a few kilobytes, built as the kernel is.

#![no_std]
#![no_main]

mod clock;
mod linux;
#[cfg(target_arch = "x86")]
#[path = "../../src/memory_functions.rs"]
mod memory_functions;
mod say;
mod work;

use core::panic::PanicInfo;

use say::line;

/// The paging mode of the Linux that runs this; four or five levels it does not know.
const MODE_NAME: &str = if cfg!(target_arch = "x86") { "pae" } else { "x86_64" };

/// The process begins here, with a stack that is aligned.
///
/// # Safety
/// Called once, by the entry code in `linux.rs`.
#[unsafe(no_mangle)]
unsafe extern "C" fn peer_main() -> ! {
    let cpus = linux::cpus();
    line!(
        "@fastgup {{\"event\":\"boot\",\"mode\":\"{MODE_NAME}\",\"cpus\":{cpus},\"memory\":{}}}",
        linux::memory().unwrap_or(0)
    );
    let measured = clock::Clock::calibrate().and_then(|clock| work::measure(&clock, cpus));
    match measured {
        Ok(measured) => say::result(&measured),
        Err(refused) => say::panic(format_args!("{refused}")),
    }
    end(measured.is_ok())
}

/// The last line, and the end of the machine.
fn end(ok: bool) -> ! {
    line!("@fastgup {{\"event\":\"end\",\"ok\":{ok}}}");
    linux::end_machine(if ok { 0x10 } else { 0x11 })
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say::panic(format_args!("{info}"));
    end(false)
}
