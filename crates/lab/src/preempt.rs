//! The search among runs in which code is preempted at most so often.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::choice::{Choice, Turn, may_end};
use crate::explore::{CLOCK_EVERY, Ended, Explorer, Found};
use crate::hash::{self, BuildSame};
use crate::limits::{Limit, Phase};
use crate::verdict::Report;
use crate::visited::Visited;

/// Who moved last, and how often somebody was preempted so far.
#[derive(Clone, Copy)]
struct Past {
    last: Option<u8>,
    preemptions: u32,
}

impl Past {
    /// After a step, one of `choices`.
    fn with(self, choice: Choice, choices: &[Choice]) -> Self {
        if is_by_hardware(choice) {
            return self;
        }
        let cpu = choice.cpu() as u8;
        let could_go_on = |last: u8| {
            let mut others = choices.iter().filter(|other| !is_by_hardware(**other));
            others.any(|other| other.cpu() == usize::from(last))
        };
        let preempts = self.last.is_some_and(|last| last != cpu && could_go_on(last));
        Self { last: Some(cpu), preemptions: self.preemptions + u32::from(preempts) }
    }

    /// What is the same for two pasts that allow the same, apart from the number.
    fn key(self, fingerprint: u128) -> u128 {
        fingerprint.wrapping_add(hash::spread(self.last.map_or(0, |last| u64::from(last) + 1)))
    }
}

/// Whether the step is taken by the hardware of a CPU rather than by code that runs on it.
fn is_by_hardware(choice: Choice) -> bool {
    match choice.turn() {
        Turn::Run | Turn::Interrupt => false,
        Turn::Drain | Turn::Arrive | Turn::Speculate | Turn::Move => true,
    }
}

/// A state on the path.
struct Frame {
    /// Where its choices begin.
    first: usize,
    /// The next of them.
    next: usize,
    past: Past,
}

/// Goes through every run with at most `most` preemptions.
pub(crate) fn search(explorer: &mut Explorer<'_, '_>, most: u32, report: &mut Report) -> Result<(), Ended> {
    let mut distinct = Visited::new(explorer.limits.fingerprints);
    // With how few preemptions a state was reached.
    let mut fewest: HashMap<u128, u32, BuildSame> = HashMap::default();
    let mut choices: Vec<Choice> = Vec::new();
    let mut frames: Vec<Frame> = Vec::new();
    let mut is_cut = false;
    let path = |frames: &[Frame], choices: &[Choice]| {
        Ended::Found(Found { path: frames.iter().map(|frame| choices[frame.next - 1]).collect() })
    };
    let start = Past { last: None, preemptions: 0 };
    let fingerprint = explorer.core().fingerprint();
    distinct.insert(fingerprint);
    fewest.insert(start.key(fingerprint), 0);
    report.states = 1;
    explorer.core().choices(&mut choices);
    if may_end(&choices) && explorer.end(report).is_err() {
        return Err(Ended::Found(Found { path: Vec::new() }));
    }
    frames.push(Frame { first: 0, next: 0, past: start });
    while let Some(frame) = frames.last_mut() {
        if frame.next == choices.len() {
            choices.truncate(frame.first);
            frames.pop();
            if !frames.is_empty() {
                explorer.core().undo();
            }
            continue;
        }
        let choice = choices[frame.next];
        frame.next += 1;
        let past = frame.past.with(choice, &choices[frame.first..]);
        if past.preemptions > most {
            is_cut = true;
            continue;
        }
        if !explorer.apply(choice) {
            let wrong = explorer.core().quiet.is_wrong();
            return Err(if wrong { Ended::WrongAssumption } else { path(&frames, &choices) });
        }
        if explorer.transitions.is_multiple_of(CLOCK_EVERY) {
            explorer.look_at_clock(Phase::Exploring, report.states, explorer.transitions)?;
            let kept = 3 * distinct.bytes() + fewest.capacity() * size_of::<(u128, u128)>();
            explorer.look_at_memory(kept + choices.len() * size_of::<Choice>())?;
        }
        let fingerprint = explorer.core().fingerprint();
        let is_better = match fewest.entry(past.key(fingerprint)) {
            Entry::Vacant(place) => {
                place.insert(past.preemptions);
                true
            }
            Entry::Occupied(mut place) => {
                let is_better = past.preemptions < *place.get();
                if is_better {
                    place.insert(past.preemptions);
                }
                is_better
            }
        };
        if !is_better {
            if explorer.core().quiet.is_wrong() {
                return Err(Ended::WrongAssumption);
            }
            explorer.core().undo();
            continue;
        }
        let is_new = distinct.insert(fingerprint);
        report.states += u64::from(is_new);
        report.depth = report.depth.max(explorer.core().depth() as u64);
        let first = choices.len();
        explorer.core().choices(&mut choices);
        if is_new && may_end(&choices[first..]) && explorer.end(report).is_err() {
            return Err(path(&frames, &choices));
        }
        frames.push(Frame { first, next: first, past });
        explorer.look_at_counts(report)?;
    }
    if is_cut { Err(Ended::Limit(Limit::Preemptions(most))) } else { Ok(()) }
}
