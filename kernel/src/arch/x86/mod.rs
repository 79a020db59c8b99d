//! x86: 32-bit with PAE, or long mode with four or five levels.

mod acpi;
mod apic;
mod boot;
mod cpu;
mod descriptors;
mod paging;
mod port;
mod serial;
mod start;
mod time;
mod trap;
mod user;

pub(crate) use boot::{Memory, boot_memory, command_line};
pub(crate) use cpu::{BareCpu, CpuState, MAX_CPUS};
pub(crate) use paging::{PagingMode, Plain, Read, Write, at_physical, install_kernel, mode, memory_limit, reach};
pub(crate) use serial::Serial;
pub(crate) use start::start_others;
pub(crate) use time::{now, nanoseconds};
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
