//! Whole final states, so that two engines can be asked whether they have the same ones.
//!
//! Each engine runs a scenario in an arena that was built for it alone. What it leaves there is read by this code, which belongs to neither: what was placed, as far as it is not as at the start (what never changes may be
//! an address), tables that are allocated, which frames are, and what CPUs reported.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;

use lab::{Arena, End, Recording};
use machine::{CpuId, Frame, Word, Word64};
use xxhash_rust::xxh3::Xxh3Default;

/// Whether a search collects whole final states.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ends {
    /// It does not: reading each of them takes time.
    #[default]
    Ignored,
    /// It does, so that a second engine can be asked about them: see [`crate::SecondEngine`].
    Collected,
}

/// What is kept of one final state of many. Equal ones have the same, different ones another one, as good as certainly.
pub(crate) type Digest = [u64; 2];

/// The final states of a variant, by their digests.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndSet {
    digests: BTreeSet<Digest>,
    /// A run to each of them, if one search alone has found them.
    pub(crate) runs: Vec<Recording>,
}

impl EndSet {
    /// What was read of final states before their digests, and the digests.
    pub(crate) fn split(read: BTreeSet<Vec<u64>>) -> (BTreeSet<Vec<u64>>, Self) {
        let (mut places, mut digests) = (BTreeSet::new(), BTreeSet::new());
        for mut words in read {
            if let (Some(second), Some(first)) = (words.pop(), words.pop()) {
                digests.insert([first, second]);
            }
            places.insert(words);
        }
        (places, Self { digests, runs: Vec::new() })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.digests.len()
    }

    /// Forgets all but the one with this number: to see that somebody notices.
    pub fn keep_only(&mut self, number: usize) {
        self.digests = self.digests.iter().copied().skip(number).take(1).collect();
    }

    pub(crate) fn has(&self, digest: Digest) -> bool {
        self.digests.contains(&digest)
    }

    /// How many of these the others have not.
    pub(crate) fn beyond(&self, others: &Self) -> usize {
        self.digests.difference(&others.digests).count()
    }
}

/// The accessed flag in an entry of a page table.
const ACCESSED: u64 = 1 << 5;

/// How many results a CPU may report.
const REPORTS: usize = 16;

/// A part of a final state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    /// The word at this offset.
    Word(usize),
    /// Whether the block that begins there is allocated.
    Block(u64),
    /// What a CPU reported in a slot.
    Report(usize, usize),
}

impl Part {
    /// As words: parts that are different have different ones.
    fn words(self) -> [u64; 2] {
        match self {
            Self::Word(offset) => [0, offset as u64],
            Self::Block(first) => [1, first],
            Self::Report(cpu, slot) => [2, (cpu * REPORTS + slot) as u64],
        }
    }

    fn of([kind, which]: [u64; 2]) -> Self {
        match kind {
            0 => Self::Word(which as usize),
            1 => Self::Block(which),
            _ => Self::Report(which as usize / REPORTS, which as usize % REPORTS),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(offset) => write!(f, "the word at {offset:#x}"),
            Self::Block(first) => write!(f, "whether frame {first:#x} is allocated"),
            Self::Report(cpu, slot) => write!(f, "what CPU{cpu} reports in slot {slot}"),
        }
    }
}

/// Reads the final states of one machine.
#[derive(Clone)]
pub(crate) struct Reading<'a> {
    base: usize,
    cpus: usize,
    arena: &'a Arena,
    /// What was placed, at the start.
    start: Vec<u64>,
    /// The first frame of each block; its words, if it can hold a table.
    blocks: Vec<(Frame, Option<&'a [Word64; 512]>)>,
}

impl<'a> Reading<'a> {
    /// Of a machine with so many CPUs that stands at the start.
    pub(crate) fn new(arena: &'a Arena, cpus: usize) -> Self {
        let of_pool = |pool: &'a lab::Pool| pool.blocks.iter().map(|first| (*first, arena.table(*first)));
        Self {
            base: arena.base().addr(),
            cpus,
            arena,
            start: arena.placed().map(|(_, held)| held).collect(),
            blocks: arena.pools().iter().flat_map(of_pool).collect(),
        }
    }

    /// Each part that is not as it is if nothing happens, always in the same order.
    fn for_each(&self, end: &End<'_>, mut each: impl FnMut(Part, u64)) {
        for ((offset, now), before) in self.arena.placed().zip(&self.start) {
            if now != *before {
                each(Part::Word(offset), now);
            }
        }
        for (first, words) in &self.blocks {
            if end.is_allocated(*first) != Some(true) {
                continue;
            }
            each(Part::Block(first.number()), 1);
            for word in words.iter().copied().flatten() {
                // Frames come dirty, and each engine has its own dirt: who allocates a table makes it zero.
                let now = word.atomic_load(Ordering::Relaxed);
                if now != 0 {
                    each(Part::Word(word.address() - self.base), now);
                }
            }
        }
        for cpu in 0..self.cpus {
            for slot in 0..REPORTS {
                let reported = end.reported(CpuId::new(cpu as u32), slot);
                if reported != 0 {
                    each(Part::Report(cpu, slot), reported);
                }
            }
        }
    }

    /// The parts of a final state, as words: three for each.
    pub(crate) fn words(&self, end: &End<'_>) -> Vec<u64> {
        let mut words = Vec::new();
        self.for_each(end, |part, held| {
            words.extend(part.words());
            words.push(held);
        });
        words
    }

    /// What tells a final state from others.
    pub(crate) fn digest(&self, end: &End<'_>) -> Digest {
        digest(&self.words(end))
    }

