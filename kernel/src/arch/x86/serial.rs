//! The serial console, COM1.

use core::fmt;

use super::port;

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = DATA + 5;
const ROOM: u8 = 1 << 5;

/// The first serial port.
pub(crate) struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while port::in8(LINE_STATUS) & ROOM == 0 {}
            port::out8(DATA, byte);
        }
        Ok(())
    }
}
