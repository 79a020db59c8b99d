//! Runs of frames, powers of two, each aligned to its size: split in halves and joined again.

use crate::number_set::NumberSet;

/// The largest run: 1 GiB.
pub(crate) const MAX_ORDER: u8 = 18;

/// The free runs of a stretch of frames, named by their first frames.
pub(crate) struct Buddy {
    /// Not above the first frame, and the start of a run of any order.
    base: u64,
    /// The free runs of each order: how many runs of that order lie between the base and them.
    free: [NumberSet; MAX_ORDER as usize + 1],
}

impl Buddy {
    /// All of `first..end` is free.
    pub(crate) fn new(mut first: u64, end: u64) -> Self {
        let base = first & !((1 << MAX_ORDER) - 1);
        let free = |order| NumberSet::below((end - base).div_ceil(1_u64 << order));
        let mut buddy = Self { base, free: std::array::from_fn(free) };
        while first < end {
            let fits = |order: &u8| first.is_multiple_of(1 << order) && first + (1 << order) <= end;
            let order = (0..=MAX_ORDER).rev().find(fits).unwrap_or(0);
            buddy.free[usize::from(order)].insert((first - base) >> order);
            first += 1 << order;
        }
        buddy
    }

    /// The free run of this order with the lowest number, out of the smallest run that has one.
    pub(crate) fn take(&mut self, order: u8) -> Option<u64> {
        let (found, run) =
            (order..=MAX_ORDER).find_map(|order| Some((order, self.free[usize::from(order)].pop_first()?)))?;
        let first = run << found;
        for half in order..found {
            self.free[usize::from(half)].insert((first >> half) + 1);
        }
        Some(self.base + first)
    }

    /// A run is free again, and joined with its other half if that is free.
    pub(crate) fn give_back(&mut self, first: u64, mut order: u8) {
        let mut run = (first - self.base) >> order;
        while order < MAX_ORDER && self.free[usize::from(order)].remove(run ^ 1) {
            run >>= 1;
            order += 1;
        }
        self.free[usize::from(order)].insert(run);
    }
}
