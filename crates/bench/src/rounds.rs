//! How contestants take turns.
//!
//! On a shared machine the clock and the caches change from second to second, so contestants that are measured one after the other cannot be
//! compared. Here every round measures every contestant once, in an order that rotates, and a ratio is one of the best rounds of
//! both. Criterion measures one benchmark to the end before it starts the next, which is why it is not used.

use std::io::Write;

/// How long to measure.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// How many rounds.
    pub(crate) rounds: usize,
    /// How many pages in page-table workloads.
    pub(crate) pages: usize,
    /// How many rounds in the lab, where one takes seconds.
    pub(crate) lab_rounds: usize,
}

impl Effort {
    pub(crate) const FULL: Self = Self { rounds: 11, pages: 1 << 20, lab_rounds: 3 };
    /// To see that it works; the numbers mean little.
    pub(crate) const QUICK: Self = Self { rounds: 3, pages: 1 << 16, lab_rounds: 1 };
}

/// Runs `turns`, all of them in every round, the next one first in each.
pub(crate) fn interleave(what: &str, rounds: usize, turns: &mut [Box<dyn FnMut() + '_>]) {
    for round in 0..rounds {
        eprint!("\r{what}: round {} of {rounds} ", round + 1);
        // Progress is for people: if nobody can see it, measure all the same.
        let _ = std::io::stderr().flush();
        let count = turns.len();
        for turn in 0..count {
            turns[(round + turn) % count]();
        }
    }
    eprintln!();
}
