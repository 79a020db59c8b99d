//! What a run came to, for people and as JSON.

use std::io::{self, Write};

use boot::console::{Counted, Fault};
use boot::{Ended, Report};
use serde::Serialize;

use super::lab::Beside;
use crate::arguments::Boot;
use crate::show::number::Count;
use crate::show::palette::{ASIDE, BROKEN, HEADING, SAFE, UNDECIDED};

#[derive(Serialize)]
struct Object<'r> {
    #[serde(flatten)]
    report: &'r Report,
    #[serde(skip_serializing_if = "<[Beside]>::is_empty")]
    beside_the_lab: &'r [Beside],
}

pub(super) fn print(arguments: &Boot, report: &Report, beside: &[Beside]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &Object { report, beside_the_lab: beside })?;
        writeln!(out)?;
        return out.flush();
    }
    write!(out, "{HEADING}{}{HEADING:#}", report.mode)?;
    if let (Some(cpus), Some(seconds)) = (report.cpus, report.boot_seconds) {
        write!(out, "{ASIDE}, {cpus} CPUs, {}, up in {seconds:.1} s{ASIDE:#}", report.accelerator)?;
    }
    writeln!(out)?;
    for counted in &report.results {
        result(&mut out, counted)?;
    }
    if !beside.is_empty() {
        writeln!(
            out,
            "  mixtures of two values of an entry, per million reads, and what the lab says of the same question:"
        )?;
        for Beside { reader, mixtures, per_million, lab } in beside {
            writeln!(out, "    {reader:14} {per_million:12.3}  {ASIDE}({}){ASIDE:#}  {lab}", Count(*mixtures))?;
        }
    }
    match &report.ended {
        Ended::Well => writeln!(out, "  {SAFE}all is well{SAFE:#}{ASIDE}, {:.1} s{ASIDE:#}", report.seconds)?,
        Ended::NotWell => writeln!(out, "  {BROKEN}not well{BROKEN:#}: see above")?,
        Ended::Refused { message } => writeln!(out, "  {UNDECIDED}refused{UNDECIDED:#}: {message}")?,
        Ended::Fault(where_) => fault(&mut out, "stopped", where_, report)?,
        Ended::Reset(where_) => fault(&mut out, "reset", where_, report)?,
        Ended::Hung(where_) => fault(&mut out, "hangs", where_, report)?,
        Ended::Lost { message } => {
            writeln!(out, "  {BROKEN}lost{BROKEN:#}: {message}")?;
            said(&mut out, report)?;
        }
        Ended::Cancelled => writeln!(out, "  {UNDECIDED}ended by Ctrl-C{UNDECIDED:#} after {:.1} s", report.seconds)?,
    }
    out.flush()
}

fn result(out: &mut dyn Write, counted: &Counted) -> io::Result<()> {
    let (style, word) = if counted.ok { (SAFE, "ok") } else { (BROKEN, "WRONG") };
    write!(out, "  {:10} {style}{word:5}{style:#}", counted.load)?;
    for (name, count) in &counted.counts {
        write!(out, "  {ASIDE}{name}{ASIDE:#} {}", Count(*count))?;
    }
    writeln!(out)
}

fn fault(out: &mut dyn Write, how: &str, fault: &Fault, report: &Report) -> io::Result<()> {
    writeln!(out, "  {BROKEN}{how}{BROKEN:#}: {}", fault.message)?;
    let registers: Vec<String> = fault.registers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    for line in registers.chunks(4) {
        writeln!(out, "    {}", line.join("  "))?;
    }
    if !fault.walk.is_empty() {
        writeln!(out, "    walk: {}", fault.walk.join(", "))?;
    }
    said(out, report)
}

/// The last lines of the kernel for people.
fn said(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    report.said.iter().try_for_each(|line| writeln!(out, "    | {line}"))
}
