//! What an exploration found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Names of the rules that the machine itself holds.
pub mod rule {
    /// A table is used whose frame is free.
    pub const FREED_TABLE: &str = "freed-table";
    /// An access reaches a frame through a translation that is older than the frame's present owner.
    pub const STALE_TLB: &str = "stale-tlb";
    /// A walk takes for a table what is none.
    pub const PHANTOM_FRAME: &str = "phantom-frame";
    /// A free frame is freed.
    pub const LOST_COUNT: &str = "lost-count";
    /// Nothing can happen, and not all programs are over.
    pub const DEADLOCK: &str = "deadlock";
    /// The code under test says so, or panics.
    pub const USER: &str = "user";
}

/// A rule that was broken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    /// Its name.
    pub rule: String,
    /// What happened.
    pub sentence: String,
}

impl Violation {
    /// This rule, broken like this.
    pub fn new(rule: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { rule: rule.into(), sentence: sentence.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.sentence)
    }
}

/// How much of what may happen was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Coverage {
    /// All of it.
    Complete,
    /// The rule that was looked for is broken: the rest was not looked at.
    Sought,
    /// Some: the budget was used up.
    Budget,
    /// Some: a run was longer than the budget allows, so code may loop for ever.
    Endless,
    /// Nothing that counts: the code or the test uses the machine wrongly.
    Misuse(String),
}

/// What an exploration found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How much was seen.
    pub coverage: Coverage,
    /// For each rule that is broken, how the first run that breaks it does.
    pub broken: BTreeMap<String, String>,
    /// What was read in the final states.
    pub observations: BTreeSet<Vec<u64>>,
    /// Runs to an end.
    pub runs: u64,
    /// Runs that were given up because each way on is known from another one.
    pub redundant: u64,
    /// Steps of all runs.
    pub steps: u64,
    /// Time taken.
    pub elapsed: Duration,
}

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// After so many runs, redundant ones included.
    pub runs: u64,
    /// After so much time.
    pub time: Duration,
    /// Steps of a run.
    pub depth: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { runs: u64::MAX, time: Duration::MAX, depth: 5_000 }
    }
}
