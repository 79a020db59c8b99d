//! Of areas and address spaces.

use machine::ProtectionKey;
use machine::addr::VirtAddr;
use pagetable::Level;
use pagetable::MapError as MapTableError;
use pagetable::WalkError;

use crate::area::Area;
use crate::error::{FaultError, RangeError, ZapError};
use crate::file::FileId;
use crate::space::SpaceId;
use crate::swap::SwapError;

/// Why an area could not be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// Not page-aligned, empty, outside the user half of the mode, or its offset is too large.
    BadRange {
        /// What was asked for.
        area: Area,
    },
    /// There is no such address space.
    NoSpace(SpaceId),
    /// There is no such file.
    NoFile(FileId),
    /// The area is not aligned to the leaf size of the file.
    NotLeafAligned {
        /// What was asked for.
        area: Area,
        /// The level of the file's leaves.
        level: Level,
    },
    /// It would lie in two parts of the address space ([`crate::AddressSpace::in_parts`]).
    AcrossParts {
        /// What was asked for.
        area: Area,
        /// Where the second one begins.
        boundary: VirtAddr,
    },
    /// It overlaps another area.
    Overlaps(Area),
    /// It would lie in the gap that stays free below this stack.
    InGuardGap(Area),
    /// It is to be a stack, and is not private anonymous memory in small pages.
    NotAStack {
        /// What was asked for.
        area: Area,
    },
    /// The address space has not given out the protection key of the area.
    NoKey(ProtectionKey),
    /// The part of the address space has no free area slot.
    SpaceFull,
    /// The file has no free mapping slot.
    FileFull,
}

/// Why the areas of a range were not changed.
///
/// Nothing was, unless it is [`Self::Zap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AreaError {
    /// There is no such address space.
    NoSpace(SpaceId),
    /// The range cannot be meant.
    Range(RangeError),
    /// No area holds the address (-ENOMEM).
    NoArea {
        /// The address.
        address: VirtAddr,
    },
    /// The area would be cut where a leaf of its file lies across the edge.
    NotLeafAligned {
        /// The area.
        area: Area,
        /// The level of the file's leaves.
        level: Level,
    },
    /// What the area would become lies partly outside the user half of the mode, or its offset is too large.
    BadArea(Area),
    /// The address space has not given out this protection key (-EINVAL).
    NoKey(ProtectionKey),
    /// What the area would become would lie in two parts of the address space ([`crate::AddressSpace::in_parts`]).
    AcrossParts {
        /// What it would become.
        area: Area,
        /// Where the second one begins.
        boundary: VirtAddr,
    },
    /// An area is where another was to go.
    Overlaps(Area),
    /// It would lie in the gap that stays free below this stack.
    InGuardGap(Area),
    /// No frame for a page table.
    OutOfFrames,
    /// A page table holds what it must not.
    BadTable(MapTableError),
    /// The areas have changed, but not all entries: a page table holds what it must not.
    Zap(ZapError),
    /// A part of the address space has too few free area slots.
    SpaceFull,
    /// A file has too few free mapping slots.
    FileFull,
}

/// Why a range was not populated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PopulateError {
    /// The range cannot be meant.
    Range(RangeError),
    /// A page could not be had.
    Fault {
        /// How many pages before it are mapped now.
        pages: u64,
        /// Why.
        error: FaultError,
    },
}

impl From<RangeError> for PopulateError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

/// Why an address space could not be forked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForkError {
    /// There is no such address space.
    NoSpace(SpaceId),
    /// The child has areas already, or is the parent.
    ChildInUse(SpaceId),
    /// The child's parts do not begin where the parent's do.
    PartsDiffer(SpaceId),
    /// The child has fewer area slots than the parent has areas, in one of its parts.
    SpaceFull,
    /// The file of an area does not exist.
    NoFile(FileId),
    /// The file has no free mapping slot for the child.
    FileFull(FileId),
    /// No frame for a page table, or for a copy of a pinned page.
    OutOfFrames,
    /// A place on swap cannot be named once more.
    Swap {
        /// The address of the page.
        address: VirtAddr,
        /// Why.
        error: SwapError,
    },
    /// The page has too many references already.
    CountLimit {
        /// The address.
        address: VirtAddr,
    },
    /// A page table holds what it must not.
    Malformed(MapTableError),
}

impl From<MapTableError> for ForkError {
    fn from(error: MapTableError) -> Self {
        match error {
            MapTableError::OutOfFrames { .. } => Self::OutOfFrames,
            error => Self::Malformed(error),
        }
    }
}

impl From<WalkError> for ForkError {
    fn from(error: WalkError) -> Self {
        Self::Malformed(error.into())
    }
}

impl From<RangeError> for AreaError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<MapTableError> for AreaError {
    fn from(error: MapTableError) -> Self {
        match error {
            MapTableError::OutOfFrames { .. } => Self::OutOfFrames,
            error => Self::BadTable(error),
        }
    }
}

impl From<ZapError> for AreaError {
    fn from(error: ZapError) -> Self {
        Self::Zap(error)
    }
}
