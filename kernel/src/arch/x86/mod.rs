//! x86: 32-bit with PAE, or long mode with four or five levels.

mod acpi;
mod apic;
mod boot;
mod cpu;
mod descriptors;
mod paging;
mod port;
mod protection_keys;
mod serial;
mod start;
mod time;
mod trap;
mod user;

pub(crate) use boot::{Memory, boot_memory, command_line};
pub(crate) use cpu::{BareCpu, MAX_CPUS, Patience, copy_words, sleep_unless, wake};
pub(crate) use paging::{
    MODE_NAME, PagingMode, Plain, Read, Write, at_physical, has_gigabyte_pages, install_kernel, mode, reach,
};
pub(crate) use protection_keys::available as has_protection_keys;
pub(crate) use serial::Serial;
pub(crate) use start::start_others;
pub(crate) use time::{nanoseconds, now};
pub(crate) use trap::set_handler;
pub(crate) use user::{Outcome, UserCall, fault_bits};

/// The exit codes of QEMU's isa-debug-exit, as they are written to its port.
pub(crate) enum Exit {
    /// All is well.
    Well = 0x10,
    /// It is not.
    NotWell = 0x11,
}

/// Ends the machine.
pub(crate) fn exit(code: Exit) -> ! {
    port::out32(0xf4, code as u32);
    // No such device: stay here, so that the serial console can be read.
    loop {
        halt_for_ever();
    }
}

fn halt_for_ever() {
    // SAFETY: stops this CPU until an NMI; nothing is accessed.
    unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
}
