//! One entry, as a value.

use core::fmt;

use machine::addr::PAGE_SHIFT;
use machine::{Frame, ProtectionKey};

use crate::level::Level;
use crate::rights::{Attributes, Flags, Rights, rights_of};
use crate::software::Mark;

/// The bits of an entry (SDM vol. 3A, tables 4-8 to 4-11 for PAE, 4-14 to 4-20 for 4- and 5-level).
pub(crate) mod bits {
    pub(crate) const PRESENT: u64 = 1 << 0;
    pub(crate) const WRITE: u64 = 1 << 1;
    pub(crate) const USER: u64 = 1 << 2;
    pub(crate) const WRITE_THROUGH: u64 = 1 << 3;
    pub(crate) const CACHE_DISABLE: u64 = 1 << 4;
    pub(crate) const ACCESSED: u64 = 1 << 5;
    pub(crate) const DIRTY: u64 = 1 << 6;
    /// PS: this entry of a pmd or pud table is a leaf.
    pub(crate) const HUGE: u64 = 1 << 7;
    /// Where a 4 KiB leaf has its PAT bit: the place of PS.
    pub(crate) const PAT_4K: u64 = 1 << 7;
    pub(crate) const GLOBAL: u64 = 1 << 8;
    /// Where a 2 MiB or 1 GiB leaf has its PAT bit: the lowest bit of the frame number, which alignment leaves free.
    pub(crate) const PAT_HUGE: u64 = 1 << 12;
    /// Of user pages in long mode (SDM vol. 3A, 4.6.2).
    pub(crate) const PROTECTION_KEY: u64 = 0xf << PROTECTION_KEY_SHIFT;
    pub(crate) const PROTECTION_KEY_SHIFT: u32 = 59;
    pub(crate) const NO_EXECUTE: u64 = 1 << 63;
    /// The frame number of a 4 KiB leaf or of a table at the greatest physical width, 52 bits.
    pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    pub(crate) const RIGHTS: u64 = WRITE | USER | NO_EXECUTE;
}

/// The value of a page-table entry: a copy, on which one may decide in peace.
///
/// Reading one from a table is a protocol of its own: see [`crate::read`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Entry(u64);

impl Entry {
    /// The entry that maps nothing and remembers nothing.
    pub const NONE: Self = Self(0);

    /// The entry with these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The entry that two 32-bit loads found.
    #[inline(always)]
    pub const fn from_halves(low: u32, high: u32) -> Self {
        Self((high as u64) << 32 | low as u64)
    }

    /// Bits 31:0.
    #[inline(always)]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// Bits 63:32.
    #[inline(always)]
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// An entry of `level` that maps `frame` and the frames after it: 1, 512 or 262144 of them.
    ///
    /// # Errors
    /// The frame is not aligned to the size of the page, lies above 2^52, or `level` has no leaves.
    #[inline]
    pub const fn leaf(level: Level, frame: Frame, attributes: Attributes) -> Result<Self, BadLeaf> {
        if !level.may_be_leaf()
            || frame.number() & (level.frames() - 1) != 0
            || frame.number() >> (52 - PAGE_SHIFT) != 0
        {
            return Err(BadLeaf { level, frame });
        }
        Ok(Self::leaf_unchecked(level, frame, attributes))
    }

    /// [`Self::leaf`] where the frame is known to be aligned and narrow enough.
    #[inline(always)]
    pub(crate) const fn leaf_unchecked(level: Level, frame: Frame, attributes: Attributes) -> Self {
        let address = frame.number() << PAGE_SHIFT;
        let set = attributes.bits();
        Self(match level {
            Level::Pte => address | set,
            _ => address | set & !bits::PAT_4K | bits::HUGE | (set & bits::PAT_4K) << 5,
        })
    }

    /// An entry that points to the table in `frame`, at 4- and 5-level paging and for the pmd tables of PAE: it
    /// allows everything, so that the leaves decide alone. Accessed is set: a CPU would set it at the first
    /// walk anyway, by a locked access.
    #[inline]
    pub const fn table(frame: Frame) -> Self {
        let address = frame.number() << PAGE_SHIFT & bits::ADDRESS;
        Self(address | bits::PRESENT | bits::WRITE | bits::USER | bits::ACCESSED)
    }

