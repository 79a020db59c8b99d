//! Software bits as a reserved resource.
//!
//! The hardware ignores a few bits of an entry; software gives them meanings. Linux hands them out by
//! convention, and has had users collide. Here a [`Layout`] lists every use of a mode, and *two users of one
//! bit at one level do not compile*; neither does a use of a bit that the mode reserves. The table of
//! `docs/software-bits.md` is generated from the layouts.
//!
//! Which half of an entry a bit lies in matters where entries are read in halves: a bit in the low dword
//! travels with present, PS and the low frame number, so that no torn read shows these without it. One in the
//! high dword does not. That is why the choice of the special bit is a type of its own, [`SpecialBit`].
//!
//! # A kernel's own use of a bit
//!
//! ```
//! use pagetable::software::{Claim, Layout, Levels, Mark, On, Softw2, Softw4, Available};
//!
//! const POISONED: Claim = Claim::new::<Softw4>("poisoned", On::Leaf, Levels::PTE, "do not read: the memory failed");
//! const COW: Claim = Claim::new::<Softw2>("cow", On::Leaf, Levels::PTE, "copy before the first write");
//! const MINE: Layout<2> = Layout::new(Available::LONG_MODE, [POISONED, COW]);
//! const COW_BIT: Mark = MINE.mark(COW);
//! assert_eq!(COW_BIT.bits(), 1 << 10);
//! ```
//!
//! Two users of one bit at one level:
//!
//! ```compile_fail,E0080
//! # use pagetable::software::{Claim, Layout, Levels, On, Softw2, Available};
//! const ONE: Claim = Claim::new::<Softw2>("one", On::Leaf, Levels::PTE, "");
//! const TWO: Claim = Claim::new::<Softw2>("two", On::Leaf, Levels::PTE.and(Levels::PMD), "");
//! const BOTH: Layout<2> = Layout::new(Available::LONG_MODE, [ONE, TWO]);
//! ```
//!
//! The same bit at different levels is fine:
//!
//! ```
//! # use pagetable::software::{Claim, Layout, Levels, On, Softw2, Available};
//! const ONE: Claim = Claim::new::<Softw2>("one", On::Leaf, Levels::PTE, "");
//! const TWO: Claim = Claim::new::<Softw2>("two", On::Leaf, Levels::PMD, "");
//! const BOTH: Layout<2> = Layout::new(Available::LONG_MODE, [ONE, TWO]);
//! ```
//!
//! A bit that PAE reserves (bits 62:MAXPHYADDR of its entries must be zero):
//!
//! ```compile_fail,E0080
//! # use pagetable::software::{self, Layout, Softw5};
//! const HIGH: Layout<3> = software::pae::<Softw5>();
//! ```
//!
//! Special in the bit that 64-bit kernels use for saved-dirty:
//!
//! ```compile_fail,E0080
//! # use pagetable::software::{self, Layout, Softw5};
//! const HIGH: Layout<5> = software::long_mode::<Softw5>();
//! ```

use core::fmt;

use crate::level::Level;

/// One bit of an entry that the hardware ignores and software has given a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark(u64);

impl Mark {
    /// As a bit of an entry.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Which half of the entry it lies in.
    #[inline]
    pub const fn dword(self) -> Dword {
        if self.0 >> 32 == 0 { Dword::Low } else { Dword::High }
    }
}

/// Half of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dword {
    /// Bits 31:0, with present, the rights but XD, accessed, dirty, PS and the low part of the frame number.
    Low,
    /// Bits 63:32, with the rest of the frame number and XD.
    High,
}

impl fmt::Display for Dword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Low => "low",
            Self::High => "high",
        })
    }
}

/// The position of a software bit, as a type.
pub trait SoftwareBit: Copy + Default + fmt::Debug + 'static {
    /// 0 to 63.
    const BIT: u32;
    /// What Linux calls it.
    const NAME: &'static str;
}

/// Which bit says "special": a protocol choice, because it decides whether a torn read can hide it.
pub trait SpecialBit {
    /// The bit.
    fn mark(&self) -> Mark;
}

macro_rules! software_bit {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct $name;

        impl SoftwareBit for $name {
            const BIT: u32 = $bit;
            const NAME: &'static str = stringify!($name);
        }

        impl SpecialBit for $name {
            #[inline(always)]
            fn mark(&self) -> Mark {
                Mark(1 << $bit)
            }
        }
    )*};
}

