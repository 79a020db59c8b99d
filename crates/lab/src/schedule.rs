//! Random schedules: who moves next, when there are too many interleavings for all of them.
//!
//! What is scheduled is a *source* of steps: the code of a CPU, and each kind of step that its hardware makes by itself. A store that waits in a store
//! buffer, an interrupt that is pending, a broadcast flush on its way: each is somebody who may be late.

use fastrand::Rng;

use crate::choice::{Choice, Turn};
use crate::core::Core;
use crate::machine_config::Threads;
use crate::op::{Effect, Kind};
use crate::owned::{ByteRange, conflict};

/// How a random schedule picks the next step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Schedule {
    /// Partial order sampling (Yuan, Yang, Gu: "Partial Order Aware Concurrency Sampling", CAV 2018): whoever waits has a random
    /// priority, and draws a new one when a step was taken that does not commute with its own. Orders of independent steps
    /// do not use chance up.
    #[default]
    Pos,
    /// Probabilistic concurrency testing (Burckhardt and others: "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS
    /// 2010): priorities are drawn at the beginning, and `depth - 1` times, at random moments, whoever is about to move falls behind all others. A bug that
    /// depends on the order of `depth` pairs of steps is met with a probability that [`crate::Sampled::pct_chance`] tells.
    Pct {
        /// At least 1.
        depth: u32,
    },
    /// A random walk: every possible step is as likely as any other.
    Uniform,
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pos => f.write_str("POS"),
            Self::Pct { depth } => write!(f, "PCT of depth {depth}"),
            Self::Uniform => f.write_str("uniform"),
        }
    }
}

/// Who makes a step.
pub(crate) fn source(choice: Choice) -> usize {
    choice.cpu() * Turn::COUNT + choice.turn() as usize
}

/// How many sources a machine with so many CPUs has.
pub(crate) fn sources(cpus: usize, threads: Threads) -> usize {
    cpus * match threads {
        Threads::Stay => Turn::COUNT - 1,
        Threads::Move => Turn::COUNT,
    }
}

/// A priority: the greatest moves first. Small ones are given out by PCT, in falling order.
type Priority = i64;

/// The schedule of one run.
pub(crate) struct Run {
    schedule: Schedule,
    /// Of each source; `None` where none was drawn yet.
    priorities: Vec<Option<Priority>>,
    /// Steps before which whoever is about to move falls behind, in rising order; from `next_change` on.
    changes: Vec<u64>,
    next_change: usize,
    /// Below every priority that was given out.
    lowest: Priority,
    step: u64,
}

impl Run {
    /// For a machine with so many CPUs, if runs have about `length` steps.
    pub(crate) fn new(schedule: Schedule, cpus: usize, length: u64, rng: &mut Rng) -> Self {
        let mut changes = match schedule {
            Schedule::Pct { depth } => (1..depth).map(|_| rng.u64(0..length.max(1))).collect(),
            Schedule::Pos | Schedule::Uniform => Vec::new(),
        };
        changes.sort_unstable();
        Self { schedule, priorities: vec![None; cpus * Turn::COUNT], changes, next_change: 0, lowest: 0, step: 0 }
    }

    /// Picks one of `choices`, of which there is at least one.
    pub(crate) fn pick(&mut self, core: &Core<'_>, choices: &[Choice], rng: &mut Rng) -> Choice {
        if self.schedule == Schedule::Uniform {
            return choices[rng.usize(..choices.len())];
        }
        let mut first = self.first(choices, rng);
        while self.changes.get(self.next_change) == Some(&self.step) {
            self.next_change += 1;
            self.fall_behind(first);
            first = self.first(choices, rng);
        }
        self.step += 1;
        let of_first = || choices.iter().filter(|choice| source(**choice) == first);
        let picked = *of_first().nth(rng.usize(..of_first().count())).expect("one of so many");
        if self.schedule == Schedule::Pos {
            let footprint = Footprint::of(core, picked);
            self.priorities[first] = None;
            for &other in choices.iter().filter(|other| source(**other) != first) {
                if footprint.meets(Footprint::of(core, other)) {
                    self.priorities[source(other)] = None;
                }
            }
        }
        picked
    }

    /// The run came back to where it was: whoever moved there lets others go first, or the run never ends.
    pub(crate) fn came_back(&mut self, by: Choice) {
        match self.schedule {
            Schedule::Pos => self.priorities.fill(None),
            Schedule::Pct { .. } => self.fall_behind(source(by)),
            Schedule::Uniform => {}
        }
    }

    fn first(&mut self, choices: &[Choice], rng: &mut Rng) -> usize {
        let mut first = (Priority::MIN, 0);
        for &choice in choices {
            let source = source(choice);
            let priority = *self.priorities[source].get_or_insert_with(|| rng.i64(1..Priority::MAX));
            first = first.max((priority, source));
        }
        first.1
    }

    fn fall_behind(&mut self, source: usize) {
        self.lowest -= 1;
        self.priorities[source] = Some(self.lowest);
    }
}

/// What a step touches, as far as another step could tell.
#[derive(Clone, Copy)]
enum Footprint {
    /// Nothing that others see: a store goes to the CPU's own buffer, a fence waits for it.
    Own,
    Word(ByteRange, Effect),
    /// Page tables, TLBs, interrupts, frames: taken to meet everything but [`Self::Own`].
    Machine,
}

impl Footprint {
    fn of(core: &Core<'_>, choice: Choice) -> Self {
        let cpu = choice.cpu();
        match choice.turn() {
            Turn::Run => {
                let Some(agent) = core.active(cpu) else { return Self::Machine };
                let op = core.op(agent);
                match op.kind {
                    Kind::Store | Kind::Zero if core.buffers_stores() => Self::Own,
                    Kind::Fence | Kind::IrqSave | Kind::IrqRestore => Self::Own,
                    kind => kind.accesses_word().map_or(Self::Machine, |effect| {
                        Self::Word(ByteRange::new(op.address, usize::from(op.bytes)), effect)
                    }),
                }
            }
            Turn::Drain => {
                let (start, end) = core.waiting(cpu, 0).range();
                Self::Word(ByteRange::new(start, end - start), Effect::Writes)
            }
            Turn::Interrupt | Turn::Arrive | Turn::Speculate | Turn::Move => Self::Machine,
        }
    }

    fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Own, _) | (_, Self::Own) => false,
            (Self::Word(mine, effect), Self::Word(theirs, their_effect)) => {
                mine.overlaps(theirs) && conflict(effect, their_effect)
            }
            _ => true,
        }
    }
}
