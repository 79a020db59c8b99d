//! The search among random schedules: for scopes that no search exhausts.

use std::collections::{HashMap, HashSet};

use fastrand::Rng;

use crate::choice::{Choice, may_end};
use crate::explore::{CLOCK_EVERY, Ended, Explorer, Found};
use crate::hash::BuildSame;
use crate::limits::{Limit, Phase};
use crate::schedule::{Run, Schedule, sources};
use crate::verdict::Report;

/// Which random schedules, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sampling {
    /// How each picks its steps.
    pub schedule: Schedule,
    /// How many runs.
    pub runs: u64,
    /// The same seed gives the same runs.
    pub seed: u64,
    /// A run is cut off after so many steps.
    pub steps: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { schedule: Schedule::default(), runs: 10_000, seed: 1, steps: 1 << 20 }
    }
}

/// What random schedules have shown, and how little.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sampled {
    /// What was asked for.
    pub sampling: Sampling,
    /// Runs to the end. A limit may have left some out.
    pub runs: u64,
    /// Runs that were cut off.
    pub cut: u64,
    /// Steps of the longest.
    pub longest: u64,
    /// Runs since the longest.
    pub settled: u64,
    /// Final states that one run met and no other.
    pub met_once: u64,
    /// Sources of steps: CPUs' code, and what their hardware does by itself.
    pub sources: u64,
    /// Whether a run came back to where it was: then PCT had to let others go first, and its guarantee does not hold.
    pub came_back: bool,
}

impl Sampled {
    /// Nothing yet.
    pub(crate) fn none(explorer: &Explorer<'_, '_>, sampling: &Sampling) -> Self {
        let cpus = explorer.core().cpus();
        Self {
            sampling: *sampling,
            runs: 0,
            cut: 0,
            longest: 0,
            settled: 0,
            met_once: 0,
            sources: sources(cpus, explorer.core().machine.threads) as u64,
            came_back: false,
        }
    }

    /// With 95 % confidence, fewer than this share of all schedules of this kind break a rule, if none of the runs did: with a greater share, so many runs would
    /// all have missed them with a probability below 5 % (the "rule of three").
    #[must_use]
    pub fn most_missed(&self) -> f64 {
        if self.runs == 0 { 1.0 } else { 1.0 - 0.05_f64.powf(1.0 / self.runs as f64) }
    }

    /// An estimate of the chance that the next run ends in a final state that none has met: the share of runs whose final state nobody
    /// else met (Good and Turing).
    #[must_use]
    pub fn new_end(&self) -> f64 {
        if self.runs == 0 { 1.0 } else { self.met_once as f64 / self.runs as f64 }
    }

    /// The chance that these runs would have met a bug of the depth that PCT was asked for, at least: of n sources and k steps, each run does with
    /// 1 / (n k^(depth - 1)). Counted are the runs since the longest, before which k was taken for smaller. `None` for other schedules, and where the premises do not hold.
    #[must_use]
    pub fn pct_chance(&self) -> Option<f64> {
        let Schedule::Pct { depth } = self.sampling.schedule else { return None };
        if self.came_back || self.cut != 0 {
            return None;
        }
        let ways = self.sources as f64 * (self.longest.max(1) as f64).powi(depth.max(1) as i32 - 1);
        Some(1.0 - (1.0 - 1.0 / ways).powf(self.settled as f64))
    }
}

impl std::fmt::Display for Sampled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sampling { schedule, seed, .. } = self.sampling;
        write!(f, "{} random schedules ({schedule}, seed {seed}) break no rule", self.runs)?;
        if self.cut != 0 {
            write!(f, ", {} more were cut off", self.cut)?;
        }
        write!(f, ": with 95% confidence fewer than {:.2e} of such schedules do; ", self.most_missed())?;
        match self.met_once {
            0 => f.write_str("every final state that was met was met at least twice")?,
            _ => write!(f, "one more would end in a new final state with probability {:.1e}, about", self.new_end())?,
        }
        match self.pct_chance() {
            // Never rounded up to certainty.
            Some(chance) if chance > 0.999 => f.write_str("; a bug of that depth would have been met (over 99.9%)"),
            Some(chance) => {
                let percent = (chance * 1000.0).floor() / 10.0;
                write!(f, "; a bug of that depth would have been met with probability {percent}% or more")
            }
            None => Ok(()),
        }
    }
}

