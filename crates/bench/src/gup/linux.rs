//! Linux's own fast GUP, by system calls that do little else.
//!
//! | call | what it does | what else it does |
//! |---|---|---|
//! | io_uring, IORING_REGISTER_BUFFERS | one `pin_user_pages_fast` for the whole range; IORING_UNREGISTER_BUFFERS unpins | one entry, an array of page pointers, accounting of locked memory |
//! | vmsplice of 1 MiB into a pipe | `get_user_pages_fast` in batches of 16 pages | one pipe buffer a page; the pages are given back by who drains the pipe, which is timed apart |
//!
//! Linux hands out an array with one pointer for each 4 KiB; the engine hands out runs. That is the difference between the two on huge leaves, and said where the
//! numbers are.

use std::ffi::c_void;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rustix::io::Errno;
use rustix::io_uring::{IoringRegisterOp, io_uring_params, io_uring_register, io_uring_setup, iovec};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};
use rustix::pipe::{IoSliceRaw, SpliceFlags, fcntl_setpipe_size, pipe, vmsplice};

use crate::samples::thread_time;

const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;
/// What a pipe takes at a time.
const PIECE: usize = 1 << 20;

/// How the memory is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Backing {
    /// 4 KiB pages, each a folio of its own.
    Small,
    /// 2 MiB folios, mapped by 2 MiB leaves.
    Huge,
    /// 2 MiB folios, mapped by 4 KiB leaves: one page of each was made read-only and writable again.
    HugeSplit,
}

/// Why there is nothing to compare with.
pub(super) struct Unavailable {
    what: &'static str,
    why: Errno,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux's fast GUP is not measured: {} failed ({})", self.what, self.why)
    }
}

fn because(what: &'static str) -> impl Fn(Errno) -> Unavailable {
    move |why| Unavailable { what, why }
}

/// Anonymous memory that is all there.
pub(super) struct Memory {
    mapped: NonNull<c_void>,
    mapped_bytes: usize,
    start: *mut c_void,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(bytes: usize, backing: Backing) -> Result<Self, Unavailable> {
        let mapped_bytes = bytes + HUGE;
        // SAFETY: a null hint: the system chooses where, and no mapping that exists is touched.
        let mapped = unsafe {
            mmap_anonymous(ptr::null_mut(), mapped_bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let mapped = mapped.map_err(because("mmap"))?;
        let Some(mapped) = NonNull::new(mapped) else { return Err(because("mmap")(Errno::NOMEM)) };
        let start = mapped.as_ptr().wrapping_byte_add(mapped.cast::<u8>().align_offset(HUGE));
        let memory = Self { mapped, mapped_bytes, start, bytes };
        let advice = if backing == Backing::Small { Advice::LinuxNoHugepage } else { Advice::LinuxHugepage };
        memory.advise(advice).map_err(because("madvise(huge pages)"))?;
        memory.advise(Advice::LinuxPopulateWrite).map_err(because("madvise(MADV_POPULATE_WRITE)"))?;
        if backing == Backing::HugeSplit {
            memory.split().map_err(because("mprotect"))?;
        }
        Ok(memory)
    }

    fn advise(&self, advice: Advice) -> Result<(), Errno> {
        // SAFETY: the range is part of the mapping of this value; none of these advices takes its contents away.
        unsafe { madvise(self.start, self.bytes, advice) }
    }

    /// Rights that change for one page make the kernel split the leaf. The folio stays.
    fn split(&self) -> Result<(), Errno> {
        for at in (0..self.bytes).step_by(HUGE) {
            let page = self.start.wrapping_byte_add(at);
            // SAFETY: a page of the mapping of this value, to which nobody holds a reference.
            unsafe { mprotect(page, PAGE, MprotectFlags::READ) }?;
            // SAFETY: as above.
            unsafe { mprotect(page, PAGE, MprotectFlags::READ | MprotectFlags::WRITE) }?;
        }
        Ok(())
    }

    /// How many of its bytes are in huge leaves, as the kernel says.
    pub(super) fn huge_bytes(&self) -> usize {
        let mut maps = String::new();
        if File::open("/proc/self/smaps").and_then(|mut file| file.read_to_string(&mut maps)).is_err() {
            return 0;
        }
        let first = self.start as usize;
        let mut inside = false;
        let mut huge = 0;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let bound = |text| usize::from_str_radix(text, 16).ok();
            if let Some((from, until)) = range.and_then(|(from, until)| Some((bound(from)?, bound(until)?))) {
                inside = from < first + self.bytes && first < until;
            } else if let Some(size) = line.strip_prefix("AnonHugePages:").filter(|_| inside) {
                huge += size.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) << 10;
            }
        }
        huge
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; nobody holds a reference into it. It can only fail if the range were not one.
        let _ = unsafe { munmap(self.mapped.as_ptr(), self.mapped_bytes) };
    }
}

