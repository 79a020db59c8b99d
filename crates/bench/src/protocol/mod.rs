//! One protocol, by the lab and by other checkers: the same graph to the last state, so that they can be timed against each other.

mod alone;
mod bounded;
mod contestant;
mod executions;
mod program;
mod size;
mod states;

use std::fmt::Write;

pub(crate) use alone::Job;
pub(crate) use bounded::Bounds;
pub(crate) use contestant::{OURS_SYMMETRIC, RUMUR_SYMMETRIC, SPIN};

use alone::{Library, read_covered};
use bounded::{Ended, Ran, run};
use contestant::Contestant;
use executions::{Order, THREADS_OF_LOOM};
use size::{Case, Graph, Size};

use crate::page_tables::OURS;
use crate::report::{number, write_aligned};
use crate::samples::{Key, Samples, Unit};

pub(crate) const SPEED: &str = "transitions per second of one core";
pub(crate) const DECIDE: &str = "decide";
/// Those that have targets.
pub(crate) const TARGETED: [&str; 3] = [size::ALL[1].workload, size::ALL[2].workload, size::ALL[3].workload];

/// What a contestant made of a case.
enum Answer {
    Explored {
        graph: Graph,
        peak: u64,
    },
    /// It took more than it may.
    Cut {
        ended: Ended,
        seconds: f64,
        peak: u64,
    },
    /// It cannot be asked here: something is not installed.
    LeftOut(String),
    /// It was asked, and ended without an answer.
    Failed(String),
}

/// Tables, and whether all counts are what they must be.
pub(crate) struct Comparison {
    pub(crate) tables: String,
    pub(crate) is_as_expected: bool,
}

/// What is asked of whom.
#[derive(Clone, Copy)]
pub(crate) enum Scope {
    Quick,
    Full,
}

pub(crate) fn measure(scope: Scope, bounds: Bounds, samples: &mut Samples) -> Comparison {
    let (cases, seconds): (&[Case], u64) = match scope {
        Scope::Quick => (&[size::QUICK], 1),
        Scope::Full => (&size::ALL, 10),
    };
    let mut comparison = Comparison { tables: String::new(), is_as_expected: true };
    for case in cases {
        explore(case, bounds, samples, &mut comparison);
    }
    execute(cases[0].size, seconds, bounds, &mut comparison.tables);
    comparison
}

fn explore(case: &Case, bounds: Bounds, samples: &mut Samples, comparison: &mut Comparison) {
    let mut rows = vec![
        ["", "states", "transitions", "counts", DECIDE, "transitions/s", "times ours", "resident", "bytes per state"]
            .map(String::from)
            .to_vec(),
    ];
    for contestant in contestant::ALL {
        let answer = answer(contestant, case, bounds, samples);
        let name = contestant.name().to_owned();
        rows.push(match answer {
            Answer::LeftOut(why) => {
                eprintln!("{}: {name} is left out: {why}", case.workload);
                cells(name, [String::from("left out")])
            }
            Answer::Failed(why) => {
                eprintln!("{}: {name} has no answer: {why}", case.workload);
                comparison.is_as_expected = false;
                cells(name, [String::from("**no answer**")])
            }
            Answer::Cut { ended, seconds, peak } => {
                cells(name, [format!("{ended} after {seconds:.0} s, {} MiB", peak >> 20)])
            }
            Answer::Explored { graph, peak } => {
                let is_right = case.is_as_expected(contestant.cpus(), graph, contestant.digits());
                comparison.is_as_expected &= is_right;
                let best = |operation, contestant| Some(samples.get(case.workload, operation, contestant)?.best());
                let speed = best(SPEED, contestant.name()).unwrap_or(0.0);
                let ratio = best(SPEED, OURS).map_or(String::from("-"), |ours| format!("x{:.2}", speed / ours));
                cells(
                    name,
                    [
                        graph.states.to_string(),
                        graph.transitions.to_string(),
                        String::from(if is_right { "agree" } else { "**DIFFER**" }),
                        format!("{:.2} s", best(DECIDE, contestant.name()).unwrap_or(0.0)),
                        number(speed),
                        ratio,
                        format!("{} MiB", peak >> 20),
                        format!("{:.0}", peak as f64 / graph.states as f64),
                    ],
                )
            }
        });
    }
    // Writing to a `String` cannot fail.
    let _ = writeln!(comparison.tables, "\n### {}\n", case.workload);
    write_aligned(&mut comparison.tables, &rows);
}

