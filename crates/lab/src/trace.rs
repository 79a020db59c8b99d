//! One run, step by step.

use machine::CpuId;
use serde::{Deserialize, Serialize};

pub use crate::act::{Act, Passage, Stale, What, Words};
use crate::recording::Recording;

/// One run of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// The names of the CPUs.
    pub cpus: Vec<String>,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// What happened on the machine: the steps, and accesses that are none, in order. Empty if the run comes from a file.
    pub acts: Vec<Act>,
    /// What it takes to do it again.
    pub recording: Recording,
}

/// What kind of step it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// An operation of the code.
    Operation,
    /// An interrupt was taken.
    Interrupt,
    /// The oldest buffered store reached memory.
    Drain,
    /// A hardware walker wrote an entry.
    Walker,
    /// A broadcast invalidation arrived.
    Broadcast,
    /// The thread was moved to another CPU.
    Move,
}

/// A value that a step saw or left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Value {
    /// The bits.
    pub bits: u64,
    /// Width in bytes: 4 or 8.
    pub bytes: u8,
    /// In words, if the place has a formatter.
    pub words: Option<String>,
}

/// A line of source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// One step of one CPU.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Whose step.
    #[serde(with = "cpu_number")]
    pub cpu: CpuId,
    /// Whether the CPU was in its interrupt handler.
    pub in_interrupt: bool,
    /// What kind.
    pub kind: StepKind,
    /// The operation, for example `load` or `await`.
    pub what: String,
    /// The place it acted on, by name.
    pub target: Option<String>,
    /// What the place held before, where the step read it.
    pub before: Option<Value>,
    /// What it holds afterwards, where the step wrote it (or put it into the store buffer).
    pub after: Option<Value>,
    /// Anything else worth a word: `waits in the store buffer`, an outcome.
    pub note: Option<String>,
    /// The line of the code under test.
    pub place: Option<Place>,
    /// Marks that the code set just before this step.
    pub marks_before: Vec<String>,
    /// Marks, owned accesses and events of the code between this step and its next one.
    pub marks_after: Vec<String>,
}

mod cpu_number {
    use machine::{CpuId, CpuSet};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(cpu: &CpuId, serializer: S) -> Result<S::Ok, S::Error> {
        cpu.index().serialize(serializer)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<CpuId, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if number >= CpuSet::CAPACITY {
            return Err(D::Error::custom(format!("there is no CPU {number}")));
        }
        Ok(CpuId::new(number))
    }
}

impl Trace {
    /// How often the steps move from one CPU to another.
    pub fn context_switches(&self) -> usize {
        self.steps.windows(2).filter(|pair| pair[0].cpu != pair[1].cpu).count()
    }
}

/// The run as text, one column per CPU, as kernel commit logs show races. CPUs without a step are left out.
///
/// With three CPUs lines are shorter than 120 characters. Marks begin with `~`, steps of a store buffer with `(buffer)`, steps of
/// other hardware with `(hw)`, steps of an interrupt handler with `[irq]`.
pub fn columns(trace: &Trace) -> String {
    crate::columns::render(trace)
}

/// What a step does, on one line.
pub fn one_line(step: &Step) -> String {
    crate::columns::line_of(step)
}