    /// A PDPTE of PAE. It has neither rights nor an accessed bit: bits 2:1 and 8:5 are reserved (SDM vol. 3A,
    /// table 4-8).
    #[inline]
    pub const fn pae_pdpte(frame: Frame) -> Self {
        Self(frame.number() << PAGE_SHIFT & bits::ADDRESS | bits::PRESENT)
    }

    /// Whether the entry is empty: it maps nothing and remembers nothing.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether the hardware would use the entry (P). A PROT_NONE page is *not* present in this sense:
    /// see [`crate::NonPresent`].
    #[inline(always)]
    pub const fn is_present(self) -> bool {
        self.0 & bits::PRESENT != 0
    }

    /// Whether an entry of `level` maps pages itself. Says nothing about its being present.
    #[inline(always)]
    pub const fn is_leaf(self, level: Level) -> bool {
        match level {
            Level::Pte => true,
            Level::Pmd | Level::Pud => self.0 & bits::HUGE != 0,
            Level::P4d | Level::Pgd => false,
        }
    }

    /// The frame of the table that the entry points to, or of a 4 KiB leaf.
    #[inline(always)]
    pub const fn table_frame(self) -> Frame {
        Frame::new((self.0 & bits::ADDRESS) >> PAGE_SHIFT)
    }

    /// The first frame that a leaf of `level` maps.
    #[inline(always)]
    pub const fn leaf_frame(self, level: Level) -> Frame {
        Frame::new((self.0 & bits::ADDRESS) >> PAGE_SHIFT & !(level.frames() - 1))
    }

    /// What a leaf of `level` says besides its frame.
    #[inline]
    pub const fn attributes(self, level: Level) -> Attributes {
        match level {
            Level::Pte => Attributes::from_bits(self.0),
            _ => Attributes::from_bits(self.0 & !bits::HUGE | self.0 >> 5 & bits::PAT_4K),
        }
    }

    /// The rights that this entry gives by itself; those of a page are the intersection along its path. Not for
    /// PDPTEs of PAE, which have none.
    #[inline]
    pub const fn rights(self) -> Rights {
        rights_of(self.0)
    }

    /// The same with other rights.
    #[inline]
    #[must_use]
    pub const fn with_rights(self, rights: Rights) -> Self {
        Self(self.0 & !bits::RIGHTS | Attributes::new(rights).bits() & bits::RIGHTS)
    }

    /// The protection key of a leaf: bits 62:59. Only in modes that [have keys](crate::Mode::has_protection_keys); in others the bits of a well-formed entry are zero.
    #[inline(always)]
    pub const fn protection_key(self) -> ProtectionKey {
        ProtectionKey::from_low_bits(self.0 >> bits::PROTECTION_KEY_SHIFT)
    }

    /// The same with another protection key.
    #[inline(always)]
    #[must_use]
    pub const fn with_protection_key(self, key: ProtectionKey) -> Self {
        Self(self.0 & !bits::PROTECTION_KEY | (key.number() as u64) << bits::PROTECTION_KEY_SHIFT)
    }

    /// Whether all these flags are set.
    #[inline(always)]
    pub const fn has(self, flags: Flags) -> bool {
        self.low() & flags.bits() == flags.bits()
    }

    /// The same with these flags set.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, flags: Flags) -> Self {
        Self(self.0 | flags.bits() as u64)
    }

    /// The same with these flags clear.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, flags: Flags) -> Self {
        Self(self.0 & !(flags.bits() as u64))
    }

    /// Whether a software bit is set.
    #[inline(always)]
    pub const fn is_marked(self, mark: Mark) -> bool {
        self.0 & mark.bits() != 0
    }

    /// The same with a software bit set.
    #[inline(always)]
    #[must_use]
    pub const fn with_mark(self, mark: Mark) -> Self {
        Self(self.0 | mark.bits())
    }

    /// The same with a software bit clear.
    #[inline(always)]
    #[must_use]
    pub const fn without_mark(self, mark: Mark) -> Self {
        Self(self.0 & !mark.bits())
    }
}

/// No leaf of this level can map this frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadLeaf {
    /// The level asked for.
    pub level: Level,
    /// The frame asked for.
    pub frame: Frame,
}

impl fmt::Display for BadLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, frame } = self;
        if level.may_be_leaf() {
            write!(
                f,
                "frame {frame} cannot start a {level} leaf: it must be a multiple of {:#x} below 2^40",
                level.frames()
            )
        } else {
            write!(f, "there are no leaves at the {level} level")
        }
    }
}

impl core::error::Error for BadLeaf {}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({:#x})", self.0)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}
