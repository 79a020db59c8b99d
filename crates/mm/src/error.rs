//! What can go wrong, with what a caller needs to mend it.

use core::fmt;

use machine::Access;
use machine::addr::{Frame, VirtAddr};
use pagetable::{Level, MapError as MapTableError, WalkError};

use crate::area::Area;
use crate::file::FileId;
use crate::folio::CountUnderflow;
use crate::gup::InvalidFlags;
pub use crate::huge::error::{CollapseError, FolioSplitError, RetractError, ShareError, SplitError};
use crate::space::SpaceId;
use crate::special::InsertError;
use crate::stack::GrowthError;
use crate::swap::SwapError;

/// Why an access at an address cannot be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// No area holds the address (SIGSEGV).
    NoArea {
        /// The address.
        address: VirtAddr,
    },
    /// The area forbids the access (SIGSEGV).
    Forbidden {
        /// The address.
        address: VirtAddr,
        /// The access.
        access: Access,
        /// The area.
        area: Area,
    },
    /// A stack lies above the address, and may not grow so far (SIGSEGV).
    NotGrown {
        /// The address.
        address: VirtAddr,
        /// Why.
        error: GrowthError,
    },
    /// The file has no page there (SIGBUS).
    NoPage {
        /// The file.
        file: FileId,
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// The file's frame cannot be mapped: it is not aligned to the file's leaf size, or the folio is not big enough or gone.
    BadFrame {
        /// The file.
        file: FileId,
        /// The frame that it holds.
        frame: Frame,
        /// The level of the leaf that was to map it.
        level: Level,
    },
    /// Another frame is mapped there already, or tables are where the leaf should go.
    Occupied {
        /// The address.
        address: VirtAddr,
        /// The level of the leaf that was to be inserted.
        level: Level,
    },
    /// No frame for a page table, or for the page.
    OutOfFrames,
    /// The page's contents are lost (SIGBUS).
    Poisoned {
        /// The address.
        address: VirtAddr,
    },
    /// Nobody may map anything there (SIGSEGV).
    Guarded {
        /// The address.
        address: VirtAddr,
    },
    /// The page is on swap and could not be brought back (SIGBUS).
    Swap {
        /// The address.
        address: VirtAddr,
        /// Why.
        error: SwapError,
    },
    /// The page has too many references already to be copied.
    CountLimit {
        /// The address.
        address: VirtAddr,
    },
    /// The driver wants to be waited for, without locks, before it is asked again ([`crate::special::DriverFault::wait`]). Faults wait by themselves; GUP returns this only where it must
    /// not wait.
    DriverBusy {
        /// The file.
        file: FileId,
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// What the driver wanted to map was refused (SIGBUS).
    Driver(InsertError),
    /// A page table holds what it must not.
    Malformed(MapTableError),
}

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

/// Why a folio was not taken from where it is: not migrated, not swapped out, not dropped. It is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReclaimError {
    /// The frame has no record, or is free.
    NoFolio {
        /// The frame.
        frame: Frame,
    },
    /// The file has no page there.
    NoPage {
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// The folio is of a kind that stays where it is, or belongs nowhere (a driver's, the zero page, a merged one).
    Unmovable {
        /// Its first frame.
        frame: Frame,
    },
    /// The folio is large: split it first.
    Large {
        /// It has `1 << order` frames.
        order: u8,
    },
    /// Somebody else is taking the folio apart.
    Locked,
    /// It may be pinned.
    Pinned,
    /// Somebody has references to it.
    Referenced {
        /// How many it would have if nobody used it.
        expected: u32,
        /// How many it had.
        references: u32,
    },
    /// It has too many references to take another.
    CountLimit {
        /// The frame.
        frame: Frame,
    },
    /// It was written since it was last cleaned.
    Dirty,
    /// No frames for the new folio.
    OutOfFrames,
    /// The page could not be written to swap.
    Swap(SwapError),
    /// A page table holds what it must not.
    Table(ZapError),
}

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
    /// It overlaps another area.
    Overlaps(Area),
    /// It would lie in the gap that stays free below this stack.
    InGuardGap(Area),
    /// It is to be a stack, and is not private anonymous memory in small pages.
    NotAStack {
        /// What was asked for.
        area: Area,
    },
    /// The address space has no free area slot.
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
    /// The address space has too few free area slots.
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

/// Why an address space could not be forked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForkError {
    /// There is no such address space.
    NoSpace(SpaceId),
    /// The child has areas already, or is the parent.
    ChildInUse(SpaceId),
    /// The child has fewer area slots than the parent has areas.
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

impl From<MapTableError> for FaultError {
    fn from(error: MapTableError) -> Self {
        match error {
            MapTableError::OutOfFrames { .. } => Self::OutOfFrames,
            error => Self::Malformed(error),
        }
    }
}

impl From<ZapError> for FaultError {
    fn from(error: ZapError) -> Self {
        match error {
            ZapError::Malformed(error) => error.into(),
            // The engine's own ranges can be meant, and pages that it looks up are there.
            ZapError::Range(_) | ZapError::NoPage { .. } | ZapError::OutOfFrames => Self::OutOfFrames,
        }
    }
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

impl From<WalkError> for FaultError {
    fn from(error: WalkError) -> Self {
        Self::Malformed(error.into())
    }
}

impl From<RangeError> for GupError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<WalkError> for ZapError {
    fn from(error: WalkError) -> Self {
        Self::Malformed(error)
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

impl From<RangeError> for ZapError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoArea { address } => write!(f, "no area holds {address}"),
            Self::NotGrown { address, error } => write!(f, "the stack does not grow down to {address}: {error}"),
            Self::Forbidden { address, access, area } => {
                write!(f, "the area from {} to {} does not allow a {access:?} at {address}", area.start, area.end())
            }
            Self::NoPage { file, page } => write!(f, "file {} has no page {page}", file.number()),
            Self::BadFrame { file, frame, level } => {
                write!(f, "frame {frame} of file {} cannot be mapped by a {level} leaf", file.number())
            }
            Self::Occupied { address, level } => {
                write!(f, "something else is mapped where the {level} leaf for {address} should go")
            }
            Self::OutOfFrames => f.write_str("no frame for a page table or a page"),
            Self::Poisoned { address } => write!(f, "the contents of the page at {address} are lost"),
            Self::Guarded { address } => write!(f, "{address} is guarded: nothing may be mapped there"),
            Self::Swap { address, error } => write!(f, "the page at {address} does not come back from swap: {error}"),
            Self::CountLimit { address } => write!(f, "the page at {address} has too many references"),
            Self::DriverBusy { file, page } => {
                write!(f, "the driver of file {} cannot map page {page} before something else is over", file.number())
            }
            Self::Driver(error) => write!(f, "what the driver wanted to map was refused: {error}"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FaultError {}

impl fmt::Display for ReclaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFolio { frame } => write!(f, "frame {frame} is no folio's"),
            Self::NoPage { page } => write!(f, "the file has no page {page}"),
            Self::Unmovable { frame } => write!(f, "the folio at frame {frame} stays where it is"),
            Self::Large { order } => write!(f, "the folio has {} frames: split it first", 1_u64 << order),
            Self::Locked => f.write_str("somebody else is taking the folio apart"),
            Self::Pinned => f.write_str("the folio may be pinned"),
            Self::Referenced { expected, references } => {
                write!(f, "the folio has {references} references, {expected} of which are accounted for")
            }
            Self::CountLimit { frame } => write!(f, "the folio of frame {frame} has too many references"),
            Self::Dirty => f.write_str("the folio is dirty"),
            Self::OutOfFrames => f.write_str("no frames for the new folio"),
            Self::Swap(error) => error.fmt(f),
            Self::Table(_) => f.write_str("a page table holds what it must not"),
        }
    }
}

impl core::error::Error for ReclaimError {}
