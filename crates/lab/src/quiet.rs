//! Accesses that are no steps, because they commute with everything that other CPUs do.
//!
//! * A load of a word that no run of the exploration ever writes: its result is always the same.
//! * Any access to a word that only one agent (the program of one CPU, or its interrupt handler) ever accesses. Under x86-TSO a locked operation also empties
//!   the store buffer; so it is quiet only if the buffer is empty already.
//!
//! Such an access is performed together with the operation before it. Which words these are is not known in advance. The search *assumes* it of every
//! word of which it has not yet seen the contrary; when an access shows that an assumption was wrong, what was explored so far counts for nothing, and
//! the search begins again, knowing better. The last search, whose counts are reported, made no wrong assumption.
//!
//! Words of page tables are never private: hardware walkers read them. Giving a frame back, or handing it out, counts as a write to
//! all of its words, because a load after it is another load than one before it (`freed-table`).
//!
//! Why nothing is lost: at a state where an agent's next access is quiet, that access is independent of every step that any other agent can ever take, so
//! performing it first is a persistent set of one (Godefroid 1996, chapter 4); rules, observations and deadlocks speak of states in which no quiet access is
//! outstanding, or of steps that are not quiet. An agent cannot hide in quiet accesses for ever: after very many of them in a row they are steps
//! again. A *monitor* that relates the writes of such a word to what other CPUs do meanwhile needs [`crate::Reduction::None`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What is known of each 4-byte unit of memory, and what was assumed: bits of an [`AtomicU32`]. In the lowest byte 0, or the one agent that accesses it plus one, or
/// [`MANY`].
const ACCESSOR: u32 = 0xff;
const MANY: u32 = 0xff;
/// It is written.
const WRITTEN: u32 = 1 << 8;
const ASSUMED_CONSTANT: u32 = 1 << 9;
const ASSUMED_PRIVATE: u32 = 1 << 10;

/// What threads that explore together know of every word. An assumption and what contradicts it meet in one word, whoever comes first.
pub(crate) struct Known {
    units: Box<[AtomicU32]>,
    wrong: AtomicBool,
    /// Something was learnt or assumed since [`QuietWords::news`] looked.
    has_news: AtomicBool,
}

/// What is known of a unit by two who know of each other.
fn join(one: u32, other: u32) -> u32 {
    let accessor = match (one & ACCESSOR, other & ACCESSOR) {
        (one, other) if one == other || other == 0 => one,
        (0, other) => other,
        _ => MANY,
    };
    (one | other) & !ACCESSOR | accessor
}

/// Whether something was assumed of a unit that is not so.
const fn is_contradiction(bits: u32) -> bool {
    bits & WRITTEN != 0 && bits & ASSUMED_CONSTANT != 0 || bits & ACCESSOR == MANY && bits & ASSUMED_PRIVATE != 0
}

/// What is known of units that follow each other, without what was assumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KnownUnits {
    /// The first one's number.
    pub(crate) unit: u32,
    pub(crate) units: u32,
    /// As in [`ACCESSOR`].
    pub(crate) accessor: u8,
    pub(crate) written: bool,
}

impl Known {
    /// What is known of the units of which something is: their number, and the bits.
    pub(crate) fn facts(&self) -> Vec<(u32, u32)> {
        let units = self.units.iter().map(|unit| unit.load(Ordering::Relaxed));
        units.enumerate().filter(|(_, bits)| *bits != 0).map(|(unit, bits)| (unit as u32, bits)).collect()
    }
}

/// What is known, and what was assumed, of every word.
pub(crate) struct QuietWords {
    known: Arc<Known>,
    /// What was assumed here first, in order: the unit, and the bit.
    assumptions: Vec<(u32, u32)>,
    /// Quiet accesses since the latest step.
    in_a_row: u32,
}

/// From so many quiet accesses in a row on, they are steps again.
const MOST_IN_A_ROW: u32 = 1 << 14;

impl QuietWords {
    pub(crate) fn new(arena_bytes: usize) -> Self {
        let units = (0..arena_bytes / 4).map(|_| AtomicU32::new(0)).collect();
        let (wrong, has_news) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { known: Arc::new(Known { units, wrong, has_news }), assumptions: Vec::new(), in_a_row: 0 }
    }

    /// What is known, for others to share.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// Knows from now on what others know. Returns whether they speak of as much memory.
    pub(crate) fn share(&mut self, known: &Arc<Known>) -> bool {
        let is_same = known.units.len() == self.known.units.len();
        if is_same {
            self.known = Arc::clone(known);
        }
        is_same
    }

    #[inline(always)]
    fn units(&self, offset: usize, bytes: usize) -> &[AtomicU32] {
        &self.known.units[offset / 4..(offset + bytes).div_ceil(4)]
    }

