//! Code of the test that watches the machine.

use machine::{Access, CpuId, Frame, VirtAddr};

use crate::frames::FrameKind;
use crate::verdict::Violation;

/// What wrote memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Writer {
    /// A plain store, at the moment at which it became visible to all.
    Store,
    /// A locked read-modify-write.
    Update,
    /// An owned store.
    Owned,
    /// A device.
    Device,
    /// A hardware page walker that set an accessed or dirty flag.
    Walker,
}

/// Something that happened to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'e> {
    /// Memory changed, or was written with what it held.
    Written {
        /// Whose instruction.
        cpu: CpuId,
        /// The address of the word: compare with [`machine::Word::address`].
        address: usize,
        /// 4 or 8.
        bytes: usize,
        /// What it held.
        old: u64,
        /// What it holds.
        new: u64,
        /// By what.
        writer: Writer,
    },
    /// A user access reached a frame.
    Accessed {
        /// On which CPU.
        cpu: CpuId,
        /// At which address.
        address: VirtAddr,
        /// The access.
        access: Access,
        /// The 4 KiB frame reached.
        frame: Frame,
    },
    /// A user access raised a page fault.
    Faulted {
        /// On which CPU.
        cpu: CpuId,
        /// At which address.
        address: VirtAddr,
        /// The access.
        access: Access,
    },
    /// A block of frames was handed out.
    FrameAllocated {
        /// To which CPU.
        cpu: CpuId,
        /// The first frame of the block.
        frame: Frame,
        /// From which pool.
        kind: FrameKind,
    },
    /// A block of frames was given back.
    FrameFreed {
        /// By which CPU.
        cpu: CpuId,
        /// The first frame of the block.
        frame: Frame,
        /// To which pool.
        kind: FrameKind,
    },
    /// The code under test called [`crate::LabCpu::emit`].
    Emitted {
        /// On which CPU.
        cpu: CpuId,
        /// The kind, whose meaning is the test's.
        kind: u32,
        /// The arguments.
        args: &'e [u64],
    },
}

/// What a monitor remembers. Part of the machine's state: it is undone and told apart like memory.
pub struct Ghost<'g> {
    pub(crate) words: &'g mut dyn GhostWords,
}

/// Where a monitor's words are.
pub trait GhostWords {
    /// The word with this index.
    fn get(&self, index: usize) -> u64;
    /// Changes it.
    fn set(&mut self, index: usize, value: u64);
}

impl<'g> Ghost<'g> {
    /// Words that are kept elsewhere than in a lab.
    pub fn new(words: &'g mut dyn GhostWords) -> Self {
        Self { words }
    }

    /// The word with this index, initially 0.
    ///
    /// # Panics
    /// If the monitor was given no such word.
    pub fn get(&self, index: usize) -> u64 {
        self.words.get(index)
    }

    /// Changes a word.
    ///
    /// # Panics
    /// If the monitor was given no such word.
    pub fn set(&mut self, index: usize, value: u64) {
        self.words.set(index, value);
    }
}

/// Watches every event, and the machine at rest.
///
/// A monitor keeps what it remembers in its [`Ghost`], never in itself.
pub trait Monitor {
    /// Called for every event, in order.
    ///
    /// # Errors
    /// The rule that the event breaks.
    fn on_event(&self, ghost: &mut Ghost<'_>, event: &Event<'_>) -> Result<(), Violation> {
        let _ = (ghost, event);
        Ok(())
    }

    /// Called when every CPU is done and every buffer empty.
    ///
    /// # Errors
    /// The rule that this final state breaks.
    fn at_rest(&self, ghost: &Ghost<'_>, end: &End<'_>) -> Result<(), Violation> {
        let _ = (ghost, end);
        Ok(())
    }
}

/// A final state: every CPU is done. Words of the arena may be read with [`Self::read`].
pub struct End<'e> {
    pub(crate) reports: &'e dyn Fn(CpuId, usize) -> u64,
    pub(crate) allocated: &'e dyn Fn(Frame) -> Option<bool>,
}

impl<'e> End<'e> {
    /// The final state of another machine than a lab: what its CPUs reported, and which frames are allocated.
    pub fn new(reports: &'e dyn Fn(CpuId, usize) -> u64, allocated: &'e dyn Fn(Frame) -> Option<bool>) -> Self {
        Self { reports, allocated }
    }

    /// What the word holds.
    pub fn read<W: machine::Word>(&self, word: &W) -> u64 {
        word.atomic_load(std::sync::atomic::Ordering::Relaxed).into()
    }

    /// What the CPU reported ([`crate::LabCpu::report`]) in this slot; 0 if nothing.
    pub fn reported(&self, cpu: CpuId, slot: usize) -> u64 {
        (self.reports)(cpu, slot)
    }

    /// Whether the frame's block is allocated; `None` if the arena has no such frame.
    pub fn is_allocated(&self, frame: Frame) -> Option<bool> {
        (self.allocated)(frame)
    }
}
