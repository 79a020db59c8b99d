//! `fastgup check --cpus 3..5 --entries 1..3`: one race at several scopes.

use std::io::{self, Write};

use races::scope::{NoScope, Scope};
use races::{Options, Race, Witnesses, Work};

use crate::arguments::Check;
use crate::command::check::{checkpoints, limits, orders, way};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Line;
use crate::select;
use crate::show::scopes::Table;
use crate::show::width;
use crate::sweep::{Range, Row, Sweep, bits};

/// Decides the rows of one race that are this machine's, or lists the commands that do.
pub(crate) fn run(arguments: &Check) -> Result<Exit, Failure> {
    if arguments.second_engine.is_some() || arguments.save_trace.is_some() || arguments.html.is_some() {
        return Err(Failure::Usage {
            problem: "a sweep shows no runs, and asks no second engine".into(),
            remedy: "decide one scope, for example --cpus 4 --entries 2".into(),
        });
    }
    if arguments.cluster.hosts.is_some() {
        return Err(Failure::Usage {
            problem: "the rows of a sweep are not shared by processes that meet".into(),
            remedy: "give each machine rows of its own, --job I/N, or decide one scope with --hosts".into(),
        });
    }
    let race = one_race(&arguments.what)?;
    let variants = select::variants(std::slice::from_ref(&race), &arguments.variant)?;
    let (cpus, entries) = ranges(arguments, &race);
    let Instances { races, left_out } = instances(&race, cpus, entries)?;
    let mut rows = Vec::new();
    for (scope, instance) in &races {
        for memory in orders(arguments.memory) {
            let work = races::work(instance, memory, &variants);
            rows.extend(work.into_iter().map(|work| (*scope, work)));
        }
    }
    let options = Options {
        limits: limits(&arguments.limits),
        way: way(arguments),
        witnesses: Witnesses::Skipped,
        threads: arguments.jobs,
        team: arguments.team,
        checkpoints: checkpoints(arguments),
        ..Options::default()
    };
    let sweep = Sweep {
        code: races::CODE.to_owned(),
        race: race.litmus.name.node.clone(),
        file: race.source.name().to_owned(),
        text: race.source.digest(),
        cpus,
        entries,
        variants,
        memory: orders(arguments.memory).into_iter().flatten().collect(),
        way: format!("{:?}", options.way),
        fingerprints: bits(options.limits.fingerprints),
        rows: rows.len(),
        left_out,
    };
    if arguments.scopes.list_jobs {
        list(&rows)?;
        return Ok(Exit::AsExpected);
    }
    decide(arguments, &sweep, &rows, options)
}

