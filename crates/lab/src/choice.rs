//! What may happen next.

/// One possible step, in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Choice(u32);

/// What kind of step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Turn {
    /// The CPU's code performs its operation; the argument picks the outcome of a user access.
    Run,
    /// The CPU takes the pending interrupt whose vector is the argument.
    Interrupt,
    /// The CPU's oldest buffered store reaches memory.
    Drain,
    /// A broadcast invalidation takes place on the CPU; the argument says which.
    Arrive,
    /// The CPU's walker sets an accessed flag unasked; the argument says which.
    Speculate,
    /// The thread moves to another CPU: to the one whose own program is the argument's.
    Move,
}

impl Turn {
    /// How many kinds there are.
    pub(crate) const COUNT: usize = Self::Move as usize + 1;
}

/// Whether a run may be over where this is all that may happen: what a walker does unasked it owes to nobody (MODEL.md, F4).
#[inline(always)]
pub(crate) fn may_end(choices: &[Choice]) -> bool {
    choices.iter().all(|choice| choice.turn() == Turn::Speculate)
}

impl Choice {
    /// No choice at all: no machine has so many CPUs.
    pub(crate) const NONE: Self = Self(u32::MAX);

    pub(crate) const fn new(turn: Turn, cpu: usize, argument: usize) -> Self {
        Self((turn as u32) << 24 | (cpu as u32) << 16 | argument as u32)
    }

    /// As a number, for files.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// From [`Self::bits`]. Whether it can be taken is for the state to say.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) const fn turn(self) -> Turn {
        match self.0 >> 24 {
            0 => Turn::Run,
            1 => Turn::Interrupt,
            2 => Turn::Drain,
            3 => Turn::Arrive,
            4 => Turn::Speculate,
            _ => Turn::Move,
        }
    }

    pub(crate) const fn cpu(self) -> usize {
        (self.0 >> 16 & 0xff) as usize
    }

    pub(crate) const fn argument(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}