    /// What two final states, as words, differ in first. Of the entries at these offsets the accessed flag does not count.
    pub(crate) fn difference(&self, ours: &[u64], theirs: &[u64], accessed: &[usize]) -> Option<String> {
        let parts = |words: &[u64]| -> BTreeMap<Part, u64> {
            words.chunks_exact(3).map(|part| (Part::of([part[0], part[1]]), part[2])).collect()
        };
        let (ours, theirs) = (parts(ours), parts(theirs));
        let at_start = |part: &Part| match part {
            Part::Word(offset) => self.placed_at(*offset).unwrap_or(0),
            Part::Block(_) | Part::Report(..) => 0,
        };
        ours.keys().chain(theirs.keys()).find_map(|part| {
            let of = |parts: &BTreeMap<Part, u64>| parts.get(part).copied().unwrap_or_else(|| at_start(part));
            let (our, their) = (of(&ours), of(&theirs));
            let ignored = match part {
                Part::Word(offset) if accessed.contains(offset) => ACCESSED,
                _ => 0,
            };
            ((our ^ their) & !ignored != 0).then(|| format!("{part} is {our:#x}, and {their:#x} in the lab"))
        })
    }

    /// What was placed at an offset, at the start.
    fn placed_at(&self, offset: usize) -> Option<u64> {
        let (first, _) = self.arena.placed().next()?;
        self.start.get(offset.checked_sub(first)? / 8).copied()
    }
}

/// What tells the words of a final state from those of others.
pub(crate) fn digest(words: &[u64]) -> Digest {
    let mut hash = Xxh3Default::new();
    words.iter().for_each(|word| hash.update(&word.to_le_bytes()));
    let digest = hash.digest128();
    [(digest >> 64) as u64, digest as u64]
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab::{Backing, FrameKind, Pool};

    const TABLE: Frame = Frame::new(0x10);

    fn arena() -> Arena {
        let pool = Pool { kind: FrameKind(0), order: 0, backing: Backing::Words, blocks: vec![TABLE] };
        Arena::with_capacity(4096, vec![pool])
    }

    /// The words of a final state in which CPU 0 has reported this, and the table is allocated or not.
    fn words(reading: &Reading<'_>, reported: u64, allocated: bool) -> Vec<u64> {
        let reports = |_: CpuId, slot: usize| if slot == 3 { reported } else { 0 };
        reading.words(&End::new(&reports, &|_| Some(allocated)))
    }

    fn put(word: &Word64, value: u64) {
        word.atomic_store(value, Ordering::Relaxed);
    }

    #[test]
    fn each_part_tells_states_apart() {
        let arena = arena();
        arena.alloc("a constant, which is an address");
        let (word, table) = (arena.alloc(Word64::new(7)), arena.table(TABLE).expect("it has words"));
        let reading = Reading::new(&arena, 1);
        assert!(words(&reading, 0, false).is_empty());
        let mut seen = vec![words(&reading, 0, false), words(&reading, 1, false), words(&reading, 0, true)];
        put(word, 8);
        seen.push(words(&reading, 0, false));
        put(&table[5], 0x27);
        seen.push(words(&reading, 0, true));
        // What is left in a table that is free is nobody's.
        assert_eq!(words(&reading, 0, false), seen[3]);
        for (number, one) in seen.iter().enumerate() {
            for (other_number, other) in seen.iter().enumerate() {
                let is_same = number == other_number;
                assert_eq!(digest(one) == digest(other), is_same);
                assert_eq!(reading.difference(one, other, &[]).is_none(), is_same);
            }
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let arena = arena();
        let (word, table) = (arena.alloc(Word64::new(7)), arena.table(TABLE).expect("it has words"));
        let reading = Reading::new(&arena, 1);
        let before = words(&reading, 0, true);
        put(word, 8);
        let offset = word.address() - arena.base().addr();
        let after = words(&reading, 0, true);
        let said = format!("the word at {offset:#x} is 0x8, and 0x7 in the lab");
        assert_eq!(reading.difference(&after, &before, &[]), Some(said));
        let said = "what CPU0 reports in slot 3 is 0x2, and 0x1 in the lab".to_owned();
        assert_eq!(reading.difference(&words(&reading, 2, true), &words(&reading, 1, true), &[]), Some(said));
        // One flag of one entry may be left out.
        let entry = table[5].address() - arena.base().addr();
        put(&table[5], 0x27);
        let accessed = words(&reading, 0, true);
        put(&table[5], 0x07);
        let not = words(&reading, 0, true);
        assert!(reading.difference(&accessed, &not, &[entry]).is_none());
        assert!(reading.difference(&accessed, &not, &[entry + 8]).is_some());
        put(&table[5], 0x03);
        assert!(reading.difference(&accessed, &words(&reading, 0, true), &[entry]).is_some());
    }

    #[test]
    fn digests_are_taken_off_what_was_read() {
        let read = BTreeSet::from([vec![1, 10, 11], vec![1, 20, 21], vec![2, 30, 31]]);
        let (places, ends) = EndSet::split(read);
        assert_eq!(places, BTreeSet::from([vec![1], vec![2]]));
        assert!(ends.count() == 3 && ends.has([10, 11]) && !ends.has([1, 10]));
        let mut fewer = ends.clone();
        fewer.keep_only(1);
        assert!(fewer.count() == 1 && fewer.has([20, 21]));
        assert_eq!((ends.beyond(&fewer), fewer.beyond(&ends)), (2, 0));
    }
}
