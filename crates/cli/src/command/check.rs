//! `fastgup check`: decides races.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use lab::{Sampling, Schedule};
use races::{
    Checkpoints, ClusterPlace, Ends, Hosts, Limits, MemoryOrder, Opinion, Options, Present, Race, SecondEngine,
    VariantReport, Verdict, Way, Witnesses,
};
use serde::Serialize;

use crate::arguments::{self, Check, Memory, ShowTrace};
use crate::command::sweep;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Line;
use crate::save::Saver;
use crate::select;
use crate::show::number::{Count, plural};
use crate::show::verdict::{Table, story};
use crate::show::width;

/// Decides what the words name. Bad files are reported and the rest is decided.
pub(crate) fn run(arguments: &Check) -> Result<Exit, Failure> {
    let (races, failures) = match arguments.scopes.is_named() {
        true => (vec![sweep::at_one_scope(arguments)?], Vec::new()),
        false => select::races(&arguments.what),
    };
    for failure in &failures {
        failure.report();
    }
    let mut exit = if failures.is_empty() { Exit::AsExpected } else { Exit::BadInput };
    let variants = select::variants(&races, &arguments.variant)?;
    let place = place(arguments)?;
    let interrupt = Interrupt::listen()?;
    let line = Line::new();
    let mut saver = Saver::new(arguments.save_trace.as_deref(), arguments.html.as_deref())?;
    let mut not_saved = None;
    let mut printer = Printer::new(arguments, &races);
    let mut broken_output = None;
    for memory in orders(arguments.memory) {
        let options = Options {
            memory,
            variants: variants.clone(),
            limits: limits(&arguments.limits),
            way: way(arguments),
            witnesses: if arguments.trace == ShowTrace::Always { Witnesses::Shown } else { Witnesses::Skipped },
            ends: if arguments.second_engine.is_some() { Ends::Collected } else { Ends::Ignored },
            threads: arguments.jobs,
            team: arguments.team,
            checkpoints: checkpoints(arguments),
            progress: Some(line.callback()),
            cancel: Some(interrupt.flag()),
        };
        let mut tell = |report: VariantReport| {
            let opinion = second_opinion(arguments, &races, &report);
            exit = exit.and(Exit::of(&report));
            if matches!(opinion, Some(Opinion::Differs(_))) {
                exit = exit.and(Exit::Differs);
            }
            let saved = match race_of(&races, &report).filter(|_| not_saved.is_none()) {
                None => None,
                Some(race) => saver.save(race, &report).unwrap_or_else(|failure| {
                    not_saved = Some(failure);
                    None
                }),
            };
            if broken_output.is_none()
                && let Err(error) = line.suspended(|| printer.print(report, opinion.as_ref(), saved.as_deref()))
            {
                // Nobody listens any more: there is no point in going on.
                broken_output = Some(error);
                interrupt.cancel();
            }
        };
        match &place {
            None => races::decide(&races, &options, tell),
            Some(place) => {
                let share = races::decide_in(place.clone(), &races, &options, &mut tell)?;
                exit = exit.and(if share.is_bounded { Exit::Bounded } else { Exit::AsExpected });
            }
        }
    }
    drop(line);
    if let Some(error) = broken_output {
        return Err(error.into());
    }
    if let Some(place) = place.filter(|place| place.process != 0) {
        if !arguments.json {
            writeln!(
                anstream::stdout(),
                "process {} of {}: done; process 0 has the answers",
                place.process,
                place.hosts.len()
            )?;
        }
        return Ok(if interrupt.is_by_user() { Exit::Interrupted } else { exit });
    }
    printer.close(saver.finish()?.as_deref())?;
    if let Some(failure) = not_saved {
        return Err(failure);
    }
    Ok(if interrupt.is_by_user() { Exit::Interrupted } else { exit })
}

fn race_of<'r>(races: &'r [Race], report: &VariantReport) -> Option<&'r Race> {
    races.iter().find(|race| race.source.name() == report.file)
}

/// Where searches are kept, if they are to be.
pub(crate) fn checkpoints(arguments: &Check) -> Option<Checkpoints> {
    let (folder, present) = match (&arguments.checkpoint, &arguments.resume) {
        (Some(folder), _) => (folder, Present::Refused),
        (None, Some(folder)) => (folder, Present::Resumed),
        (None, None) => return None,
    };
    Some(Checkpoints { folder: folder.clone(), every: arguments.checkpoint_every, present })
}

/// Which of several processes this is.
fn place(arguments: &Check) -> Result<Option<ClusterPlace>, Failure> {
    let arguments::Cluster { hosts, process, wait } = &arguments.cluster;
    let (Some(hosts), Some(process)) = (hosts, process) else { return Ok(None) };
    let threads = arguments.team.unwrap_or(NonZeroUsize::MIN);
    Ok(Some(ClusterPlace { hosts: Hosts::read(hosts)?, process: *process, threads, patience: *wait }))
}

/// Which interleavings are asked for.
pub(crate) fn way(arguments: &Check) -> Way {
    match (arguments.preemptions, arguments.sample) {
        (Some(most), _) => Way::Preempt(most),
        (None, Some(runs)) => Way::Sample(Sampling {
            schedule: match arguments.schedule {
                arguments::Schedule::Pos => Schedule::Pos,
                arguments::Schedule::Pct => Schedule::Pct { depth: arguments.pct_depth.get() },
                arguments::Schedule::Uniform => Schedule::Uniform,
            },
            runs,
            seed: arguments.seed,
            ..Sampling::default()
        }),
        (None, None) if arguments.livelock => Way::Livelock,
        (None, None) => Way::Exhaust,
    }
}