fn decide(arguments: &Check, sweep: &Sweep, rows: &[(Scope, Work<'_>)], options: Options) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    let line = Line::new();
    let options = Options { progress: Some(line.callback()), cancel: Some(interrupt.flag()), ..options };
    let is_mine = |row: &usize| arguments.scopes.job.is_none_or(|job| job.has(*row));
    let mine: Vec<usize> = (1..=rows.len()).filter(is_mine).collect();
    let work: Vec<Work<'_>> = mine.iter().map(|row| rows[row - 1].1).collect();
    let names = rows.iter().filter_map(|(_, work)| work.variant.map(|variant| variant.name.node.as_str()));
    let mut table = Table::of(names, width::of_stdout());
    if !arguments.json {
        table.heading(&mut anstream::stdout().lock(), sweep)?;
    }
    let mut exit = Exit::AsExpected;
    let mut broken_output = None;
    let mut numbers = mine.iter();
    races::decide_each(&work, &options, |report| {
        let Some(&number) = numbers.next() else { return };
        let row = Row::of(sweep, number, rows[number - 1].0, &report);
        exit = exit.and(Exit::of(&report));
        let print = || {
            let mut out = anstream::stdout().lock();
            match arguments.json {
                true => {
                    serde_json::to_writer(&mut out, &row)?;
                    writeln!(out)?;
                }
                false => table.row(&mut out, &row)?,
            }
            out.flush()
        };
        if broken_output.is_none()
            && let Err(error) = line.suspended(print)
        {
            broken_output = Some(error);
            interrupt.cancel();
        }
    });
    drop(line);
    if let Some(error) = broken_output {
        return Err(error.into());
    }
    if !arguments.json {
        table.close(&mut anstream::stdout().lock())?;
    }
    Ok(if interrupt.is_by_user() { Exit::Interrupted } else { exit })
}

/// The race at the one scope that the arguments name.
pub(crate) fn at_one_scope(arguments: &Check) -> Result<Race, Failure> {
    let race = one_race(&arguments.what)?;
    let (cpus, entries) = ranges(arguments, &race);
    let mut races = instances(&race, cpus, entries)?.races;
    Ok(races.swap_remove(0).1)
}

/// Whether the arguments name several scopes, or a part of the work.
pub(crate) fn is_asked(arguments: &Check) -> bool {
    let scopes = &arguments.scopes;
    let is_several = |range: &Option<Range>| range.is_some_and(|range| range.numbers().count() > 1);
    is_several(&scopes.cpus) || is_several(&scopes.entries) || scopes.job.is_some() || scopes.list_jobs
}

fn one_race(what: &[String]) -> Result<Race, Failure> {
    let several = || Failure::Usage {
        problem: "a sweep is of one race".into(),
        remedy: "name it: `fastgup races` lists those of the catalogue".into(),
    };
    if what.is_empty() {
        return Err(several());
    }
    let (mut races, failures) = select::races(what);
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure);
    }
    match (races.pop(), races.is_empty()) {
        (Some(race), true) => Ok(race),
        _ => Err(several()),
    }
}

/// What was asked for; of what was not, what the file has.
fn ranges(arguments: &Check, race: &Race) -> (Range, Range) {
    let own = race.scope();
    let (cpus, entries) = (arguments.scopes.cpus, arguments.scopes.entries);
    (cpus.unwrap_or(Range::only(own.cpus as u64)), entries.unwrap_or(Range::only(own.entries)))
}

/// The race at each scope that it has.
struct Instances {
    races: Vec<(Scope, Race)>,
    left_out: Vec<(usize, String)>,
}

fn instances(race: &Race, cpus: Range, entries: Range) -> Result<Instances, Failure> {
    let (mut races, mut left_out) = (Vec::new(), Vec::new());
    for cpus in cpus.numbers().map(|cpus| cpus as usize) {
        for entries in entries.numbers() {
            let scope = Scope { cpus, entries };
            match race.at(scope) {
                Ok(instance) => races.push((scope, instance)),
                Err(why @ NoScope::FewerCpus { .. }) => {
                    left_out.push((cpus, why.to_string()));
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    match left_out.pop() {
        Some((_, problem)) if races.is_empty() => {
            Err(Failure::Usage { problem, remedy: format!("for example --cpus {}", race.scope().cpus) })
        }
        last => {
            left_out.extend(last);
            Ok(Instances { races, left_out })
        }
    }
}

/// A command for each row, each as good on another machine as on this one.
fn list(rows: &[(Scope, Work<'_>)]) -> Result<(), Failure> {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--list-jobs" && word != "--json").collect();
    let command = shlex::try_join(words.iter().map(String::as_str)).map_err(io::Error::other)?;
    let mut out = anstream::stdout().lock();
    for (number, (scope, work)) in (1..).zip(rows) {
        let variant = work.variant.map_or_else(String::new, |variant| format!("{}, ", variant.name.node));
        let Scope { cpus, entries } = scope;
        writeln!(
            out,
            "fastgup {command} --json --job {number}/{}  # cpus {cpus}, entries {entries}, {variant}{}",
            rows.len(),
            work.memory.name()
        )?;
    }
    out.flush()?;
    Ok(())
}
