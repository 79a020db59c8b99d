//! What can be wrong, with everything that a user needs to find it.

use core::fmt;

use machine::{Frame, PhysAddr, VirtAddr};

use crate::entry::{BadLeaf, Entry};
use crate::level::Level;

/// An address or a range that cannot be translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressError {
    /// The mode does not translate this address (not canonical, or not a user address where one is needed).
    Outside {
        /// The address.
        address: VirtAddr,
        /// The mode's name.
        mode: &'static str,
    },
    /// The address is not a multiple of the page size needed.
    Misaligned {
        /// The address.
        address: VirtAddr,
        /// The page size in bytes.
        size: u64,
    },
    /// The range ends behind the 64-bit space.
    Wraps {
        /// Its first address.
        start: VirtAddr,
        /// Its length.
        bytes: u64,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { address, mode } => write!(f, "{address} is outside the addresses of {mode}"),
            Self::Misaligned { address, size } => write!(f, "{address} is not a multiple of the page size, {size:#x}"),
            Self::Wraps { start, bytes } => write!(f, "{bytes:#x} bytes from {start} on end behind the address space"),
        }
    }
}

impl core::error::Error for AddressError {}

/// A present entry with bits set that must be zero: the hardware raises a page fault with RSVD for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// The level.
    pub level: Level,
    /// The entry.
    pub entry: Entry,
    /// Those of its bits that must be zero.
    pub reserved: u64,
    /// The address on whose way it was found.
    pub address: VirtAddr,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, entry, reserved, address } = self;
        write!(f, "malformed {level} entry {entry} on the way to {address}: bits {reserved:#x} are reserved")
    }
}

impl core::error::Error for Malformed {}

/// There is no table in this frame, or none at this address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotATable {
    /// Where a table should have been.
    pub address: PhysAddr,
}

impl fmt::Display for NotATable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no page table at {}", self.address)
    }
}

impl core::error::Error for NotATable {}

/// Not a root of this mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadRoot {
    /// The address.
    pub address: PhysAddr,
    /// What it must be a multiple of.
    pub align: u64,
    /// What it must be below.
    pub end: u64,
    /// The mode's name.
    pub mode: &'static str,
}

impl fmt::Display for BadRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, align, end, mode } = self;
        write!(f, "{address} cannot be the root of {mode}: it must be a multiple of {align:#x} below {end:#x}")
    }
}

impl core::error::Error for BadRoot {}

/// Why a walk ended before it came to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkError {
    /// The mode does not translate the address.
    Address(AddressError),
    /// An entry is not present: none, or an encoding that [`Entry::non_present`] names.
    NotPresent {
        /// The address.
        address: VirtAddr,
        /// The level of the entry.
        level: Level,
        /// The entry.
        entry: Entry,
    },
    /// An entry has reserved bits set.
    Malformed(Malformed),
    /// An entry points to a frame that holds no table.
    NotATable {
        /// The address.
        address: VirtAddr,
        /// The level of the entry; the root's own level if it is the root that is no table.
        level: Level,
        /// Where the table should be.
        table: NotATable,
    },
    /// A leaf was found where the caller needs a table.
    Leaf {
        /// The address.
        address: VirtAddr,
        /// The level of the leaf.
        level: Level,
        /// The leaf.
        entry: Entry,
    },
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::NotPresent { address, level, entry } => {
                write!(f, "{address} is not mapped: its {level} entry is {entry}")
            }
            Self::Malformed(error) => error.fmt(f),
            Self::NotATable { address, level, table } => write!(f, "the {level} entry for {address} is wrong: {table}"),
            Self::Leaf { address, level, entry } => {
                write!(f, "{address} is mapped by a {level} leaf, {entry}, where a table is needed")
            }
        }
    }
}

impl core::error::Error for WalkError {}

impl From<AddressError> for WalkError {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

impl From<Malformed> for WalkError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

/// The frame source is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfFrames;

impl fmt::Display for OutOfFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of frames for page tables")
    }
}

impl core::error::Error for OutOfFrames {}

/// Why a page was not mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// The way to the page is blocked.
    Walk(WalkError),
    /// Something is there already, present or not.
    AlreadyMapped {
        /// The first address with something there.
        address: VirtAddr,
        /// The level of the entry.
        level: Level,
        /// What is there.
        entry: Entry,
    },
    /// A leaf of this level cannot start at this frame.
    BadLeaf(BadLeaf),
    /// The frame lies above the machine's physical width.
    TooWide {
        /// The frame.
        frame: Frame,
        /// The width in bits.
        width: u32,
    },
    /// A table is missing and there is no frame for it.
    OutOfFrames {
        /// The address.
        address: VirtAddr,
        /// The level of the table that is missing.
        level: Level,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Walk(error) => error.fmt(f),
            Self::AlreadyMapped { address, level, entry } => {
                write!(f, "{address} is taken already: its {level} entry is {entry}")
            }
            Self::BadLeaf(error) => error.fmt(f),
            Self::TooWide { frame, width } => write!(f, "frame {frame} has no address of {width} bits"),
            Self::OutOfFrames { address, level } => write!(f, "out of frames for a {level} table for {address}"),
        }
    }
}

impl core::error::Error for MapError {}

impl<E: Into<WalkError>> From<E> for MapError {
    fn from(error: E) -> Self {
        Self::Walk(error.into())
    }
}

impl From<BadLeaf> for MapError {
    fn from(error: BadLeaf) -> Self {
        Self::BadLeaf(error)
    }
}