/// An io_uring that does no I/O.
pub(super) struct Ring(OwnedFd);

impl Ring {
    pub(super) fn new() -> Result<Self, Unavailable> {
        let mut parameters = io_uring_params::default();
        // SAFETY: the rings are not mapped, and nothing is submitted.
        unsafe { io_uring_setup(1, &mut parameters) }.map(Self).map_err(because("io_uring_setup"))
    }

    /// Pins all of the memory and gives it back: the time of this thread for both.
    pub(super) fn pin_and_unpin(&self, memory: &Memory) -> Result<Duration, Unavailable> {
        let buffer = iovec { iov_base: memory.start, iov_len: memory.bytes };
        let began = thread_time();
        // SAFETY: the kernel reads one `iovec`, and pins memory that stays mapped for as long as `memory` lives. No I/O uses it.
        unsafe { io_uring_register(&self.0, IoringRegisterOp::RegisterBuffers, ptr::from_ref(&buffer).cast(), 1) }
            .map_err(because("IORING_REGISTER_BUFFERS"))?;
        // SAFETY: takes no argument.
        unsafe { io_uring_register(&self.0, IoringRegisterOp::UnregisterBuffers, ptr::null(), 0) }
            .map_err(because("IORING_UNREGISTER_BUFFERS"))?;
        Ok(thread_time() - began)
    }
}

/// A pipe that takes pages and gives them back unread.
pub(super) struct Pipe {
    reader: File,
    writer: OwnedFd,
    sink: Vec<u8>,
}

impl Pipe {
    pub(super) fn new() -> Result<Self, Unavailable> {
        let (reader, writer) = pipe().map_err(because("pipe"))?;
        fcntl_setpipe_size(&writer, PIECE).map_err(because("F_SETPIPE_SZ"))?;
        Ok(Self { reader: reader.into(), writer, sink: vec![0; PIECE] })
    }

    /// Takes references on all of the memory, piece by piece: the time of this thread to take them, without that to drain the pipe.
    pub(super) fn take(&mut self, memory: &Memory) -> Result<Duration, Unavailable> {
        let mut taking = Duration::ZERO;
        for at in (0..memory.bytes).step_by(PIECE) {
            let piece = NonNull::new(memory.start.wrapping_byte_add(at)).map(NonNull::cast::<u8>);
            let Some(piece) = piece else { return Err(because("mmap")(Errno::NOMEM)) };
            // SAFETY: a piece of the mapping, which nobody writes meanwhile.
            let bytes = unsafe { std::slice::from_raw_parts(piece.as_ptr(), PIECE) };
            let slices = [IoSliceRaw::from_slice(bytes)];
            let began = thread_time();
            // SAFETY: the pages are read by nobody but the loop below, and written by nobody.
            let taken =
                unsafe { vmsplice(&self.writer, &slices, SpliceFlags::empty()) }.map_err(because("vmsplice"))?;
            taking += thread_time() - began;
            let mut left = taken;
            while left > 0 {
                let read = self.reader.read(&mut self.sink[..left]).map_err(|_| because("read")(Errno::IO))?;
                left -= read.max(1);
            }
            if taken != PIECE {
                return Err(because("vmsplice")(Errno::AGAIN));
            }
        }
        Ok(taking)
    }
}
