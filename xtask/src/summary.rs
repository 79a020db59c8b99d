//! What was run, how long it took, what failed and why, and the closing line that counts it.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::tally::{Counts, Failure, Tally};

/// How a step ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ran; whether it was good is in the counts.
    Ran(Tally),
    /// It cannot run here, for this reason.
    Skipped(String),
}

struct Done {
    name: &'static str,
    took: Duration,
    counts: Counts,
    remark: String,
    failures: Vec<Failure>,
}

/// How many failures of a step are shown: who broke everything need not read it all.
const SHOWN: usize = 20;

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
        let (tally, remark) = match outcome {
            Ok(Outcome::Ran(tally)) => {
                let remark = tally.counts.to_string();
                (tally, remark)
            }
            Ok(Outcome::Skipped(why)) => {
                (Tally { counts: Counts::SKIPPED, failures: Vec::new() }, format!("skipped: {why}"))
            }
            Err(error) => {
                let mut tally = Tally::default();
                tally.fail("the step has no result", format!("{error:#}"));
                (tally, "no result".to_owned())
            }
        };
        let Tally { counts, failures } = tally;
        if counts.failed == 0 && counts.passed == 0 {
            eprintln!("{remark}");
        }
        self.total += counts;
        self.done.push(Done { name, took, counts, remark, failures });
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
        for done in self.done.iter().filter(|done| done.counts.failed > 0) {
            write!(f, "{}", Failed(done))?;
        }
        write!(f, "{}", self.total)
    }
}

/// What failed in a step, and how to run it again: at the end, where it is looked for.
struct Failed<'done>(&'done Done);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Done { name, counts, failures, .. }) = self;
        writeln!(f, "\nstep {name} failed. Again: cargo xtask test {name}")?;
        for Failure { what, why } in failures.iter().take(SHOWN) {
            writeln!(f, "  {what}")?;
            for line in why.lines() {
                writeln!(f, "      {line}")?;
            }
        }
        let shown = failures.len().min(SHOWN) as u64;
        if counts.failed > shown {
            writeln!(f, "  {} more: see above", counts.failed - shown)?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_the_last_line_is_plain() {
        let mut summary = Summary::default();
        let three = Tally { counts: Counts { passed: 3, failed: 0, skipped: 1 }, failures: Vec::new() };
        assert!(summary.step("a", "", || Ok(Outcome::Ran(three))));
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
        assert!(after_the_table(&summary).contains("\n      it broke\n"), "{summary}");
    }

    fn after_the_table(summary: &Summary) -> String {
        let text = summary.to_string();
        text.split_once("      all ").expect("the table has a sum").1.to_owned()
    }

    #[test]
    fn what_failed_is_said_after_the_table() {
        let mut summary = Summary::default();
        let mut tally = Tally::default();
        tally.pass();
        tally.fail("pae torn", "it hung\nat 0x10");
        assert!(!summary.step("kernel", "", || Ok(Outcome::Ran(tally))));
        let said = "\nstep kernel failed. Again: cargo xtask test kernel\n  pae torn\n      it hung\n      at 0x10\n\n1 passed, 1 failed, 0 skipped";
        assert!(after_the_table(&summary).ends_with(said), "{summary}");
    }

    #[test]
    fn many_failures_are_cut_and_unnamed_ones_are_counted() {
        let mut summary = Summary::default();
        let mut tally = Tally::default();
        for number in 0..SHOWN + 3 {
            tally.fail(format!("test {number}"), "");
        }
        tally.counts.failed += 1;
        assert!(!summary.step("unit", "", || Ok(Outcome::Ran(tally))));
        let said = after_the_table(&summary);
        assert!(said.contains("  test 19\n  4 more: see above\n"), "{said}");
    }

    #[test]
    fn nothing_run_is_not_good() {
        assert!(!Summary::default().is_good());
    }
}
