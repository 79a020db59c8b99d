//! The two system calls that are little more than Linux's fast GUP.

use super::call::{Number, call};
use super::memory::{Mapping, PAGE};
use super::{Refused, checked};

/// A piece of memory, as Linux takes it.
#[repr(C)]
struct Piece {
    start: usize,
    bytes: usize,
}

impl Piece {
    fn of(mapping: &Mapping, pages: usize) -> Self {
        Self { start: mapping.start(), bytes: pages * PAGE }
    }
}

/// A file that this process has open.
struct Open(usize);

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the number. Closing cannot fail here.
        let _ = unsafe { call(Number::CLOSE, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// A pipe, which holds the pages that are spliced into it until it is dropped.
pub(crate) struct Pipe {
    _out: Open,
    into: Open,
}

impl Pipe {
    /// A pipe with room for so many pages.
    pub(crate) fn with_slots(pages: usize) -> Result<Self, Refused> {
        const SET_SIZE: usize = 1031;
        let mut ends = [0_i32; 2];
        // SAFETY: writes two numbers.
        checked("pipe2", unsafe { call(Number::PIPE2, [ends.as_mut_ptr() as usize, 0, 0, 0, 0, 0]) })?;
        let [_out, into] = ends.map(|end| Open(end as usize));
        // SAFETY: changes the pipe alone.
        checked("F_SETPIPE_SZ", unsafe { call(Number::FCNTL, [into.0, SET_SIZE, pages * PAGE, 0, 0, 0]) })?;
        Ok(Self { _out, into })
    }

    /// Takes the first pages of a mapping: `get_user_pages_fast` by 16 pages, and a slot for each page.
    pub(crate) fn splice_in(&self, mapping: &Mapping, pages: usize) -> Result<(), Refused> {
        let piece = Piece::of(mapping, pages);
        // SAFETY: reads the piece; the pages are only counted.
        let returned = unsafe { call(Number::VMSPLICE, [self.into.0, &raw const piece as usize, 1, 0, 0, 0]) };
        if checked("vmsplice", returned)? == piece.bytes { Ok(()) } else { Err(Refused { what: "vmsplice", error: 0 }) }
    }
}

/// A ring whose buffers are pages of this process, until it is dropped.
pub(crate) struct Registration {
    ring: Open,
}

impl Registration {
    /// A ring without buffers.
    pub(crate) fn prepare() -> Result<Self, Refused> {
        const PARAMETERS: usize = 120;
        let mut parameters = [0_u64; PARAMETERS / 8];
        let arguments = [1, parameters.as_mut_ptr() as usize, 0, 0, 0, 0];
        // SAFETY: writes the parameters.
        let ring = checked("io_uring_setup", unsafe { call(Number::IO_URING_SETUP, arguments) })?;
        Ok(Self { ring: Open(ring) })
    }

    /// Pins the first pages of a mapping: one `pin_user_pages_fast`, an array of pages, and their account.
    pub(crate) fn register(&mut self, mapping: &Mapping, pages: usize) -> Result<(), Refused> {
        const REGISTER_BUFFERS: usize = 0;
        let piece = Piece::of(mapping, pages);
        let arguments = [self.ring.0, REGISTER_BUFFERS, &raw const piece as usize, 1, 0, 0];
        // SAFETY: reads the piece; nobody submits anything to the ring.
        checked("IORING_REGISTER_BUFFERS", unsafe { call(Number::IO_URING_REGISTER, arguments) }).map(drop)
    }
}
