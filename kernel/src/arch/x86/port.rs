//! Ports.

/// Writes a byte to a port.
pub(super) fn out8(port: u16, value: u8) {
    // SAFETY: the ports that this kernel names belong to devices that access no memory.
    unsafe { core::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes four bytes to a port.
pub(super) fn out32(port: u16, value: u32) {
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags))
    };
}

/// Reads a byte from a port.
pub(super) fn in8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: as above.
    unsafe { core::arch::asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}
