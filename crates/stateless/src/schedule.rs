//! A run that somebody else has seen, in terms of the machine: what happened, one thing after the other.

use machine::user::FaultCause;
use machine::{CpuId, Frame, Invalidation, Vector};

pub use crate::translation::Age;

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act {
    /// On this CPU.
    pub cpu: CpuId,
    /// What.
    pub what: What,
}

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The code makes the operation that it asks for: on these words, if it is on any.
    Operation(Option<Span>),
    /// The same, of a word that the code of no other CPU accesses. A store does not wait for others.
    Private(Span),
    /// A handler returns: an operation, but one that whoever wrote the schedule knows by this name only.
    Return,
    /// User code's access goes on.
    Access(Passage),
    /// The CPU takes an interrupt.
    Interrupt(Vector),
    /// It takes an NMI.
    Nmi,
    /// Its oldest store leaves the buffer.
    Drain {
        /// Its first byte.
        offset: usize,
    },
    /// A broadcast arrives.
    Arrival {
        /// Its sender.
        from: CpuId,
        /// What it invalidates.
        what: Invalidation,
    },
    /// A walker sets an accessed flag unasked.
    Accessed {
        /// The entry.
        offset: usize,
    },
    /// A walker reads this table, which was freed, unasked.
    ReadsFreedTable(Frame),
    /// The thread on it is moved.
    Move {
        /// To this CPU.
        to: CpuId,
    },
}

/// Words in the machine's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte, from [`crate::Memory::base`] on.
    pub offset: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// How an access of user code goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    /// It reaches a frame.
    Reaches {
        /// This one.
        frame: Frame,
        /// Whether the translation is older than the frame's present owner.
        age: Age,
    },
    /// Its walk finds flags missing, and sets them or sets out to.
    FindsFlags {
        /// The entry.
        offset: usize,
        /// The flags.
        flags: u64,
    },
    /// Its walk writes the flags that it found missing.
    WritesFlags,
    /// It faults.
    Faults(FaultCause),
    /// Its walk comes to a table that was freed.
    FreedTable(Frame),
    /// Its walk comes to a frame that is no table.
    NoTable(Frame),
}
