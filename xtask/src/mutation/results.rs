//! What came of each mutant: a line of JSON each, added as they come.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::copy::{Place, Planned};
use super::json_lines;
use super::list::{Genre, Mutant};
use super::rewrite::State;

/// Who noticed.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Outcome {
    /// A test failed.
    Test,
    /// A test did not end.
    TestTooLong,
    /// A race's verdict was another.
    Race,
    /// A race was not decided in the time that it takes as a rule, and several times as much; no other noticed.
    RaceTooLong,
    /// Nobody.
    Survived,
    /// Nobody could: nothing reaches it.
    Unreached,
}

/// What came of one mutant.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Record {
    pub(super) name: String,
    function: String,
    genre: Genre,
    pub(super) outcome: Outcome,
    pub(super) by: String,
    /// How many were asked.
    pub(super) tests: usize,
    pub(super) races: usize,
    /// How many reach it and were not asked because there was no time.
    pub(super) races_left: usize,
    pub(super) seconds: f64,
}

impl Record {
    pub(super) fn of(mutant: &Mutant) -> Self {
        Self {
            name: mutant.name.clone(),
            function: mutant.function.as_ref().map_or_else(String::new, |function| function.function_name.clone()),
            genre: mutant.genre,
            outcome: Outcome::Unreached,
            by: String::new(),
            tests: 0,
            races: 0,
            races_left: 0,
            seconds: 0.0,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} ({:.1} s)", self.outcome, self.by, self.seconds)
    }
}

/// The file of the results.
pub(super) fn file(place: &Place) -> PathBuf {
    place.file("results.jsonl")
}

/// Prints the counts, and who was not noticed.
pub(super) fn print_summary(place: &Place) -> Result<()> {
    let plan = place.plan()?;
    let records: Vec<Record> = json_lines::read(&file(place))?;
    print_build(&plan);
    let mut counts: BTreeMap<Outcome, usize> = BTreeMap::new();
    for record in &records {
        *counts.entry(record.outcome).or_default() += 1;
    }
    let seconds: f64 = records.iter().map(|record| record.seconds).sum();
    println!("{} asked, in {seconds:.0} seconds:", records.len());
    for (outcome, count) in &counts {
        let share = 100.0 * *count as f64 / records.len() as f64;
        println!("  {count:5} {outcome:?} ({share:.1} %)");
    }
    for outcome in [Outcome::RaceTooLong, Outcome::Survived, Outcome::Unreached] {
        let mut of_it: Vec<&Record> = records.iter().filter(|record| record.outcome == outcome).collect();
        of_it.sort_by(|one, other| one.name.cmp(&other.name));
        println!("\n{outcome:?}:");
        for record in of_it {
            let left =
                if record.races_left > 0 { format!(", {} races not asked", record.races_left) } else { String::new() };
            println!("  {} [{} tests, {} races{left}] {}", record.name, record.tests, record.races, record.by);
        }
    }
    Ok(())
}

fn print_build(plan: &[Planned]) {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for planned in plan {
        let reason = match &planned.state {
            State::Built => "in the build".to_owned(),
            State::NotViable(_) => "do not compile".to_owned(),
            State::NotInBuild(why) => format!("not in the build: {}", why.split(':').next().unwrap_or("")),
        };
        *reasons.entry(reason).or_default() += 1;
    }
    println!("{} mutants are listed:", plan.len());
    for (reason, count) in reasons {
        println!("  {count:5} {reason}");
    }
}
