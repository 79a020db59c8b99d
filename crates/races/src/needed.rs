//! Is it needed? Every place of the explored code that keeps an order is left out or weakened, one at a time or in pairs, and the variant decided again.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lab::{Label, Weakening};
use serde::{Deserialize, Serialize};

use crate::decide::{Limits, Progress, ShowProgress, Way, Work, work};
use crate::ends::Ends;
use crate::explore::Task;
use crate::pool;
use crate::race::Race;
use crate::report::{self, MemoryOrder};
use crate::scenario::{Prepared, prepare};
use crate::syntax::Expectation;

/// How to ask.
#[derive(Clone, Default)]
pub struct NeedOptions {
    /// Run under this memory order only, whatever the file says.
    pub memory: Option<MemoryOrder>,
    /// Ask about the variants of these names; about all that are safe if empty.
    pub variants: Vec<String>,
    /// Ask about places whose name contains this.
    pub filter: Option<String>,
    /// Whether pairs are asked about.
    pub pairs: Pairs,
    /// When to give up one place.
    pub limits: Limits,
    /// How many threads work; as many as there are cores if `None`.
    pub threads: Option<NonZeroUsize>,
    /// Called now and then, from any of the threads.
    pub progress: Option<ShowProgress>,
    /// Set it to end every search soon.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// Whether two places are left out together of which none is needed alone: each may do the other's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pairs {
    /// They are not.
    #[default]
    Skipped,
    /// They are.
    Asked,
}

/// What is known of one variant under one memory order.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// The file, as the user named it, or `catalogue/...`.
    pub file: String,
    /// The variant; `None` for a file of instructions.
    pub variant: Option<String>,
    /// The memory order.
    pub memory: MemoryOrder,
    /// Why nothing can be asked: it is broken as it is, or was not decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Whether a limit, or the user, ended the search of the variant as it is.
    #[serde(skip)]
    pub is_bounded: bool,
    /// States of the variant as it is: the bound of the answers.
    pub states: u64,
    /// Places that belong to the scenario rather than to the code under test; nothing is asked about them.
    pub left_out: usize,
    /// The answers: places in the order of the source, then pairs.
    pub needs: Vec<Need>,
}

/// A place in the code.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// What is left out or weakened: the name of a [`lab::Weakening`].
    pub what: String,
    /// The file of the source.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl From<Label> for Place {
    fn from(label: Label) -> Self {
        let file = label.file.replace('\\', "/");
        Self { what: label.weakening.name().to_owned(), file, line: label.line, column: label.column }
    }
}

impl Place {
    /// What a lab is told to leave out; `None` if there is no such thing.
    pub(crate) fn label(&self) -> Option<Label> {
        let weakening = Weakening::ALL.into_iter().find(|weakening| weakening.name() == self.what)?;
        // As long as the program, as the names of all places of the code.
        let file: &'static str = Box::leak(self.file.clone().into_boxed_str());
        Some(Label { file, line: self.line, column: self.column, weakening })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}:{}", self.what, self.file, self.line)
    }
}

/// Whether one place, or two together, are needed.
#[derive(Clone, Debug, Serialize)]
pub struct Need {
    /// One or two.
    pub places: Vec<Place>,
    /// `None` if that is not known.
    pub needed: Option<bool>,
    /// What goes wrong without, by the name of the rule; `final-states` if other final states are reached, `misuse` if the code relies on it.
    pub breaks: Option<String>,
    /// One sentence.
    pub message: Option<String>,
    /// How many states there are without it.
    pub states: u64,
    /// How long the search took, in seconds.
    pub seconds: f64,
    /// Whether no such run has fewer steps. Only with a run.
    #[serde(skip)]
    pub shortest: Option<bool>,
    /// The shortest run that goes wrong.
    #[serde(serialize_with = "report::trace::serialize")]
    pub trace: Option<lab::Trace>,
}

/// What breaks if other final states are reached than before.
const FINAL_STATES: &str = "final-states";
/// What breaks if the code, or the lab, relies on what was left out.
pub(crate) const MISUSE: &str = "misuse";

/// Asks of every place that the safe variants of `races` come to, and hands over the answers variant by variant.
pub fn needed(races: &[Race], options: &NeedOptions, mut asked: impl FnMut(Asked)) {
    for race in races {
        let items = work(race, options.memory, &options.variants);
        for item in items.into_iter().filter(|item| !options.variants.is_empty() || may_be_safe(item)) {
            let one = catch_unwind(AssertUnwindSafe(|| ask(&item, options)));
            let refuse = |why: &str| refused(&item, why.to_owned());
            asked(one.unwrap_or_else(|_| refuse("the set-up failed")));
        }
    }
}

/// Whether the file does not expect it to be broken.
fn may_be_safe(item: &Work<'_>) -> bool {
    !matches!(item.variant.map(|variant| &variant.expectation.node), Some(Expectation::Breaks(_)))
}

fn refused(item: &Work<'_>, why: String) -> Asked {
    Asked {
        file: item.race.source.name().to_owned(),
        variant: item.variant.map(|variant| variant.name.node.clone()),
        memory: item.memory,
        refused: Some(why),
        is_bounded: false,
        states: 0,
        left_out: 0,
        needs: Vec::new(),
    }
}

