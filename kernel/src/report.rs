//! What programs read: lines that begin with `@fastgup ` and go on with one JSON object.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use machine::VirtAddr;
use pagetable::{Level, walk};

use crate::arch::{self, BareCpu, Exit, Plain, Serial};
use crate::console::{line, write_last_line};
use crate::system;

/// Text inside a JSON string.
struct Text<T>(T);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|letter| match letter {
                    '"' | '\\' => write!(self.0, "\\{letter}"),
                    '\0'..='\x1f' => self.0.write_str(" "),
                    _ => self.0.write_char(letter),
                })
            }
        }
        write!(Escape(f), "{}", self.0)
    }
}

/// How far a load is.
pub(crate) fn progress(load: &str, done: u64, of: u64) {
    line!("@fastgup {{\"event\":\"progress\",\"load\":\"{load}\",\"done\":{done},\"of\":{of}}}");
}

/// Whether a claim held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Well,
    NotWell,
}

impl Verdict {
    pub(crate) fn of(holds: bool) -> Self {
        if holds { Self::Well } else { Self::NotWell }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::Well { other } else { self }
    }
}

/// What a load counted.
pub(crate) fn result(load: &str, verdict: Verdict, counts: &[(&str, u64)]) -> Verdict {
    struct Counts<'a>(&'a [(&'a str, u64)]);
    impl fmt::Display for Counts<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|(name, count)| write!(f, ",\"{name}\":{count}"))
        }
    }
    let ok = verdict == Verdict::Well;
    line!("@fastgup {{\"event\":\"result\",\"load\":\"{load}\",\"ok\":{ok}{}}}", Counts(counts));
    verdict
}

/// Ends the machine, with the last line.
pub(crate) fn end(verdict: Verdict) -> ! {
    let ok = verdict == Verdict::Well;
    line!("@fastgup {{\"event\":\"end\",\"ok\":{ok}}}");
    arch::exit(if ok { Exit::Well } else { Exit::NotWell })
}

/// Something is wrong with what was asked for, or with the machine: says so in one line, and ends the machine.
pub(crate) fn refuse(what: impl fmt::Display) -> ! {
    line!("fastgup: {what}");
    line!("@fastgup {{\"event\":\"panic\",\"message\":\"{}\"}}", Text(what));
    end(Verdict::NotWell)
}

/// An unexpected trap: says what the registers held and which entries a walk for the address reads, and ends the machine.
pub(crate) fn fault(
    cpu: &BareCpu,
    vector: u8,
    address: u64,
    root: u64,
    registers: impl Iterator<Item = (&'static str, u64)>,
) -> ! {
    write_last_line(format_args!("unexpected trap {vector}, address {address:#x}, root {root:#x}"));
    let mut out = Serial;
    let _ = write!(
        out,
        "@fastgup {{\"event\":\"fault\",\"message\":\"unexpected trap {vector}, address {address:#x}\",\"registers\":{{"
    );
    for (index, (name, value)) in registers.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\"{name}\":\"{value:#x}\"");
    }
    let _ = write!(out, "}},\"walk\":[");
    if let (Some(system), Some(root)) = (system::system(), system::root_at(root)) {
        let reader = pagetable::ReadOnce::<Plain>::new();
        let path = walk::lookup(cpu, &arch::mode(), system.tables, &reader, root, VirtAddr::new(address));
        let entries = Level::ALL.iter().rev().filter_map(|level| Some((level, path.entry(*level)?)));
        for (index, (level, entry)) in entries.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(out, "{comma}\"{level} {:#x}\"", entry.bits());
        }
    }
    let _ = writeln!(out, "]}}");
    end_badly()
}

fn end_badly() -> ! {
    write_last_line(format_args!("@fastgup {{\"event\":\"end\",\"ok\":false}}"));
    arch::exit(Exit::NotWell)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    write_last_line(format_args!("panic: {info}"));
    write_last_line(format_args!("@fastgup {{\"event\":\"panic\",\"message\":\"{}\"}}", Text(info)));
    end_badly()
}
