//! Test runners, and reading how many tests they ran.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::cargo::{cargo, succeeds, workspace};
use crate::summary::{Counts, Outcome};

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

/// Runs a test runner, passes on what it prints, and counts the tests. Fails if the runner does, whatever it counted.
pub(crate) fn counted(command: &mut Command, runner: Runner) -> Result<Outcome> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut counts = std::thread::scope(|scope| -> Result<Counts> {
        let out = scope.spawn(|| pass_on(out, &mut std::io::stdout(), runner));
        let err = scope.spawn(|| pass_on(err, &mut std::io::stderr(), runner));
        let mut counts = out.join().expect("the reader does not panic")?;
        counts += err.join().expect("the reader does not panic")?;
        Ok(counts)
    })?;
    if !child.wait()?.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(Outcome::Ran(counts))
}

fn pass_on(from: Option<impl Read>, to: &mut dyn Write, runner: Runner) -> Result<Counts> {
    let mut counts = Counts::default();
    let Some(from) = from else { return Ok(counts) };
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        if let Some(more) = read_counts(&without_colours(&String::from_utf8_lossy(&line)), runner) {
            counts += more;
        }
        line.clear();
    }
    Ok(counts)
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

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once(|end: char| end.is_ascii_alphabetic()).map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
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
    fn nextest_is_counted_with_and_without_colours() {
        let plain = "     Summary [   0.005s] 7 tests run: 5 passed (1 slow), 2 failed, 1 skipped";
        let expected = Some(Counts { passed: 5, failed: 2, skipped: 1 });
        assert_eq!(read_counts(plain, Runner::Nextest), expected);
        let coloured = "\x1b[32;1m     Summary\x1b[0m [   0.005s] \x1b[1m7\x1b[0m tests run: \x1b[1m5\x1b[0m \x1b[32;1mpassed\x1b[0m, 2 failed, 1 skipped";
        assert_eq!(read_counts(&without_colours(coloured), Runner::Nextest), expected);
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
    fn a_runner_that_dies_without_counting_has_failed() {
        let Outcome::Ran(counts) =
            counted(Command::new("false").arg("x"), Runner::CargoTest).expect("false can be started")
        else {
            panic!("it ran")
        };
        assert_eq!(counts.failed, 1);
    }
}
