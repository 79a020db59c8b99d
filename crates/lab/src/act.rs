//! A run in terms of the machine alone: what happened on it, one thing after the other, for somebody else's machine to do the same.

use machine::user::FaultCause;
use machine::{CpuId, Frame, Invalidation, Vector};

use crate::agent::{NMI, vector_of};
use crate::choice::{Choice, Turn};
use crate::core::Core;
use crate::execute::{deed_of, invalidation_of};
use crate::mmu::{Outcome, Unasked};
use crate::op::{Kind, Op};
use crate::tlb::Life;

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act {
    /// On the CPU of this number: where threads move, what runs on it is not always the same.
    pub cpu: CpuId,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The code made its operation: on this word, if it was on one.
    Operation(Option<Words>),
    /// The code accessed a word of which nobody else can tell when. What was stored is in memory at once.
    Unseen(Words),
    /// A handler returned, of which nobody else can tell when. (Where stores wait, it is an operation.)
    Return,
    /// User code's access went on.
    Access(Passage),
    /// An interrupt was taken.
    Interrupt(Vector),
    /// An NMI was taken.
    Nmi,
    /// The oldest store reached memory.
    Drain {
        /// Its first byte.
        offset: usize,
    },
    /// A broadcast arrived.
    Arrival {
        /// The CPU that sent it.
        from: CpuId,
        /// What it invalidated.
        what: Invalidation,
    },
    /// A walker set an accessed flag unasked.
    Accessed {
        /// The entry.
        offset: usize,
    },
    /// A walker read this table, which had been freed, unasked.
    ReadFreedTable(Frame),
    /// The thread on it was moved to another CPU.
    Move {
        /// This one, whose program is over.
        to: CpuId,
    },
}

/// A word, or several in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Words {
    /// The first byte, from the beginning of the arena.
    pub offset: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// How an access of user code went on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    /// It reached a frame.
    Reached {
        /// This one.
        frame: Frame,
        /// The translation is older than the frame's present owner.
        stale: Stale,
    },
    /// Its walk found flags missing: it has set them, or is about to.
    FoundFlags {
        /// The entry.
        offset: usize,
        /// The flags.
        flags: u64,
    },
    /// Its walk has written the flags that it had found missing.
    WroteFlags,
    /// It faulted.
    Faulted(FaultCause),
    /// Its walk came to a table that was freed.
    FreedTable(Frame),
    /// Its walk came to a frame that is no table.
    NoTable(Frame),
}

/// Whether a translation's frame was freed since the walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stale {
    /// It was.
    Yes,
    /// It was not.
    No,
}

impl What {
    /// Whether it is a step. Nobody can tell when something else happened.
    #[must_use]
    pub const fn is_step(self) -> bool {
        !matches!(self, Self::Unseen(_) | Self::Return)
    }
}

impl Core<'_> {
    /// What a step is about to do.
    #[cold]
    pub(crate) fn act(&self, choice: Choice) -> Act {
        let (cpu, argument) = (choice.cpu(), choice.argument());
        let what = match choice.turn() {
            Turn::Run => self.op_act(cpu, self.op(self.active(cpu).expect("the choice was enabled")), argument),
            Turn::Interrupt if argument as u64 == NMI => What::Nmi,
            Turn::Interrupt => What::Interrupt(vector_of(argument as u64)),
            Turn::Drain => What::Drain { offset: self.waiting(cpu, 0).range().0 },
            Turn::Arrive => {
                let [source, start, pages] = self.arrival(cpu, argument);
                What::Arrival { from: self.numbered(source as usize), what: invalidation_of(start, pages) }
            }
            Turn::Speculate => match self.speculations(cpu)[argument] {
                Unasked::SetsAccessed { offset } => What::Accessed { offset },
                Unasked::ReadsFreedTable { frame } => What::ReadFreedTable(Frame::new(frame)),
            },
            Turn::Move => What::Move { to: self.numbered(argument) },
        };
        Act { cpu: self.numbered(cpu), what }
    }

    /// The CPU that a program is on.
    fn numbered(&self, program: usize) -> CpuId {
        CpuId::new(self.number(program) as u32)
    }

    fn op_act(&self, cpu: usize, op: &Op, argument: usize) -> What {
        if op.kind != Kind::UserAccess {
            return What::Operation(words_of(op));
        }
        match self.outcomes(cpu, op.a, deed_of(op)).get(argument) {
            None => What::Operation(None),
            Some(outcome) => What::Access(match *outcome {
                Outcome::Reach { frame, life } => {
                    let stale = if life == Life::Dangling { Stale::Yes } else { Stale::No };
                    Passage::Reached { frame: Frame::new(frame), stale }
                }
                Outcome::SetFlags { offset, flags } => Passage::FoundFlags { offset, flags },
                Outcome::FinishUpdate => Passage::WroteFlags,
                Outcome::Fault(cause) => Passage::Faulted(cause),
                Outcome::FreedTable { frame } => Passage::FreedTable(Frame::new(frame)),
                Outcome::NoTable { frame } => Passage::NoTable(Frame::new(frame)),
            }),
        }
    }

    /// Writes down an access that is no step, if this run is recorded.
    #[inline(always)]
    pub(crate) fn record_unseen(&mut self, cpu: usize, op: &Op) {
        if self.recorder.is_some() {
            self.did(cpu, What::Unseen(Words { offset: op.address, bytes: usize::from(op.bytes) }));
        }
    }

    /// Writes down what is no step, if this run is recorded.
    pub(crate) fn did(&mut self, cpu: usize, what: What) {
        let cpu = self.numbered(cpu);
        if let Some(recorder) = &mut self.recorder {
            recorder.did(Act { cpu, what });
        }
    }
}

fn words_of(op: &Op) -> Option<Words> {
    let bytes = match op.kind {
        Kind::Zero => op.a as usize * 8,
        kind => kind.accesses_word().map(|_| usize::from(op.bytes))?,
    };
    Some(Words { offset: op.address, bytes })
}
