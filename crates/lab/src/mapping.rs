//! Zeroed memory straight from the system, which costs nothing until it is touched.

use std::io;

/// A private mapping of whole pages.
pub(crate) struct Mapping {
    base: *mut libc::c_void,
    bytes: usize,
}

/// What [`Mapping::new`] rounds sizes up to.
pub(crate) const PAGE_BYTES: usize = 4096;

impl Mapping {
    /// # Panics
    /// If the system has no memory left.
    pub(crate) fn new(bytes: usize) -> Self {
        Self::try_new(bytes).unwrap_or_else(|error| panic!("no memory for {bytes} bytes: {error}"))
    }

    /// # Errors
    /// The system does not give as much.
    pub(crate) fn try_new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        // SAFETY: a fresh private mapping, placed where the kernel likes, disturbs nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { base, bytes }) }
    }

    /// Makes accesses to the lowest page fault.
    ///
    /// # Panics
    /// If the system cannot.
    pub(crate) fn guard_lowest_page(&mut self) {
        // SAFETY: the mapping is ours, and `&mut` says that nobody uses it.
        let result = unsafe { libc::mprotect(self.base, PAGE_BYTES, libc::PROT_NONE) };
        assert!(result == 0, "no guard page: {}", io::Error::last_os_error());
    }

    /// Its lowest address, aligned to a page.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.cast()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole mapping made in `new`; whoever drops it uses it no more.
        unsafe { libc::munmap(self.base, self.bytes) };
    }
}
