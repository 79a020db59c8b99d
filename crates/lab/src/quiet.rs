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

/// What is known of one 4-byte unit of memory, and what was assumed.
#[derive(Clone, Copy, Default)]
struct Unit {
    /// 0, or the one agent that accesses it plus one, or [`MANY`].
    accessor: u8,
    written: bool,
    assumed_constant: bool,
    assumed_private: bool,
}

const MANY: u8 = u8::MAX;

/// What is known, and what was assumed, of every word.
pub(crate) struct QuietWords {
    units: Vec<Unit>,
    wrong: bool,
    /// Quiet accesses since the latest step.
    in_a_row: u32,
}

/// From so many quiet accesses in a row on, they are steps again.
const MOST_IN_A_ROW: u32 = 1 << 14;

impl QuietWords {
    pub(crate) fn new(arena_bytes: usize) -> Self {
        Self { units: vec![Unit::default(); arena_bytes / 4], wrong: false, in_a_row: 0 }
    }

    fn units(&mut self, offset: usize, bytes: usize) -> &mut [Unit] {
        &mut self.units[offset / 4..(offset + bytes).div_ceil(4)]
    }

    /// Whether a load may be assumed to be of a constant word. If so, that is remembered.
    #[inline(always)]
    pub(crate) fn assume_constant(&mut self, offset: usize, bytes: usize) -> bool {
        if self.in_a_row == MOST_IN_A_ROW || self.units(offset, bytes).iter().any(|unit| unit.written) {
            return false;
        }
        self.in_a_row += 1;
        self.units(offset, bytes).iter_mut().for_each(|unit| unit.assumed_constant = true);
        true
    }

    /// Whether a word may be assumed to be accessed by this agent only. If so, that is remembered.
    #[inline(always)]
    pub(crate) fn assume_private(&mut self, agent: usize, offset: usize, bytes: usize) -> bool {
        let mine = agent as u8 + 1;
        if self.in_a_row == MOST_IN_A_ROW || self.units(offset, bytes).iter().any(|unit| unit.accessor != mine) {
            return false;
        }
        self.in_a_row += 1;
        self.units(offset, bytes).iter_mut().for_each(|unit| unit.assumed_private = true);
        true
    }

    /// A step was made.
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        self.in_a_row = 0;
    }

    /// The agent accesses these bytes.
    #[inline(always)]
    pub(crate) fn accessed(&mut self, agent: usize, offset: usize, bytes: usize) {
        let mine = agent as u8 + 1;
        let mut wrong = false;
        for unit in self.units(offset, bytes) {
            if unit.accessor != mine && unit.accessor != MANY {
                if unit.accessor == 0 {
                    unit.accessor = mine;
                } else {
                    unit.accessor = MANY;
                    wrong |= unit.assumed_private;
                }
            }
        }
        self.wrong |= wrong;
    }

    /// These bytes are written.
    #[inline(always)]
    pub(crate) fn written(&mut self, offset: usize, bytes: usize) {
        let mut wrong = false;
        for unit in self.units(offset, bytes) {
            wrong |= !unit.written && unit.assumed_constant;
            unit.written = true;
        }
        self.wrong |= wrong;
    }

    /// Whether an assumption turned out wrong.
    #[inline(always)]
    pub(crate) fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// A search begins, and nothing is known: what boot did is the initial state.
    pub(crate) fn begin(&mut self) {
        self.units.fill(Unit::default());
        self.wrong = false;
        self.in_a_row = 0;
    }

    /// The search begins again, with what is known now.
    pub(crate) fn begin_again(&mut self) {
        for unit in &mut self.units {
            (unit.assumed_constant, unit.assumed_private) = (false, false);
        }
        self.wrong = false;
        self.in_a_row = 0;
    }
}
