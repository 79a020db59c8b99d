//! What deciding a variant says: one [`VariantReport`] for each variant and memory order.

pub(crate) mod trace;

use serde::{Deserialize, Serialize};

use crate::ends::EndSet;

/// The answer for one variant of one race under one memory order. As JSON it is one object on one line.
#[derive(Clone, Debug, Serialize)]
pub struct VariantReport {
    /// The file, as the user named it, or `catalogue/...`.
    pub file: String,
    /// The name in the file's first line.
    pub race: String,
    /// The variant; `None` for a file of instructions, which has none.
    pub variant: Option<String>,
    /// The answer.
    pub verdict: Verdict,
    /// The rule that is broken, by the name that files use. Only with [`Verdict::Violation`].
    pub rule: Option<String>,
    /// One sentence: why the rule is broken, which limit ended the search, or what went wrong.
    pub message: Option<String>,
    /// What the file expects, as it is written there; `None` where it expects nothing.
    pub expected: Option<String>,
    /// Whether the answer is what the file expects; `None` where it expects nothing, or where no answer was reached.
    pub as_expected: Option<bool>,
    /// How many CPUs the machine has.
    pub cpus: usize,
    /// Its memory order.
    pub memory: MemoryOrder,
    /// How many states were told apart; of random schedules, how many final states.
    pub states: u64,
    /// How many steps were explored.
    pub transitions: u64,
    /// Bytes that visited states took in the end; 0 where they are not kept for themselves.
    pub visited_bytes: u64,
    /// The chance that a state was taken for another, at most. Only where 64 bits were kept of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<f64>,
    /// What random schedules have shown. Only where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampled: Option<Sampled>,
    /// How long the shown trace is; `None` without one.
    pub steps: Option<usize>,
    /// How long the search took, in seconds of wall-clock time.
    pub seconds: f64,
    /// The run that breaks the rule, or that ends in a final state that the condition asks for. `lab::trace::columns` prints it.
    #[serde(serialize_with = "trace::serialize")]
    pub trace: Option<lab::Trace>,
    /// Whether no such run has fewer steps, and none as many with fewer context switches.
    pub shortest: Option<bool>,
    /// How many final states satisfy the condition: none, some, all. Only with a condition.
    pub observation: Option<Observation>,
    /// How many final states there are, told apart by what the condition and `locations` name. Only with one of them.
    pub final_states: Option<usize>,
    /// The final states themselves, in the order of their values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finals: Vec<FinalState>,
    /// The whole final states, if they were collected.
    #[serde(skip)]
    pub ends: Option<EndSet>,
    /// The condition, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// What the file says about the variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// What random schedules have shown: see [`lab::Sampled`].
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sampled {
    /// How each picked its steps.
    pub schedule: String,
    /// Which seed gives the same again.
    pub seed: u64,
    /// Runs to the end.
    pub runs: u64,
    /// Runs that were cut off.
    pub cut: u64,
    /// Steps of the longest.
    pub longest: u64,
    /// With 95 % confidence, fewer than this share of such schedules break a rule.
    pub most_missed: f64,
    /// About how likely one more ends in a new final state.
    pub new_end: f64,
    /// The chance that a bug of PCT's depth would have been met, at least.
    pub pct_chance: Option<f64>,
}

impl From<lab::Sampled> for Sampled {
    fn from(sampled: lab::Sampled) -> Self {
        Self {
            schedule: sampled.sampling.schedule.to_string(),
            seed: sampled.sampling.seed,
            runs: sampled.runs,
            cut: sampled.cut,
            longest: sampled.longest,
            most_missed: sampled.most_missed(),
            new_end: sampled.new_end(),
            pct_chance: sampled.pct_chance(),
        }
    }
}

/// What a search can say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No interleaving breaks a rule. The whole bound was explored.
    Safe,
    /// Some interleaving breaks one.
    Violation,
    /// A limit, or the user, ended the search before an answer.
    Bounded,
    /// The variant could not be run.
    Error,
}

impl Verdict {
    /// As it is written in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Violation => "violation",
            Self::Bounded => "bounded",
            Self::Error => "error",
        }
    }
}

/// The order in which CPUs see each other's stores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryOrder {
    /// Sequential consistency: at once.
    Sc,
    /// x86-TSO: through a store buffer.
    Tso,
}

impl MemoryOrder {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sc, Self::Tso];

    /// As it is written in files and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sc => "sc",
            Self::Tso => "tso",
        }
    }

    /// The order of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.name() == name)
    }
}

/// How many final states satisfy a condition, as herd says it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Observation {
    /// None of them.
    Never,
    /// Some, but not all.
    Sometimes,
    /// All of them.
    Always,
}

impl Observation {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Never, Self::Sometimes, Self::Always];

    /// As herd prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::Sometimes => "Sometimes",
            Self::Always => "Always",
        }
    }

    /// The observation of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|observation| observation.name() == name)
    }

    /// What is observed when so many final states satisfy the condition and so many do not.
    pub const fn of(positive: usize, negative: usize) -> Self {
        match (positive, negative) {
            (0, _) => Self::Never,
            (_, 0) => Self::Always,
            _ => Self::Sometimes,
        }
    }
}

/// One final state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FinalState {
    /// Each observed place with its value, as text.
    pub values: Vec<(String, String)>,
    /// Whether it satisfies the condition (`true` without one).
    pub satisfies: bool,
}
