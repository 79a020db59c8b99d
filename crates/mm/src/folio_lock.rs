//! The lock of a folio (Linux: `folio_lock`, PG_locked).
//!
//! Who migrates a folio, swaps it out, splits it, drops it, cleans it, or takes it out of its file, holds its lock: so these exclude each other. It is
//! one bit of the folio's flags, which are otherwise set and cleared without it.
//!
//! Order: mmap lock, folio lock, rmap lock, page-table lock. Under an rmap lock or a page-table lock only [`FolioLock::try_take`] is allowed.
//!
//! It is also what to wait for where a folio cannot be had for now, because its references are frozen: whoever froze them holds the lock.

use core::mem::ManuallyDrop;

use machine::{Cpu, Word32};

use crate::folio::{Folio, FolioFlags, Page};

const LOCKED: u32 = FolioFlags::LOCKED.bits();

/// The lock of a folio is held while this value lives.
#[must_use = "the lock is released as soon as this is dropped"]
pub(crate) struct FolioLock<'f, C: Cpu> {
    flags: &'f Word32,
    cpu: &'f C,
}

impl<'f, C: Cpu> FolioLock<'f, C> {
    /// Waits for the lock and takes it. The caller holds a reference to the folio.
    ///
    /// Context: interrupts on, no rmap lock, no page-table lock.
    #[track_caller]
    pub(crate) fn take(cpu: &'f C, folio: &Folio<'f>) -> Self {
        let flags = folio.head_page().flags_word();
        cpu.await_update(flags, |bits| (bits & LOCKED == 0).then_some(bits | LOCKED));
        Self { flags, cpu }
    }

    /// Takes the lock if it is free. The caller holds a reference to the folio, or the lock of a table that maps it.
    #[track_caller]
    pub(crate) fn try_take(cpu: &'f C, folio: &Folio<'f>) -> Option<Self> {
        let flags = folio.head_page().flags_word();
        // Not `then_some`: that would make a guard in any case, and drop it, which releases the lock of whoever holds it.
        (cpu.fetch_or(flags, LOCKED) & LOCKED == 0).then(|| Self { flags, cpu })
    }

    /// Whether somebody holds the lock of the folio with this head.
    pub(crate) fn is_locked(cpu: &C, head: &Page) -> bool {
        cpu.load(head.flags_word()) & LOCKED != 0
    }

    /// Waits until nobody holds the lock of the folio with this head. The folio may be another one by then, or none: the caller looks again at what
    /// made it wait.
    ///
    /// Context: as for [`Self::take`].
    #[track_caller]
    pub(crate) fn await_unlocked(cpu: &C, head: &Page) {
        cpu.await_value(head.flags_word(), |bits| bits & LOCKED == 0);
    }

    /// Releases the lock: the same as dropping this, but a trace then names the caller's line.
    #[track_caller]
    pub(crate) fn unlock(self) {
        ManuallyDrop::new(self).release();
    }

    #[track_caller]
    fn release(&mut self) {
        self.cpu.fetch_and(self.flags, !LOCKED);
    }
}

impl<C: Cpu> Drop for FolioLock<'_, C> {
    #[track_caller]
    fn drop(&mut self) {
        self.release();
    }
}
