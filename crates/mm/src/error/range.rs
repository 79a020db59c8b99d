//! Of ranges, and of what is done entry by entry.

use machine::addr::VirtAddr;
use pagetable::WalkError;

/// Why a range of pages cannot be meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeError {
    /// The address is not page-aligned.
    Misaligned {
        /// The address.
        address: VirtAddr,
    },
    /// The range has no pages, and what was asked for makes no sense of none (-EINVAL).
    Empty {
        /// The address.
        address: VirtAddr,
    },
    /// `address + pages * 4096` overflows (-EOVERFLOW).
    Overflow {
        /// The address.
        address: VirtAddr,
        /// How many pages were asked for.
        pages: u64,
    },
    /// Part of the range lies outside the user half of the mode (-EFAULT).
    OutsideUser {
        /// The address.
        address: VirtAddr,
        /// How many pages were asked for.
        pages: u64,
    },
}

/// Why entries were not, or not all, zapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZapError {
    /// The range cannot be meant.
    Range(RangeError),
    /// The file has no such page, or is not of the right kind.
    NoPage {
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// No frame for a table: a huge page of which only part was to go stays whole.
    OutOfFrames,
    /// A page table holds what it must not.
    Malformed(WalkError),
}

impl From<WalkError> for ZapError {
    fn from(error: WalkError) -> Self {
        Self::Malformed(error)
    }
}

impl From<RangeError> for ZapError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}
