//! Address space reserved from the operating system; memory comes as it is touched.

use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// What a reservation is aligned to: so that the system can back it by huge pages.
const ALIGNMENT: usize = 2 << 20;

/// Zeroed, private, writable memory, aligned to 2 MiB. Not backed until it is touched.
pub(crate) struct Reservation {
    /// What was mapped, of which `start` is the first aligned byte.
    mapped: NonNull<u8>,
    mapped_bytes: usize,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the reservation only owns address space. What its users do with the memory is up to their own `unsafe`.
unsafe impl Send for Reservation {}
// SAFETY: as above; `&Reservation` gives out a pointer, and nothing that dereferences it.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `bytes` bytes.
    ///
    /// # Errors
    /// The system refused: most likely there is not that much address space.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let mapped_bytes = bytes.checked_add(ALIGNMENT).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a null hint lets the system choose where, so no mapping that exists is touched.
        let mapped = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                mapped_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let mapped = NonNull::new(mapped.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let padding = mapped.align_offset(ALIGNMENT);
        // SAFETY: the padding is less than `ALIGNMENT`, by which the mapping is longer than `bytes`.
        let start = unsafe { mapped.add(padding) };
        Ok(Self { mapped, mapped_bytes, start, bytes })
    }

    pub(crate) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Asks the system for huge pages here. A hint: page walks in tables that lie in 4 KiB pages would measure the host's TLB.
    pub(crate) fn prefer_huge_pages(&self) {
        // An old kernel without huge pages says EINVAL; nothing is lost.
        let _ = self.advise(self.bytes, Advice::LinuxHugepage);
    }

    /// Backs the first `bytes` bytes with memory now.
    ///
    /// # Errors
    /// There is not that much memory, or the system is older than Linux 5.14.
    pub(crate) fn populate(&self, bytes: usize) -> io::Result<()> {
        self.advise(bytes.min(self.bytes), Advice::LinuxPopulateWrite)
    }

    fn advise(&self, bytes: usize, advice: Advice) -> io::Result<()> {
        // SAFETY: the range lies in the mapping that this value owns, and neither advice changes what the memory holds.
        unsafe { madvise(self.start.as_ptr().cast(), bytes, advice) }.map_err(Into::into)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; whoever borrowed from it did so for no longer than this value lives.
        // It can only fail if the range were not one.
        let _ = unsafe { munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
    }
}
