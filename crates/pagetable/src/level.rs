//! The levels of a page table.

use core::fmt;

use machine::VirtAddr;
use machine::addr::PAGE_SHIFT;

/// How many entries a full table has.
pub const ENTRIES: usize = 512;
const INDEX_BITS: u32 = 9;

/// A level of the table, named by how much one of its entries covers.
///
/// A mode has the levels from [`Level::Pte`] up to its root and no others: where Linux folds a level that is
/// missing, nothing of it remains here. The root of 4-level paging is therefore `P4d` (the SDM's PML4), that of
/// PAE is `Pud` (the four PDPTEs), though Linux calls both "the pgd".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Level {
    /// 4 KiB an entry. SDM: PTE.
    Pte = 0,
    /// 2 MiB an entry. SDM: PDE.
    Pmd = 1,
    /// 1 GiB an entry. SDM: PDPTE.
    Pud = 2,
    /// 512 GiB an entry. SDM: PML4E.
    P4d = 3,
    /// 256 TiB an entry. SDM: PML5E.
    Pgd = 4,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Self; 5] = [Self::Pte, Self::Pmd, Self::Pud, Self::P4d, Self::Pgd];

    /// The position of the lowest address bit that selects an entry of this level.
    #[inline(always)]
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + INDEX_BITS * self as u32
    }

    /// How many bytes of address space one entry covers.
    #[inline(always)]
    pub const fn size(self) -> u64 {
        1 << self.shift()
    }

    /// How many 4 KiB frames one entry covers.
    #[inline(always)]
    pub const fn frames(self) -> u64 {
        1 << (INDEX_BITS * self as u32)
    }

    /// The next level towards the pages.
    #[inline(always)]
    pub const fn lower(self) -> Option<Self> {
        match self {
            Self::Pte => None,
            Self::Pmd => Some(Self::Pte),
            Self::Pud => Some(Self::Pmd),
            Self::P4d => Some(Self::Pud),
            Self::Pgd => Some(Self::P4d),
        }
    }

    /// The next level towards the root.
    #[inline(always)]
    pub const fn upper(self) -> Option<Self> {
        match self {
            Self::Pte => Some(Self::Pmd),
            Self::Pmd => Some(Self::Pud),
            Self::Pud => Some(Self::P4d),
            Self::P4d => Some(Self::Pgd),
            Self::Pgd => None,
        }
    }

    /// Whether the architecture has leaf entries at this level: 4 KiB, 2 MiB and 1 GiB pages. PAE lacks the last.
    #[inline(always)]
    pub const fn may_be_leaf(self) -> bool {
        (self as u8) <= (Self::Pud as u8)
    }

    /// Which of the [`ENTRIES`] of a table of this level translates `address`.
    #[inline(always)]
    pub const fn index(self, address: VirtAddr) -> usize {
        (address.as_u64() >> self.shift()) as usize & (ENTRIES - 1)
    }

    /// The first address behind the entry of this level that covers `address`; wraps to 0 at the end of the
    /// 64-bit space.
    #[inline(always)]
    pub const fn next(self, address: VirtAddr) -> VirtAddr {
        address.align_down(self.size()).wrapping_add(self.size())
    }

    /// What the SDM calls an entry of this level.
    pub const fn sdm_name(self) -> &'static str {
        match self {
            Self::Pte => "PTE",
            Self::Pmd => "PDE",
            Self::Pud => "PDPTE",
            Self::P4d => "PML4E",
            Self::Pgd => "PML5E",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pte => "pte",
            Self::Pmd => "pmd",
            Self::Pud => "pud",
            Self::P4d => "p4d",
            Self::Pgd => "pgd",
        })
    }
}
