//! Memory of this process.

use super::call::{Number, call};
use super::{Refused, checked};

/// Bytes of a small page.
pub(crate) const PAGE: usize = 4096;

/// Private anonymous memory. It is not unmapped when it goes out of scope.
pub(crate) struct Mapping {
    start: usize,
    bytes: usize,
}

const READ: usize = 1;
const READ_WRITE: usize = 3;
const PRIVATE_ANONYMOUS: usize = 0x22;
const HUGE_PAGES: usize = 14;
const NO_HUGE_PAGES: usize = 15;
const HUGE: usize = 2 << 20;

impl Mapping {
    /// So many pages of 4 KiB, and never larger ones.
    pub(crate) fn small(pages: usize) -> Result<Self, Refused> {
        let mapping = Self::new(pages * PAGE)?;
        mapping.advise("MADV_NOHUGEPAGE", NO_HUGE_PAGES)?;
        Ok(mapping)
    }

    /// So many bytes that begin at a multiple of 2 MiB, by pages of that size if Linux can.
    pub(crate) fn huge(bytes: usize) -> Result<Self, Refused> {
        let wide = Self::new(bytes + HUGE)?;
        let mapping = Self { start: wide.start.next_multiple_of(HUGE), bytes };
        mapping.advise("MADV_HUGEPAGE", HUGE_PAGES)?;
        Ok(mapping)
    }

    fn new(bytes: usize) -> Result<Self, Refused> {
        let arguments = [0, bytes, READ_WRITE, PRIVATE_ANONYMOUS, usize::MAX, 0];
        // SAFETY: new memory, where nothing is.
        #[cfg(target_arch = "x86")]
        let returned = unsafe { call(Number::MMAP, [arguments.as_ptr() as usize, 0, 0, 0, 0, 0]) };
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        let returned = unsafe { call(Number::MMAP, arguments) };
        Ok(Self { start: checked("mmap", returned)?, bytes })
    }

    fn advise(&self, what: &'static str, advice: usize) -> Result<(), Refused> {
        // SAFETY: changes the size of pages, not what is in them.
        checked(what, unsafe { call(Number::MADVISE, [self.start, self.bytes, advice, 0, 0, 0]) }).map(drop)
    }

    /// Where it begins.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Stores 8 bytes to a page.
    pub(crate) fn store(&self, page: usize) {
        assert!(page < self.bytes / PAGE, "page {page} is behind the end");
        let at = core::ptr::with_exposed_provenance_mut::<u64>(self.start + page * PAGE);
        // SAFETY: inside memory that can be written, of which Rust knows nothing else.
        unsafe { at.write_volatile(page as u64) };
    }

    /// Lets nobody write it any more.
    pub(crate) fn make_read_only(&self) -> Result<(), Refused> {
        // SAFETY: nobody writes it afterwards.
        checked("mprotect", unsafe { call(Number::MPROTECT, [self.start, self.bytes, READ, 0, 0, 0]) }).map(drop)
    }

    /// Gives one page back, for ever.
    pub(crate) fn unmap_page(&self, page: usize) -> Result<(), Refused> {
        // SAFETY: nothing of Rust's is there.
        checked("munmap", unsafe { call(Number::MUNMAP, [self.start + page * PAGE, PAGE, 0, 0, 0, 0]) }).map(drop)
    }

    /// Gives it back.
    pub(crate) fn unmap(self) -> Result<(), Refused> {
        // SAFETY: as above.
        checked("munmap", unsafe { call(Number::MUNMAP, [self.start, self.bytes, 0, 0, 0, 0]) }).map(drop)
    }
}

/// Page faults of this process that read no disk.
pub(crate) fn faults() -> Result<usize, Refused> {
    // Two times of two words each, four sizes, and then the faults.
    const FAULTS: usize = 8;
    let mut usage = [0_usize; 18];
    // SAFETY: writes 18 words.
    checked("getrusage", unsafe { call(Number::GETRUSAGE, [0, usage.as_mut_ptr() as usize, 0, 0, 0, 0]) })?;
    Ok(usage[FAULTS])
}
