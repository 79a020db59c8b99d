//! Which machine is simulated.

use machine::VirtAddr;

use crate::paging::Paging;

/// In which order other CPUs may see the accesses of one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MemoryOrder {
    /// Sequential consistency: a store is visible at once. For comparison; no x86 is like this.
    Sc,
    /// x86-TSO: stores wait in a first-in-first-out buffer of their CPU (MODEL.md, F1).
    #[default]
    Tso,
}

/// What hardware walkers do that no instruction asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Speculation {
    /// They fill TLBs and paging-structure caches at any time, and set accessed flags only for accesses that happen.
    #[default]
    Fills,
    /// They also set the accessed flags of watched pages at any time (MODEL.md, F4). Many more states.
    SetsAccessed,
}

/// Which steps are left out because they commute with everything else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Reduction {
    /// Loads of words that nobody writes, and all accesses to words that only one agent accesses. Fewer states, shorter traces, the same verdicts.
    #[default]
    QuietAccesses,
    /// None: to compare with, to count states, or for monitors that watch such words.
    None,
}

/// The simulated machine: everything but the code that runs on it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The memory order.
    pub memory: MemoryOrder,
    /// How page tables look. `None`: there is no MMU, and [`machine::UserAccess`] is an error of the test.
    pub paging: Option<Paging>,
    /// The pages whose translations TLBs may hold. Accesses to other pages are errors of the test: the
    /// simulated TLBs know only these.
    pub watched: Vec<VirtAddr>,
    /// What walkers do unasked.
    pub speculation: Speculation,
    /// Which steps are left out because they commute with everything else.
    pub reduction: Reduction,
}

impl Machine {
    /// A machine without an MMU.
    pub fn new(memory: MemoryOrder) -> Self {
        Self { memory, ..Self::default() }
    }

    /// A machine whose CPUs walk page tables of this format, for these pages.
    pub fn with_paging(memory: MemoryOrder, paging: Paging, watched: impl IntoIterator<Item = VirtAddr>) -> Self {
        Self { memory, paging: Some(paging), watched: watched.into_iter().collect(), ..Self::default() }
    }
}
