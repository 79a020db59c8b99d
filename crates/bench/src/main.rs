//! Side-by-side benchmarks: against other page-table crates, and against the same written by hand.

mod cores;
mod gup;
mod lab;
mod page_tables;
mod protocol;
mod report;
mod rounds;
mod samples;
mod spaces;
mod spin;
mod targets;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use measured::{Destination, Host};

use crate::protocol::{Bounds, Job, Scope};
use crate::rounds::Effort;
use crate::samples::Samples;
use crate::spin::Spin;

/// Measures fastgup beside other people's page tables, all in one run, and prints ratios.
#[derive(Parser)]
#[command(name = "fastgup-bench")]
struct Options {
    /// What to measure; everything but `protocol`, which takes half an hour, if nothing is named.
    #[arg(value_enum)]
    suites: Vec<Suite>,
    /// A short run, to see that everything works. Its numbers mean little.
    #[arg(long)]
    quick: bool,
    /// Writes the results to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the results to a file, as Markdown, with the machine they were measured on. If there is such a file, between its
    /// lines `<!-- measured: begin -->` and `<!-- measured: end -->`; those of `protocol` alone between `<!-- measured: protocol begin -->` and `<!-- measured: protocol end -->`.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Exits with status 1 if a target is missed.
    #[arg(long)]
    check: bool,
    /// How much memory a contestant of `protocol` may have, in GiB.
    #[arg(long, value_name = "GIB", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=4096))]
    memory: u64,
    /// How many minutes a contestant of `protocol` may take.
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// What a process that the benchmark starts does.
    #[arg(long, hide = true, value_name = "JOB")]
    alone: Option<Job>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Single pages and ranges, beside four other crates.
    PageTables,
    /// Pin and unpin on threads, beside Linux's own fast GUP.
    Gup,
    /// Faults, mappings, rights and forks on threads.
    Spaces,
    /// How long deciding races takes.
    Lab,
    /// The first family of races, by the lab and by the model checker SPIN: verdicts.
    Spin,
    /// One protocol, by the lab, SPIN, Rumur, stateright, loom and shuttle: states, and speed.
    Protocol,
}

impl Options {
    fn wants(&self, suite: Suite) -> bool {
        self.suites.is_empty() || self.suites.contains(&suite)
    }

    /// What to type to measure again: what decides on what is measured, and how.
    fn command(&self) -> String {
        let suites = self.suites.iter().filter_map(ValueEnum::to_possible_value);
        let quick = self.quick.then(|| String::from("--quick"));
        let arguments = suites.map(|suite| suite.get_name().to_owned()).chain(quick);
        [String::from("cargo run --release --package fastgup-bench --")]
            .into_iter()
            .chain(arguments)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// What was asked for cannot be done.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(job) = options.alone {
        job.run();
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let is_for_own_place = options.suites == [Suite::Protocol];
    let place = if is_for_own_place { "protocol" } else { "" };
    let destination = options.markdown.as_deref().map(|path| Destination::find(path, place)).transpose()?;
    let host = Host::here(options.command());
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let mut samples = Samples::default();
    if options.wants(Suite::PageTables) {
        cores::pin_to_core(0);
        page_tables::measure(effort, &mut samples);
    }
    if options.wants(Suite::Gup) {
        cores::pin_to_core(0);
        gup::measure(effort, &mut samples);
    }
    if options.wants(Suite::Spaces) {
        cores::pin_to_core(0);
        spaces::measure(effort, &mut samples);
    }
    if options.wants(Suite::Lab) {
        cores::leave_core();
        lab::measure(effort.lab_rounds, &mut samples);
    }
    let mut is_contradicted = false;
    if options.wants(Suite::Spin) {
        cores::leave_core();
        is_contradicted = beside_spin(options)?;
    }

    let mut tables = report::markdown(&samples);
    // It takes half an hour: only if it is asked for by name.
    if options.suites.contains(&Suite::Protocol) {
        cores::leave_core();
        let bounds = Bounds { memory: options.memory << 30, time: Duration::from_secs(60 * options.minutes) };
        let scope = if options.quick { Scope::Quick } else { Scope::Full };
        let compared = protocol::measure(scope, bounds, &mut samples);
        is_contradicted |= !compared.is_as_expected;
        tables.push_str(&compared.tables);
    }
    tables.push_str(&report::targets_markdown(&samples));
    println!("{tables}");
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", report::json(&samples, &host));
        fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    if let Some(destination) = destination {
        destination.write(&format!("\n{}{tables}\n", host.markdown()))?;
    }
    let is_missed = options.check && report::is_any_target_missed(&samples);
    Ok(if is_missed || is_contradicted { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether SPIN contradicts the lab. Where SPIN is not installed it is asked nothing, unless it was asked for by name.
fn beside_spin(options: &Options) -> Result<bool, String> {
    let spin = match Spin::find() {
        Ok(spin) => spin,
        Err(problem) if options.suites.is_empty() => {
            eprintln!("spin: left out, {problem}");
            return Ok(false);
        }
        Err(problem) => return Err(problem.to_string()),
    };
    let mut table = Vec::new();
    let compared = spin::compare_family_a(&spin, "", &mut table).map_err(|problem| problem.to_string())?;
    println!("{}", String::from_utf8_lossy(&table));
    println!("{} of {} verdicts agree\n", compared.verdicts - compared.different, compared.verdicts);
    Ok(compared.different > 0)
}
