//! Every judge alone, with no mutant active: it must find nothing wrong. What it reaches and how long it takes is kept.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::copy::Place;
use super::json_lines::{self, JsonLines};
use super::judge::{Answer, Judge, ask_race, ask_tests, races, tests};
use super::list::Id;

/// Nobody is waited for longer than this.
const LIMIT: Duration = Duration::from_secs(300);
/// The variables that `in_machine.rs` reads.
pub(super) const ACTIVE: &str = "FASTGUP_MUTANT";
const REACHED: &str = "FASTGUP_MUTANT_REACHED";

/// A judge, and what is known of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) judge: Judge,
    pub(super) seconds: f64,
    pub(super) reached: Vec<Id>,
    /// It takes longer than [`LIMIT`], and is asked about no mutant.
    pub(super) is_endless: bool,
}

/// The file of what was measured.
pub(super) fn file(place: &Place) -> PathBuf {
    place.file("baseline.jsonl")
}

/// What was measured.
pub(super) fn measured(place: &Place) -> Result<Vec<Measured>> {
    json_lines::read(&file(place))
}

/// Asks all judges, and keeps what they are good for.
///
/// # Errors
/// One finds something wrong: the mutants have changed the original.
pub(super) fn measure(place: &Place) -> Result<()> {
    let _lock = place.lock()?;
    let last = place.plan()?.last().map_or(0, |planned| planned.mutant.id);
    let (known, mut file) = JsonLines::<Measured>::open(&file(place))?;
    let all: Vec<Judge> = tests(place)?.into_iter().chain(races(place)?).collect();
    let rest: Vec<&Judge> = all.iter().filter(|judge| known.iter().all(|known| known.judge != **judge)).collect();
    let mut wrong = Vec::new();
    for (number, judge) in rest.iter().enumerate() {
        if number % 50 == 0 {
            eprintln!("{number} of {} judges", rest.len());
        }
        let reached = place.file("reached");
        fs::write(&reached, vec![0; last as usize + 1])?;
        let start = Instant::now();
        let answer = ask(place, judge, (REACHED, reached.to_str().unwrap_or_default()))?;
        let seconds = start.elapsed().as_secs_f64();
        let reached = (0..).zip(fs::read(&reached)?).filter(|(_, byte)| *byte != 0).map(|(id, _)| id).collect();
        let is_endless = matches!(answer, Answer::TooLong(_));
        match answer {
            Answer::Noticed(what) => wrong.push(what),
            Answer::Nothing | Answer::TooLong(_) => {
                file.add(&Measured { judge: (*judge).clone(), seconds, reached, is_endless })?;
            }
        }
    }
    ensure!(wrong.is_empty(), "something is wrong though no mutant is active:\n{}", wrong.join("\n"));
    let measured = measured(place)?;
    let seconds: f64 = measured.iter().map(|one| one.seconds).sum();
    let endless = measured.iter().filter(|one| one.is_endless).count();
    println!("{} judges find nothing wrong, in {seconds:.0} seconds; {endless} take too long", measured.len());
    Ok(())
}

fn ask(place: &Place, judge: &Judge, environment: (&str, &str)) -> Result<Answer> {
    match judge {
        Judge::Test { program, name } => ask_tests(program, &[name], LIMIT, environment),
        Judge::Race { race, variant } => ask_race(place, (race, variant.as_deref()), LIMIT, environment),
    }
}
