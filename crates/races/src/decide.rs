//! Running races: every variant under every memory order, on all cores, answers in the order of the files.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::race::Race;
use crate::report::{MemoryOrder, VariantReport};

/// How to run.
#[derive(Clone, Default)]
pub struct Options {
    /// Run under this memory order only, whatever the file says.
    pub memory: Option<MemoryOrder>,
    /// Run only the variants of these names; all if empty.
    pub variants: Vec<String>,
    /// When to give up.
    pub limits: Limits,
    /// How many threads work; as many as there are cores if `None`.
    pub threads: Option<NonZeroUsize>,
    /// Called now and then, from any of the threads.
    pub progress: Option<Arc<dyn Fn(&Progress) + Send + Sync>>,
    /// Set it to end every search soon; what has no answer by then is [`crate::Verdict::Bounded`].
    pub cancel: Option<Arc<AtomicBool>>,
}

/// When a search gives up; `None` is never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// After so many states of one variant.
    pub states: Option<u64>,
    /// After so many steps on one path.
    pub depth: Option<usize>,
}

/// How far the work is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Answers so far.
    pub done: usize,
    /// Answers that there will be.
    pub total: usize,
    /// The race that a thread has just worked on.
    pub race: String,
    /// Its variant.
    pub variant: Option<String>,
    /// States of that variant so far.
    pub states: u64,
}

/// Decides every variant of `races` and hands over the answers one by one: race by race, variant by variant, `sc` before
/// `tso`, each as soon as it and those before it are known.
pub fn decide(races: &[Race], options: &Options, mut report: impl FnMut(VariantReport)) {
    let _ = (races, options, &mut report);
}
