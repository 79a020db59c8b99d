//! What happens, for those who hold rules that the machine does not know.

use machine::{Access, CpuId, Frame, VirtAddr};

use crate::verdict::Violation;

/// Who wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// A plain store, now visible.
    Store,
    /// A locked instruction.
    Locked,
    /// A store to a word that is the CPU's own at the time.
    Owned,
    /// A device.
    Device,
    /// A page walker.
    Walker,
}

/// Something happened, on the CPU of a program: which one that is does not change where threads are moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happening<'h> {
    /// A word was written.
    Written {
        /// By an instruction of this CPU.
        cpu: CpuId,
        /// Where.
        address: usize,
        /// 4 or 8.
        bytes: usize,
        /// What it held.
        old: u64,
        /// What it holds.
        new: u64,
        /// How.
        writer: Writer,
    },
    /// User code reached a frame.
    Reached {
        /// On this CPU.
        cpu: CpuId,
        /// At this address.
        address: VirtAddr,
        /// How.
        access: Access,
        /// This frame.
        frame: Frame,
    },
    /// User code faulted.
    Faulted {
        /// On this CPU.
        cpu: CpuId,
        /// At this address.
        address: VirtAddr,
        /// How.
        access: Access,
    },
    /// A block of frames was handed out.
    Allocated {
        /// To this CPU.
        cpu: CpuId,
        /// The first frame.
        frame: Frame,
        /// From this pool.
        pool: u8,
    },
    /// A block of frames was given back.
    Freed {
        /// By this CPU.
        cpu: CpuId,
        /// The first frame.
        frame: Frame,
        /// To this pool.
        pool: u8,
    },
    /// The code under test says something.
    Told {
        /// On this CPU.
        cpu: CpuId,
        /// What, as the test numbers it.
        kind: u32,
        /// More of it.
        args: &'h [u64],
    },
}

impl Happening<'_> {
    /// The same, on the CPU of this program.
    pub(crate) fn by(mut self, program: impl FnOnce(CpuId) -> CpuId) -> Self {
        let (Self::Written { cpu, .. }
        | Self::Reached { cpu, .. }
        | Self::Faulted { cpu, .. }
        | Self::Allocated { cpu, .. }
        | Self::Freed { cpu, .. }
        | Self::Told { cpu, .. }) = &mut self;
        *cpu = program(*cpu);
        self
    }
}

/// What a watcher remembers. Which words it uses says which steps matter to each other, so it remembers nothing elsewhere.
pub trait Notes {
    /// The word with this number; 0 at first.
    fn get(&mut self, index: usize) -> u64;
    /// Changes it.
    fn set(&mut self, index: usize, value: u64);
}

/// A final state: all programs are over.
pub trait Final {
    /// What a CPU reported there.
    fn reported(&self, cpu: CpuId, slot: usize) -> u64;
    /// Whether a frame is handed out; `None` if there is none of this number.
    fn is_allocated(&self, frame: Frame) -> Option<bool>;
}

/// Holds rules.
pub trait Watcher {
    /// Something happened. Besides the notes a watcher may look at page tables only.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn happened(&self, notes: &mut dyn Notes, happening: &Happening<'_>) -> Result<(), Violation>;

    /// All programs are over.
    ///
    /// # Errors
    /// The rule that this state breaks.
    fn is_over(&self, notes: &mut dyn Notes, end: &dyn Final) -> Result<(), Violation>;
}
