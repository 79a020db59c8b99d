//! The set of states that were visited.
//!
//! Nearly all of its cost is waiting for memory, so it is flat: a look-up touches one or two cache lines next to each other, most of the time. Its segments grow by a third each when
//! they are four fifths full, one after the other: at any moment some seven tenths of all are full, and little is there twice. A fingerprint's place is in proportion to its value: growing goes
//! through a segment in order, and in place.
//!
//! Many a state that is met again was met a moment ago, by the same steps in another order. So a large set also keeps those that it was asked for last where the processor's cache has them:
//! they are known to be old without a look at memory.

use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use core::hint::select_unpredictable;
use core::ops::Range;

use crate::slots::{Slots, Zeroable};

/// How many bits of a state's fingerprint are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Fingerprints {
    /// 128: 20 to 24 bytes a state. With a thousand million states, the chance that any is taken for another is about 10<sup>-21</sup>.
    #[default]
    Wide,
    /// 64: half as much. With a thousand million states, that chance is about 3 percent: [`crate::Report::missed`].
    Narrow,
}

/// Segments of a set: a power of two.
const SEGMENTS: usize = 1 << 3;
/// Slots of the first segment when it is empty. The others have a little more.
const FEW: usize = 1 << 6;
/// From so many bytes on a set keeps those that it was asked for last: before, all of it fits into a cache.
const LARGE_BYTES: usize = 8 << 20;
/// How many it keeps of them: half a mebibyte of wide ones, about half of a second-level cache. A power of two.
const RECENT: usize = 1 << 15;

/// A set of fingerprints. They are random numbers already: no hashing.
pub(crate) enum Visited {
    Wide(Segments<u128>),
    Narrow(Segments<u64>),
}

pub(crate) struct Segments<T> {
    tables: Vec<Table<T>>,
    bytes: usize,
    /// What was asked for last, each at the place that its lowest bits say, so that all at one place are of one segment. One empty slot until the set is large, and for ever in a
    /// part of a larger set.
    recent: Vec<T>,
    /// From how many bytes on there are more of them.
    large: usize,
}

/// What is kept of a fingerprint. Zero stands for an empty slot.
pub(crate) trait Slot: Zeroable + PartialEq {
    fn of(fingerprint: u128) -> Self;
    /// The 64 bits in proportion to which its place is.
    fn high(self) -> u64;
}

impl Slot for u128 {
    fn of(fingerprint: u128) -> Self {
        // One in 2^128 fingerprints is taken for another, in the same segment.
        if fingerprint == 0 { 1 << 64 } else { fingerprint }
    }

    fn high(self) -> u64 {
        (self >> 64) as u64
    }
}

impl Slot for u64 {
    fn of(fingerprint: u128) -> Self {
        ((fingerprint >> 64) as u64).max(1)
    }

    fn high(self) -> u64 {
        self
    }
}

/// A list in another order: that of their values, in which a set gives them, is the worst to make a set of. As long as only low ones are there they lie side by side in the first part of the table, and each that
/// comes is looked for among all before it.
pub(crate) fn scattered(list: &[u128]) -> impl Iterator<Item = u128> {
    let gcd = |one: usize, other: usize| {
        let (mut one, mut other) = (one, other);
        while other != 0 {
            (one, other) = (other, one % other);
        }
        one
    };
    let count = list.len();
    // Steps in proportion to the golden ratio come nowhere close to each other; if they have no divisor in common with the length, they come by everything.
    let step = (count / 1000 * 618..).find(|&step| gcd(step, count) == 1).unwrap_or(1);
    let mut at = 0;
    list.iter().map(move |_| {
        at = (at + step) % count;
        list[at]
    })
}

impl Visited {
    pub(crate) fn new(fingerprints: Fingerprints) -> Self {
        match fingerprints {
            Fingerprints::Wide => Self::Wide(Segments::new(0..SEGMENTS, LARGE_BYTES)),
            Fingerprints::Narrow => Self::Narrow(Segments::new(0..SEGMENTS, LARGE_BYTES)),
        }
    }

    /// One of the parts of a larger set: which one.
    pub(crate) fn part(number: usize, fingerprints: Fingerprints) -> Self {
        let only = number % SEGMENTS..number % SEGMENTS + 1;
        match fingerprints {
            Fingerprints::Wide => Self::Wide(Segments::new(only, usize::MAX)),
            Fingerprints::Narrow => Self::Narrow(Segments::new(only, usize::MAX)),
        }
    }

