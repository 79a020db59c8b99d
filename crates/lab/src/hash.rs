//! The arithmetic of fingerprints.
//!
//! A state's fingerprint is a *sum* of 128-bit terms, one for each 32 bits of memory that differ from the initial state and one for each thing a CPU
//! remembers. Sums can be updated for what changed, in any order, and undone.

/// A 128-bit number that looks random, for each 64-bit one.
#[inline(always)]
pub(crate) const fn spread(x: u64) -> u128 {
    let low = scramble(x.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let high = scramble(low.wrapping_mul(0xd6e8_feb8_6659_fd93).wrapping_add(x));
    (high as u128) << 64 | low as u128
}

/// The term of 32 bits of memory.
#[inline(always)]
pub(crate) const fn unit(index: u32, value: u32) -> u128 {
    spread((index as u64) << 32 | value as u64)
}

/// Makes one number of two, quickly: for a comparison that errs about once in 2<sup>64</sup> times where it errs at all.
#[inline(always)]
pub(crate) const fn blend(before: u64, next: u64) -> u64 {
    (before.rotate_left(26) ^ next).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// A bijection in which every input bit matters to every output bit (Pelle Evensen's "moremur").
#[inline(always)]
const fn scramble(mut x: u64) -> u64 {
    x ^= x >> 27;
    x = x.wrapping_mul(0x3c79_ac49_2ba7_b653);
    x ^= x >> 33;
    x = x.wrapping_mul(0x1c69_b3f7_4ac4_ae35);
    x ^ x >> 27
}

/// A bijection that no sum passes through.
#[inline(always)]
pub(crate) const fn stir(x: u128) -> u128 {
    let (low, high) = (x as u64, (x >> 64) as u64);
    let low = scramble(low ^ scramble(high.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    let high = scramble(high ^ scramble(low.wrapping_mul(0xd6e8_feb8_6659_fd93)));
    (high as u128) << 64 | low as u128
}

/// What an agent is known by: everything it was told, in order, since it last promised to forget.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Chain {
    low: u64,
    high: u64,
}

impl Chain {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { low: 0, high: 0 }.with(seed)
    }

    #[inline(always)]
    #[must_use]
    pub(crate) const fn with(self, told: u64) -> Self {
        let told = told.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let low = scramble(self.low.rotate_left(25) ^ told);
        let high = scramble(self.high.rotate_left(41) ^ told.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ self.low);
        Self { low, high }
    }

    pub(crate) const fn parts(self) -> (u64, u64) {
        (self.low, self.high)
    }

    pub(crate) const fn from_parts(low: u64, high: u64) -> Self {
        Self { low, high }
    }

    #[inline(always)]
    pub(crate) const fn term(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }
}

/// For tables whose keys are fingerprints already.
#[derive(Clone, Copy, Default)]
pub(crate) struct Same(u64);

pub(crate) type BuildSame = std::hash::BuildHasherDefault<Same>;

impl std::hash::Hasher for Same {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are 128-bit fingerprints");
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
