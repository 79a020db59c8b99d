//! After a search without a violation: does the code do what the search relied on?

use fastrand::Rng;

use crate::choice::{Choice, Turn};
use crate::core::Stop;
use crate::explore::Explorer;
use crate::trace::Trace;
use crate::verdict::{Misuse, MisuseKind, Verdict};

/// Runs that are done once more, and their longest: code that goes round for ever has shown what it does long before.
const RUNS_AGAIN: usize = 32;
const STEPS_AGAIN: usize = 1 << 11;

/// Runs that are done with replicas exchanged, and their longest.
const RUNS_EXCHANGED: usize = 64;
const STEPS_EXCHANGED: usize = 1 << 9;

/// A step, and the state that it led to.
struct Taken {
    choice: Choice,
    /// Of a broadcast that arrives: source, start, pages.
    arrival: Option<[u64; 3]>,
    fingerprint: u128,
}

impl Explorer<'_, '_> {
    /// Once more from the start, a few times: code must do what it did. A search starts each program once and goes on from copies of its stack, so
    /// state that lies elsewhere may not show before.
    pub(crate) fn audit_again(&mut self) -> Verdict {
        let known = std::mem::take(&mut self.core().known);
        self.core().undo_all();
        self.core().known = known;
        let before = self.transitions;
        self.start();
        let mut rng = Rng::with_seed(0);
        let mut choices = Vec::new();
        for _ in 0..RUNS_AGAIN {
            while self.core().stop.is_none() && self.core().depth() < STEPS_AGAIN {
                choices.clear();
                self.core().choices(&mut choices);
                let Some(&choice) = rng.choice(&choices) else { break };
                self.apply(choice);
            }
            if let Some(Stop::Misuse(kind @ MisuseKind::HiddenState, sentence)) = self.core().stop.clone() {
                return Verdict::Error(Box::new(Misuse { kind, sentence, trace: Trace::default() }));
            }
            self.rewind();
        }
        let mut audited = Verdict::Safe;
        if self.core().replicas.is_some() {
            audited = self.audit_exchange(&mut rng);
        }
        self.transitions = before;
        audited
    }

    /// Random runs, and each again with two replicas exchanged: both lead through the same states.
    fn audit_exchange(&mut self, rng: &mut Rng) -> Verdict {
        let pairs = self.core().replicas.as_ref().map(|replicas| replicas.pairs()).unwrap_or_default();
        for run in 0..RUNS_EXCHANGED {
            let Some(&pair) = pairs.get(run % pairs.len().max(1)) else { break };
            let taken = self.run_at_random(rng);
            self.rewind();
            let differs = self.core().stop.is_none() && !self.is_same_exchanged(pair, &taken);
            if differs && self.core().stop.is_none() {
                let sentence = "a run with interchangeable CPUs exchanged goes another way: a word that is shared, a monitor or the code tells them apart";
                self.core().misuse(MisuseKind::Distinguished, sentence);
            }
            if let Some(Stop::Misuse(kind, sentence)) = self.core().stop.clone() {
                self.rewind();
                return Verdict::Error(Box::new(Misuse { kind, sentence, trace: Trace::default() }));
            }
            self.rewind();
        }
        Verdict::Safe
    }

    fn run_at_random(&mut self, rng: &mut Rng) -> Vec<Taken> {
        let mut taken = Vec::new();
        let mut choices = Vec::new();
        while self.core().stop.is_none() && taken.len() < STEPS_EXCHANGED {
            choices.clear();
            self.core().choices(&mut choices);
            let Some(&choice) = rng.choice(&choices) else { break };
            let arrival = (choice.turn() == Turn::Arrive).then(|| self.core().arrival(choice.cpu(), choice.argument()));
            if self.apply(choice) {
                taken.push(Taken { choice, arrival, fingerprint: self.core().fingerprint() });
            }
        }
        taken
    }

    fn is_same_exchanged(&mut self, pair: (usize, usize), taken: &[Taken]) -> bool {
        let mut choices = Vec::new();
        taken.iter().all(|step| {
            let Some(replicas) = &self.core().replicas else { return true };
            let mut choice = replicas.swapped_choice(pair, step.choice);
            if let Some([source, start, pages]) = step.arrival {
                let source = u64::from(replicas.swapped_cpus(pair, 1 << source).trailing_zeros());
                let there = (0..choices_of_arrivals(self, choice))
                    .find(|&index| self.core().arrival(choice.cpu(), index) == [source, start, pages]);
                let Some(index) = there else { return false };
                choice = Choice::new(Turn::Arrive, choice.cpu(), index);
            }
            choices.clear();
            self.core().choices(&mut choices);
            // Where a state names replicas, the exchanged one names others.
            choices.contains(&choice)
                && self.apply(choice)
                && (self.core().names_replicas() || self.core().fingerprint() == step.fingerprint)
        })
    }
}

/// How many broadcasts are on their way to the CPU of a choice.
fn choices_of_arrivals(explorer: &Explorer<'_, '_>, choice: Choice) -> usize {
    explorer.core().reg(choice.cpu(), crate::cells::ARRIVALS) as usize
}