/// How many random runs of each engine the other one is asked about, where the second one cannot go through all.
const SAMPLES: u64 = 20;

/// What the second engine says of a report, if it is to be asked.
fn second_opinion(arguments: &Check, races: &[Race], report: &VariantReport) -> Option<Opinion> {
    let runs = arguments.second_engine?;
    let race = race_of(races, report)?;
    let time = arguments.limits.limit_seconds.unwrap_or(Duration::MAX);
    Some(SecondEngine { runs, time, samples: SAMPLES }.opinion(race, report))
}

/// A report as a line of JSON.
#[derive(Serialize)]
struct Object<'r> {
    #[serde(flatten)]
    report: &'r VariantReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    second_engine: Option<String>,
    /// The file in which the run was saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<String>,
}

/// When to give up.
pub(crate) fn limits(arguments: &arguments::Limits) -> Limits {
    Limits {
        states: arguments.limit_states,
        time: arguments.limit_seconds,
        memory: arguments.limit_memory,
        fingerprints: match arguments.fingerprints {
            arguments::Fingerprints::Bits128 => lab::Fingerprints::Wide,
            arguments::Fingerprints::Bits64 => lab::Fingerprints::Narrow,
        },
        ..Limits::default()
    }
}

pub(crate) fn orders(memory: Option<Memory>) -> Vec<Option<MemoryOrder>> {
    match memory {
        None => vec![None],
        Some(Memory::Sc) => vec![Some(MemoryOrder::Sc)],
        Some(Memory::Tso) => vec![Some(MemoryOrder::Tso)],
        Some(Memory::Both) => MemoryOrder::ALL.map(Some).to_vec(),
    }
}

/// Prints reports as they come.
struct Printer<'a> {
    arguments: &'a Check,
    races: &'a [Race],
    page: usize,
    /// The file whose variants are being printed, and their table.
    current: Option<(String, Table)>,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    files: u64,
    variants: u64,
    safe: u64,
    observed: u64,
    broken: u64,
    undecided: u64,
    errors: u64,
    unexpected: u64,
}

impl<'a> Printer<'a> {
    fn new(arguments: &'a Check, races: &'a [Race]) -> Self {
        Self { arguments, races, page: width::of_stdout(), current: None, tally: Tally::default() }
    }

    fn print(&mut self, mut report: VariantReport, opinion: Option<&Opinion>, saved: Option<&Path>) -> io::Result<()> {
        let is_shown = match self.arguments.trace {
            ShowTrace::Always => true,
            ShowTrace::Violations => report.verdict == Verdict::Violation,
            ShowTrace::Never => false,
        };
        if !is_shown {
            report.trace = None;
        }
        self.tally.add(&report);
        let mut out = anstream::stdout().lock();
        if self.arguments.json {
            let second_engine = opinion.map(ToString::to_string);
            let saved = saved.map(|path| path.display().to_string());
            serde_json::to_writer(&mut out, &Object { report: &report, second_engine, saved })?;
            writeln!(out)?;
            return out.flush();
        }
        if self.current.as_ref().is_none_or(|(file, _)| *file != report.file) {
            let table = Table::of(race_of(self.races, &report), self.page);
            Table::heading(&mut out, &report)?;
            self.current = Some((report.file.clone(), table));
            self.tally.files += 1;
        }
        if let Some((_, table)) = &self.current {
            table.line(&mut out, &report)?;
        }
        if let Some(opinion) = opinion {
            writeln!(out, "    second engine: {opinion}")?;
        }
        if let Some(path) = saved {
            writeln!(out, "    saved: fastgup replay {}", path.display())?;
        }
        if is_shown {
            story(&mut out, &report, self.page)?;
        }
        out.flush()
    }

    fn close(&self, page: Option<&Path>) -> io::Result<()> {
        if self.arguments.json || self.races.is_empty() {
            return Ok(());
        }
        let mut out = anstream::stdout().lock();
        writeln!(out, "{}", self.tally)?;
        if let Some(path) = page {
            writeln!(out, "page: {}", path.display())?;
        }
        out.flush()
    }
}

impl Tally {
    fn add(&mut self, report: &VariantReport) {
        self.variants += 1;
        match report.verdict {
            Verdict::Safe if report.variant.is_none() => self.observed += 1,
            Verdict::Safe => self.safe += 1,
            Verdict::Violation => self.broken += 1,
            Verdict::Bounded => self.undecided += 1,
            Verdict::Error => self.errors += 1,
        }
        self.unexpected += u64::from(report.as_expected == Some(false));
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counted = [
            (self.safe, "safe"),
            (self.observed, "observed"),
            (self.broken, "broken"),
            (self.undecided, "undecided"),
            (self.errors, "in error"),
        ];
        let counted = counted.iter().filter(|(count, _)| *count > 0);
        let counted: Vec<String> = counted.map(|(count, word)| format!("{} {word}", Count(*count))).collect();
        write!(f, "{}, {}: {}", plural(self.files, "file"), plural(self.variants, "verdict"), counted.join(", "))?;
        match self.unexpected {
            0 => write!(f, "; nothing unexpected"),
            count => write!(f, "; {} UNEXPECTED", Count(count)),
        }
    }
}
