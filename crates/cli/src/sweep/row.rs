//! One row of a sweep, as it is kept between machines.

use lab::Fingerprints;
use races::scope::Scope;
use races::{MemoryOrder, Observation, VariantReport, Verdict};
use serde::{Deserialize, Serialize};

use super::range::Range;

/// What was asked, the same in every row: rows of other questions are not put beside each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Sweep {
    /// The digest of the source of the program.
    pub(crate) code: String,
    /// The name of the race.
    pub(crate) race: String,
    /// Its file, as the user named it.
    pub(crate) file: String,
    /// The digest of its text.
    pub(crate) text: String,
    pub(crate) cpus: Range,
    pub(crate) entries: Range,
    /// Which variants and memory orders were named.
    pub(crate) variants: Vec<String>,
    pub(crate) memory: Vec<MemoryOrder>,
    /// Which interleavings.
    pub(crate) way: String,
    /// Bits that were kept of each state.
    pub(crate) fingerprints: u32,
    /// How many rows there are.
    pub(crate) rows: usize,
    /// CPUs for which the race is none, and why.
    pub(crate) left_out: Vec<(usize, String)>,
}

/// What a search keeps of each state, in bits.
pub(crate) const fn bits(fingerprints: Fingerprints) -> u32 {
    match fingerprints {
        Fingerprints::Wide => 128,
        Fingerprints::Narrow => 64,
    }
}

/// The answer for one scope, one variant and one memory order. Members that `check --json` has as well are called the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) sweep: Sweep,
    /// From 1.
    pub(crate) row: usize,
    pub(crate) cpus: usize,
    pub(crate) entries: u64,
    pub(crate) variant: Option<String>,
    pub(crate) memory: MemoryOrder,
    pub(crate) verdict: Verdict,
    pub(crate) rule: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) expected: Option<String>,
    pub(crate) as_expected: Option<bool>,
    pub(crate) observation: Option<Observation>,
    pub(crate) states: u64,
    pub(crate) transitions: u64,
    pub(crate) steps: Option<usize>,
    pub(crate) seconds: f64,
    pub(crate) missed: Option<f64>,
}

impl Row {
    pub(crate) fn of(sweep: &Sweep, number: usize, scope: Scope, report: &VariantReport) -> Self {
        Self {
            sweep: sweep.clone(),
            row: number,
            cpus: scope.cpus,
            entries: scope.entries,
            variant: report.variant.clone(),
            memory: report.memory,
            verdict: report.verdict,
            rule: report.rule.clone(),
            message: report.message.clone(),
            expected: report.expected.clone(),
            as_expected: report.as_expected,
            observation: report.observation,
            states: report.states,
            transitions: report.transitions,
            steps: report.steps,
            seconds: report.seconds,
            missed: report.missed,
        }
    }

    /// Whether a limit, or the user, ended the search.
    pub(crate) fn is_cut(&self) -> bool {
        self.verdict == Verdict::Bounded
    }

    /// Whether two answers to one question do not contradict each other.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let said = |row: &Self| (row.verdict, row.rule.clone(), row.observation);
        self.is_cut() || other.is_cut() || said(self) == said(other)
    }
}
