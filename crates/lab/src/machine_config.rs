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

/// When a walker reads a table that was freed, to which a cached pointer leads it: that breaks rule `freed-table`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum FreedWalks {
    /// When an access of code makes it walk.
    #[default]
    Asked,
    /// At any time (MODEL.md, F2).
    Unasked,
}

/// What a CPU keeps of the translations that it walked. Hardware keeps everything; the rest is for comparison: which races need which cache?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Caching {
    /// TLBs and paging-structure caches, filled at any time (MODEL.md, F2, F3).
    #[default]
    Everything,
    /// TLBs, filled at any time. Walks begin at the root.
    TlbOnly,
    /// TLBs and paging-structure caches, filled by the accesses that code makes.
    OnAccess,
    /// Nothing: each access walks.
    Nothing,
}

/// Where the four PDPTEs of PAE are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Pdptes {
    /// In registers that `mov cr3` fills (MODEL.md, P10).
    #[default]
    Registers,
    /// In memory, like other entries: for comparison; no x86 with Intel's or AMD's manual on it does.
    Memory,
}

/// How walkers set accessed and dirty flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum WalkerUpdates {
    /// By one locked read-modify-write of an entry that is still present and unchanged (MODEL.md, P7).
    #[default]
    Locked,
    /// By a locked read-modify-write of whatever the entry holds by then, present or not: erratum KNL4 of Knights Landing (MODEL.md, F13).
    Stray,
    /// By a read and a later write of the whole entry: for comparison; no x86 does.
    Plain,
}

/// Whether bits 11:0 of CR3 tell address spaces apart in the TLBs (CR4.PCIDE).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Pcids {
    /// They do not: [`machine::ProcessContexts`] is an error of the test.
    #[default]
    Disabled,
    /// They do (MODEL.md, P19).
    Enabled,
}

/// Whether bit 8 of a leaf makes its translation outlive `mov cr3` (CR4.PGE).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum GlobalPages {
    /// It means nothing.
    #[default]
    Disabled,
    /// It does (MODEL.md, F14).
    Enabled,
}

/// Whether bit 63 of an entry forbids instruction fetches (EFER.NXE).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ExecuteDisable {
    /// It means nothing.
    #[default]
    Disabled,
    /// It does (MODEL.md, P20).
    Enabled,
}

/// Whether user accesses obey the protection keys of leaves (CR4.PKE). PAE has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ProtectionKeys {
    /// Bits 62:59 of a leaf mean nothing: [`machine::ProtectionKeys`] is an error of the test.
    #[default]
    Disabled,
    /// They do (MODEL.md, P21).
    Enabled,
}

/// Whether user code has shadow stacks (CR4.CET).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ShadowStacks {
    /// No page is one: every [`crate::LabCpu::user_push`] faults.
    #[default]
    Disabled,
    /// Pages that are dirty and not writable are (MODEL.md, P22).
    Enabled,
}

/// Whether threads change CPUs while they run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Threads {
    /// Each stays where it began.
    #[default]
    Stay,
    /// They may be moved, before any operation, to a CPU whose own program is over (MODEL.md, F15). Many more states.
    Move,
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
    /// Whether that shows where they come by tables that were freed.
    pub freed_walks: FreedWalks,
    /// Which steps are left out because they commute with everything else.
    pub reduction: Reduction,
    /// What translations are cached, and when.
    pub caching: Caching,
    /// Where PDPTEs are read.
    pub pdptes: Pdptes,
    /// How walkers set accessed and dirty flags.
    pub walker_updates: WalkerUpdates,
    /// Process-context identifiers.
    pub pcids: Pcids,
    /// Global pages.
    pub global_pages: GlobalPages,
    /// Pages that must not be executed.
    pub execute_disable: ExecuteDisable,
    /// Protection keys of user pages.
    pub protection_keys: ProtectionKeys,
    /// Shadow stacks of user code.
    pub shadow_stacks: ShadowStacks,
    /// Preemption and migration.
    pub threads: Threads,
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