    #[inline(always)]
    fn is_wrong_if(&self, wrong: bool) {
        if wrong {
            self.known.wrong.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that there is something that others should know.
    #[inline(always)]
    fn note_news(&self) {
        self.known.has_news.store(true, Ordering::Relaxed);
    }

    /// Assumes something of a unit. Returns what was known and assumed of it before.
    #[cold]
    fn assume(&mut self, number: usize, bit: u32) -> u32 {
        let before = self.known.units[number].fetch_or(bit, Ordering::Relaxed);
        self.assumptions.push((number as u32, bit));
        self.note_news();
        before
    }

    /// Whether a load may be assumed to be of a constant word. If so, that is remembered.
    #[inline(always)]
    pub(crate) fn assume_constant(&mut self, offset: usize, bytes: usize) -> bool {
        let is = |unit: &AtomicU32, bits| unit.load(Ordering::Relaxed) & bits != 0;
        if self.in_a_row == MOST_IN_A_ROW || self.units(offset, bytes).iter().any(|unit| is(unit, WRITTEN)) {
            return false;
        }
        let mut written = false;
        for number in offset / 4..(offset + bytes).div_ceil(4) {
            if !is(&self.known.units[number], ASSUMED_CONSTANT) {
                written |= self.assume(number, ASSUMED_CONSTANT) & WRITTEN != 0;
            }
        }
        self.in_a_row += 1;
        !written
    }

    /// Whether a word may be assumed to be accessed by this agent only. If so, that is remembered.
    #[inline(always)]
    pub(crate) fn assume_private(&mut self, agent: usize, offset: usize, bytes: usize) -> bool {
        let mine = agent as u32 + 1;
        let is_mine = |unit: &AtomicU32| unit.load(Ordering::Relaxed) & ACCESSOR == mine;
        if self.in_a_row == MOST_IN_A_ROW || !self.units(offset, bytes).iter().all(is_mine) {
            return false;
        }
        let mut shared = false;
        for number in offset / 4..(offset + bytes).div_ceil(4) {
            if self.known.units[number].load(Ordering::Relaxed) & ASSUMED_PRIVATE == 0 {
                shared |= self.assume(number, ASSUMED_PRIVATE) & ACCESSOR != mine;
            }
        }
        self.in_a_row += 1;
        !shared
    }

    /// Whether it is known of these bytes that several agents access them: of each unit, which is so for ever.
    pub(crate) fn is_shared(&self, offset: usize, bytes: usize) -> bool {
        self.units(offset, bytes).iter().all(|unit| unit.load(Ordering::Relaxed) & ACCESSOR == MANY)
    }

    /// Whether it is known of these bytes that some are written, which is so for ever.
    pub(crate) fn is_written(&self, offset: usize, bytes: usize) -> bool {
        self.units(offset, bytes).iter().any(|unit| unit.load(Ordering::Relaxed) & WRITTEN != 0)
    }

    /// A step was made.
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        self.in_a_row = 0;
    }

    /// The agent accesses these bytes.
    #[inline(always)]
    pub(crate) fn accessed(&mut self, agent: usize, offset: usize, bytes: usize) {
        let mine = agent as u32 + 1;
        for unit in self.units(offset, bytes) {
            let mut seen = unit.load(Ordering::Relaxed);
            while seen & ACCESSOR != mine && seen & ACCESSOR != MANY {
                let accessor = if seen & ACCESSOR == 0 { mine } else { MANY };
                let now = seen & !ACCESSOR | accessor;
                match unit.compare_exchange_weak(seen, now, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        self.is_wrong_if(accessor == MANY && seen & ASSUMED_PRIVATE != 0);
                        self.note_news();
                        break;
                    }
                    Err(other) => seen = other,
                }
            }
        }
    }

    /// These bytes are written.
    #[inline(always)]
    pub(crate) fn written(&mut self, offset: usize, bytes: usize) {
        for unit in self.units(offset, bytes) {
            if unit.load(Ordering::Relaxed) & WRITTEN == 0 {
                let before = unit.fetch_or(WRITTEN, Ordering::Relaxed);
                self.is_wrong_if(before & WRITTEN == 0 && before & ASSUMED_CONSTANT != 0);
                self.note_news();
            }
        }
    }

    /// Whether an assumption turned out wrong.
    #[inline(always)]
    pub(crate) fn is_wrong(&self) -> bool {
        self.known.wrong.load(Ordering::Relaxed)
    }

    /// A search begins, and nothing is known: what boot did is the initial state. Nobody else searches now.
    pub(crate) fn begin(&mut self) {
        self.begin_with(0);
    }

