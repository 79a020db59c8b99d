//! A small SMP kernel whose only memory manager is the engine. README.md says how it is built, run and read.

#![no_std]
#![no_main]

mod arch;
mod card;
mod check;
mod command_line;
mod console;
mod crew;
mod data_frames;
mod loads;
mod memory;
#[cfg(target_arch = "x86")]
mod memory_functions;
mod random;
mod report;
mod system;
mod table_frames;

use arch::BareCpu;
use command_line::Request;
use console::line;
use pagetable::Mode;
use system::System;

/// The first CPU arrives here.
pub(crate) fn main(cpu: BareCpu) -> ! {
    let request = Request::parse(arch::command_line()).unwrap_or_else(|bad| report::refuse(bad));
    let loads = loads::named(request.load).unwrap_or_else(|unknown| report::refuse(unknown));
    let system = System::build(&cpu);
    let cpus = arch::start_others(crew::member);
    let mode = arch::mode();
    line!("fastgup kernel: {}, {cpus} CPUs, {} MiB", mode.name(), system.memory >> 20);
    line!(
        "@fastgup {{\"event\":\"boot\",\"mode\":\"{}\",\"cpus\":{cpus},\"memory\":{}}}",
        arch::MODE_NAME,
        system.memory
    );
    let verdict = check::run(&cpu, system, request.checks, request.seed);
    let verdict = loads.fold(verdict, |verdict, load| verdict.and((load.run)(&cpu, system, &request)));
    report::end(verdict)
}
