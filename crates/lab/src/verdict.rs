//! What an exploration found.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::limits::Limit;
use crate::recording::Recording;
use crate::sample::Sampled;
use crate::trace::Trace;
use crate::visited::Fingerprints;

/// A rule that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The rule's name, for example `stale-tlb`.
    pub rule: String,
    /// One sentence that says what happened.
    pub sentence: String,
}

impl Violation {
    /// This rule, broken in this way.
    pub fn new(rule: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { rule: rule.into(), sentence: sentence.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.sentence)
    }
}

/// Names of the rules that the lab itself checks.
pub mod rule {
    /// A walker, software or hardware, touched a table frame that is free.
    pub const FREED_TABLE: &str = "freed-table";
    /// An access went through a translation to a frame that was freed since.
    pub const STALE_TLB: &str = "stale-tlb";
    /// A walker follows an entry to a frame that holds no table.
    pub const PHANTOM_FRAME: &str = "phantom-frame";
    /// A frame is freed that is free.
    pub const LOST_COUNT: &str = "lost-count";
    /// Nobody can step, and not everybody is done.
    pub const DEADLOCK: &str = "deadlock";
    /// A run that never ends although everybody gets his turn. Looked for by [`crate::Lab::explore_livelocks`] only.
    pub const LIVELOCK: &str = "livelock";
    /// An assertion of the code or of the test: a panic.
    pub const USER: &str = "user";
}

/// The code under test, or the test, broke a rule of the lab: there is no verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Misuse {
    /// Which rule.
    pub kind: MisuseKind,
    /// What happened, naming source lines.
    pub sentence: String,
    /// How it came to be.
    pub trace: Trace,
}

/// Rules for code that runs in the lab.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MisuseKind {
    /// A word outside the arena was accessed.
    OutsideArena,
    /// A CPU that was given the same answers twice did different things: it has state that the lab does not see, or a
    /// digest forgets something.
    HiddenState,
    /// A word was accessed as owned while another CPU could access it.
    NotOwned,
    /// An operation was called in a context that it forbids.
    Context,
    /// The machine was not set up for the operation: no MMU, no such frame, page not watched.
    Setup,
    /// A bound of the simulated machine was exceeded.
    Capacity,
    /// A checkpoint is of a lab that was built otherwise.
    OtherCode,
    /// CPUs that were declared interchangeable ([`crate::Lab::interchangeable`]) are told apart.
    Distinguished,
}

/// A run that breaks a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// The rule.
    pub violation: Violation,
    /// The run.
    pub trace: Trace,
    /// Whether no run breaks a rule in fewer steps, and none in as many steps with fewer context switches.
    pub shortest: bool,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every interleaving was explored and none breaks a rule.
    Safe,
    /// A run breaks a rule.
    Violated(Box<Counterexample>),
    /// The search ended early without a violation.
    Bounded(Limit),
    /// The lab was used wrongly.
    Error(Box<Misuse>),
}

/// What an exploration found, and how much of the world it saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// Distinct states visited; of random schedules, distinct final states.
    pub states: u64,
    /// Steps executed by it, each from another state or to another one.
    pub transitions: u64,
    /// The longest run without a repeated state that it followed.
    pub depth: u64,
    /// Distinct states in which every CPU was done.
    pub ends: u64,
    /// What [`crate::Lab::observe`] returned in these.
    pub observations: BTreeSet<Vec<u64>>,
    /// For each of them a run that leads there, if they were asked for: [`crate::Lab::explore_keeping_runs`].
    pub runs: Vec<Recording>,
    /// What random schedules have shown, if they were asked for.
    pub sampled: Option<Sampled>,
    /// Bytes that visited states took in the end.
    pub visited_bytes: u64,
    /// What was kept of each.
    pub fingerprints: Fingerprints,
    /// Time taken.
    pub elapsed: Duration,
}

impl Report {
    /// Nothing was found, and nothing seen.
    pub(crate) fn empty() -> Self {
        Self {
            verdict: Verdict::Safe,
            states: 0,
            transitions: 0,
            depth: 0,
            ends: 0,
            observations: BTreeSet::new(),
            runs: Vec::new(),
            sampled: None,
            visited_bytes: 0,
            fingerprints: Fingerprints::Wide,
            elapsed: Duration::ZERO,
        }
    }

    /// The chance that at least one state was taken for another that was visited before, and what comes after it not explored: at most this, if fingerprints are as good
    /// as random (the birthday bound).
    #[must_use]
    pub fn missed(&self) -> f64 {
        let bits = match self.fingerprints {
            Fingerprints::Wide => 128,
            Fingerprints::Narrow => 64,
        };
        let states = self.states as f64;
        states * states / 2.0_f64.powi(bits + 1)
    }

    /// The counterexample.
    ///
    /// # Panics
    /// If no rule was broken: for tests.
    #[track_caller]
    pub fn expect_violation(&self, rule: &str) -> &Counterexample {
        match &self.verdict {
            Verdict::Violated(found) if found.violation.rule == rule => found,
            other => panic!("expected a violation of {rule}, not {other:?}"),
        }
    }

    /// Requires that every interleaving was explored and none breaks a rule.
    ///
    /// # Panics
    /// With the trace, if not so: for tests.
    #[track_caller]
    pub fn expect_safe(&self) -> &Self {
        match &self.verdict {
            Verdict::Safe => self,
            Verdict::Violated(found) => panic!("{}\n{}", found.violation, crate::trace::columns(&found.trace)),
            Verdict::Error(misuse) => panic!("{}\n{}", misuse.sentence, crate::trace::columns(&misuse.trace)),
            Verdict::Bounded(limit) => panic!("{limit}"),
        }
    }
}