software_bit! {
    /// Bit 9. Special lies here in Linux, at pte, pmd and pud: in the low dword, beside present and PS.
    Softw1 = 9;
    /// Bit 10.
    Softw2 = 10;
    /// Bit 11.
    Softw3 = 11;
    /// Bit 57, in the high dword. Reserved on x86 PAE.
    Softw4 = 57;
    /// Bit 58, in the high dword. Reserved on x86 PAE (SDM vol. 3A, tables 4-9 and 4-11), so that only 64-bit
    /// modes have it: see [`crate::Pae::with_ignored_high_bits`].
    Softw5 = 58;
}

/// A set of levels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Levels(u8);

impl Levels {
    /// Just [`Level::Pte`].
    pub const PTE: Self = Self::only(Level::Pte);
    /// Just [`Level::Pmd`].
    pub const PMD: Self = Self::only(Level::Pmd);
    /// Just [`Level::Pud`].
    pub const PUD: Self = Self::only(Level::Pud);

    /// Just this level.
    pub const fn only(level: Level) -> Self {
        Self(1 << level as u8)
    }

    /// These levels and `more`.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether the level is among them.
    pub const fn contain(self, level: Level) -> bool {
        self.0 >> level as u8 & 1 != 0
    }

    const fn intersect(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Which entries of a level a use is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum On {
    /// Entries that map pages.
    Leaf,
    /// Entries that point to tables.
    Table,
}

impl On {
    const fn equals(self, other: Self) -> bool {
        matches!((self, other), (Self::Leaf, Self::Leaf) | (Self::Table, Self::Table))
    }
}

/// One use of one bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// What the use is called.
    pub name: &'static str,
    /// What Linux calls the bit.
    pub bit_name: &'static str,
    /// The bit, 0 to 63.
    pub bit: u32,
    /// On which entries.
    pub on: On,
    /// At which levels.
    pub levels: Levels,
    /// What the bit says.
    pub meaning: &'static str,
}

impl Claim {
    /// A use of bit `B`.
    pub const fn new<B: SoftwareBit>(name: &'static str, on: On, levels: Levels, meaning: &'static str) -> Self {
        Self { name, bit_name: B::NAME, bit: B::BIT, on, levels, meaning }
    }
}

/// The bits that a mode leaves to software, for certain: whatever the physical width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Available {
    /// What the mode is called.
    pub mode: &'static str,
    /// The bits.
    pub bits: u64,
}

impl Available {
    /// Bits 11:9 and 58:52 of 4- and 5-level paging; 62:59 may hold a protection key (SDM vol. 3A, tables 4-15
    /// to 4-20).
    pub const LONG_MODE: Self = Self { mode: "x86-64, 4 and 5 levels", bits: LOW | HIGH };
    /// Bits 11:9 of PAE: everything above the frame number but XD is reserved (SDM vol. 3A, tables 4-9 to 4-11).
    pub const PAE: Self = Self { mode: "x86 PAE", bits: LOW };
    /// What [`crate::Pae::with_ignored_high_bits`] has.
    pub const PAE_WITH_IGNORED_HIGH_BITS: Self = Self { mode: "PAE that ignores 58:52 (no x86)", bits: LOW | HIGH };
}

/// Bits 11:9: ignored in every present entry of every mode.
pub(crate) const LOW: u64 = 0b111 << 9;
/// Bits 58:52.
pub(crate) const HIGH: u64 = 0x7f << 52;

/// Every use of the software bits of a mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout<const N: usize> {
    available: Available,
    claims: [Claim; N],
}

impl<const N: usize> Layout<N> {
    /// The layout with these uses. To be evaluated at compile time: `const MINE: Layout<2> = Layout::new(..)`.
    ///
    /// # Panics
    /// Two uses want one bit on the same entries of the same level, or one wants a bit that the mode does not
    /// leave to software.
    pub const fn new(available: Available, claims: [Claim; N]) -> Self {
        let mut one = 0;
        while one < N {
            assert!(claims[one].bit < 64 && available.bits >> claims[one].bit & 1 != 0, "the mode reserves this bit");
            let mut other = one + 1;
            while other < N {
                let (a, b) = (claims[one], claims[other]);
                let collide = a.bit == b.bit && a.on.equals(b.on) && a.levels.intersect(b.levels);
                assert!(!collide, "two users of one software bit at one level");
                other += 1;
            }
            one += 1;
        }
        Self { available, claims }
    }

