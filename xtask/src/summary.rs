//! What was run, how long it took, and the closing line that counts it.

use std::fmt;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How many tests passed, failed and were skipped. A step that is not made of tests counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// How a step ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ran; whether it was good is in the counts.
    Ran(Counts),
    /// It cannot run here, for this reason.
    Skipped(String),
}

struct Done {
    name: &'static str,
    took: Duration,
    counts: Counts,
    remark: String,
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Summary {
    done: Vec<Done>,
    total: Counts,
}

impl Summary {
    /// Says what it does, does it, and remembers how it ended. An error counts as one failure.
    ///
    /// Returns whether to go on.
    pub(crate) fn step(&mut self, name: &'static str, what: &str, run: impl FnOnce() -> Result<Outcome>) -> bool {
        eprintln!("\n== {name}: {what}");
        let start = Instant::now();
        let outcome = run();
        let took = start.elapsed();
        let (counts, remark) = match outcome {
            Ok(Outcome::Ran(counts)) => (counts, counts.to_string()),
            Ok(Outcome::Skipped(why)) => (Counts::SKIPPED, format!("skipped: {why}")),
            Err(error) => (Counts::FAILED, format!("FAILED: {error:#}")),
        };
        if counts.failed > 0 {
            eprintln!("\nxtask: step `{name}` failed ({remark}). Again: cargo xtask test {name}");
        } else if counts.passed == 0 {
            eprintln!("{remark}");
        }
        self.total += counts;
        self.done.push(Done { name, took, counts, remark });
        counts.failed == 0
    }

    /// Whether nothing failed, and something passed.
    pub(crate) fn is_good(&self) -> bool {
        self.total.failed == 0 && self.total.passed > 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |took: Duration| took.as_secs_f64();
        for done in &self.done {
            let sign = if done.counts.failed > 0 {
                "FAIL"
            } else if done.counts.passed == 0 {
                "skip"
            } else {
                "ok"
            };
            writeln!(f, "{sign:4}  {:10} {:7.1} s  {}", done.name, seconds(done.took), done.remark)?;
        }
        let all: Duration = self.done.iter().map(|done| done.took).sum();
        writeln!(f, "      {:10} {:7.1} s", "all", seconds(all))?;
        write!(f, "{}", self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_the_last_line_is_plain() {
        let mut summary = Summary::default();
        assert!(summary.step("a", "", || Ok(Outcome::Ran(Counts { passed: 3, failed: 0, skipped: 1 }))));
        assert!(summary.step("b", "", || Ok(Outcome::Skipped("no tool".into()))));
        assert!(summary.is_good());
        assert_eq!(summary.to_string().lines().last(), Some("3 passed, 0 failed, 2 skipped"));
        assert!(summary.to_string().contains("skipped: no tool"));
    }

    #[test]
    fn an_error_is_a_failure_and_stops() {
        let mut summary = Summary::default();
        assert!(!summary.step("a", "", || Err(anyhow::anyhow!("it broke"))));
        assert!(!summary.is_good());
        assert_eq!(summary.to_string().lines().last(), Some("0 passed, 1 failed, 0 skipped"));
    }

    #[test]
    fn nothing_run_is_not_good() {
        assert!(!Summary::default().is_good());
    }
}