fn ask(item: &Work<'_>, options: &NeedOptions) -> Asked {
    let Prepared { scenario, question } = match prepare(item.race, item.variant, item.memory) {
        Ok(prepared) => prepared,
        Err(error) => return refused(item, error.one_line()),
    };
    let (done, total) = (AtomicUsize::new(0), AtomicUsize::new(1));
    let progress = |progress: &lab::Progress| {
        let Some(show) = &options.progress else { return };
        show(&Progress {
            done: done.load(Ordering::Relaxed),
            total: total.load(Ordering::Relaxed),
            race: item.race.litmus.name.node.clone(),
            variant: item.variant.map(|variant| variant.name.node.clone()),
            search: *progress,
        });
    };
    let task = Task {
        limits: options.limits,
        cancel: options.cancel.as_deref(),
        way: Way::Exhaust,
        ends: Ends::Ignored,
        progress: &progress,
        question: &question,
    };
    let Some((whole, labels)) = task.noting_labels(&scenario) else {
        return refused(item, "no machine was built".to_owned());
    };
    let keeps_claim = question.quantifier().is_none_or(|claim| question.answer(&whole.observations).keeps_claim(claim));
    let why = match &whole.verdict {
        lab::Verdict::Safe if keeps_claim => None,
        lab::Verdict::Safe => Some("it does not keep what its condition claims".to_owned()),
        lab::Verdict::Violated(found) => Some(format!("it breaks {} as it is", found.violation.rule)),
        lab::Verdict::Bounded(limit) => Some(format!("it was not decided: {limit}")),
        lab::Verdict::Error(misuse) => Some(misuse.sentence.clone()),
    };
    if let Some(why) = why {
        let is_bounded = matches!(whole.verdict, lab::Verdict::Bounded(_));
        return Asked { is_bounded, states: whole.states, ..refused(item, why) };
    }
    let found = labels.len();
    let labels: Vec<Label> = labels.into_iter().filter(is_under_test).collect();
    let left_out = found - labels.len();
    let is_wanted = |label: &Label| {
        options.filter.as_ref().is_none_or(|filter| Place::from(*label).to_string().contains(filter.as_str()))
    };
    let singles: Vec<Vec<Label>> = labels.into_iter().filter(is_wanted).map(|label| vec![label]).collect();
    let try_all = |sets: &[Vec<Label>], needs: &mut Vec<Need>| {
        total.fetch_add(sets.len(), Ordering::Relaxed);
        let threads =
            options.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let without = |number: usize| {
            let labels = &sets[number];
            let report = catch_unwind(AssertUnwindSafe(|| task.weakened(&scenario, labels))).ok().flatten();
            done.fetch_add(1, Ordering::Relaxed);
            need(labels, report, &whole)
        };
        pool::in_order(threads, sets.len(), without, |need| needs.push(need));
    };
    let mut needs = Vec::new();
    try_all(&singles, &mut needs);
    if options.pairs == Pairs::Asked {
        let spare: Vec<Label> = needs
            .iter()
            .zip(&singles)
            .filter(|(need, _)| need.needed == Some(false))
            .map(|(_, label)| label[0])
            .collect();
        let pairs: Vec<Vec<Label>> = spare
            .iter()
            .enumerate()
            .flat_map(|(number, one)| spare[number + 1..].iter().map(|other| vec![*one, *other]))
            .collect();
        try_all(&pairs, &mut needs);
    }
    Asked { refused: None, states: whole.states, left_out, needs, ..refused(item, String::new()) }
}

/// Whether a place is in code that is asked about: not in what only sets the scene. Protocols that turned out wrong live among the scenarios.
fn is_under_test(label: &Label) -> bool {
    let file = label.file.replace('\\', "/");
    !file.contains("crates/races/src/") || file.contains("/kernel/historic")
}

fn need(labels: &[Label], report: Option<lab::Report>, whole: &lab::Report) -> Need {
    let mut need = Need {
        places: labels.iter().copied().map(Place::from).collect(),
        needed: None,
        breaks: None,
        message: Some("the set-up failed".to_owned()),
        states: 0,
        seconds: 0.0,
        shortest: None,
        trace: None,
    };
    let Some(report) = report else { return need };
    need.states = report.states;
    need.seconds = report.elapsed.as_secs_f64();
    let mut breaks = |rule: &str, message: String, trace| {
        (need.needed, need.breaks, need.message) = (Some(true), Some(rule.to_owned()), Some(message));
        need.trace = trace;
    };
    match report.verdict {
        lab::Verdict::Violated(found) => {
            breaks(&found.violation.rule, found.violation.sentence, Some(found.trace));
            need.shortest = Some(found.shortest);
        }
        lab::Verdict::Error(misuse) => match misuse.kind {
            lab::MisuseKind::NotOwned | lab::MisuseKind::Context => breaks(MISUSE, misuse.sentence, Some(misuse.trace)),
            _ => need.message = Some(misuse.sentence),
        },
        lab::Verdict::Bounded(limit) => need.message = Some(limit.to_string()),
        lab::Verdict::Safe if report.observations != whole.observations => {
            let message = "other final states are reached than with it".to_owned();
            breaks(FINAL_STATES, message, None);
        }
        lab::Verdict::Safe => (need.needed, need.message) = (Some(false), None),
    }
    need
}
