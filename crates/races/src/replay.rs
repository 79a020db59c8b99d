//! Doing a saved run again, and comparing.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lab::trace::{Step, one_line};
use lab::{Arena, Departure, Ending, History, Lab, Label, Machine, Panel, Recording, Row};

use crate::needed::Place;
use crate::race::Race;
use crate::report::MemoryOrder;
use crate::saved_run::{CODE, SavedRun};
use crate::scenario::{Explorer, Reader, prepare};

/// Why a run could not be done again at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CannotReplay {
    /// Its machine could not be built.
    #[error("the machine cannot be built: {0}")]
    Setup(String),
    /// It goes another way.
    #[error("{0}")]
    Departs(Box<Departure>),
}

/// What doing a saved run again has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// Whether this program was built from the source that the run was found in.
    pub same_code: bool,
    /// How it went.
    pub outcome: Outcome,
}

/// How it went to do a saved run again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every step and every state is as it was, and so is the end.
    Same(Box<lab::Replay>),
    /// Something is different.
    Departed(Departed),
}

/// Where a run that is done again first differs from what was saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Departed {
    /// The step, from 1; 0 for what was before the first.
    pub step: usize,
    /// Whether it is the step itself that differs, or the state after it.
    pub moment: Moment,
    /// What is different there.
    pub what: String,
}

/// What of a step differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// What it does.
    Step,
    /// What it leaves.
    After,
}

impl fmt::Display for Departed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, what, .. } = self;
        match (self.step, self.moment) {
            (0, _) => write!(f, "before the first step, {what}"),
            (_, Moment::Step) => write!(f, "at step {step}, {what}"),
            (_, Moment::After) => write!(f, "after step {step}, {what}"),
        }
    }
}

impl SavedRun {
    /// Does the run again, and compares every step and every state with what was saved.
    ///
    /// # Errors
    /// Its machine cannot be built.
    pub fn replay(&self) -> Result<Replayed, CannotReplay> {
        let race = self.race().map_err(|error| CannotReplay::Setup(error.one_line()))?;
        let recording =
            self.recording.parse().map_err(|error: lab::BadRecording| CannotReplay::Setup(error.to_string()))?;
        let outcome = match replay(&race, self.variant.as_deref(), self.memory, &recording, &self.without) {
            Ok(done) => match self.first_difference(&done) {
                None => Outcome::Same(Box::new(done)),
                Some(departed) => Outcome::Departed(departed),
            },
            Err(CannotReplay::Departs(departure)) => Outcome::Departed(self.departure(&departure)),
            Err(error) => return Err(error),
        };
        Ok(Replayed { same_code: self.code == CODE, outcome })
    }

    fn first_difference(&self, done: &lab::Replay) -> Option<Departed> {
        let states = self.history();
        for step in 0..self.steps.len().max(done.trace.steps.len()) {
            if let Some(what) = state_difference(&states, &done.history, step) {
                return Some(Departed { step, moment: Moment::After, what });
            }
            if let Some(departed) = self.step_difference(&done.trace.steps, step) {
                return Some(departed);
            }
        }
        let last = self.steps.len();
        if let Some(what) = state_difference(&states, &done.history, last) {
            return Some(Departed { step: last, moment: Moment::After, what });
        }
        let rule = match &done.ending {
            Ending::Violation(violation) => Some(violation.rule.as_str()),
            Ending::Misuse(_) | Ending::Rest | Ending::Open => None,
        };
        let is_judged_elsewhere = match done.ending {
            // A condition that a final state does not keep is one of the file, not of the lab.
            Ending::Rest => true,
            // That a run goes on for ever is not seen in one step.
            Ending::Open => self.rule.as_deref() == Some(lab::rule::LIVELOCK),
            Ending::Violation(_) | Ending::Misuse(_) => false,
        };
        let saved = self.rule.as_deref().filter(|_| !is_judged_elsewhere);
        (rule != saved).then(|| {
            let broken = |rule: Option<&str>| rule.map_or("no rule".to_owned(), |rule| format!("`{rule}`"));
            Departed {
                step: last,
                moment: Moment::After,
                what: format!("the run broke {} and breaks {} now", broken(saved), broken(rule)),
            }
        })
    }

