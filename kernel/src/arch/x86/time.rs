//! Time, by the time-stamp counter, calibrated once against the timer chip.

use core::sync::atomic::{AtomicU64, Ordering};

use super::port;

/// Ticks of the counter in 10 ms.
static TICKS: AtomicU64 = AtomicU64::new(0);
/// Of the timer chip: 1.193182 MHz.
const PIT_TICKS: u16 = 11_932;

/// The time-stamp counter.
pub(crate) fn now() -> u64 {
    #[cfg(target_arch = "x86")]
    use core::arch::x86::_rdtsc;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::_rdtsc;
    // SAFETY: every CPU with PAE, NX and an APIC has it, and CR4.TSD is 0.
    unsafe { _rdtsc() }
}

/// Ticks as nanoseconds.
pub(crate) fn nanoseconds(ticks: u64) -> u64 {
    let per_10_ms = TICKS.load(Ordering::Relaxed).max(1);
    (u128::from(ticks) * 10_000_000 / u128::from(per_10_ms)) as u64
}

/// Counts ticks while channel 2 of the timer counts down once.
pub(super) fn calibrate() {
    port::out8(0x61, port::in8(0x61) & !2 | 1);
    port::out8(0x43, 0b1011_0000);
    port::out8(0x42, PIT_TICKS as u8);
    port::out8(0x42, (PIT_TICKS >> 8) as u8);
    let start = now();
    while port::in8(0x61) & 0x20 == 0 {}
    TICKS.store(now() - start, Ordering::Relaxed);
}

/// Waits.
pub(super) fn delay(microseconds: u64) {
    let start = now();
    while nanoseconds(now() - start) < microseconds * 1000 {
        core::hint::spin_loop();
    }
}
