//! Lines on the console.

use core::fmt::{self, Write};

use crate::linux;

/// Room for the longest line.
const LONGEST: usize = 1024;

struct Line {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// Writes a line, whole: the kernel's own messages come between lines, not into them.
pub(crate) fn write_line(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; LONGEST], length: 0 };
    // What does not fit is cut: the reader says that it does not understand the line.
    let _ = writeln!(line, "{text}");
    linux::write_console(&line.bytes[..line.length]);
}

/// Writes a line, formatted as by `format_args`.
macro_rules! line {
    ($($arguments:tt)*) => {
        $crate::say::write_line(format_args!($($arguments)*))
    };
}
pub(crate) use line;

/// What was measured, as a result of the load `bench`.
pub(crate) fn result(measured: &[(&str, u64)]) {
    struct Members<'a>(&'a [(&'a str, u64)]);
    impl fmt::Display for Members<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|(name, count)| write!(f, ",\"{name}\":{count}"))
        }
    }
    line!("@fastgup {{\"event\":\"result\",\"load\":\"bench\",\"ok\":true{}}}", Members(measured));
}

/// Something that should not be. No text here holds a quotation mark.
pub(crate) fn panic(what: fmt::Arguments<'_>) {
    line!("@fastgup {{\"event\":\"panic\",\"message\":\"{what}\"}}");
}