    fn step_difference(&self, now: &[Step], index: usize) -> Option<Departed> {
        let (saved, now) = (self.steps.get(index), now.get(index));
        // Lines of source may have moved without a difference to the run.
        let without_place = |step: Option<&Step>| step.map(|step| Step { place: None, ..step.clone() });
        if without_place(saved) == without_place(now) {
            return None;
        }
        let words = |step: Option<&Step>| step.map_or("the end".to_owned(), in_words);
        let (was, is) = (words(saved), words(now));
        let what = match (saved, now) {
            (Some(saved), Some(now)) if was == is => {
                let marks = |step: &Step| [step.marks_before.as_slice(), &step.marks_after].concat().join("; ");
                format!("around `{was}` the code noted \"{}\" and notes \"{}\" now", marks(saved), marks(now))
            }
            _ => format!("it was `{was}` and is `{is}` now"),
        };
        Some(Departed { step: index + 1, moment: Moment::Step, what })
    }

    /// The lab could not go on: perhaps because an earlier step was another one already.
    fn departure(&self, departure: &Departure) -> Departed {
        let earlier =
            (0..departure.trace.steps.len()).find_map(|index| self.step_difference(&departure.trace.steps, index));
        earlier.unwrap_or_else(|| {
            let step = departure.step;
            let saved =
                self.steps.get(step - 1).map_or_else(String::new, |step| format!(": it was `{}`", in_words(step)));
            Departed {
                step,
                moment: Moment::Step,
                what: format!("the run cannot go on as it did ({departure}){saved}"),
            }
        })
    }
}

fn in_words(step: &Step) -> String {
    format!("{} {}", step.cpu, one_line(&Step { place: None, ..step.clone() }))
}

fn state_difference(saved: &History, now: &History, state: usize) -> Option<String> {
    let (saved, now) = (rows_of(saved, state), rows_of(now, state));
    let row = saved.keys().chain(now.keys()).find(|row| saved.get(*row) != now.get(*row))?;
    let held = |rows: &BTreeMap<&Row, &str>| rows.get(*row).map_or("nothing".to_owned(), |held| format!("`{held}`"));
    let whose = match row.panel {
        Panel::Cpu | Panel::Table => format!("{} of {}", row.label, row.of),
        Panel::Buffer => format!("{} in the store buffer of {}", row.label, row.of),
        Panel::Tlb => format!("`{}` in the TLB of {}", row.label, row.of),
        Panel::Word => row.label.clone(),
    };
    Some(format!("{whose} was {} and is {} now", held(&saved), held(&now)))
}

fn rows_of(history: &History, state: usize) -> BTreeMap<&Row, &str> {
    let Some(held) = history.states.get(state) else { return BTreeMap::new() };
    history.rows.iter().zip(held).filter_map(|(row, held)| Some((row, held.as_deref()?))).collect()
}

/// Does a run of a race again, in which these places do less.
///
/// # Errors
/// The machine cannot be built, or the run goes another way.
pub(crate) fn replay(
    race: &Race,
    variant: Option<&str>,
    memory: MemoryOrder,
    recording: &Recording,
    without: &[Place],
) -> Result<lab::Replay, CannotReplay> {
    let named = |name| race.litmus.variants.iter().find(|variant| variant.name.node == name);
    let prepared =
        prepare(race, variant.and_then(named), memory).map_err(|error| CannotReplay::Setup(error.one_line()))?;
    let without = without.iter().filter_map(Place::label).collect();
    let mut again = Again { recording, without, done: None };
    let build = AssertUnwindSafe(|| prepared.scenario.build(&mut again));
    if let Err(panic) = catch_unwind(build) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the set-up failed");
        return Err(CannotReplay::Setup(text.to_owned()));
    }
    match again.done {
        Some(done) => done.map_err(CannotReplay::Departs),
        None => Err(CannotReplay::Setup("no machine was built".to_owned())),
    }
}

struct Again<'r> {
    recording: &'r Recording,
    without: Vec<Label>,
    done: Option<Result<lab::Replay, Box<Departure>>>,
}

impl Explorer for Again<'_> {
    type Checker<'a> = Lab<'a>;

    fn machine<'a>(&self, arena: &'a Arena, machine: Machine) -> Lab<'a> {
        Lab::new(arena, machine)
    }

    fn explore<'a>(&mut self, _: &'a Arena, mut lab: Lab<'a>, _read: Reader<'a>) {
        if !self.without.is_empty() {
            lab.weaken(&self.without);
        }
        self.done = Some(lab.replay(self.recording));
    }
}
