//! Simulated physical memory: blocks of frames.

use machine::{Frame, Word64};

use crate::cpu::LabCpu;
use crate::execute::NO_FRAME;
use crate::op::{Kind, Op};

/// A pool of frames, told apart by a number of the test's choice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameKind(pub u8);

/// Whether software can read what is in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backing {
    /// 512 words, as page tables need.
    Words,
    /// None: the frame is only a number, as data pages are.
    Number,
}

/// A pool: blocks of `1 << order` frames each, handed out lowest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// Its name.
    pub kind: FrameKind,
    /// What is behind the frames. [`Backing::Words`] needs order 0.
    pub backing: Backing,
    /// How many frames are in a block, as a power of two.
    pub order: u32,
    /// The first frame of each block; aligned to the block's size.
    pub blocks: Vec<Frame>,
}

impl Pool {
    /// Frames for page tables.
    pub fn tables(kind: FrameKind, frames: impl IntoIterator<Item = u64>) -> Self {
        Self { kind, backing: Backing::Words, order: 0, blocks: frames.into_iter().map(Frame::new).collect() }
    }

    /// Blocks of `1 << order` data frames.
    pub fn data(kind: FrameKind, order: u32, blocks: impl IntoIterator<Item = u64>) -> Self {
        Self { kind, backing: Backing::Number, order, blocks: blocks.into_iter().map(Frame::new).collect() }
    }
}

impl LabCpu {
    /// Takes the lowest free block of frames of a pool: one step, and a full barrier, as the locked operations of an allocator are. `None` if
    /// there is none. What is in the frames is garbage.
    #[track_caller]
    pub fn alloc_frame(&self, kind: FrameKind) -> Option<Frame> {
        let mut op = Op::new(Kind::AllocFrame);
        op.a = kind.0.into();
        let frame = self.perform(op);
        (frame != NO_FRAME).then(|| Frame::new(frame))
    }

    /// Gives a block of frames back: one step, and a full barrier. Freeing what is free breaks a rule: `freed-table`, or `lost-count` for data.
    #[track_caller]
    pub fn free_frame(&self, first: Frame) {
        let mut op = Op::new(Kind::FreeFrame);
        op.a = first.number();
        self.perform(op);
    }

    /// The words of a frame that has some.
    pub fn table(&self, frame: Frame) -> Option<&[Word64; 512]> {
        self.core().arena.table(frame)
    }
}
