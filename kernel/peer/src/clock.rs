//! Time, by the time-stamp counter, as the kernel measures it.

use crate::linux::{self, Refused};

/// How long the counter is compared with Linux's clock, in nanoseconds.
const COMPARED: u64 = 100_000_000;
/// How often both are read at once: the closest pair counts, because an emulator may be stopped between two reads.
const READS: usize = 32;

/// The time-stamp counter.
pub(crate) fn now() -> u64 {
    #[cfg(target_arch = "x86")]
    use core::arch::x86::_rdtsc;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::_rdtsc;
    // SAFETY: every CPU that Linux runs on here has it, and user code may read it.
    unsafe { _rdtsc() }
}

/// How fast it counts.
pub(crate) struct Clock {
    ticks: u64,
    nanoseconds: u64,
}

impl Clock {
    /// Compares it with Linux's clock.
    pub(crate) fn calibrate() -> Result<Self, Refused> {
        let start = both()?;
        while linux::nanoseconds()? - start.1 < COMPARED {}
        let end = both()?;
        Ok(Self { ticks: end.0 - start.0, nanoseconds: end.1 - start.1 })
    }

    /// Ticks as picoseconds.
    pub(crate) fn picoseconds(&self, ticks: u64) -> u64 {
        (u128::from(ticks) * u128::from(self.nanoseconds) * 1000 / u128::from(self.ticks)) as u64
    }
}

/// Counter and clock at the same time.
fn both() -> Result<(u64, u64), Refused> {
    let mut closest = (u64::MAX, (0, 0));
    for _ in 0..READS {
        let before = now();
        let nanoseconds = linux::nanoseconds()?;
        let after = now();
        if after - before < closest.0 {
            closest = (after - before, (before.midpoint(after), nanoseconds));
        }
    }
    Ok(closest.1)
}
