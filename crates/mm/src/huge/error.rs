//! Why huge pages stay huge, and small ones small.

use machine::addr::{Frame, VirtAddr};
use pagetable::WalkError;

use crate::error::{AreaError, ReclaimError, ZapError};
use crate::space::SpaceId;

/// Why a large folio was not split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FolioSplitError {
    /// It is small.
    Small {
        /// The frame.
        frame: Frame,
    },
    /// It cannot leave its entries.
    Stays(ReclaimError),
}

/// Why small pages were not made a huge one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CollapseError {
    /// No private area of anonymous memory that allows huge pages has all of the 2 MiB.
    Area {
        /// The address.
        address: VirtAddr,
    },
    /// No table of pages is there: nothing is mapped, or a huge page already.
    NoTable {
        /// The first of the 2 MiB.
        address: VirtAddr,
    },
    /// More pages are missing than the caller allows.
    TooFew {
        /// How many there are.
        pages: u32,
    },
    /// The page is not the address space's alone (pinned, shared, on its way elsewhere), or not there but remembered (swap, a marker).
    Busy {
        /// Its address.
        address: VirtAddr,
    },
    /// No frames for the huge page.
    OutOfFrames,
}

/// Why a table was not shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShareError {
    /// There is no such address space.
    NoSpace(SpaceId),
    /// No shared area of a cached file has all that the table translates, or the mode's tables of that level cannot be shared.
    Area {
        /// The address.
        address: VirtAddr,
    },
    /// The areas do not map the same pages of one file, or not with the same rights.
    Different,
    /// The other address space has no table there, or one that leads to more tables.
    NoTable {
        /// The address there.
        address: VirtAddr,
    },
    /// The other address space has a guard there, which is its own.
    Guarded {
        /// The address there.
        address: VirtAddr,
    },
    /// The address space has a table of its own there.
    Occupied {
        /// The address.
        address: VirtAddr,
    },
    /// No frame for the tables above.
    OutOfFrames,
    /// A page table holds what it must not.
    Malformed(WalkError),
}

/// Why a table was not taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetractError {
    /// No shared area of a cached file has all that the table translates, or the mode's tables of that level cannot go.
    Area {
        /// The address.
        address: VirtAddr,
    },
    /// A guard is there, which no fault would bring back.
    Guarded {
        /// The address.
        address: VirtAddr,
    },
    /// No table is there.
    NoTable {
        /// The address.
        address: VirtAddr,
    },
}

/// Why a huge leaf was not split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SplitError {
    /// No huge leaf maps the address.
    NotHuge {
        /// The address.
        address: VirtAddr,
    },
    /// No frame for the table.
    OutOfFrames,
    /// A page table holds what it must not.
    Malformed(WalkError),
}

impl From<ReclaimError> for FolioSplitError {
    fn from(error: ReclaimError) -> Self {
        Self::Stays(error)
    }
}

impl From<SplitError> for ZapError {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::OutOfFrames | SplitError::NotHuge { .. } => Self::OutOfFrames,
            SplitError::Malformed(error) => Self::Malformed(error),
        }
    }
}

impl From<SplitError> for AreaError {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::OutOfFrames => Self::OutOfFrames,
            SplitError::NotHuge { address } => Self::NoArea { address },
            SplitError::Malformed(error) => Self::BadTable(error.into()),
        }
    }
}
