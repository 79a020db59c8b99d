//! Who may notice a mutant: the tests, and the variants of the races. How they are found, asked, and understood.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::copy::Place;
use super::process::{Ended, Ran, run};

/// The packages whose tests are asked.
pub(super) const TESTED: [&str; 3] = ["fastgup-pagetable", "fastgup-mm", "fastgup-ttm"];
/// The package of the program that decides races.
pub(super) const CLI: &str = "fastgup";

/// A program of tests, and where it wants to run.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    folder: PathBuf,
}

/// Who is asked.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(super) enum Judge {
    Test { program: Program, name: String },
    Race { race: String, variant: Option<String> },
}

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    /// Something is wrong: who says so, and what.
    Noticed(String),
    /// It did not end in time, or took too much memory: who.
    TooLong(String),
}

/// All tests.
pub(super) fn tests(place: &Place) -> Result<Vec<Judge>> {
    let mut tests = Vec::new();
    for package in TESTED {
        for program in programs(place, package)? {
            let list = Command::new(&program.path).args(["--list", "--format", "terse"]).output()?;
            ensure!(list.status.success(), "{} does not list its tests", program.path.display());
            let names = String::from_utf8(list.stdout)?;
            tests.extend(
                names
                    .lines()
                    .filter_map(|line| line.strip_suffix(": test"))
                    .map(|name| Judge::Test { program: program.clone(), name: name.to_owned() }),
            );
        }
    }
    Ok(tests)
}

fn programs(place: &Place, package: &str) -> Result<Vec<Program>> {
    let arguments = ["test", "--no-run", "--message-format", "json", "--lib", "--tests", "--package", package];
    let build = place.cargo().args(arguments).stderr(Stdio::null()).output().context("cannot start cargo")?;
    ensure!(build.status.success(), "the tests of {package} do not build");
    let mut programs = Vec::new();
    for line in String::from_utf8(build.stdout)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        if let (Some(path), Some(manifest)) = (line["executable"].as_str(), line["manifest_path"].as_str())
            && line["profile"]["test"] == true
        {
            let folder = PathBuf::from(manifest).parent().context("a manifest is in a folder")?.to_owned();
            programs.push(Program { path: path.into(), folder });
        }
    }
    Ok(programs)
}

/// All variants of the races that run the engine.
pub(super) fn races(place: &Place) -> Result<Vec<Judge>> {
    let catalogue = place.source().join("crates/races/catalogue");
    let mut races = Vec::new();
    for folder in fs::read_dir(catalogue)? {
        for file in fs::read_dir(folder?.path())? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "litmus") {
                races.extend(variants(&fs::read_to_string(file)?));
            }
        }
    }
    Ok(races)
}

/// The variants of one file; those of the machine alone are no judges of the engine.
fn variants(text: &str) -> Vec<Judge> {
    let mut words = text.split_whitespace();
    let (Some("MM_X86_64" | "MM_PAE" | "MM_X86"), Some(race)) = (words.next(), words.next()) else { return Vec::new() };
    let named: Vec<Judge> = text
        .lines()
        .filter_map(|line| line.strip_prefix("variant ")?.split_whitespace().next())
        .map(|variant| Judge::Race { race: race.into(), variant: Some(variant.into()) })
        .collect();
    if named.is_empty() { vec![Judge::Race { race: race.into(), variant: None }] } else { named }
}

/// Asks some tests of one program, one after the other.
pub(super) fn ask_tests(
    program: &Program,
    names: &[&str],
    limit: Duration,
    environment: (&str, &str),
) -> Result<Answer> {
    let mut command = Command::new(&program.path);
    command.args(["--exact", "--test-threads", "1"]).args(names).current_dir(&program.folder);
    command.env("CARGO_MANIFEST_DIR", &program.folder).env("RUST_BACKTRACE", "0").env(environment.0, environment.1);
    let ran = run(&mut command, limit, |line| line.starts_with("test ") && line.ends_with("... FAILED"))?;
    let last = ran.lines.iter().rev().find_map(|line| line.strip_prefix("test ")?.split(" ...").next());
    let last = last.filter(|last| *last != "result: ok.").unwrap_or(names[0]).to_owned();
    Ok(match ran.ended {
        Ended::With(status) if status.success() => {
            let passed = format!("test result: ok. {} passed", names.len());
            let ignored = "ignored";
            ensure!(
                ran.lines.iter().any(|line| line.starts_with(&passed) || line.contains(ignored)),
                "{names:?} did not run"
            );
            Answer::Nothing
        }
        Ended::With(status) => Answer::Noticed(format!("{last} ({status})")),
        Ended::Enough => Answer::Noticed(last),
        Ended::TooMuch => Answer::TooLong(last),
    })
}

/// Asks one variant of a race.
pub(super) fn ask_race(
    place: &Place,
    (race, variant): (&str, Option<&str>),
    limit: Duration,
    environment: (&str, &str),
) -> Result<Answer> {
    let mut command = Command::new(place.file("target/debug/fastgup"));
    command.args(["check", "--json", "--trace", "never", "--jobs", "1", "--limit-seconds"]);
    command.arg(limit.as_secs().max(1).to_string()).arg(race);
    command.args(variant.map(|variant| ["--variant", variant]).iter().flatten()).env(environment.0, environment.1);
    // The program ends a search itself; what does not get so far is ended by us.
    let ran = run(&mut command, limit * 2, |_| false)?;
    let who = variant.map_or_else(|| race.to_owned(), |variant| format!("{race} {variant}"));
    Ok(understand(&ran, &who))
}

#[derive(Deserialize)]
struct Verdict {
    verdict: String,
    rule: Option<String>,
    as_expected: Option<bool>,
}

fn understand(ran: &Ran, who: &str) -> Answer {
    let verdicts = ran.lines.iter().filter_map(|line| serde_json::from_str::<Verdict>(line).ok());
    let mut is_bounded = matches!(ran.ended, Ended::TooMuch);
    for verdict in verdicts {
        if verdict.verdict == "bounded" {
            is_bounded = true;
        } else if verdict.as_expected == Some(false) {
            return Answer::Noticed(format!("{who}: {} {}", verdict.verdict, verdict.rule.unwrap_or_default()));
        }
    }
    match ran.ended {
        _ if is_bounded => Answer::TooLong(who.into()),
        Ended::With(status) if !status.success() => Answer::Noticed(format!("{who} ({status})")),
        _ => Answer::Nothing,
    }
}
