//! Who must notice that the engine is broken, and what it said.

use std::fmt;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::scratch::Scratch;

/// A broken engine may make an exploration endless.
const LIMIT_SECONDS: &str = "120";

/// Who must notice.
#[derive(Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum NoticedBy {
    /// A race of the catalogue: a variant that should be safe must break this rule.
    Race {
        /// The name of its file.
        race: String,
        /// The rule that must be broken; or `error`, if the lab must say that the code cannot be explored: it accesses what it does not own.
        rule: String,
    },
    /// A test of a package must fail.
    Test {
        /// The package.
        package: String,
        /// The test's name or a part of it, as `cargo test` takes it.
        test: String,
    },
}

/// What the judge found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing is wrong.
    Sound,
    /// Something is: this.
    Broken(String),
    /// The source does not compile.
    Unbuildable,
    /// There is no answer, for this reason.
    Undecided(String),
}

/// The fields of a verdict that matter here.
#[derive(Deserialize)]
struct Verdict {
    variant: String,
    verdict: String,
    rule: Option<String>,
    /// `None` where the file expects nothing: then nothing can be unexpected.
    as_expected: Option<bool>,
    steps: Option<u64>,
}

impl NoticedBy {
    /// Builds what the scratch copy holds now, and asks.
    ///
    /// # Errors
    /// Cargo or the judge cannot be started.
    pub(super) fn judge(&self, scratch: &Scratch) -> Result<Finding> {
        match self {
            Self::Race { race, rule } => judge_by_race(scratch, race, rule),
            Self::Test { package, test } => judge_by_test(scratch, package, test),
        }
    }
}

fn judge_by_race(scratch: &Scratch, race: &str, rule: &str) -> Result<Finding> {
    let cargo = |command: &[&str]| {
        let mut cargo = scratch.cargo();
        cargo.args(command).args(["--quiet", "--package", "fastgup"]);
        cargo
    };
    if !cargo(&["build"]).stderr(Stdio::null()).status().context("cannot start cargo")?.success() {
        return Ok(Finding::Unbuildable);
    }
    let run = cargo(&["run"])
        .args(["--", "check", "--json", "--trace", "never", "--limit-seconds", LIMIT_SECONDS, race])
        .output()
        .context("cannot start cargo")?;
    let mut unexpected = Vec::new();
    for line in String::from_utf8_lossy(&run.stdout).lines() {
        let verdict: Verdict = serde_json::from_str(line).with_context(|| format!("a verdict on {race}: {line}"))?;
        if verdict.as_expected == Some(false) {
            unexpected.push(verdict);
        }
    }
    let noticed = unexpected.iter().find(|one| one.rule.as_ref().unwrap_or(&one.verdict) == rule);
    Ok(match (run.status.code(), noticed) {
        (Some(0), None) => Finding::Sound,
        (Some(1..=3), Some(one)) => {
            let steps = one
                .steps
                .map_or_else(String::new, |steps| format!(" after {steps} step{}", if steps == 1 { "" } else { "s" }));
            Finding::Broken(format!("{rule}{steps} ({race}, variant {})", one.variant))
        }
        _ => Finding::Undecided(format!(
            "fastgup check {race} ended with {}, unexpected were {}; wanted {rule}. {}",
            run.status,
            unexpected
                .iter()
                .map(|one| format!("{}: {} {}", one.variant, one.verdict, one.rule.as_deref().unwrap_or("")))
                .collect::<Vec<_>>()
                .join(", "),
            String::from_utf8_lossy(&run.stderr).trim()
        )),
    })
}

fn judge_by_test(scratch: &Scratch, package: &str, test: &str) -> Result<Finding> {
    let arguments = ["test", "--quiet", "--package", package, "--lib", "--tests"];
    let mut build = scratch.cargo();
    build.args(arguments).arg("--no-run").stderr(Stdio::null());
    if !build.status().context("cannot start cargo")?.success() {
        return Ok(Finding::Unbuildable);
    }
    let run = scratch.cargo().args(arguments).arg(test).output().context("cannot start cargo")?;
    let printed = String::from_utf8_lossy(&run.stdout);
    let failed: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("---- ")?.split(' ').next()).collect();
    let none_ran = !printed.lines().any(|line| line.starts_with("running ") && !line.starts_with("running 0 "));
    Ok(match (run.status.success(), failed.first()) {
        _ if none_ran => Finding::Undecided(format!("no test of {package} is called {test}")),
        (true, _) => Finding::Sound,
        (false, Some(test)) => Finding::Broken(format!("test {test} of {package}")),
        (false, None) => Finding::Undecided(format!("cargo test ended with {} and no test failed", run.status)),
    })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound => write!(f, "sound"),
            Self::Broken(how) => write!(f, "noticed: {how}"),
            Self::Unbuildable => write!(f, "DOES NOT COMPILE, so it proves nothing"),
            Self::Undecided(why) => write!(f, "UNDECIDED: {why}"),
        }
    }
}

impl fmt::Display for NoticedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Race { race, rule } => write!(f, "race {race} (as {rule})"),
            Self::Test { package, test } => write!(f, "test {test} of {package}"),
        }
    }
}