    /// Adds a fingerprint. Returns whether it is new.
    #[inline]
    pub(crate) fn insert(&mut self, fingerprint: u128) -> bool {
        match self {
            Self::Wide(segments) => segments.insert(fingerprint),
            Self::Narrow(segments) => segments.insert(fingerprint),
        }
    }

    /// It will be asked soon whether this fingerprint is new.
    #[inline(always)]
    pub(crate) fn expect(&self, fingerprint: u128) {
        match self {
            Self::Wide(segments) => segments.expect(fingerprint),
            Self::Narrow(segments) => segments.expect(fingerprint),
        }
    }

    /// All of them, in no order; of 64 bits, the rest is zero but for which segment it is.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = u128> + '_> {
        match self {
            Self::Wide(segments) => Box::new(segments.tables.iter().flat_map(Table::iter)),
            Self::Narrow(segments) => {
                let tables = (0u128..).zip(&segments.tables);
                Box::new(tables.flat_map(|(at, table)| table.iter().map(move |slot| u128::from(slot) << 64 | at)))
            }
        }
    }

    /// Bytes in use; a little more while it grows.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Wide(segments) => segments.bytes,
            Self::Narrow(segments) => segments.bytes,
        }
    }
}

impl<T: Slot> Segments<T> {
    fn new(segments: Range<usize>, large: usize) -> Self {
        let tables: Vec<Table<T>> = segments.map(Table::new).collect();
        let slots: usize = tables.iter().map(|table| table.slots.len()).sum();
        Self { bytes: slots * size_of::<T>(), tables, recent: vec![T::default()], large }
    }

    #[inline(always)]
    fn segment_of(&self, fingerprint: u128) -> usize {
        // The place in a table is in proportion to the upper half.
        fingerprint as usize & (self.tables.len() - 1)
    }

    #[inline(always)]
    fn recent_place(&self, fingerprint: u128) -> usize {
        fingerprint as usize & (self.recent.len() - 1)
    }

    #[inline(always)]
    fn expect(&self, fingerprint: u128) {
        let wanted = T::of(fingerprint);
        let recent = &self.recent[self.recent_place(fingerprint)];
        let slots = &self.tables[self.segment_of(fingerprint)].slots;
        let place = slots.as_ptr().wrapping_add(Table::place(wanted, slots.len()));
        // No branch: half of the time it would go the other way than the processor thought, which would be found out as late as the load ends.
        let place = select_unpredictable(*recent == wanted, &raw const *recent, place);
        // SAFETY: a hint, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
        // Often enough it is found a few places further, in the next line.
        let next = place.cast::<i8>().wrapping_add(48);
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(next) };
    }

    #[inline]
    fn insert(&mut self, fingerprint: u128) -> bool {
        let (segment, recent, wanted) =
            (self.segment_of(fingerprint), self.recent_place(fingerprint), T::of(fingerprint));
        if self.recent[recent] == wanted {
            return false;
        }
        let table = &mut self.tables[segment];
        let before = table.slots.len();
        let is_new = table.insert(wanted);
        let grown = table.slots.len() - before;
        self.bytes += grown * size_of::<T>();
        if self.recent.len() > 1 {
            self.recent[recent] = wanted;
        } else if grown > 0 && self.bytes > self.large {
            self.recent = vec![T::default(); RECENT];
            self.bytes += size_of_val(&self.recent[..]);
        }
        is_new
    }
}

/// So many slots may be used of so many.
const fn room_in(slots: usize) -> usize {
    slots * 4 / 5
}

/// So many more there are after growing.
const fn growth_of(slots: usize) -> usize {
    slots / 3
}

struct Table<T> {
    /// A slot that holds zero is empty.
    slots: Slots<T>,
    /// Entries that there is room for until it grows.
    room: usize,
}

impl<T: Slot> Table<T> {
    /// The segment of this number, empty.
    fn new(number: usize) -> Self {
        // Each begins with a little more than the one before, so each is full at another time.
        let slots = FEW + growth_of(FEW) * number / SEGMENTS;
        Self { slots: Slots::new(slots), room: room_in(slots) }
    }

    #[inline(always)]
    fn place(wanted: T, slots: usize) -> usize {
        ((u128::from(wanted.high()) * slots as u128) >> 64) as usize
    }

