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

/// A set of pages and orders to go through them. Pages are numbers of 32 bits, so that the list of them takes little of the memory's
/// bandwidth away from the tables.
pub(crate) struct Workload {
    /// What the results call it.
    pub(crate) name: &'static str,
    /// In the order of the pattern. The first is mapped to [`DATA`], each other one page behind the one before.
    pub(crate) in_order: Vec<u32>,
    /// The same, shuffled.
    pub(crate) shuffled: Vec<u32>,
    /// The wrapping sum of all physical addresses: who translates all pages must come to it.
    pub(crate) sum: u64,
}

/// Below 2^47, where every peer agrees on what is canonical; not at the start of a table.
const START: u64 = 0x1234_4000_0000;
const WINDOW_PAGES: u32 = ((64_u64 << 30) / 4096) as u32;
/// Data lies where no table does: nobody looks there.
pub(crate) const DATA: u64 = 1 << 40;

/// The virtual address of a page.
#[inline(always)]
pub(crate) const fn address(page: u32) -> u64 {
    START + (page as u64) * 4096
}

impl Pattern {
    /// `count` pages of the pattern.
    pub(crate) fn pages(self, count: usize) -> Workload {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (name, in_order): (_, Vec<u32>) = match self {
            Self::Sequential => (SEQUENTIAL, (0..count as u32).collect()),
            Self::Random => {
                let mut taken = vec![false; WINDOW_PAGES as usize];
                let mut draw = || loop {
                    let page = random.below(WINDOW_PAGES);
                    if !std::mem::replace(&mut taken[page as usize], true) {
                        return page;
                    }
                };
                (RANDOM, (0..count).map(|_| draw()).collect())
            }
        };
        let mut shuffled = in_order.clone();
        for last in (1..shuffled.len()).rev() {
            shuffled.swap(last, random.below(last as u32 + 1) as usize);
        }
        let sum = (0..count as u64).fold(0, |sum: u64, index| sum.wrapping_add(DATA + index * 4096));
        Workload { name, in_order, shuffled, sum }
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

    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}
