//! Steps of userfaultfd.

use mm::Guards;

/// A fault that was handed over waits without another look. Linux has looked since 86039bd3b4e6 (4.3), which brought userfaultfd.
pub(in crate::kernel) struct HandedOverLook;

impl Guards for HandedOverLook {
    fn still_unresolved(&self, _: impl FnOnce() -> bool) -> bool {
        true
    }
}

/// A page is mapped first and filled second: what a reader of the userfaultfd would do that had no UFFDIO_COPY.
pub(in crate::kernel) struct FillFirst;

impl Guards for FillFirst {
    fn fill_then_map<E>(&self, fill: impl FnOnce(), map: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        map()?;
        fill();
        Ok(())
    }
}

/// A store to a page that was write-protected copies it without asking whether that was flushed: Linux before 6ce64428d620 (5.12).
pub(in crate::kernel) struct FlushBeforeCopy;

impl Guards for FlushBeforeCopy {
    fn flush_before_copy(&self, _: impl FnOnce()) {}
}

/// References decide whether a page is copied, also one that is its address space's alone: Linux until 6c287605fd56 (5.19).
pub(in crate::kernel) struct ExclusiveReuse;

impl Guards for ExclusiveReuse {
    fn exclusive_needs_no_copy(&self) -> bool {
        false
    }
}
