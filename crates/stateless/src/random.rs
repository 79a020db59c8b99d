//! Random runs: where there are too many for a search, some of them at least.
//!
//! Whoever makes steps has a priority, which is drawn anew now and then: in some runs seldom, so that one is far ahead of the others or late, in others often. If everything that can happen were as
//! likely as anything else, all would be equally far at any time, and most runs would end alike. Before each step the walkers of a CPU may cache what they can reach.

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
    let mut dice = Dice(seed);
    let priorities = [(); MOST_PROCESSES].map(|()| dice.throw());
    let stays = 1 << (1 + dice.below(6));
    let end = Random { run: Run::new(machine), dice, priorities, stays, steps: 0 }.run(observer, most_steps, lines);
    machine.reset();
    end
}

struct Random<'m, 'a> {
    run: Run<'m, 'a>,
    dice: Dice,
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
            let way = self.dice.below(ways);
            if self.dice.below(self.stays) == 0 {
                self.priorities[process.index()] = self.dice.throw();
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
        if unasked && self.dice.below(2) == 0 {
            let cpu = self.dice.below(self.run.machine.programs.len());
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

/// Pseudo-random numbers (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
struct Dice(u64);

impl Dice {
    /// One of so many numbers from 0 on.
    fn below(&mut self, count: usize) -> usize {
        (self.throw() % count.max(1) as u64) as usize
    }

    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_up_and_the_same_seed_throws_the_same() {
        let throws = |seed| {
            let mut dice = Dice(seed);
            (0..200).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(throws(1), throws(1));
        assert_ne!(throws(1), throws(2));
        assert!((0..6).all(|number| throws(1).contains(&number)) && throws(1).iter().all(|number| *number < 6));
    }
}
