//! The audit of owned accesses.
//!
//! An owned access happens together with the operation before it, unseen by the explorer, because its code promised that nobody else accesses the
//! word meanwhile. The promise is broken exactly if some run has the owned access and another CPU's access to the same word (not
//! both reads) next to each other: then nothing orders them. As the explorer visits every state, it meets such a run: a CPU has
//! just made an owned access and not moved since, and another CPU stands before its own access of the word, or has just made
//! one. Locks need not be recognised: a CPU that waits for a lock stands before the lock's word, not before what it protects.

use std::panic::Location;

use crate::op::{Effect, Op};

/// The bytes of one access: neighbours in one 8-byte cell are nobody's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ByteRange {
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl ByteRange {
    pub(crate) fn new(offset: usize, len: usize) -> Self {
        Self { offset: offset as u32, len: len as u32 }
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.offset < other.offset + other.len && other.offset < self.offset + self.len
    }
}

/// One owned access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnedAccess {
    pub(crate) bytes: ByteRange,
    pub(crate) effect: Effect,
    pub(crate) location: &'static Location<'static>,
}

impl OwnedAccess {
    /// Whether nothing but a lock keeps it and this operation of another CPU in an order that they need.
    pub(crate) fn clashes_with(&self, op: &Op) -> bool {
        let Some(effect) = op.kind.accesses_word() else { return false };
        ByteRange::new(op.address, usize::from(op.bytes)).overlaps(self.bytes) && conflict(effect, self.effect)
    }
}

/// The owned accesses of the current run; of each CPU, those since its latest step.
#[derive(Default)]
pub(crate) struct OwnedLog {
    accesses: Vec<OwnedAccess>,
    segments: Vec<(u32, u32)>,
}

impl OwnedLog {
    pub(crate) fn new(cpus: usize) -> Self {
        Self { accesses: Vec::new(), segments: vec![(0, 0); cpus] }
    }

    pub(crate) fn len(&self) -> usize {
        self.accesses.len()
    }

    pub(crate) fn segment(&self, cpu: usize) -> (u32, u32) {
        self.segments[cpu]
    }

    /// The CPU moves: a new segment.
    pub(crate) fn begin(&mut self, cpu: usize) {
        let here = self.accesses.len() as u32;
        self.segments[cpu] = (here, here);
    }

    pub(crate) fn push(&mut self, cpu: usize, access: OwnedAccess) {
        self.accesses.push(access);
        self.segments[cpu].1 = self.accesses.len() as u32;
    }

    pub(crate) fn of(&self, cpu: usize) -> &[OwnedAccess] {
        let (start, end) = self.segments[cpu];
        &self.accesses[start as usize..end as usize]
    }

    pub(crate) fn restore(&mut self, len: usize, (cpu, segment): (usize, (u32, u32))) {
        self.accesses.truncate(len);
        self.segments[cpu] = segment;
    }
}

/// Whether two accesses of one word need an order.
pub(crate) fn conflict(one: Effect, other: Effect) -> bool {
    one == Effect::Writes || other == Effect::Writes
}
