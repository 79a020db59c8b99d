//! The local APIC, by its memory-mapped registers (SDM vol. 3A, 11.4).

use super::paging::at_physical;

const BASE: u64 = 0xfee0_0000;
const ID: u64 = 0x20;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const PENDING: u32 = 1 << 12;
const ENABLED: u32 = 1 << 8;
/// INIT, asserted.
pub(super) const INIT: u32 = 0x4500;
/// Start-up, from the page at 0x8000.
pub(super) const START_UP: u32 = 0x4608;

fn register(offset: u64) -> *mut u32 {
    at_physical(BASE + offset).cast()
}

fn read(offset: u64) -> u32 {
    // SAFETY: the page of the local APIC is mapped since boot, and these registers have no side effect on memory.
    unsafe { register(offset).read_volatile() }
}

fn write(offset: u64, value: u32) {
    // SAFETY: as above.
    unsafe { register(offset).write_volatile(value) };
}

/// Lets this CPU take interrupts from others.
pub(super) fn enable(spurious: u8) {
    write(SPURIOUS, ENABLED | u32::from(spurious));
}

/// This CPU's own number.
pub(super) fn id() -> u8 {
    (read(ID) >> 24) as u8
}

/// The handler is over.
pub(super) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Sends a command to one CPU. Called with interrupts off: it takes two writes.
pub(super) fn send(to: u8, command: u32) {
    while read(COMMAND_LOW) & PENDING != 0 {
        core::hint::spin_loop();
    }
    write(COMMAND_HIGH, u32::from(to) << 24);
    write(COMMAND_LOW, command);
}

const TIMER: u64 = 0x320;
const TIMER_COUNT: u64 = 0x380;
const TIMER_DIVISOR: u64 = 0x3e0;
/// Divides by 1.
const DIVIDE_BY_1: u32 = 0b1011;

/// Raises an interrupt on this CPU, once, after so many ticks of the bus (QEMU: nanoseconds).
pub(super) fn wake_after(ticks: u32, vector: u8) {
    write(TIMER_DIVISOR, DIVIDE_BY_1);
    write(TIMER, u32::from(vector));
    write(TIMER_COUNT, ticks);
}
