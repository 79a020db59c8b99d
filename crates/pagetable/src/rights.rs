//! What a mapping allows, and how it is cached.

use core::fmt;

use machine::ProtectionKey;

use crate::entry::{Entry, bits};
use crate::level::Level;
use crate::software::{SOFT_DIRTY, UFFD_WP};

/// What a leaf allows. Reading is always allowed: x86 has no other kind of mapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Reading only, by the kernel only.
    pub const READ: Self = Self(0);
    /// Writing (R/W).
    pub const WRITE: Self = Self(1);
    /// Fetching instructions (not XD).
    pub const EXECUTE: Self = Self(2);
    /// Access from user mode (U/S).
    pub const USER: Self = Self(4);

    /// These rights and `more`.
    #[inline]
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// These rights without `less`.
    #[inline]
    #[must_use]
    pub const fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }

    /// Whether these rights include all of `wanted`.
    #[inline]
    pub const fn allow(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// What is left when one entry on the path gives `self` and another gives `other`.
    #[inline]
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |right: Self, letter: char| if self.allow(right) { letter } else { '-' };
        write!(f, "r{}{}{}", letter(Self::WRITE, 'w'), letter(Self::EXECUTE, 'x'), letter(Self::USER, 'u'))
    }
}

/// Which of the eight entries of the PAT says how the page is cached (SDM vol. 3A, 12.12).
///
/// The named ones mean what the PAT holds after reset (SDM vol. 3A, table 12-12); a kernel that programs the
/// PAT uses [`Self::slot`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Cache(u8);

impl Cache {
    /// Ordinary memory.
    pub const WRITE_BACK: Self = Self(0);
    /// Reads cached, writes go through.
    pub const WRITE_THROUGH: Self = Self(1);
    /// Uncached unless an MTRR says write-combining (UC-).
    pub const UNCACHED_MINUS: Self = Self(2);
    /// Never cached: device registers.
    pub const UNCACHED: Self = Self(3);

    /// The PAT slot with this number; `None` above 7.
    #[inline]
    pub const fn slot(number: u8) -> Option<Self> {
        if number < 8 { Some(Self(number)) } else { None }
    }

    /// The number of the PAT slot, 0 to 7: PAT, PCD and PWT read as one number.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Everything a leaf entry says besides which frame it maps: rights, protection key, caching, accessed and dirty, software bits.
///
/// Kept as the bits of a 4 KiB leaf. [`crate::Entry::leaf`] moves the PAT bit to where a huge leaf has it (bit
/// 12 instead of bit 7).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Attributes(u64);

impl Attributes {
    /// A page of ordinary memory with these rights.
    #[inline]
    pub const fn new(rights: Rights) -> Self {
        let mut set = bits::PRESENT;
        if rights.allow(Rights::WRITE) {
            set |= bits::WRITE;
        }
        if rights.allow(Rights::USER) {
            set |= bits::USER;
        }
        if !rights.allow(Rights::EXECUTE) {
            set |= bits::NO_EXECUTE;
        }
        Self(set)
    }

    /// The attributes in the bits of a present 4 KiB leaf.
    #[inline]
    pub(crate) const fn from_bits(entry: u64) -> Self {
        Self(entry & !bits::ADDRESS | bits::PRESENT)
    }

    /// The bits of a 4 KiB leaf without its frame; present.
    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The rights.
    #[inline]
    pub const fn rights(self) -> Rights {
        rights_of(self.0)
    }

    /// The same with other rights.
    #[inline]
    #[must_use]
    pub const fn with_rights(self, rights: Rights) -> Self {
        Self(self.0 & !bits::RIGHTS | Self::new(rights).0)
    }

    /// The protection key.
    #[inline]
    pub const fn protection_key(self) -> ProtectionKey {
        Entry::from_bits(self.0).protection_key()
    }

    /// The same with another protection key. Only for modes that [have keys](crate::Mode::has_protection_keys): elsewhere all but [`ProtectionKey::DEFAULT`] makes the entry malformed.
    #[inline]
    #[must_use]
    pub const fn with_protection_key(self, key: ProtectionKey) -> Self {
        Self(Entry::from_bits(self.0).with_protection_key(key).bits())
    }

    /// How the page is cached.
    #[inline]
    pub const fn cache(self) -> Cache {
        Cache((self.0 >> 3 & 3 | self.0 >> 5 & 4) as u8)
    }

    /// The same, cached otherwise.
    #[inline]
    #[must_use]
    pub const fn with_cache(self, cache: Cache) -> Self {
        let slot = cache.0 as u64;
        Self(self.0 & !(bits::WRITE_THROUGH | bits::CACHE_DISABLE | bits::PAT_4K) | (slot & 3) << 3 | (slot & 4) << 5)
    }

    /// The same with these flags set.
    #[inline]
    #[must_use]
    pub const fn with(self, flags: Flags) -> Self {
        Self(self.0 | flags.0 as u64)
    }

    /// The same with these flags clear.
    #[inline]
    #[must_use]
    pub const fn without(self, flags: Flags) -> Self {
        Self(self.0 & !(flags.0 as u64))
    }

    /// Whether all these flags are set.
    #[inline]
    pub const fn has(self, flags: Flags) -> bool {
        self.0 & flags.0 as u64 == flags.0 as u64
    }

    /// The same with a software bit set.
    #[inline]
    #[must_use]
    pub const fn with_mark(self, mark: crate::software::Mark) -> Self {
        Self(self.0 | mark.bits())
    }

    /// Whether a software bit is set.
    #[inline]
    pub const fn is_marked(self, mark: crate::software::Mark) -> bool {
        self.0 & mark.bits() != 0
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attributes({}, {}, {:#x})", self.rights(), self.protection_key(), self.0)
    }
}

/// The rights that one entry gives.
#[inline]
pub(crate) const fn rights_of(entry: u64) -> Rights {
    let write = (entry >> 1 & 1) as u8;
    let user = (entry >> 2 & 1) as u8;
    let execute = (!entry >> 63) as u8;
    Rights(write | execute << 1 | user << 2)
}

/// Bits of the low half that change by locked instructions while CPUs use the entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Flags(u32);

impl Flags {
    /// R/W: the mapping may be written.
    pub const WRITE: Self = Self(bits::WRITE as u32);
    /// A: a walk for a completed or speculative access used the entry (SDM vol. 3A, 4.8).
    pub const ACCESSED: Self = Self(bits::ACCESSED as u32);
    /// D: a store went through the leaf.
    pub const DIRTY: Self = Self(bits::DIRTY as u32);
    /// G: the translation survives a load of CR3.
    pub const GLOBAL: Self = Self(bits::GLOBAL as u32);
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Both bits that the hardware sets by itself.
    pub const ACCESSED_DIRTY: Self = Self::ACCESSED.and(Self::DIRTY);

    /// Uffd-wp, in leaves of 4 KiB and 2 MiB of the modes that have it: asked for by [`crate::Mode::uffd_wp`].
    pub(crate) const UFFD_WP: Self = Self(1 << UFFD_WP.bit);

    /// Soft-dirty in a leaf of this level: the same bit in every mode. Nothing where the level's leaves have no such bit (1 GiB).
    #[inline]
    pub const fn soft_dirty(level: Level) -> Self {
        if SOFT_DIRTY.levels.contain(level) { Self(1 << SOFT_DIRTY.bit) } else { Self::NONE }
    }

    /// These flags and `more`.
    #[inline]
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether any flag is among both.
    #[inline(always)]
    pub(crate) const fn intersect(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// As bits of an entry's low half.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }
}
