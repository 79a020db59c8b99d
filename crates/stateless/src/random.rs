//! Random runs: where there are too many for a search, some of them at least.
//!
//! Whoever makes steps has a priority, which is drawn anew now and then: in some runs seldom, so that one is far ahead of the others or late, in others often. If everything that can happen were as
//! likely as anything else, all would be equally far at any time, and most runs would end alike. Before each step the walkers of a CPU may cache what they can reach.

use fastrand::Rng;

use crate::config::Caches;
use crate::run::{Kind, MOST_PROCESSES, Observer, Process, Run};
use crate::state::{Machine, Stop};
use crate::verdict::Violation;

/// How a random run ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RandomEnd {
    /// All is done, and no rule broken.
    Rest {
        /// What was read of the final state.
        observation: Option<Vec<u64>>,
    },
    /// It breaks this rule, or nobody can go on.
    Broken(Violation),
    /// The code uses the machine wrongly.
    Misuse(String),
    /// It was cut off.
    Cut,
}

/// Takes down what happens, if somebody wants to read it.
pub(crate) type Lines<'l> = Option<&'l mut Vec<String>>;

/// One run. The same seed makes the same.
pub(crate) fn random_run<'a>(
    machine: &Machine<'a>,
    observer: Option<&Observer<'a>>,
    (seed, most_steps): (u64, usize),
    lines: Lines<'_>,
) -> RandomEnd {
    let mut rng = Rng::with_seed(seed);
    let priorities = [(); MOST_PROCESSES].map(|()| rng.u64(..));
    let stays = 1 << rng.usize(1..=6);
    let end = Random { run: Run::new(machine), rng, priorities, stays, steps: 0 }.run(observer, most_steps, lines);
    machine.reset();
    end
}

struct Random<'m, 'a> {
    run: Run<'m, 'a>,
    rng: Rng,
    /// Of each process: the greatest goes first.
    priorities: [u64; MOST_PROCESSES],
    /// Who has made a step draws a new one once in so many times.
    stays: usize,
    steps: usize,
}

impl<'a> Random<'_, 'a> {
    fn run(&mut self, observer: Option<&Observer<'a>>, most_steps: usize, mut lines: Lines<'_>) -> RandomEnd {
        self.run.start();
        while self.steps < most_steps {
            match self.run.stop() {
                Some(Stop::Violation(violation)) => return RandomEnd::Broken(violation),
                Some(Stop::Misuse(sentence)) => return RandomEnd::Misuse(sentence),
                None => {}
            }
            self.walk();
            let Some((process, ways)) = self.first() else {
                return match self.run.judge_rest(observer) {
                    Ok(observation) => RandomEnd::Rest { observation },
                    Err(violation) => RandomEnd::Broken(violation),
                };
            };
            let way = self.rng.usize(..ways);
            if self.rng.usize(..self.stays) == 0 {
                self.priorities[process.index()] = self.rng.u64(..);
            }
            if let Some(lines) = &mut lines {
                lines.push(self.in_words(process, way));
            }
            self.step(process, way);
        }
        RandomEnd::Cut
    }

    fn step(&mut self, process: Process, way: usize) {
        self.run.step(self.steps, process, way);
        self.steps += 1;
    }

    /// Every other time somebody caches what it can.
    fn walk(&mut self) {
        let config = &self.run.machine.config;
        let unasked = matches!(config.caches, Caches::Everything | Caches::Translations) && config.paging.is_some();
        if unasked && self.rng.bool() {
            let cpu = self.rng.usize(..self.run.machine.programs.len());
            self.step(Process::new(Kind::Walker, cpu), 0);
        }
    }

    /// Who goes first of those that can make a step, and in how many ways.
    fn first(&self) -> Option<(Process, usize)> {
        let mut ways = self.run.ways();
        let state = self.run.machine.state.borrow();
        for cpu in 0..state.cpus.len() {
            ways[Process::new(Kind::Flags, cpu).index()] = self.run.machine.unasked(&state, cpu).len() as u16;
        }
        let can = Process::all().filter(|one| ways[one.index()] != 0);
        let first = can.max_by_key(|one| self.priorities[one.index()])?;
        Some((first, usize::from(ways[first.index()])))
    }

    fn in_words(&self, process: Process, way: usize) -> String {
        let cpu = process.cpu();
        let what = match (process.kind(), self.run.operation(cpu)) {
            (Kind::Code, Some((op, ways))) if way < ways => format!("{op:x?}, way {way}"),
            (Kind::Code, _) => "an interrupt, or a move".to_owned(),
            (kind, _) => format!("{kind:?} {way}"),
        };
        format!("CPU{cpu}: {what}")
    }
}