    /// The mark of one of the layout's uses.
    ///
    /// # Panics
    /// It is none of them: at compile time, if it is a constant that is asked for.
    pub const fn mark(&self, claim: Claim) -> Mark {
        let mut at = 0;
        while at < N {
            let found = self.claims[at];
            if found.bit == claim.bit && found.on.equals(claim.on) && found.levels.0 & claim.levels.0 == claim.levels.0
            {
                return Mark(1 << claim.bit);
            }
            at += 1;
        }
        panic!("the layout has no such use")
    }

    /// What the mode leaves to software.
    pub const fn available(&self) -> Available {
        self.available
    }

    /// The uses.
    pub const fn claims(&self) -> &[Claim; N] {
        &self.claims
    }
}

const PTE_AND_PMD: Levels = Levels::PTE.and(Levels::PMD);
const ALL_LEAVES: Levels = PTE_AND_PMD.and(Levels::PUD);

/// Special, at the levels of `levels`, in the bit `B`.
const fn special<B: SpecialBit + SoftwareBit>(levels: Levels) -> Claim {
    Claim::new::<B>("special", On::Leaf, levels, "a driver's mapping: no page behind it that fast GUP may touch")
}

/// Linux: `_PAGE_UFFD_WP`.
pub const UFFD_WP: Claim =
    Claim::new::<Softw2>("uffd-wp", On::Leaf, PTE_AND_PMD, "userfaultfd wants to know of the next write");
/// Linux: `_PAGE_SOFT_DIRTY`.
pub const SOFT_DIRTY: Claim =
    Claim::new::<Softw3>("soft-dirty", On::Leaf, PTE_AND_PMD, "written since a checkpointing tool last looked");
/// Linux: `_PAGE_SAVED_DIRTY` on 64-bit.
pub const SAVED_DIRTY: Claim = Claim::new::<Softw5>(
    "saved-dirty",
    On::Leaf,
    ALL_LEAVES,
    "dirty, kept while the page is write-protected (shadow stacks)",
);
/// Linux: `_PAGE_SAVED_DIRTY` on 32-bit, in the bit of uffd-wp, which 32-bit does not have.
pub const SAVED_DIRTY_PAE: Claim = Claim::new::<Softw2>("saved-dirty", On::Leaf, PTE_AND_PMD, SAVED_DIRTY.meaning);
/// Linux until 6.16: `_PAGE_DEVMAP`.
pub const DEVMAP: Claim = Claim::new::<Softw4>(
    "devmap (historic)",
    On::Leaf,
    ALL_LEAVES,
    "device memory with page metadata; gone since Linux 6.17",
);

/// The layout of 4- and 5-level paging, with special in `B`.
///
/// # Panics
/// `B` is taken; at compile time, if a constant is asked for.
pub const fn long_mode<B: SpecialBit + SoftwareBit>() -> Layout<5> {
    Layout::new(Available::LONG_MODE, [special::<B>(ALL_LEAVES), UFFD_WP, SOFT_DIRTY, SAVED_DIRTY, DEVMAP])
}

/// The layout of PAE, with special in `B`.
///
/// # Panics
/// `B` is taken or reserved; at compile time, if a constant is asked for.
pub const fn pae<B: SpecialBit + SoftwareBit>() -> Layout<3> {
    Layout::new(Available::PAE, [special::<B>(PTE_AND_PMD), SAVED_DIRTY_PAE, SOFT_DIRTY])
}

/// The layout of [`crate::Pae::with_ignored_high_bits`], with special in `B`.
///
/// # Panics
/// `B` is taken; at compile time, if a constant is asked for.
pub const fn pae_with_ignored_high_bits<B: SpecialBit + SoftwareBit>() -> Layout<3> {
    Layout::new(Available::PAE_WITH_IGNORED_HIGH_BITS, [special::<B>(PTE_AND_PMD), SAVED_DIRTY_PAE, SOFT_DIRTY])
}

/// 4- and 5-level paging as Linux uses it.
pub const LONG_MODE: Layout<5> = long_mode::<Softw1>();
/// PAE as Linux uses it.
pub const PAE: Layout<3> = pae::<Softw1>();
/// What the thread of March 2021 weighed against that: special in the high dword, on a machine that lets it.
pub const PAE_SPECIAL_HIGH: Layout<3> = pae_with_ignored_high_bits::<Softw5>();
