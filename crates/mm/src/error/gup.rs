//! Of references: got, added and given back.

use machine::addr::Frame;
use machine::addr::VirtAddr;

use crate::error::{FaultError, RangeError, ReclaimError};
use crate::folio::CountUnderflow;
use crate::gup::InvalidFlags;

/// Why GUP did not give what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GupError {
    /// The flags exclude each other.
    Flags(InvalidFlags),
    /// The range cannot be meant.
    Range(RangeError),
    /// The first page could not be had by a fault.
    Fault(FaultError),
    /// The page belongs to a driver: nobody takes references to it (-EFAULT).
    Special {
        /// The address.
        address: VirtAddr,
    },
    /// The folio may not be pinned like this: for long (movable, or of a file whose dirtying is tracked) or at all (secret).
    NotAllowed {
        /// The address.
        address: VirtAddr,
    },
    /// The folio has too many references already.
    CountLimit {
        /// The address.
        address: VirtAddr,
    },
    /// Nothing that can be had is mapped there, and nothing was to be faulted in (FOLL_NOFAULT).
    NotMapped {
        /// The address.
        address: VirtAddr,
    },
    /// Nobody has ever touched the page (FOLL_DUMP): its contents are zeros.
    Hole {
        /// The address.
        address: VirtAddr,
    },
    /// The page's memory has failed (FOLL_HWPOISON).
    Poisoned {
        /// The address.
        address: VirtAddr,
    },
    /// The gate page can only be read (-EFAULT).
    ReadOnlyGate {
        /// The address.
        address: VirtAddr,
    },
    /// The page is a file's (FOLL_ANON).
    NotAnonymous {
        /// The address.
        address: VirtAddr,
    },
    /// Something would have to be waited for (FOLL_NOWAIT; -EAGAIN).
    WouldBlock {
        /// The address.
        address: VirtAddr,
    },
    /// A signal came (-EINTR).
    Interrupted {
        /// The address.
        address: VirtAddr,
    },
    /// The folio must stay movable, and could not be moved to where it need not (FOLL_LONGTERM).
    NotMigrated {
        /// The address.
        address: VirtAddr,
        /// Why.
        error: ReclaimError,
    },
}

/// Why a page of a file could not be pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinFileError {
    /// The file has no page there.
    NoPage {
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// The file, or the page, does not live in memory only: a file system wants to know of writes.
    NotInMemory {
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// The page may not be pinned at all (secret, truncated, failed), or is no page of a folio.
    NotAllowed {
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// The folio has too many references already.
    CountLimit {
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// The folio must stay movable, and could not be moved to where it need not.
    NotMigrated {
        /// The 4 KiB page of the file.
        page: u64,
        /// Why.
        error: ReclaimError,
    },
}

/// Why there are no more pins than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddPinError {
    /// The run is not pinned.
    NotPinned(Frame),
    /// The folio has too many references already.
    CountLimit(Frame),
}

/// Why references could not be given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReleaseError {
    /// These are not pins.
    NotPinned(Frame),
    /// The frame has no record.
    NoRecord(Frame),
    /// The folio does not have that many references: given back twice? Nothing was changed.
    Underflow(CountUnderflow),
}

impl From<FaultError> for GupError {
    fn from(error: FaultError) -> Self {
        Self::Fault(error)
    }
}

impl From<InvalidFlags> for GupError {
    fn from(error: InvalidFlags) -> Self {
        Self::Flags(error)
    }
}

impl From<RangeError> for GupError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}
