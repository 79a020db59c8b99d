//! Which pages, in which order.

/// Where pages are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// One after the other.
    Sequential,
    /// All over 64 GiB, each page once.
    Random,
}

/// What results call the patterns.
pub(crate) const SEQUENTIAL: &str = "sequential pages";
pub(crate) const RANDOM: &str = "random pages in 64 GiB";

/// A set of pages and orders to go through them.
pub(crate) struct Workload {
    /// What the results call it.
    pub(crate) name: &'static str,
    /// In the order of the pattern, with where each is mapped to.
    pub(crate) pages: Vec<(u64, u64)>,
    /// Their virtual addresses.
    pub(crate) in_order: Vec<u64>,
    /// The virtual addresses, shuffled.
    pub(crate) shuffled: Vec<u64>,
    /// The wrapping sum of all physical addresses: who translates all pages must come to it.
    pub(crate) sum: u64,
}

/// Below 2^47, where every peer agrees on what is canonical; not at the start of a table.
const START: u64 = 0x1234_4000_0000;
const WINDOW_PAGES: u64 = (64 << 30) / 4096;
/// Data lies where no table does: nobody looks there.
const DATA: u64 = 1 << 40;

impl Pattern {
    /// `count` pages of the pattern.
    pub(crate) fn pages(self, count: usize) -> Workload {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (name, virtuals): (_, Vec<u64>) = match self {
            Self::Sequential => (SEQUENTIAL, (0..count as u64).map(|page| START + page * 4096).collect()),
            Self::Random => {
                let mut taken = vec![false; WINDOW_PAGES as usize];
                let mut draw = || loop {
                    let page = random.below(WINDOW_PAGES);
                    if !std::mem::replace(&mut taken[page as usize], true) {
                        return START + page * 4096;
                    }
                };
                (RANDOM, (0..count).map(|_| draw()).collect())
            }
        };
        let pages: Vec<_> = virtuals.iter().zip(0..).map(|(virt, index)| (*virt, DATA + index * 4096)).collect();
        let in_order = virtuals;
        let mut shuffled = in_order.clone();
        for last in (1..shuffled.len()).rev() {
            shuffled.swap(last, random.below(last as u64 + 1) as usize);
        }
        let sum = pages.iter().fold(0, |sum: u64, (_, phys)| sum.wrapping_add(*phys));
        Workload { name, pages, in_order, shuffled, sum }
    }
}

/// splitmix64: the same pages in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
