//! `fastgup boot --beside-linux`: our kernel and Debian's on the same machine.

use std::fmt::Write as _;
use std::io::{self, Write};

use boot::beside::{Compared, Contestant, Pair, Row, compare};
use boot::debian::Linux;
use boot::image::Profile;
use boot::{Mode, initramfs};
use measured::{Destination, Host};
use serde::Serialize;

use super::bar::Bar;
use super::{exit_of, machine, mode_of, record, show, target};
use crate::arguments::Boot;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::show::palette::{ASIDE, BROKEN, HEADING, SAFE};

/// Below 512 MiB that Linux can use it has no huge pages.
const MEBIBYTES: u32 = 768;
/// Our kernel's self-check is not what is measured.
const WORDS: &str = "load=bench checks=1000";
/// Its place in a document.
const PLACE: &str = "beside linux";

/// One mode, measured.
#[derive(Serialize)]
struct Table {
    mode: &'static str,
    linux: String,
    rows: Vec<Row>,
}

/// Measures both, and prints both.
pub(super) fn run(arguments: &Boot) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    let destination =
        arguments.markdown.as_deref().map(|path| Destination::find(path, PLACE)).transpose().map_err(Failure::Boot)?;
    let host = Host::here(command(arguments));
    let modes = arguments.mode.map_or_else(|| vec![Mode::Pae, Mode::X86_64], |mode| vec![mode_of(mode)]);
    let mut tables = Vec::new();
    for mode in modes {
        let linux = match &arguments.linux {
            Some(file) => Linux::from_file(file),
            None => Linux::of_debian(mode, &target()),
        };
        let linux = linux.map_err(|error| Failure::Boot(error.to_string()))?;
        let bar = Bar::new();
        bar.says(format!("building the {} image", mode.name()));
        let pair = pair(arguments, mode, &linux)?;
        let compared = compare(
            &pair,
            arguments.turns.get(),
            &interrupt.flag(),
            |who, turn| {
                bar.says(format!("{} on {}, turn {} of {}", who.name(), mode.name(), turn + 1, arguments.turns))
            },
            |_| (),
        );
        drop(bar);
        match compared.map_err(|error| Failure::Boot(error.to_string()))? {
            Compared::Both(rows) => tables.push(Table { mode: mode.name(), linux: linux.name, rows }),
            Compared::Ended { who, report } => {
                writeln!(io::stderr(), "{} did not do all of the work:", who.name())?;
                show::print(arguments, &report, &[])?;
                return Ok(exit_of(&report.ended));
            }
            Compared::Missing { who, count } => {
                return Err(Failure::Boot(format!("{} did not say {count}", who.name())));
            }
        }
        print(arguments, tables.last())?;
    }
    if let Some(destination) = destination {
        destination.write(&markdown(arguments, &host, &tables)).map_err(Failure::Boot)?;
    }
    Ok(Exit::AsExpected)
}

/// The two machines.
fn pair(arguments: &Boot, mode: Mode, linux: &Linux) -> Result<Pair, Failure> {
    let failed = |error: boot::ImageError| Failure::Boot(error.to_string());
    let image = boot::image::build(mode, Profile::Release, &target()).map_err(failed)?;
    let program = boot::image::build_peer(mode, &target()).map_err(failed)?;
    let archive = program.with_extension("cpio");
    initramfs::write(&program, &archive).map_err(|cause| Failure::Write { path: archive.clone(), cause })?;
    let ours = machine(arguments, mode, image, WORDS.to_owned(), MEBIBYTES);
    Ok(Pair::with_linux(ours, linux.image.clone(), archive))
}

/// What to type to do it again.
fn command(arguments: &Boot) -> String {
    let mut text = format!("fastgup boot --beside-linux --cpus {} --turns {}", arguments.cpus, arguments.turns);
    if let Some(mode) = arguments.mode {
        let _ = write!(text, " --mode {}", mode_of(mode).name());
    }
    text + &record::common(arguments)
}

fn print(arguments: &Boot, table: Option<&Table>) -> io::Result<()> {
    let Some(table) = table else { return Ok(()) };
    let mut out = anstream::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, table)?;
        writeln!(out)?;
        return out.flush();
    }
    let Table { mode, linux, rows } = table;
    writeln!(out, "{HEADING}{mode}{HEADING:#}, fastgup beside {linux}, {}", on(arguments))?;
    writeln!(out, "  {:32} {:>12} {:>12}  times as fast", "", Contestant::Ours.name(), Contestant::Linux.name())?;
    for row in rows {
        let Row { what, ours_ns, linux_ns, ratio, .. } = row;
        let style = if is_missed(row) { BROKEN } else { SAFE };
        write!(out, "  {what:32} {:>9} ns {:>9} ns  ", nanoseconds(*ours_ns), nanoseconds(*linux_ns))?;
        writeln!(out, "{style}{ratio:8.2}{style:#}  {ASIDE}{}{ASIDE:#}", wanted(row))?;
    }
    out.flush()
}

fn on(arguments: &Boot) -> String {
    let Boot { cpus, turns, .. } = arguments;
    let memory = arguments.memory.map_or(MEBIBYTES, std::num::NonZeroU32::get);
    format!("{}, {cpus} CPUs, {memory} MiB; the best of {turns} runs each", record::emulator())
}

fn is_missed(row: &Row) -> bool {
    row.target.is_some_and(|target| row.ratio < target)
}

/// By what Linux did it, and what was wanted.
fn wanted(row: &Row) -> String {
    match row.target {
        Some(target) if is_missed(row) => format!("{}; {target} was wanted", row.linux_by),
        _ => row.linux_by.to_owned(),
    }
}

fn nanoseconds(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn markdown(arguments: &Boot, host: &Host, tables: &[Table]) -> String {
    let mut text = format!("\n{}\n{}.\n", host.markdown(), on(arguments));
    for Table { mode, linux, rows } in tables {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n#### {mode}, beside {linux}\n\n| | fastgup [ns] | Linux [ns] | by | times as fast | at least | met |\n|---|---|---|---|---|---|---|\n"
        );
        for row in rows {
            let Row { what, ours_ns, linux_ns, linux_by, ratio, target } = row;
            let (target, met) = match target {
                None => (String::new(), ""),
                Some(target) => (target.to_string(), if is_missed(row) { "**no**" } else { "yes" }),
            };
            let (ours, theirs) = (nanoseconds(*ours_ns), nanoseconds(*linux_ns));
            let _ = writeln!(text, "| {what} | {ours} | {theirs} | {linux_by} | {ratio:.2} | {target} | {met} |");
        }
    }
    text.push('\n');
    text
}
