//! Entries that the hardware does not use and software does: swap, migration, markers, PROT_NONE.
//!
//! An entry without P is ignored by the hardware, all 63 other bits are software's. Two things must still be
//! true of them:
//!
//! * **none** is all zeros, and nothing else encodes as that;
//! * a speculative load through such an entry may take its address bits for a frame number, present or not (L1
//!   terminal fault, CVE-2018-3620). So numbers in bits 51:12 are kept *inverted*: the address lies then in the
//!   highest part of the 52-bit space, where no cacheable memory is.
//!
//! ```text
//!  63    59 58                                 9  8  7  6  5  4  3  2  1  0
//! | kind   | ~ offset or ~ frame                | 0| 0| x| x| x| 0| x| x| 0|   swap, migration, marker
//! | a leaf's bits, its frame inverted           | 1| a leaf's bits      | 0|   PROT_NONE
//! ```
//! A migration entry also has the protection key that the leaf had, inverted, in 55:52: above the frame, and above what a load could take for an address.
//!
//! The flags 1 to 6 are soft-dirty (1), uffd-wp (2), young (4), dirty (5) and PROT_NONE (6); 3 and 7 are zero. A
//! huge PROT_NONE leaf keeps its PS (7).

use core::fmt;

use machine::addr::PAGE_SHIFT;
use machine::{Frame, ProtectionKey};

use crate::entry::{Entry, bits};
use crate::level::Level;
use crate::rights::Attributes;

/// What a non-present entry remembers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NonPresent {
    /// The page is on a swap device.
    Swap(Swap),
    /// The page is being moved to another frame: whoever faults here waits.
    Migration(Migration),
    /// No page, but something to know about its place.
    Marker(Marker),
    /// A leaf that user mode must not use for now: PROT_NONE, or a NUMA hint. **Present for software** (the
    /// frame is held by the mapping), not for the hardware.
    ProtNone(ProtNone),
}

/// Where a page lies on swap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Swap {
    /// Which swap device.
    pub device: SwapDevice,
    /// Which page of it.
    pub offset: SwapOffset,
    /// Flags that survive the page's absence.
    pub flags: SwapFlags,
}

/// The number of a swap device, 0 to 27.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SwapDevice(u8);

/// The number of a page on a swap device, below 2^50 - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SwapOffset(u64);

/// What is remembered of a page that is away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SwapFlags(u8);

/// A page on its way to another frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Migration {
    /// The frame that it leaves.
    pub from: Frame,
    /// What the mapping allowed.
    pub access: MigrationAccess,
    /// The protection key of the leaf, past and future.
    pub key: ProtectionKey,
    /// Flags that go back into the leaf afterwards.
    pub flags: SwapFlags,
}

/// What the mapping of a page under migration allowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MigrationAccess {
    /// Reading, and the page may be shared.
    Read,
    /// Reading, and the page belongs to this address space alone.
    ReadExclusive,
    /// Writing.
    Write,
}

/// What a marker says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Marker {
    /// userfaultfd write-protects what will be mapped here.
    UffdWriteProtect,
    /// What was here is lost (memory failure): a fault raises SIGBUS.
    Poisoned,
    /// Nobody may map anything here: a guard region (`MADV_GUARD_INSTALL`).
    Guard,
}

/// A leaf that only software regards as present.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProtNone {
    /// The first frame of the leaf.
    pub frame: Frame,
    /// The leaf's attributes, those before it became PROT_NONE, but for global: its bit says PROT_NONE here.
    pub attributes: Attributes,
}

impl SwapDevice {
    /// The device with this number; `None` above 27: the other kinds need the rest.
    #[inline]
    pub const fn new(number: u8) -> Option<Self> {
        if number < kind::FIRST_RESERVED { Some(Self(number)) } else { None }
    }

    /// The number.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl SwapOffset {
    /// The offset with this number; `None` from 2^50 - 1 on.
    #[inline]
    pub const fn new(number: u64) -> Option<Self> {
        // The greatest 50-bit number would make device 0 without flags encode as none.
        if number < OFFSET { Some(Self(number)) } else { None }
    }

    /// The number.
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl SwapFlags {
    /// The page was written since the last look of a checkpointing tool.
    pub const SOFT_DIRTY: Self = Self(1 << 1);
    /// userfaultfd write-protects the page.
    pub const UFFD_WP: Self = Self(1 << 2);
    /// The leaf was accessed.
    pub const YOUNG: Self = Self(1 << 4);
    /// The leaf was dirty.
    pub const DIRTY: Self = Self(1 << 5);
    /// The leaf was PROT_NONE.
    pub const PROT_NONE: Self = Self(1 << 6);
    const ALL: u8 = 0b111_0110;

    /// These flags and `more`.
    #[inline]
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// These flags without `less`.
    #[inline]
    #[must_use]
    pub const fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }

    /// Whether all of `flags` are set.
    #[inline]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// Bits 63:59.
mod kind {
    pub(super) const SHIFT: u32 = 59;
    pub(super) const FIRST_RESERVED: u8 = 28;
    pub(super) const MARKER: u8 = 28;
    pub(super) const MIGRATION_READ: u8 = 29;
    pub(super) const MIGRATION_READ_EXCLUSIVE: u8 = 30;
    pub(super) const MIGRATION_WRITE: u8 = 31;
}

const OFFSET_SHIFT: u32 = 9;
/// 50 bits.
const OFFSET: u64 = (1 << 50) - 1;
/// Of the number of a migration entry: the frame that the page leaves ...
const MIGRATION_FRAME: u64 = bits::ADDRESS >> PAGE_SHIFT;
/// ... and the protection key, in bits 55:52 of the entry.
const MIGRATION_KEY_SHIFT: u32 = 52 - OFFSET_SHIFT;
const MIGRATION_KEY: u64 = (ProtectionKey::COUNT as u64 - 1) << MIGRATION_KEY_SHIFT;
/// The place of GLOBAL, which means nothing while P is clear.
const PROT_NONE: u64 = bits::GLOBAL;

/// Bits 58:9 hold the number inverted; of a small number the address bits are therefore nearly all ones.
const fn encode(kind: u8, number: u64, flags: SwapFlags) -> Entry {
    Entry::from_bits((kind as u64) << kind::SHIFT | (!number & OFFSET) << OFFSET_SHIFT | flags.0 as u64)
}

/// The bits of a leaf of `level` that hold its frame.
const fn frame_bits(level: Level) -> u64 {
    bits::ADDRESS & !(level.size() - 1)
}

/// An entry without P that no encoding explains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownEncoding {
    /// The entry.
    pub entry: Entry,
    /// The level it was read at.
    pub level: Level,
}

impl fmt::Display for UnknownEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "non-present {} entry {} has no known encoding", self.level, self.entry)
    }
}

impl core::error::Error for UnknownEncoding {}

impl NonPresent {
    /// The entry of `level` that remembers this.
    ///
    /// A frame above 2^40 loses its upper bits: no physical address has them.
    pub const fn encode(self, level: Level) -> Entry {
        match self {
            Self::Swap(Swap { device, offset, flags }) => encode(device.0, offset.0, flags),
            Self::Migration(Migration { from, access, key, flags }) => {
                let kind = match access {
                    MigrationAccess::Read => kind::MIGRATION_READ,
                    MigrationAccess::ReadExclusive => kind::MIGRATION_READ_EXCLUSIVE,
                    MigrationAccess::Write => kind::MIGRATION_WRITE,
                };
                let key = (key.number() as u64) << MIGRATION_KEY_SHIFT;
                encode(kind, from.number() & MIGRATION_FRAME | key, flags)
            }
            Self::Marker(marker) => {
                let number = match marker {
                    Marker::UffdWriteProtect => 1,
                    Marker::Poisoned => 2,
                    Marker::Guard => 3,
                };
                encode(kind::MARKER, number, SwapFlags(0))
            }
            Self::ProtNone(ProtNone { frame, attributes }) => {
                let leaf = Entry::leaf_unchecked(level, frame, attributes).bits();
                Entry::from_bits(leaf & !bits::PRESENT & !PROT_NONE ^ frame_bits(level) | PROT_NONE)
            }
        }
    }
}

impl Entry {
    /// What a non-present entry remembers; `None` if it is none, or present.
    ///
    /// # Errors
    /// It is neither, and no encoding explains it.
    pub const fn non_present(self, level: Level) -> Result<Option<NonPresent>, UnknownEncoding> {
        let entry = self.bits();
        let unknown = Err(UnknownEncoding { entry: self, level });
        if self.is_none() || self.is_present() {
            return Ok(None);
        }
        if entry & PROT_NONE != 0 {
            let leaf = Self::from_bits(entry & !PROT_NONE ^ frame_bits(level) | bits::PRESENT);
            if !level.may_be_leaf() || !leaf.is_leaf(level) {
                return unknown;
            }
            let found = ProtNone { frame: leaf.leaf_frame(level), attributes: leaf.attributes(level) };
            return if NonPresent::ProtNone(found).encode(level).bits() == entry {
                Ok(Some(NonPresent::ProtNone(found)))
            } else {
                unknown
            };
        }
        let number = !(entry >> OFFSET_SHIFT) & OFFSET;
        let flags = SwapFlags(entry as u8 & SwapFlags::ALL);
        if entry & 0xff != flags.0 as u64 {
            return unknown;
        }
        let access = match (entry >> kind::SHIFT) as u8 {
            kind::MARKER => {
                let marker = match number {
                    1 => Marker::UffdWriteProtect,
                    2 => Marker::Poisoned,
                    3 => Marker::Guard,
                    _ => return unknown,
                };
                return if flags.0 == 0 { Ok(Some(NonPresent::Marker(marker))) } else { unknown };
            }
            kind::MIGRATION_READ => MigrationAccess::Read,
            kind::MIGRATION_READ_EXCLUSIVE => MigrationAccess::ReadExclusive,
            kind::MIGRATION_WRITE => MigrationAccess::Write,
            device => {
                return match SwapOffset::new(number) {
                    Some(offset) => Ok(Some(NonPresent::Swap(Swap { device: SwapDevice(device), offset, flags }))),
                    None => unknown,
                };
            }
        };
        if number & !(MIGRATION_FRAME | MIGRATION_KEY) != 0 {
            return unknown;
        }
        let key = ProtectionKey::from_low_bits(number >> MIGRATION_KEY_SHIFT);
        let from = Frame::new(number & MIGRATION_FRAME);
        Ok(Some(NonPresent::Migration(Migration { from, access, key, flags })))
    }

    /// Whether the entry holds a page, for software: present, or PROT_NONE. Linux's `pte_present`.
    #[inline]
    pub const fn holds_page(self) -> bool {
        self.is_present() || self.bits() & PROT_NONE != 0
    }

    /// Whether this is a PROT_NONE leaf (or a NUMA hint).
    #[inline]
    pub const fn is_prot_none(self) -> bool {
        !self.is_present() && self.bits() & PROT_NONE != 0
    }
}
