//! Which mutants compile: the compiler is asked, those that it blames are left out, and it is asked again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use super::baseline;
use super::copy::{Place, Planned, Written};
use super::diagnostics::blames;
use super::judge::{CLI, TESTED};
use super::list::{Genre, Id, Mutant, mutants_of};
use super::results;
use super::rewrite::State;
use crate::cargo::workspace;

/// Each round of errors hides those of the compiler's later stages.
const ROUNDS: u32 = 40;

/// Makes the copy, and builds what judges.
pub(super) fn build(place: &Place) -> Result<()> {
    let _lock = place.lock()?;
    let mutants = mutants_of(&workspace())?;
    let mut refused: HashMap<Id, String> = HashMap::new();
    let mut written = place.write(&mutants, &HashSet::new())?;
    for package in packages(&mutants) {
        for round in 1.. {
            ensure!(round <= ROUNDS, "{package}: errors, round after round");
            let (passes, output) = check(place, package)?;
            if passes {
                break;
            }
            let before = refused.len();
            refuse(&output, &written, &mut refused);
            eprintln!("{package}: round {round}, {} do not compile", refused.len());
            ensure!(refused.len() > before, "{package}: an error is nobody's fault:\n{output}");
            written = place.write(&mutants, &refused.keys().copied().collect())?;
        }
    }
    let plan = plan(mutants, written.states, &refused)?;
    // Numbers may have changed, and tests too: what was measured and found in the copy before says nothing of this one.
    for file in [baseline::file(place), results::file(place)] {
        set_aside(&file)?;
    }
    place.save("plan.json", &plan)?;
    for package in TESTED {
        run(place, &["test", "--no-run", "--quiet", "--lib", "--tests", "--package", package])?;
    }
    run(place, &["build", "--quiet", "--package", CLI])?;
    let count = |wanted: fn(&State) -> bool| plan.iter().filter(|planned| wanted(&planned.state)).count();
    println!(
        "{} mutants: {} in the build, {} do not compile, {} cannot be one of many",
        plan.len(),
        count(|state| *state == State::Built),
        count(|state| matches!(state, State::NotViable(_))),
        count(|state| matches!(state, State::NotInBuild(_)))
    );
    Ok(())
}

/// Gives a file another name, if it is there.
fn set_aside(file: &Path) -> Result<()> {
    match fs::rename(file, file.with_extension("before.jsonl")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The packages, those that others need first.
fn packages(mutants: &[Mutant]) -> Vec<&str> {
    let order = ["fastgup-pagetable", "fastgup-mm", "fastgup-ttm"];
    order.into_iter().filter(|package| mutants.iter().any(|mutant| mutant.package == *package)).collect()
}

fn check(place: &Place, package: &str) -> Result<(bool, String)> {
    let mut cargo = place.cargo();
    cargo.args(["check", "--message-format", "json", "--package", package]);
    let done = cargo.stderr(Stdio::null()).output().context("cannot start cargo")?;
    Ok((done.status.success(), String::from_utf8(done.stdout)?))
}

fn run(place: &Place, arguments: &[&str]) -> Result<()> {
    let status = place.cargo().args(arguments).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the copy does not build: cargo {}", arguments.join(" "));
    }
    Ok(())
}

/// Leaves out whom the errors blame: of those that are blamed one by one, these; only if there are none, those that are blamed together.
fn refuse(output: &str, written: &Written, refused: &mut HashMap<Id, String>) {
    let mut blames = blames(output, &written.owned);
    blames.retain(|blame| !blame.ids.is_empty());
    let fewest = blames.iter().map(|blame| blame.ids.len()).min().unwrap_or(0);
    for blame in blames.into_iter().filter(|blame| blame.ids.len() == fewest) {
        for id in blame.ids {
            refused.entry(id).or_insert_with(|| blame.message.clone());
        }
    }
}

fn plan(mutants: Vec<Mutant>, mut states: BTreeMap<Id, State>, refused: &HashMap<Id, String>) -> Result<Vec<Planned>> {
    mutants
        .into_iter()
        .map(|mutant| {
            let state = match refused.get(&mutant.id) {
                Some(message) => of_refused(&mutant, message),
                None => states.remove(&mutant.id).with_context(|| format!("{} got lost", mutant.name))?,
            };
            Ok(Planned { mutant, state })
        })
        .collect()
}

/// A function whose type is `impl Trait` returns one type: with an early return of another one it does not compile, alone it may.
fn of_refused(mutant: &Mutant, message: &str) -> State {
    let is_opaque = mutant.function.as_ref().is_some_and(|function| function.return_type.contains("impl "));
    if mutant.genre == Genre::FnValue && is_opaque && !message.contains("cannot find") {
        State::NotInBuild(format!("a return of `impl Trait`: {message}"))
    } else {
        State::NotViable(message.into())
    }
}
