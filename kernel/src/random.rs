//! Random numbers: xorshift64*, by a seed.

/// A stream of random numbers.
pub(crate) struct Random(u64);

impl Random {
    /// The stream of a CPU.
    pub(crate) fn new(seed: u64, cpu: usize) -> Self {
        let mut random = Self((seed ^ (cpu as u64 + 1) << 48) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One below `end`, at most 2^32.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((self.next() >> 32) * end) >> 32
    }
}
