//! Simulated physical memory: blocks of frames.

use machine::Frame;

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
