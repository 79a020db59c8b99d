//! A small SMP kernel whose only memory manager is the engine. README.md says how it is built, run and read.

#![no_std]
#![no_main]

mod arch;
mod console;
#[cfg(target_arch = "x86")]
mod memory_functions;
mod report;

use arch::{BareCpu, Exit};

/// The first CPU arrives here.
pub(crate) fn main(cpu: BareCpu) -> ! {
    use machine::Cpu;
    console::line!("fastgup kernel on {}", cpu.id());
    console::line!("@fastgup {{\"event\":\"end\",\"ok\":true}}");
    arch::exit(Exit::Well)
}