    /// Where it is, or the free slot where it belongs.
    #[inline(always)]
    fn find(&self, wanted: T) -> Result<usize, usize> {
        let mut at = Self::place(wanted, self.slots.len());
        loop {
            let found = self.slots[at];
            if found == wanted {
                return Ok(at);
            }
            if found == T::default() {
                return Err(at);
            }
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
    }

    #[inline]
    fn insert(&mut self, wanted: T) -> bool {
        let Err(free) = self.find(wanted) else { return false };
        self.slots[free] = wanted;
        self.room -= 1;
        if self.room == 0 {
            self.grow();
        }
        true
    }

    fn iter(&self) -> impl Iterator<Item = T> {
        self.slots.iter().copied().filter(|slot| *slot != T::default())
    }

    #[cold]
    fn grow(&mut self) {
        let before = self.slots.len();
        self.slots.grow(before + growth_of(before));
        self.spread(before);
        self.room = room_in(self.slots.len()) - room_in(before);
    }

    /// Brings everything to its place in the table as it is now, from its place when it had `before` slots.
    ///
    /// From the end downwards: places become higher, so that from where this stands on lies only what was brought to its place.
    fn spread(&mut self, before: usize) {
        // What was further from its place than that has become higher, and what comes around to the beginning, has to wait until nothing is moved any more.
        let mut left_over = Vec::new();
        for at in (0..before).rev() {
            let slot = self.slots[at];
            if slot == T::default() {
                continue;
            }
            self.slots[at] = T::default();
            let place = Self::place(slot, self.slots.len());
            let beyond = self.slots.get_mut(place..).filter(|_| place >= at);
            match beyond.and_then(|beyond| beyond.iter_mut().find(|other| **other == T::default())) {
                Some(free) => *free = slot,
                None => left_over.push(slot),
            }
        }
        for slot in left_over {
            let (Ok(at) | Err(at)) = self.find(slot);
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;

    #[test]
    fn each_fingerprint_is_new_once() {
        for fingerprints in [Fingerprints::Wide, Fingerprints::Narrow] {
            let mut visited = Visited::new(fingerprints);
            // Of narrow ones many have the same upper half, in another segment each.
            let alike = (0..SEGMENTS as u128).map(|low| 7 << 64 | low);
            let all: Vec<u128> = (0..1_000_000).map(hash::spread).chain([0, u128::MAX]).chain(alike).collect();
            for &fingerprint in &all {
                assert!(visited.insert(fingerprint), "{fingerprint:#x} is new");
                assert!(!visited.insert(fingerprint), "{fingerprint:#x} was just inserted");
            }
            assert!(visited.bytes() > LARGE_BYTES);
            assert!(!all.iter().any(|&fingerprint| visited.insert(fingerprint)));
            assert_eq!(visited.iter().count(), all.len());
            // Whoever reads the list back has the same set.
            let mut again = Visited::new(fingerprints);
            let list: Vec<u128> = visited.iter().collect();
            assert!(scattered(&list).all(|fingerprint| again.insert(fingerprint)));
            assert!(!all.iter().any(|&fingerprint| again.insert(fingerprint)));
        }
    }

    #[test]
    fn a_scattered_list_has_each_once_and_none_beside_its_neighbour() {
        for count in [0, 1, 2, 618, 999, 1000, 1001, 12_345, 61_800] {
            let list: Vec<u128> = (0..count).collect();
            let met: Vec<u128> = scattered(&list).collect();
            let far = count / 4;
            assert!(count < 1000 || met.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > far), "{count}");
            let mut sorted = met;
            sorted.sort_unstable();
            assert_eq!(sorted, list);
        }
    }

    #[test]
    fn it_takes_at_most_24_bytes_a_state_or_12() {
        for (fingerprints, most) in [(Fingerprints::Wide, 24), (Fingerprints::Narrow, 12)] {
            let mut visited = Visited::new(fingerprints);
            for number in 1..=1_000_000_usize {
                visited.insert(hash::spread(number as u64));
                // A thousand entries a segment: below, sizes are rounded too much.
                let bytes = visited.bytes().saturating_sub(RECENT * most * 2 / 3);
                assert!(number < 1000 * SEGMENTS || bytes <= most * number, "{number} states");
            }
        }
    }
}
