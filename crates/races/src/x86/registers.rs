//! The registers and flags of one CPU.

use crate::syntax::{Part, Register, Test, Width};

/// The general registers and the flags that conditions look at.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Registers {
    values: [u64; 16],
    pub(super) flags: Flags,
}

/// The status flags, each 0 or 1 (SDM vol. 1, 3.4.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags {
    pub(super) carry: u64,
    pub(super) zero: u64,
    pub(super) sign: u64,
    pub(super) overflow: u64,
    pub(super) parity: u64,
}

impl Registers {
    /// All 64 bits of the register with this number.
    pub(super) fn whole(&self, number: u8) -> u64 {
        self.values[usize::from(number & 15)]
    }

    pub(super) fn set_whole(&mut self, number: u8, value: u64) {
        self.values[usize::from(number & 15)] = value;
    }

    pub(super) fn read(&self, register: Register) -> u64 {
        let whole = self.whole(register.number);
        match register.part {
            Part::High => whole >> 8 & Width::Byte.mask(),
            part => whole & part.width().mask(),
        }
    }

    /// Writes a part. 32 bits clear those above them, 8 and 16 bits leave them (SDM vol. 1, 3.4.1.1).
    pub(super) fn write(&mut self, register: Register, value: u64) {
        let whole = self.whole(register.number);
        let new = match register.part {
            Part::Quad | Part::Long => value & register.part.width().mask(),
            Part::High => whole & !0xff00 | (value & 0xff) << 8,
            part => whole & !part.width().mask() | value & part.width().mask(),
        };
        self.set_whole(register.number, new);
    }

    /// One number that tells two states of the registers and of `next`, the instruction that comes next, apart.
    pub(super) fn digest(&self, next: usize) -> u64 {
        let flags = &self.flags;
        let bits = [flags.carry, flags.zero, flags.sign, flags.overflow, flags.parity];
        let bits = bits.into_iter().fold(next as u64, |sum, bit| sum << 1 | bit);
        self.values.iter().fold(mix(bits), |sum, value| mix(sum ^ *value).wrapping_add(sum.rotate_left(29)))
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): a bijection that
/// spreads every bit.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl Flags {
    /// Whether a condition is met (SDM vol. 1, appendix B).
    pub(super) fn meet(self, test: Test) -> bool {
        let less = self.sign != self.overflow;
        match test {
            Test::Overflow => self.overflow == 1,
            Test::NoOverflow => self.overflow == 0,
            Test::Below => self.carry == 1,
            Test::AboveEqual => self.carry == 0,
            Test::Equal => self.zero == 1,
            Test::NotEqual => self.zero == 0,
            Test::BelowEqual => self.carry | self.zero == 1,
            Test::Above => self.carry | self.zero == 0,
            Test::Sign => self.sign == 1,
            Test::NoSign => self.sign == 0,
            Test::Parity => self.parity == 1,
            Test::NoParity => self.parity == 0,
            Test::Less => less,
            Test::GreaterEqual => !less,
            Test::LessEqual => less || self.zero == 1,
            Test::Greater => !less && self.zero == 0,
        }
    }
}
