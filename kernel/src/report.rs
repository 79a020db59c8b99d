//! What programs read: lines that begin with `@fastgup ` and go on with one JSON object.

use core::fmt::Write;
use core::panic::PanicInfo;

use crate::arch::{self, BareCpu, Exit, Serial};
use crate::console::write_last_line;

/// An unexpected trap: says what the registers held and which entries a walk for the address reads, and ends the machine.
pub(crate) fn fault(
    _cpu: &BareCpu,
    vector: u8,
    address: u64,
    root: u64,
    registers: impl Iterator<Item = (&'static str, u64)>,
) -> ! {
    write_last_line(format_args!("unexpected trap {vector} at {address:#x}"));
    let mut out = Serial;
    let _ = write!(out, "@fastgup {{\"event\":\"fault\",\"message\":\"unexpected trap {vector}, address {address:#x}\",\"registers\":{{");
    for (index, (name, value)) in registers.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\"{name}\":\"{value:#x}\"");
    }
    let _ = writeln!(out, "}},\"walk\":[\"{root:#x}\"]}}");
    end_badly()
}

fn end_badly() -> ! {
    write_last_line(format_args!("@fastgup {{\"event\":\"end\",\"ok\":false}}"));
    arch::exit(Exit::NotWell)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    write_last_line(format_args!("panic: {info}"));
    end_badly()
}
