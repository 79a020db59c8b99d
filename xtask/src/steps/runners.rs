//! Test runners, and reading how many tests they ran.

use std::process::Command;

use anyhow::Result;

use super::failures::failures_in;
use super::listen::listen;
use super::words_of;
use crate::cargo::{cargo, succeeds, workspace};
use crate::summary::Outcome;
use crate::tally::{Counts, Tally};

/// Property tests draw the same inputs in every run of the one test command, so that a change fails for what it changed. Run by hand, without the
/// variable, they draw new ones each time.
const PROPERTY_SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20210321");

/// All tests of the workspace: with nextest where it is installed (each test in its own process, in parallel).
pub(crate) fn unit() -> Result<Outcome> {
    let workspace = workspace();
    let mut command = cargo(&workspace);
    command.env(PROPERTY_SEED.0, PROPERTY_SEED.1);
    if succeeds(cargo(&workspace).args(["nextest", "--version"])) {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "slow"]);
        return counted(&mut command, Runner::Nextest);
    }
    command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--examples", "--no-fail-fast"]);
    counted(&mut command, Runner::CargoTest)
}

pub(crate) fn doctest() -> Result<Outcome> {
    counted(cargo(&workspace()).args(["test", "--workspace", "--doc", "--quiet"]), Runner::CargoTest)
}

/// Whose closing line is counted.
#[derive(Clone, Copy)]
pub(crate) enum Runner {
    /// One `test result: ...` for each test program.
    CargoTest,
    /// One `Summary ...`. It also repeats what failing test programs printed, `test result: ...` included.
    Nextest,
}

/// Runs a test runner, passes on what it prints, and counts the tests. Fails if the runner does, whatever it counted, and if there was no test to run: a name
/// or a condition of the build that finds nothing any more checks nothing.
pub(crate) fn counted(command: &mut Command, runner: Runner) -> Result<Outcome> {
    let heard = listen(command)?;
    let mut counts = Counts::default();
    for more in heard.out.iter().chain(&heard.err).filter_map(|line| read_counts(line, runner)) {
        counts += more;
    }
    let is_well = heard.status.success() && counts.passed > 0;
    if !is_well && counts.failed == 0 {
        counts.failed = 1;
    }
    let failures = if counts.failed == 0 { Vec::new() } else { failures_in(&heard, &words_of(command)) };
    Ok(Outcome::Ran(Tally { counts, failures }))
}

/// The counts in the runner's closing line.
fn read_counts(line: &str, runner: Runner) -> Option<Counts> {
    let line = line.trim();
    let listed = match runner {
        Runner::CargoTest => line.strip_prefix("test result: ")?.split_once(". ")?.1,
        Runner::Nextest => {
            let rest = line.strip_prefix("Summary [")?;
            rest.split_once("tests run: ").or_else(|| rest.split_once("test run: "))?.1
        }
    };
    let mut counts = Counts::default();
    for item in listed.split([',', ';']) {
        let mut words = item.split_whitespace();
        let (Some(number), Some(word)) = (words.next().and_then(|number| number.parse::<u64>().ok()), words.next())
        else {
            continue;
        };
        match word {
            "passed" => counts.passed += number,
            "failed" | "timed" => counts.failed += number,
            "skipped" | "ignored" => counts.skipped += number,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_test_is_counted() {
        let line = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 5 filtered out; finished in 0.01s\n";
        assert_eq!(read_counts(line, Runner::CargoTest), Some(Counts { passed: 12, failed: 0, skipped: 3 }));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(read_counts(line, Runner::CargoTest), Some(Counts { passed: 1, failed: 2, skipped: 0 }));
    }

    #[test]
    fn nextest_is_counted() {
        let plain = "     Summary [   0.005s] 7 tests run: 5 passed (1 slow), 2 failed, 1 skipped";
        let expected = Some(Counts { passed: 5, failed: 2, skipped: 1 });
        assert_eq!(read_counts(plain, Runner::Nextest), expected);
        let one = "Summary [   0.005s] 1 test run: 1 passed, 0 skipped";
        assert_eq!(read_counts(one, Runner::Nextest), Some(Counts { passed: 1, failed: 0, skipped: 0 }));
        let repeated = "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured";
        assert_eq!(read_counts(repeated, Runner::Nextest), None, "a failing test program's own line");
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in ["", "running 4 tests", "Summary of the day", "test result: odd", "12 passed"] {
            for runner in [Runner::CargoTest, Runner::Nextest] {
                assert_eq!(read_counts(line, runner), None, "{line}");
            }
        }
    }

    #[test]
    fn a_runner_that_dies_without_counting_or_runs_nothing_has_failed() {
        let none = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s";
        let one = none.replace("0 passed", "1 passed");
        for (runner, failed) in [(["false", ""], 1), (["echo", none], 1), (["echo", one.as_str()], 0)] {
            let counted = counted(Command::new(runner[0]).arg(runner[1]), Runner::CargoTest);
            let Outcome::Ran(tally) = counted.expect("it can be started") else { panic!("it ran") };
            assert_eq!(tally.counts.failed, failed, "{runner:?}");
            assert_eq!(tally.failures.len() as u64, failed, "each is named: {runner:?}");
        }
    }
}