    /// A search goes on with what was known, and assumed, when it was left. Returns whether there are such units.
    pub(crate) fn restore(&mut self, facts: &[(u32, u32)]) -> bool {
        self.begin();
        for &(unit, bits) in facts {
            let Some(unit) = self.known.units.get(unit as usize) else { return false };
            unit.store(bits, Ordering::Relaxed);
        }
        true
    }

    /// The search begins again, with what is known now. Nobody else searches now.
    pub(crate) fn begin_again(&mut self) {
        self.begin_with(ACCESSOR | WRITTEN);
    }

    /// How many assumptions were made.
    pub(crate) fn assumptions(&self) -> usize {
        self.assumptions.len()
    }

    /// How many assumptions were made before the first that turned out wrong.
    pub(crate) fn right_assumptions(&self) -> usize {
        let is_wrong = |&(unit, bit): &(u32, u32)| {
            let bits = self.known.units[unit as usize].load(Ordering::Relaxed);
            is_contradiction(bits & (ACCESSOR | WRITTEN | bit))
        };
        self.assumptions.iter().position(is_wrong).unwrap_or(0)
    }

    /// As [`Self::begin_again`], but the search still relies on the first so many assumptions.
    pub(crate) fn begin_again_after(&mut self, assumptions: usize) {
        for (number, bit) in self.assumptions.drain(assumptions..) {
            self.known.units[number as usize].fetch_and(!bit, Ordering::Relaxed);
        }
        self.known.wrong.store(false, Ordering::Relaxed);
        self.in_a_row = 0;
    }

    /// As [`Self::begin_again`], where everybody knows the same.
    pub(crate) fn begin_again_telling(&mut self, told: &mut [u32]) {
        self.begin_again();
        told.iter_mut().for_each(|bits| *bits &= ACCESSOR | WRITTEN);
    }

    fn begin_with(&mut self, kept: u32) {
        for unit in &self.known.units {
            // No locked operation: there are many.
            unit.store(unit.load(Ordering::Relaxed) & kept, Ordering::Relaxed);
        }
        self.begin_again_after(0);
    }

    /// What was learnt and assumed since `told` was brought up to date, which this does. `told` has a place for each unit that was ever told of.
    pub(crate) fn news(&self, told: &mut Vec<u32>) -> Vec<(u32, u32)> {
        let known = &self.known;
        if !known.has_news.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        told.resize(known.units.len(), 0);
        let mut news = Vec::new();
        for ((number, unit), told) in (0..).zip(&known.units).zip(told) {
            let bits = unit.load(Ordering::Relaxed);
            if *told != bits {
                *told = bits;
                news.push((number, bits));
            }
        }
        news
    }

    /// Learns what somebody else has learnt and assumed, and told everybody. Returns whether there are such units.
    pub(crate) fn learn(&mut self, news: &[(u32, u32)], told: &mut Vec<u32>) -> bool {
        let known = &self.known;
        told.resize(known.units.len(), 0);
        news.iter().all(|&(number, bits)| {
            let Some(unit) = known.units.get(number as usize) else { return false };
            let before = unit.load(Ordering::Relaxed);
            let after = join(before, bits);
            unit.store(after, Ordering::Relaxed);
            self.is_wrong_if(is_contradiction(after));
            // Whoever was told both comes to the same; what comes of both in a third is told again.
            let everybody = &mut told[number as usize];
            *everybody = join(*everybody, bits);
            if *everybody != after {
                self.note_news();
            }
            true
        })
    }

    /// Everything that is known, so that a run can be done again where nothing is known yet.
    pub(crate) fn known_units(&self) -> Vec<KnownUnits> {
        let mut known: Vec<KnownUnits> = Vec::new();
        for (unit, bits) in (0..).zip(&self.known.units) {
            let bits = bits.load(Ordering::Relaxed);
            let (accessor, written) = ((bits & ACCESSOR) as u8, bits & WRITTEN != 0);
            match known.last_mut() {
                Some(last)
                    if last.unit + last.units == unit && (last.accessor, last.written) == (accessor, written) =>
                {
                    last.units += 1;
                }
                _ if accessor != 0 || written => known.push(KnownUnits { unit, units: 1, accessor, written }),
                _ => (),
            }
        }
        known
    }

    /// A run begins of which this is known. Returns whether the units exist. Nobody else searches now.
    pub(crate) fn begin_knowing(&mut self, known: &[KnownUnits]) -> bool {
        self.begin();
        known.iter().all(|known| {
            let range = known.unit as usize..(known.unit as usize).saturating_add(known.units as usize);
            let Some(units) = self.known.units.get(range) else { return false };
            let bits = u32::from(known.accessor) | if known.written { WRITTEN } else { 0 };
            units.iter().for_each(|unit| unit.store(bits, Ordering::Relaxed));
            true
        })
    }
}
