//! The result of a load, written to its place in a document.

use std::fmt::Write;
use std::path::Path;

use boot::{Ended, Mode, Qemu, Report};
use measured::{Destination, Host};

use crate::arguments::{self, Boot};
use crate::failure::Failure;
use crate::show::number::Count;

/// Where a run is written down, looked for before it is begun.
pub(super) struct Record {
    destination: Destination,
    host: Host,
    load: String,
}

impl Record {
    /// Finds the place `boot MODE LOAD` in a document.
    pub(super) fn find(path: &Path, arguments: &Boot, mode: Mode) -> Result<Self, Failure> {
        if matches!(arguments.load.as_str(), "all" | "none") {
            return Err(Failure::Usage {
                problem: format!("--markdown writes down one load, not {}", arguments.load),
                remedy: "name a load: --load torn".to_owned(),
            });
        }
        let place = format!("boot {} {}", mode.name(), arguments.load);
        let destination = Destination::find(path, &place).map_err(Failure::Boot)?;
        Ok(Self { destination, host: Host::here(command(arguments, mode)), load: arguments.load.clone() })
    }

    /// Writes it down, unless it did not end well: that is no measurement.
    pub(super) fn write(&self, report: &Report) -> Result<(), Failure> {
        let counted = report.results.iter().find(|counted| counted.load == self.load);
        let Some(counted) = counted.filter(|_| report.ended == Ended::Well) else { return Ok(()) };
        let mut text = format!("\n{}\n{}, {}; ", self.host.markdown(), emulator(), report.accelerator);
        let width = counted.counts.keys().map(String::len).max().unwrap_or(0);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{} CPUs, {:.1} s in all, all is well.\n\n```text\n",
            report.cpus.unwrap_or(0),
            report.seconds
        );
        for (name, count) in &counted.counts {
            let _ = writeln!(text, "{name:width$} {:>12}", Count(*count));
        }
        text.push_str("```\n\n");
        self.destination.write(&text).map_err(Failure::Boot)
    }
}

/// What to type to do it again: what decides on the run.
fn command(arguments: &Boot, mode: Mode) -> String {
    let Boot { cpus, load, ops, seed, .. } = arguments;
    let release = if arguments.release { " --release" } else { "" };
    let common = common(arguments);
    format!(
        "fastgup boot --mode {} --cpus {cpus} --load {load} --ops {ops} --seed {seed}{release}{common}",
        mode.name()
    )
}

/// The part of a command line that says which machine it is, where the user says so.
pub(super) fn common(arguments: &Boot) -> String {
    let mut text = String::new();
    if let Some(memory) = arguments.memory {
        text.push_str(&format!(" --memory {memory}"));
    }
    if arguments.accel != arguments::Accel::Tcg {
        text.push_str(&format!(" --accel {}", super::accelerator_of(arguments.accel).name()));
    }
    if let Some(model) = &arguments.model {
        text.push_str(&format!(" --model {model}"));
    }
    text
}

/// What executed it, for people.
pub(super) fn emulator() -> String {
    Qemu::find().map_or_else(|error| error.to_string(), |qemu| qemu.to_string())
}