fn cells<const COUNT: usize>(name: String, values: [String; COUNT]) -> Vec<String> {
    let mut row: Vec<String> = [name].into_iter().chain(values).collect();
    row.resize(9, String::from("-"));
    row
}

fn answer(contestant: Contestant, case: &Case, bounds: Bounds, samples: &mut Samples) -> Answer {
    let mut ready = match contestant.prepare(case) {
        Ok(ready) => ready,
        Err(why) => return Answer::LeftOut(why),
    };
    let mut rounds = Vec::new();
    let mut last = None;
    for _ in 0..case.rounds {
        let Ran { ended, output, processor_seconds: seconds, peak } = match run(&mut ready.command, bounds) {
            Ok(ran) => ran,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        if !matches!(ended, Ended::Exited(_)) {
            return Answer::Cut { ended, seconds, peak };
        }
        let Some(graph) = (ready.read)(&output) else {
            return Answer::Failed(format!("{ended}:\n{output}"));
        };
        eprintln!("{}: {}: {graph:?}, {seconds:.2} s", case.workload, contestant.name());
        rounds.push((graph, seconds));
        last = Some(Answer::Explored { graph, peak });
    }
    // One that was cut in a later round has no numbers at all.
    for (graph, seconds) in rounds {
        let key = |operation| Key { workload: case.workload, operation, contestant: contestant.name() };
        samples.add(key(SPEED), Unit::PerSecond, graph.transitions as f64 / seconds);
        samples.add(key(DECIDE), Unit::Seconds, seconds);
    }
    last.expect("each is asked at least once")
}

/// The most that loom has threads for.
const SIZE_FOR_LOOM: Size = Size::new(2, 3, 2);

fn execute(size: Size, seconds: u64, bounds: Bounds, tables: &mut String) {
    let mut rows = vec![
        ["", "readers,entries,faulters", "executions", "executions/s", "steps/s", "all schedules"]
            .map(String::from)
            .to_vec(),
    ];
    let asked = [
        (Library::Loom, "loom 0.7", SIZE_FOR_LOOM),
        (Library::Shuttle(Order::DepthFirst), "shuttle 0.9, depth first", SIZE_FOR_LOOM),
        (Library::Shuttle(Order::Random), "shuttle 0.9, random", SIZE_FOR_LOOM),
        (Library::Shuttle(Order::DepthFirst), "shuttle 0.9, depth first", size),
        (Library::Shuttle(Order::Random), "shuttle 0.9, random", size),
    ];
    for (library, name, size) in asked {
        let ran = Job::new(library, size, seconds).command().and_then(|mut command| run(&mut command, bounds));
        let mut row = vec![name.to_owned(), size.to_string()];
        match ran {
            Ok(ran) if !matches!(ran.ended, Ended::Exited(_)) => row.push(ran.ended.to_string()),
            Ok(ran) => match read_covered(&ran.output) {
                Some(covered) => row.extend([
                    covered.executions.to_string(),
                    number(covered.executions as f64 / ran.processor_seconds),
                    number(covered.steps as f64 / ran.processor_seconds),
                    String::from(if covered.is_all { "yes" } else { "no" }),
                ]),
                None => row.push(format!("no answer: {}", ran.output.lines().next().unwrap_or_default())),
            },
            Err(error) => row.push(error.to_string()),
        }
        row.resize(6, String::from("-"));
        rows.push(row);
    }
    let _ = writeln!(
        tables,
        "\n### protocol, once, by execution after execution in {seconds} s each\n\n\
         loom and shuttle know no states: they have no number to agree with, and the cyclic graph above has no last execution. \
         loom has {THREADS_OF_LOOM} threads at most, too few for any size above.\n"
    );
    write_aligned(tables, &rows);
}
