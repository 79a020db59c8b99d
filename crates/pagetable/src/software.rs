//! Software bits.

/// One bit of an entry that the hardware ignores and software has given a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark(u64);

impl Mark {
    /// The mark at this position.
    #[inline]
    pub(crate) const fn at(bit: u32) -> Self {
        Self(1 << bit)
    }

    /// As a bit of an entry.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Which bit says "special": a protocol choice, because it decides whether a torn read can hide it.
pub trait SpecialBit {
    /// The bit.
    fn mark(&self) -> Mark;
}

/// Bit 9, in the low half, where present and PS are: what Linux uses at pte, pmd and pud.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Softw1;

/// Bit 58, in the high half. Reserved on x86 PAE (SDM vol. 3A, tables 4-9 and 4-11): only 64-bit modes have it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Softw5;

impl SpecialBit for Softw1 {
    #[inline(always)]
    fn mark(&self) -> Mark {
        Mark::at(9)
    }
}

impl SpecialBit for Softw5 {
    #[inline(always)]
    fn mark(&self) -> Mark {
        Mark::at(58)
    }
}
