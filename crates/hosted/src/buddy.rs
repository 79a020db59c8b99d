//! Runs of frames, powers of two, each aligned to its size: split in halves and joined again.

use std::collections::BTreeSet;

/// The largest run: 1 GiB.
pub(crate) const MAX_ORDER: u8 = 18;

/// The free runs of a stretch of frames. Frames are named by their index in it.
pub(crate) struct Buddy {
    /// The first frames of the free runs of each order.
    free: [BTreeSet<u64>; MAX_ORDER as usize + 1],
}

impl Buddy {
    /// All of `first..end` is free.
    pub(crate) fn new(mut first: u64, end: u64) -> Self {
        let mut buddy = Self { free: std::array::from_fn(|_| BTreeSet::new()) };
        while first < end {
            let fits = |order: &u8| first.is_multiple_of(1 << order) && first + (1 << order) <= end;
            let order = (0..=MAX_ORDER).rev().find(fits).unwrap_or(0);
            buddy.free[usize::from(order)].insert(first);
            first += 1 << order;
        }
        buddy
    }

    /// The free run of this order with the lowest number, out of the smallest run that has one.
    pub(crate) fn take(&mut self, order: u8) -> Option<u64> {
        let (found, first) =
            (order..=MAX_ORDER).find_map(|order| Some((order, self.free[usize::from(order)].pop_first()?)))?;
        for half in order..found {
            self.free[usize::from(half)].insert(first + (1 << half));
        }
        Some(first)
    }

    /// A run is free again, and joined with its other half if that is free.
    pub(crate) fn give_back(&mut self, mut first: u64, mut order: u8) {
        while order < MAX_ORDER && self.free[usize::from(order)].remove(&(first ^ 1 << order)) {
            first &= !(1 << order);
            order += 1;
        }
        self.free[usize::from(order)].insert(first);
    }
}
