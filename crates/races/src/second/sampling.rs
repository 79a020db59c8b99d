//! Where the second engine cannot exhaust what the lab calls safe: runs of each engine, which the other one must be able to make.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::rc::Rc;

use lab::{Arena, Ending, Lab, Machine, Recording, Sampling, ShownRun};
use stateless::{Followed, RandomEnd, Simulator};

use super::name_of;
use super::schedule::schedule;
use crate::ends::{Digest, EndSet, Reading, digest};
use crate::scenario::{Explorer, Reader, Scenario};

/// Random runs longer than this are given up: code may go round for ever.
const MOST_STEPS: usize = 20_000;

/// How much was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Samples {
    /// Random runs of the second engine, each of which ends as the lab knows.
    pub own: u64,
    /// Runs of the lab that the second engine has done again, to the same end: one to each final state, if the lab has kept them, and random ones.
    pub of_lab: u64,
    /// Final states of the lab's that these runs end in.
    pub met: usize,
    /// Final states of the lab's.
    pub ends: usize,
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own, of_lab, met, ends } = self;
        write!(f, "agrees as far as it was asked: {own} random runs end as the lab knows, and {of_lab} of the lab's ")?;
        write!(f, "were done again; they meet {met} of {ends} final states")
    }
}

/// Compares runs.
pub(super) struct Sampler<'s, 'a> {
    pub(super) reading: &'s Reading<'a>,
    /// What the lab says.
    pub(super) ends: &'s EndSet,
    /// How many random ones on each side.
    pub(super) runs: u64,
}

impl Sampler<'_, '_> {
    /// Makes the runs; the first that the other side does not know is an error. `simulator` observes the words of final states.
    pub(super) fn compare(&self, simulator: &mut Simulator<'_>, scenario: &Scenario) -> Result<Samples, String> {
        let mut met = BTreeSet::new();
        let own = self.own_runs(simulator, &mut met)?;
        let of_lab = self.runs_of_lab(simulator, scenario, &mut met)?;
        Ok(Samples { own, of_lab, met: met.len(), ends: self.ends.count() })
    }

    fn own_runs(&self, simulator: &mut Simulator<'_>, met: &mut BTreeSet<Digest>) -> Result<u64, String> {
        let mut compared = 0;
        for seed in 0..self.runs {
            let difference = match simulator.random_run(seed, MOST_STEPS) {
                RandomEnd::Cut => continue,
                RandomEnd::Rest { observation } => {
                    let digest = digest(&observation.unwrap_or_default());
                    if self.ends.has(digest) {
                        met.insert(digest);
                        compared += 1;
                        continue;
                    }
                    format!("a random run ends in a state that is none of the lab's {}", self.ends.count())
                }
                RandomEnd::Broken(violation) => format!("a random run breaks a rule: {violation}"),
                RandomEnd::Misuse(sentence) => return Err(sentence),
            };
            let lines = simulator.random_run_in_words(seed, MOST_STEPS);
            return Err(format!("{difference}\n{}", lines.join("\n")));
        }
        Ok(compared)
    }

    fn runs_of_lab(
        &self,
        simulator: &mut Simulator<'_>,
        scenario: &Scenario,
        met: &mut BTreeSet<Digest>,
    ) -> Result<u64, String> {
        let mut compared = 0;
        let mut difference = None;
        let mut tell = |run: Result<ShownRun, String>| {
            let judged = run.and_then(|run| {
                let judged = self.judge(simulator, &run);
                judged.map_err(|why| format!("{why}\n{}", lab::trace::columns(&run.trace)))
            });
            match judged {
                Ok(end) => {
                    compared += u64::from(end.is_some());
                    met.extend(end);
                    ControlFlow::Continue(())
                }
                Err(why) => {
                    difference = Some(why);
                    ControlFlow::Break(())
                }
            }
        };
        scenario.build(&mut LabRuns { known: &self.ends.runs, random: self.runs, tell: &mut tell });
        difference.map_or(Ok(compared), Err)
    }

    /// Does a run of the lab again. Says where it ends, if it does.
    fn judge(&self, simulator: &mut Simulator<'_>, run: &ShownRun) -> Result<Option<Digest>, String> {
        match &run.ending {
            Ending::Rest => {}
            Ending::Open => return Ok(None),
            Ending::Violation(violation) => return Err(format!("a run of the lab breaks a rule: {violation}")),
            Ending::Misuse(misuse) => return Err(misuse.sentence.clone()),
        }
        let theirs = run.observation.as_deref().unwrap_or_default();
        let end = digest(theirs);
        if !self.ends.has(end) {
            return Err(format!("a run of the lab ends in a state that is none of its {}", self.ends.count()));
        }
        let (ours, ahead) = match simulator.follow(&schedule(&run.trace)) {
            Followed::Kept { observation: Some(words), ahead } => (words, ahead),
            Followed::Kept { .. } => return Err("when the lab is at rest, somebody can go on".to_owned()),
            Followed::Broken(violation) => return Err(format!("the lab's steps break a rule: {violation}")),
            Followed::Misuse(sentence) => return Err(sentence),
            Followed::Departs { act, why } => {
                return Err(format!("{} is not possible: {why}", name_of(&run.trace, act)));
            }
        };
        match self.reading.difference(&ours, theirs, &ahead) {
            Some(difference) => Err(format!("the lab's steps end otherwise: {difference}")),
            None => Ok(Some(end)),
        }
    }
}

/// Runs of the lab, with their final states: those that it has kept, and random ones.
struct LabRuns<'r> {
    known: &'r [Recording],
    random: u64,
    tell: &'r mut dyn FnMut(Result<ShownRun, String>) -> ControlFlow<()>,
}

impl Explorer for LabRuns<'_> {
    type Checker<'a> = Lab<'a>;

    fn machine<'a>(&self, arena: &'a Arena, machine: Machine) -> Lab<'a> {
        Lab::new(arena, machine)
    }

    fn explore<'a>(&mut self, arena: &'a Arena, mut lab: Lab<'a>, _: Reader<'a>) {
        let reading = Rc::new(Reading::new(arena, lab.cpus()));
        lab.observe(move |end| reading.words(end));
        for recording in self.known {
            let run = lab.shown_run(recording);
            let run = run.map_err(|departure| format!("the lab cannot do its own run again: {departure}"));
            if (self.tell)(run).is_break() {
                return;
            }
        }
        let sampling = Sampling { runs: self.random, steps: MOST_STEPS as u64, ..Sampling::default() };
        lab.random_runs(&sampling, &mut |run| (self.tell)(Ok(run)));
    }
}
