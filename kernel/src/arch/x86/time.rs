//! Time, by the time-stamp counter, calibrated once against the timer chip.

use core::sync::atomic::{AtomicU64, Ordering};

use super::port;

/// Ticks of the counter in 10 ms.
static TICKS: AtomicU64 = AtomicU64::new(0);
/// Of the timer chip: 1.193182 MHz.
const PIT_TICKS: u16 = 11_932;
const CALIBRATIONS: usize = 5;

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

/// Counts ticks while channel 2 of the timer counts down: the middle one of some times, because an emulator may be stopped in one of them.
pub(super) fn calibrate() {
    let mut times = [0; CALIBRATIONS];
    times.iter_mut().for_each(|time| *time = ticks_in_10_ms());
    times.sort_unstable();
    TICKS.store(times[CALIBRATIONS / 2], Ordering::Relaxed);
}

fn ticks_in_10_ms() -> u64 {
    port::out8(0x61, port::in8(0x61) & !2 | 1);
    port::out8(0x43, 0b1011_0000);
    port::out8(0x42, PIT_TICKS as u8);
    port::out8(0x42, (PIT_TICKS >> 8) as u8);
    let start = now();
    while port::in8(0x61) & 0x20 == 0 {}
    now() - start
}

/// Waits.
pub(super) fn delay(microseconds: u64) {
    let start = now();
    while nanoseconds(now() - start) < microseconds * 1000 {
        core::hint::spin_loop();
    }
}
