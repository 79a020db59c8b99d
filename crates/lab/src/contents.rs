//! What is in data frames: one word each, for tests that ask for it.
//!
//! Without it the lab knows only *which* frame a user access reaches. With it the access loads or stores the frame's word. A store is translated when it is
//! made, and then waits in the store buffer with the frame it goes to (MODEL.md, F12); every flush that completes on its CPU finds it gone
//! (MODEL.md, P17).

use machine::{Access, Frame, Word, Word64};

use crate::buffer::Waiting;
use crate::core::Core;
use crate::cpu::LabCpu;
use crate::execute::{Deed, deed_of};
use crate::lab::Lab;
use crate::monitor::Writer;
use crate::op::{Kind, Op};
use crate::verdict::{MisuseKind, rule};

/// The words of some frames that follow each other.
#[derive(Clone, Copy)]
pub(crate) struct Contents {
    first: u64,
    frames: u64,
    /// Where the first frame's word is, as an offset into the arena.
    offset: usize,
}

impl<'a> Lab<'a> {
    /// Gives the frames from `first` on a word each, which [`machine::UserAccess::user_load`] and [`machine::UserAccess::user_store`] access at
    /// any address of the page. Code that copies or clears frames accesses the same words.
    ///
    /// # Panics
    /// If the words are not in the arena.
    pub fn contents(&mut self, first: Frame, words: &'a [Word64]) {
        let Some(word) = words.first() else { return };
        let core = self.core();
        let offset = core.locate(word.address(), size_of_val(words)).expect("contents lie in the arena");
        core.contents.push(Contents { first: first.number(), frames: words.len() as u64, offset });
    }
}

impl LabCpu {
    /// Makes a device access a frame by its number, through no translation: one step. Returns the frame's word before; `word` is what a write leaves there. Where
    /// the frame has no contents, nothing is moved. An access to a free frame breaks `stale-tlb`: the device still holds a translation.
    ///
    /// The stores of this CPU come first: it tells the device by an uncached store (MODEL.md, P5).
    #[track_caller]
    pub fn device_access(&self, frame: Frame, access: Access, word: u64) -> u64 {
        let mut op = Op::new(Kind::DeviceAccess);
        op.a = frame.number();
        op.b = (access == Access::Write) as u64;
        op.c = word;
        self.perform(op)
    }
}

impl Core<'_> {
    /// A device accesses a frame, and is told what the frame held.
    pub(crate) fn device_access(&mut self, cpu: usize, agent: usize, op: &Op) -> u64 {
        let deed = if op.b == 0 { "loads from" } else { "stores to" };
        if self.frame_is_free(op.a) {
            let sentence = format!("a device, told by CPU{cpu}, {deed} frame {:#x}, which is free", op.a);
            self.violation(rule::STALE_TLB, sentence);
            return 0;
        }
        let Some(offset) = self.content_of(op.a) else { return 0 };
        self.check_owner(agent, offset, 8, op.location);
        self.note_accessed(agent, offset, 8);
        let held = self.get(offset, 8);
        if op.b != 0 {
            self.commit(cpu, offset, 8, op.c, Writer::Device);
        }
        held
    }

    /// Where the word of a frame is, as an offset into the arena.
    pub(crate) fn content_of(&self, frame: u64) -> Option<usize> {
        let contents = self.contents.iter().find(|contents| frame.wrapping_sub(contents.first) < contents.frames)?;
        Some(contents.offset + 8 * (frame - contents.first) as usize)
    }

    /// The frame whose word is at this offset.
    fn frame_of_content(&self, offset: usize) -> Option<u64> {
        let contents = self
            .contents
            .iter()
            .find(|contents| offset.wrapping_sub(contents.offset) < 8 * contents.frames as usize)?;
        Some(contents.first + (offset - contents.offset) as u64 / 8)
    }

    /// A user access that has reached a frame loads or stores its word.
    pub(crate) fn move_word(&mut self, cpu: usize, agent: usize, op: &Op, frame: u64) {
        let Some(offset) = self.content_of(frame) else {
            let sentence = format!("a user access to frame {frame:#x}, which has no contents ({})", op.location);
            return self.misuse(MisuseKind::Setup, sentence);
        };
        self.check_owner(agent, offset, 8, op.location);
        self.note_accessed(agent, offset, 8);
        if deed_of(op) != Deed::Store {
            let value = self.forwarded(cpu, offset, 8);
            self.answer.loaded = Some(value);
            self.tell_value(agent, offset, 8, value);
        } else if self.buffers_stores() && !self.booting {
            self.buffer_or_stop(cpu, Waiting::Store { offset, bytes: 8, value: op.c });
        } else {
            self.commit(cpu, offset, 8, op.c, Writer::Store);
        }
    }

    /// Whether a store of the CPU to the contents of a frame waits.
    pub(crate) fn data_stores_wait(&self, cpu: usize) -> bool {
        !self.contents.is_empty() && self.waiting_frames(cpu).next().is_some()
    }

    fn waiting_frames(&self, cpu: usize) -> impl Iterator<Item = u64> {
        (0..self.buffered(cpu)).filter_map(move |index| match self.waiting(cpu, index) {
            Waiting::Store { offset, .. } | Waiting::Zero { offset, .. } => self.frame_of_content(offset),
        })
    }

    /// A block of frames was freed: no store to it may still wait.
    pub(crate) fn check_waiting_stores(&mut self, first: u64, count: u64) {
        if self.contents.is_empty() {
            return;
        }
        for cpu in 0..self.cpus() {
            let late = self.waiting_frames(cpu).find(|frame| frame.wrapping_sub(first) < count);
            if let Some(frame) = late {
                self.violation(
                    rule::STALE_TLB,
                    format!(
                        "a store of CPU{cpu} to frame {frame:#x} still waits in its buffer when the frame is freed"
                    ),
                );
            }
        }
    }
}
