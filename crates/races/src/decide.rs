//! Running races: every variant under every memory order, on all cores, answers in the order of the files.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::checkpoints::Checkpoints;
use crate::ends::Ends;
use crate::explore::{self, ShowSteps};
use crate::pool;
use crate::race::Race;
use crate::report::{MemoryOrder, VariantReport};
use crate::rule;
use crate::syntax::{Expectation, Variant};

/// How to run.
#[derive(Clone, Default)]
pub struct Options {
    /// Run under this memory order only, whatever the file says.
    pub memory: Option<MemoryOrder>,
    /// Run only the variants of these names; all if empty.
    pub variants: Vec<String>,
    /// When to give up.
    pub limits: Limits,
    /// Which interleavings to go through.
    pub way: Way,
    /// Which runs to look for beside those that break a rule.
    pub witnesses: Witnesses,
    /// Whether whole final states are collected. They are not where CPUs have the same instructions, where several processes share a search, or where it is kept in a checkpoint.
    pub ends: Ends,
    /// How many threads work; as many as there are cores if `None`.
    pub threads: Option<NonZeroUsize>,
    /// How many of them share one search. If `None`, as many as would have nothing to do otherwise: all if there is one variant; but one where whole final states are collected.
    pub team: Option<NonZeroUsize>,
    /// Where searches are kept that are not finished. Only exhaustive ones are.
    pub checkpoints: Option<Checkpoints>,
    /// Called now and then, from any of the threads.
    pub progress: Option<ShowProgress>,
    /// Set it to end every search soon; what has no answer by then is [`crate::Verdict::Bounded`].
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Options {
    /// Tells the progress of an item, of which so many are done and there are so many in all.
    pub(crate) fn show(&self, done: usize, total: usize, item: &Work<'_>, search: &lab::Progress) {
        let Some(show) = &self.progress else { return };
        let race = item.race.litmus.name.node.clone();
        let variant = item.variant.map(|variant| variant.name.node.clone());
        show(&Progress { done, total, race, variant, search: *search });
    }
}

/// Takes news of the work.
pub type ShowProgress = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Which interleavings a search goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// All.
    #[default]
    Exhaust,
    /// Those in which code is preempted at most so often: see [`lab::Lab::explore_preempting`].
    Preempt(u32),
    /// All, and those that never end: see [`lab::Lab::explore_livelocks`].
    Livelock,
    /// Random ones: see [`lab::Lab::sample`].
    Sample(lab::Sampling),
}

/// When a search gives up; `None` is never, for memory 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// After so many states of one variant.
    pub states: Option<u64>,
    /// After so many steps on one path.
    pub depth: Option<u64>,
    /// After so much wall-clock time for one variant.
    pub time: Option<Duration>,
    /// After so many bytes for one variant.
    pub memory: Option<u64>,
    /// What is kept of each visited state.
    pub fingerprints: lab::Fingerprints,
}

/// Whether the shortest run to a final state that satisfies `exists` is looked for. It takes a second search.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Witnesses {
    /// It is: reports have it as their trace.
    #[default]
    Shown,
    /// It is not.
    Skipped,
}

/// How far the work is.
#[derive(Clone, PartialEq, Debug)]
pub struct Progress {
    /// Answers so far.
    pub done: usize,
    /// Answers that there will be.
    pub total: usize,
    /// The race that a thread works on.
    pub race: String,
    /// Its variant.
    pub variant: Option<String>,
    /// The search of it.
    pub search: lab::Progress,
}

/// One search: a variant under a memory order.
#[derive(Clone, Copy, Debug)]
pub struct Work<'r> {
    /// The race.
    pub race: &'r Race,
    /// Its variant; `None` where the file has none.
    pub variant: Option<&'r Variant>,
    /// The memory order.
    pub memory: MemoryOrder,
}

/// Decides every variant of `races` and hands over the answers one by one: race by race, variant by variant, `sc` before
/// `tso`, each as soon as it and those before it are known.
pub fn decide(races: &[Race], options: &Options, report: impl FnMut(VariantReport)) {
    let work: Vec<Work<'_>> = races.iter().flat_map(|race| work(race, options.memory, &options.variants)).collect();
    decide_each(&work, options, report);
}

/// Decides these, in this order, whatever memory order and variants the options name.
pub fn decide_each(work: &[Work<'_>], options: &Options, report: impl FnMut(VariantReport)) {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = options.threads.map_or(cores, NonZeroUsize::get);
    // Runs to final states are kept by searches of one thread.
    let spare = if options.ends == Ends::Collected { 1 } else { threads / work.len().max(1) };
    let team = options.team.map_or(spare, NonZeroUsize::get).max(1);
    let threads = (threads / team).clamp(1, work.len().max(1));
    let done = AtomicUsize::new(0);
    let decide = |number: usize| {
        let item: &Work<'_> = &work[number];
        let answer = decide_one(item, options, team, &|progress: &lab::Progress| {
            options.show(done.load(Ordering::Relaxed), work.len(), item, progress);
        });
        done.fetch_add(1, Ordering::Relaxed);
        answer
    };
    pool::in_order(threads, work.len(), decide, report);
}

/// Which interleavings are gone through for an item.
pub(crate) fn way_of(item: &Work<'_>, options: &Options) -> Way {
    match options.way {
        Way::Exhaust if expects_livelock(item) => Way::Livelock,
        way => way,
    }
}

/// Whether the file says that a run may never end: others are not searched for such runs.
fn expects_livelock(item: &Work<'_>) -> bool {
    match item.variant.map(|variant| &variant.expectation.node) {
        Some(Expectation::Breaks(rules)) => rules.iter().any(|rule| rule.node == rule::LIVELOCK),
        _ => false,
    }
}

/// What there is to decide of a race: the variants of these names, all if there are none, under this memory order or those that the file names.
pub fn work<'r>(race: &'r Race, memory: Option<MemoryOrder>, variants: &[String]) -> Vec<Work<'r>> {
    let mut work: Vec<Work<'r>> = Vec::new();
    // A race that was made by `Race::new` has runs; one that was put together otherwise may not.
    for (variant, asked) in race.runs().unwrap_or_default() {
        let memory = memory.unwrap_or(asked);
        let name = variant.map(|variant| &variant.name.node);
        let wanted = variants.is_empty() || name.is_some_and(|name| variants.contains(name));
        let same = |item: &Work<'_>| item.variant.map(|variant| &variant.name.node) == name && item.memory == memory;
        if wanted && !work.iter().any(same) {
            work.push(Work { race, variant, memory });
        }
    }
    work
}

/// A panic of code under test is the lab's to report. One of the set-up ends this search, not the others.
fn decide_one(item: &Work<'_>, options: &Options, team: usize, progress: ShowSteps<'_>) -> VariantReport {
    let search = AssertUnwindSafe(|| explore::explore(item, options, team, progress));
    catch_unwind(search).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the set-up failed");
        explore::failed(item, text.to_owned())
    })
}
