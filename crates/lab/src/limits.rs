//! What ends an exploration before it is complete, and what it says meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::visited::Fingerprints;

/// Bounds of the search itself. The default is unbounded but for memory (4 GiB).
#[derive(Clone, Copy, Debug)]
pub struct Limits<'c> {
    /// Distinct states.
    pub states: u64,
    /// Steps in one run.
    pub depth: u64,
    /// Wall-clock time.
    pub time: Duration,
    /// Bytes for visited states and for undoing.
    pub memory: u64,
    /// What is kept of each visited state.
    pub fingerprints: Fingerprints,
    /// States of the second search, which makes a violating trace as short as possible. When it runs out, the trace found first is given.
    pub shortening: u64,
    /// Set to `true` (by a signal handler, say) to end the exploration soon.
    pub cancel: Option<&'c AtomicBool>,
}

impl Default for Limits<'_> {
    fn default() -> Self {
        Self {
            states: u64::MAX,
            depth: u64::MAX,
            time: Duration::MAX,
            memory: 4 << 30,
            fingerprints: Fingerprints::Wide,
            shortening: 20_000_000,
            cancel: None,
        }
    }
}

impl Limits<'_> {
    pub(crate) fn cancelled(&self) -> bool {
        self.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// Which bound ended the search.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Limit {
    /// [`Limits::states`].
    States,
    /// [`Limits::depth`].
    Depth,
    /// [`Limits::time`].
    Time,
    /// [`Limits::memory`].
    Memory,
    /// [`Limits::cancel`].
    Cancelled,
    /// A member of a [`crate::Team`] went away with a part of the search.
    MemberLost,
    /// A checkpoint could not be written: the disk is full, perhaps.
    Unsaved,
    /// Only runs with so many preemptions were looked for, and there are others: [`crate::Lab::explore_preempting`].
    Preemptions(u32),
    /// Only random schedules were asked for: [`crate::Lab::sample`].
    Runs,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Preemptions(most) => {
                return write!(f, "explored are the runs with at most {most} preemptions, and there are others");
            }
            Self::Runs => "random schedules were tried, not all",
            Self::MemberLost => "a thread went away with a part of the search",
            Self::Unsaved => "a checkpoint could not be written",
            Self::States => "the limit of states was reached",
            Self::Depth => "the limit of steps in one run was reached",
            Self::Time => "the time was up",
            Self::Memory => "the limit of memory was reached",
            Self::Cancelled => "cancelled",
        })
    }
}

/// What the search is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Visiting every state.
    Exploring,
    /// Trying random schedules.
    Sampling,
    /// Looking for the shortest trace of a violation that was found.
    Shortening,
}

/// How far the search is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Progress {
    /// Which search.
    pub phase: Phase,
    /// Distinct states so far; while sampling, runs.
    pub states: u64,
    /// Steps executed so far.
    pub transitions: u64,
    /// Steps from the initial state to the current one.
    pub depth: u64,
    /// Bytes for visited states and for undoing.
    pub memory: u64,
    /// How much of the tree of choices lies behind an exhaustive search by one thread, if each choice of a state leads to as much as the others: between 0 and 1. An estimate, and mostly a low
    /// one: what was visited early need not be visited late.
    pub share: Option<f64>,
    /// Time since the search began.
    pub elapsed: Duration,
}
