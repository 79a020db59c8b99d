//! The store buffer of a CPU under x86-TSO: first in, first out, with forwarding to the CPU's own loads.
//!
//! Forwarding is exact to the byte: a load of 8 bytes sees the half that waits in the buffer and the other half as memory has it.
//! The buffer as a whole has one term in the fingerprint, so that moving entries up costs no hashing of each.

use crate::cells;
use crate::core::Core;
use crate::hash::Chain;
use crate::monitor::Writer;

/// Plain stores wait for room from this many on; owned stores may go beyond.
const FULL: usize = 16;

/// What waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    Store {
        offset: usize,
        bytes: usize,
        value: u64,
    },
    /// Zeroes for this many bytes: one item.
    Zero {
        offset: usize,
        bytes: usize,
    },
}

const WIDTH_SHIFT: u32 = 32;
const ZERO: u64 = 1 << 48;

impl Waiting {
    fn encode(self) -> (u64, u64) {
        match self {
            Self::Store { offset, bytes, value } => (offset as u64 | (bytes as u64) << WIDTH_SHIFT, value),
            Self::Zero { offset, bytes } => (offset as u64 | (bytes as u64) << WIDTH_SHIFT | ZERO, 0),
        }
    }

    fn decode(place: u64, value: u64) -> Self {
        let offset = (place & 0xffff_ffff) as usize;
        let bytes = (place >> WIDTH_SHIFT & 0xffff) as usize;
        if place & ZERO != 0 { Self::Zero { offset, bytes } } else { Self::Store { offset, bytes, value } }
    }

    pub(crate) fn range(self) -> (usize, usize) {
        match self {
            Self::Store { offset, bytes, .. } | Self::Zero { offset, bytes } => (offset, offset + bytes),
        }
    }

    fn byte(self, at: usize) -> Option<u8> {
        let (start, end) = self.range();
        match self {
            _ if at < start || at >= end => None,
            Self::Store { value, .. } => Some((value >> (8 * (at - start))) as u8),
            Self::Zero { .. } => Some(0),
        }
    }
}

impl Core<'_> {
    /// How many stores of the CPU wait.
    #[inline(always)]
    pub(crate) fn buffered(&self, cpu: usize) -> usize {
        self.reg(cpu, cells::BUFFERED) as usize
    }

    /// Whether a plain store finds room.
    #[inline(always)]
    pub(crate) fn has_room(&self, cpu: usize) -> bool {
        self.buffered(cpu) < FULL
    }

    pub(crate) fn waiting(&self, cpu: usize, index: usize) -> Waiting {
        let cell = cells::BUFFER.plus(2 * index);
        Waiting::decode(self.reg(cpu, cell), self.reg(cpu, cell.plus(1)))
    }

    /// What the CPU itself would load.
    #[inline(always)]
    pub(crate) fn forwarded(&self, cpu: usize, offset: usize, bytes: usize) -> u64 {
        let memory = self.get(offset, bytes);
        match self.buffered(cpu) {
            0 => memory,
            count => self.forward(cpu, offset, bytes, memory, count),
        }
    }

    #[inline(never)]
    fn forward(&self, cpu: usize, offset: usize, bytes: usize, memory: u64, count: usize) -> u64 {
        let mut seen = memory.to_le_bytes();
        for index in 0..count {
            let waiting = self.waiting(cpu, index);
            let (start, end) = waiting.range();
            if start < offset + bytes && offset < end {
                for (at, byte) in seen[..bytes].iter_mut().enumerate() {
                    *byte = waiting.byte(offset + at).unwrap_or(*byte);
                }
            }
        }
        u64::from_le_bytes(seen)
    }

    /// Whether a store of the CPU to this range waits.
    pub(crate) fn waits_for(&self, cpu: usize, offset: usize, bytes: usize) -> bool {
        (0..self.buffered(cpu)).any(|index| {
            let (start, end) = self.waiting(cpu, index).range();
            start < offset + bytes && offset < end
        })
    }

    /// Puts a store into the buffer. Returns whether there was room.
    pub(crate) fn push_store(&mut self, cpu: usize, store: Waiting) -> bool {
        let count = self.buffered(cpu);
        if count == cells::MAX_BUFFERED {
            return false;
        }
        let (start, end) = store.range();
        self.note_written(start, end - start);
        let before = self.buffer_term(cpu, count);
        let cell = cells::BUFFER.plus(2 * count);
        let (place, value) = store.encode();
        self.set_silently(cell.of(cpu), 8, place);
        self.set_silently(cell.plus(1).of(cpu), 8, value);
        self.set_silently(cells::BUFFERED.of(cpu), 8, count as u64 + 1);
        let after = self.buffer_term(cpu, count + 1);
        self.replace_term(cpu, before, after);
        true
    }

    /// Lets the oldest store reach memory.
    pub(crate) fn drain(&mut self, cpu: usize) {
        let count = self.buffered(cpu);
        let oldest = self.waiting(cpu, 0);
        let before = self.buffer_term(cpu, count);
        for word in 0..2 * (count - 1) {
            let next = self.reg(cpu, cells::BUFFER.plus(word + 2));
            self.set_silently(cells::BUFFER.plus(word).of(cpu), 8, next);
        }
        self.set_silently(cells::BUFFERED.of(cpu), 8, count as u64 - 1);
        let after = self.buffer_term(cpu, count - 1);
        self.replace_term(cpu, before, after);
        match oldest {
            Waiting::Store { offset, bytes, value } => self.commit(cpu, offset, bytes, value, Writer::Store),
            Waiting::Zero { offset, bytes } => self.commit_zero(cpu, offset, bytes),
        }
    }

    /// The fingerprint's term of the first `count` entries.
    fn buffer_term(&self, cpu: usize, count: usize) -> u128 {
        if count == 0 {
            return 0;
        }
        let empty = Chain::new(0x5b00 + self.neutral_cpu(cpu) as u64);
        if self.replicas.is_some() {
            let waiting = (0..count).map(|index| self.neutral_store(cpu, self.waiting(cpu, index)).encode());
            return waiting.fold(empty, |chain, (place, value)| chain.with(place).with(value)).term();
        }
        (0..2 * count).fold(empty, |chain, word| chain.with(self.reg(cpu, cells::BUFFER.plus(word)))).term()
    }
}
