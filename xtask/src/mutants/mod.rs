//! `cargo xtask mutants`: who checks the checker? The engine's own source is broken, one small edit at a time, in a scratch
//! copy of the workspace; each time a race file (or a test) must notice. `xtask/mutants.toml` lists the edits.
//!
//! An edit says where it applies by the exact text it replaces. Text that is no longer found exactly once is an
//! error, so the list cannot rot silently when the engine changes.

mod judge;
mod list;
mod scratch;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{output, target_dir, workspace};
use crate::summary::Outcome;
use crate::tally::Tally;
use judge::Finding;
use list::{Mutant, read_list};
use scratch::Scratch;

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Only these edits (all of the list if none is named)
    names: Vec<String>,
    /// Print the list and do nothing
    #[arg(long)]
    list: bool,
}

/// The sub-command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mutants = wanted(arguments)?;
    if arguments.list {
        for mutant in &mutants {
            println!("{:28} {}", mutant.name, mutant.breaks);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Tally { counts, .. } = break_and_judge(&mutants)?;
    println!("{counts}");
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many edits the step of `cargo xtask test` takes. Each takes about a minute, and more are in the list than the one test command has time for.
const A_TURN: usize = 5;

/// The step of `cargo xtask test`: some of the list, other ones after each commit. All of them: `cargo xtask mutants`.
pub(crate) fn step() -> Result<Outcome> {
    let mutants = wanted(&Arguments::default())?;
    Ok(Outcome::Ran(break_and_judge(&a_turn(mutants, &commit()))?))
}

/// The commit that is checked; nothing where there is no repository.
fn commit() -> String {
    output(std::process::Command::new("git").current_dir(workspace()).args(["rev-parse", "HEAD"])).unwrap_or_default()
}

/// The edits whose turn it is: [`A_TURN`] one after the other, from where the commit's name says.
fn a_turn(mut mutants: Vec<Mutant>, commit: &str) -> Vec<Mutant> {
    let number = commit.get(..8).and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or(0);
    if !mutants.is_empty() {
        let first = number % mutants.len();
        mutants.rotate_left(first);
    }
    mutants.truncate(A_TURN);
    mutants
}

fn wanted(arguments: &Arguments) -> Result<Vec<Mutant>> {
    let mutants = read_list(&workspace().join("xtask/mutants.toml"))?;
    for name in &arguments.names {
        if !mutants.iter().any(|mutant| mutant.name == *name) {
            bail!("no edit is called {name}: cargo xtask mutants --list");
        }
    }
    Ok(mutants
        .into_iter()
        .filter(|mutant| arguments.names.is_empty() || arguments.names.contains(&mutant.name))
        .collect())
}

fn break_and_judge(mutants: &[Mutant]) -> Result<Tally> {
    let scratch = Scratch::copy_of(&workspace(), &target_dir().join("mutants"))?;
    // Every edit is looked up before the first is built: a stale list is said at once.
    for mutant in mutants {
        scratch.broken_text(mutant).with_context(|| format!("edit {}", mutant.name))?;
    }
    for (number, mutant) in mutants.iter().enumerate() {
        let first_of_its_judge = mutants[..number].iter().all(|before| before.noticed_by != mutant.noticed_by);
        if first_of_its_judge {
            let finding = mutant.noticed_by.judge(&scratch)?;
            ensure!(
                finding == Finding::Sound,
                "nothing can be learnt from breaking the engine, because as it is {} says: {finding}",
                mutant.noticed_by
            );
        }
    }
    let mut tally = Tally::default();
    for mutant in mutants {
        let start = Instant::now();
        let finding = judge_broken(&scratch, mutant)?;
        let seconds = start.elapsed().as_secs_f64();
        let is_noticed = matches!(finding, Finding::Broken(_));
        let verdict = match finding {
            Finding::Sound => format!("NOT NOTICED by {}", mutant.noticed_by),
            other => other.to_string(),
        };
        eprintln!("{:28} {seconds:5.1} s  {verdict}", mutant.name);
        if is_noticed {
            tally.pass();
        } else {
            tally.fail(&mutant.name, verdict);
        }
    }
    Ok(tally)
}

fn judge_broken(scratch: &Scratch, mutant: &Mutant) -> Result<Finding> {
    let broken = scratch.breaking(mutant).with_context(|| format!("edit {}", mutant.name))?;
    let finding = mutant.noticed_by.judge(scratch);
    broken.mend()?;
    finding
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::judge::NoticedBy;
    use super::*;

    /// A package of one function and one test, to be broken in several ways.
    fn small_engine() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        };
        write("Cargo.toml", "[package]\nname = \"small\"\nedition = \"2024\"\n[workspace]\n");
        write("src/lib.rs", "pub fn three() -> u32 { 3 }\n#[test]\nfn is_three() { assert_eq!(three(), 3); }\n");
        folder
    }

    fn edit(name: &str, find: &str, replace: &str) -> Mutant {
        Mutant {
            name: name.into(),
            breaks: "three".into(),
            file: "src/lib.rs".into(),
            find: find.into(),
            replace: replace.into(),
            noticed_by: NoticedBy::Test { package: "small".into(), test: "is_three".into() },
        }
    }

    #[test]
    fn every_edit_has_its_turn_and_which_is_up_to_the_commit() {
        let list = || (0..20).map(|number| edit(&number.to_string(), "3", "4")).collect::<Vec<_>>();
        let names = |commit: &str| a_turn(list(), commit).into_iter().map(|edit| edit.name).collect::<Vec<_>>();
        let turn = names("00000012ffff");
        assert_eq!((turn.len(), &turn[..4]), (A_TURN, ["18", "19", "0", "1"].map(String::from).as_slice()));
        assert_eq!(names(""), names("00000000"), "without a repository");
        let all: std::collections::BTreeSet<_> = (0..20).flat_map(|commit| names(&format!("{commit:08x}"))).collect();
        assert_eq!(all.len(), list().len());
        assert!(a_turn(Vec::new(), "00000001").is_empty());
    }

    #[test]
    fn each_kind_of_edit_gets_its_own_verdict() {
        let source = small_engine();
        let place = tempfile::tempdir().expect("a temporary folder");
        let scratch = Scratch::copy_of(source.path(), place.path()).expect("it can be copied");
        let judge = |mutant: &Mutant| judge_broken(&scratch, mutant).expect("cargo runs");

        assert!(matches!(judge(&edit("wrong", "u32 { 3 }", "u32 { 4 }")), Finding::Broken(_)));
        assert_eq!(judge(&edit("same", "u32 { 3 }", "u32 { 2 + 1 }")), Finding::Sound);
        assert_eq!(judge(&edit("nonsense", "u32 { 3 }", "u32 { three }")), Finding::Unbuildable);
        let unbroken = edit("", "", "").noticed_by.judge(&scratch).expect("cargo runs");
        assert_eq!(unbroken, Finding::Sound, "every edit was mended");

        let mut nobody = edit("nobody", "u32 { 3 }", "u32 { 4 }");
        nobody.noticed_by = NoticedBy::Test { package: "small".into(), test: "no_such_test".into() };
        assert!(matches!(judge(&nobody), Finding::Undecided(_)));
    }

    #[test]
    fn text_that_is_not_there_exactly_once_is_an_error() {
        let source = small_engine();
        let place = tempfile::tempdir().expect("a temporary folder");
        let scratch = Scratch::copy_of(source.path(), place.path()).expect("it can be copied");
        for (find, times) in [("{ 5 }", "0 times"), ("three()", "3 times")] {
            let error = scratch.broken_text(&edit("stale", find, "")).expect_err("it is stale");
            assert!(format!("{error:#}").contains(times), "{error:#}");
        }
    }

    #[test]
    fn the_list_applies_to_the_source_as_it_is() {
        let mutants = wanted(&Arguments::default()).expect("the list can be read");
        for mutant in &mutants {
            let text = fs::read_to_string(workspace().join(&mutant.file)).expect(&mutant.file);
            assert_eq!(text.matches(&mutant.find).count(), 1, "edit {}: its text in {}", mutant.name, mutant.file);
        }
    }
}
