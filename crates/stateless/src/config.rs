//! Which machine is simulated.

use machine::{Frame, VirtAddr};

use crate::paging::Paging;

/// When a store becomes visible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// At once.
    SequentiallyConsistent,
    /// When it leaves the store buffer of its CPU.
    TotalStore,
}

/// Whether the machine has something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// It has not.
    Absent,
    /// It has.
    Present,
}

/// What is kept of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caches {
    /// Translations and pointers to tables, by walks at any time.
    Everything,
    /// Translations, by walks at any time.
    Translations,
    /// Translations and pointers, by the walks of accesses.
    OfAccesses,
    /// Nothing.
    Nothing,
}

/// How walkers set accessed and dirty flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Updates {
    /// In one step, in an entry that is what the walk has read.
    Whole,
    /// In a later step than the one that read the entry, in whatever it holds by then.
    Stray,
    /// In a later step, by storing what was read with the flags.
    Stored,
}

/// The simulated machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// When stores become visible.
    pub order: Order,
    /// The format of page tables, if there is an MMU.
    pub paging: Option<Paging>,
    /// The pages that user code accesses.
    pub pages: Vec<VirtAddr>,
    /// What is kept of walks.
    pub caches: Caches,
    /// Whether bits 11:0 of CR3 are a process-context identifier.
    pub identifiers: Feature,
    /// Whether bit 8 of a leaf makes it global.
    pub global_pages: Feature,
    /// Whether bit 63 of an entry forbids to execute.
    pub execute_disable: Feature,
    /// Whether bits 62:59 of a leaf are a protection key; never on PAE.
    pub protection_keys: Feature,
    /// Whether leaves that are dirty and not writable are shadow stacks.
    pub shadow_stacks: Feature,
    /// Whether `mov cr3` copies the PDPTEs of PAE into registers.
    pub pdpte_registers: Feature,
    /// How walkers set flags.
    pub updates: Updates,
    /// Whether walkers set accessed flags at any time, too.
    pub unasked_flags: Feature,
    /// Whether threads are moved to CPUs whose own program is over.
    pub moves: Feature,
}

impl Config {
    /// A machine without an MMU.
    pub const fn new(order: Order) -> Self {
        Self {
            order,
            paging: None,
            pages: Vec::new(),
            caches: Caches::Everything,
            identifiers: Feature::Absent,
            global_pages: Feature::Absent,
            execute_disable: Feature::Absent,
            protection_keys: Feature::Absent,
            shadow_stacks: Feature::Absent,
            pdpte_registers: Feature::Present,
            updates: Updates::Whole,
            unasked_flags: Feature::Absent,
            moves: Feature::Absent,
        }
    }

    pub(crate) fn stores_wait(&self) -> bool {
        self.order == Order::TotalStore
    }
}

/// Frames that are handed out together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// The first frame.
    pub first: Frame,
    /// How many, as a power of two.
    pub order: u32,
    /// The pool that it belongs to. Of each pool the lowest free block is handed out.
    pub pool: u8,
    /// The address of the frame's 512 words, if it can hold a page table.
    pub words: Option<usize>,
}

impl Block {
    pub(crate) fn holds(&self, frame: u64) -> bool {
        frame.wrapping_sub(self.first.number()) < 1 << self.order
    }
}