/// Takes so many runs.
pub(crate) fn search(explorer: &mut Explorer<'_, '_>, sampling: &Sampling, report: &mut Report) -> Result<(), Ended> {
    let mut sampled = Sampled::none(explorer, sampling);
    let ended = Sampler::new(sampling.seed).runs(explorer, &mut sampled, report);
    report.sampled = Some(sampled);
    ended
}

pub(crate) struct Sampler {
    rng: Rng,
    /// How often each final state was met.
    ends: HashMap<u128, u8, BuildSame>,
    /// States of the present run.
    seen: HashSet<u128, BuildSame>,
    choices: Vec<Choice>,
    path: Vec<Choice>,
}

/// Runs of PCT before any has shown how long they are.
const FIRST_LENGTH: u64 = 64;

impl Sampler {
    /// The same seed picks the same.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            ends: HashMap::default(),
            seen: HashSet::default(),
            choices: Vec::new(),
            path: Vec::new(),
        }
    }

    fn runs(
        mut self,
        explorer: &mut Explorer<'_, '_>,
        sampled: &mut Sampled,
        report: &mut Report,
    ) -> Result<(), Ended> {
        while sampled.runs + sampled.cut < sampled.sampling.runs {
            explorer.look_at_clock(Phase::Sampling, sampled.runs, explorer.transitions)?;
            explorer.look_at_memory(
                (self.ends.capacity() + explorer.core().known.capacity()) * size_of::<(u128, u128)>(),
            )?;
            let is_whole = self.run(explorer, sampled, report)?;
            sampled.settled += 1;
            let length = explorer.core().depth() as u64;
            if length > sampled.longest {
                sampled.longest = length;
                sampled.settled = 0;
            }
            if is_whole {
                sampled.runs += 1;
                let times = self.ends.entry(explorer.core().fingerprint()).or_default();
                *times = times.saturating_add(1);
                match *times {
                    1 => sampled.met_once += 1,
                    2 => sampled.met_once -= 1,
                    _ => {}
                }
            } else {
                sampled.cut += 1;
            }
            report.states = self.ends.len() as u64;
            report.ends = report.states;
            report.depth = sampled.longest;
            explorer.rewind();
        }
        Err(Ended::Limit(Limit::Runs))
    }

    /// One run. Returns whether it came to its end.
    pub(crate) fn run(
        &mut self,
        explorer: &mut Explorer<'_, '_>,
        sampled: &mut Sampled,
        report: &mut Report,
    ) -> Result<bool, Ended> {
        let Sampling { schedule, steps, .. } = sampled.sampling;
        let length = sampled.longest.max(FIRST_LENGTH);
        let mut run = Run::new(schedule, explorer.core().cpus(), length, &mut self.rng);
        self.path.clear();
        self.seen.clear();
        self.seen.insert(explorer.core().fingerprint());
        loop {
            self.choices.clear();
            explorer.core().choices(&mut self.choices);
            if may_end(&self.choices) && (self.choices.is_empty() || self.rng.bool()) {
                return match explorer.end(report) {
                    Ok(()) => Ok(true),
                    Err(_) => Err(self.found()),
                };
            }
            if self.path.len() as u64 >= steps {
                return Ok(false);
            }
            let choice = run.pick(explorer.core(), &self.choices, &mut self.rng);
            self.path.push(choice);
            let goes_on = explorer.apply(choice);
            if explorer.core().quiet.is_wrong() {
                return Err(Ended::WrongAssumption);
            }
            if !goes_on {
                return Err(self.found());
            }
            if !self.seen.insert(explorer.core().fingerprint()) {
                run.came_back(choice);
                sampled.came_back = true;
            }
            if explorer.transitions.is_multiple_of(CLOCK_EVERY) {
                explorer.look_at_clock(Phase::Sampling, sampled.runs, explorer.transitions)?;
            }
        }
    }

    fn found(&mut self) -> Ended {
        Ended::Found(Found { path: std::mem::take(&mut self.path) })
    }
}
