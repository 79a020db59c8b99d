//! Page-table entries, as the SDM draws them (volume 3A, figures 4-4, 4-7, 4-11, tables 4-8 to 4-20).

use machine::VirtAddr;

/// A format of page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paging {
    /// PAE: addresses of 32 bits; 2 + 9 + 9 + 12 (SDM 4.4).
    Pae,
    /// Four levels: addresses of 48 bits (SDM 4.5).
    FourLevel,
    /// Five levels: addresses of 57 bits (SDM 4.5).
    FiveLevel,
}

/// What a walk finds in one entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// Bit 0 is clear.
    Absent,
    /// It references a table in this frame.
    Table { frame: u64, rights: Rights, accessed: bool },
    /// It maps a page.
    Page { frame: u64, rights: Rights, accessed: bool, dirty: bool, global: bool, key: u32 },
}

/// What an access may do; a walk has the rights that all of its entries give.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rights {
    pub(crate) write: bool,
    pub(crate) user: bool,
    pub(crate) execute: bool,
    /// It may be pushed to: a leaf has that for itself, and nothing above it takes it away.
    pub(crate) push: bool,
}

impl Rights {
    pub(crate) const ALL: Self = Self { write: true, user: true, execute: true, push: false };

    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            write: self.write && other.write,
            user: self.user && other.user,
            execute: self.execute && other.execute,
            push: self.push && other.push,
        }
    }

    pub(crate) const fn include(self, needed: Self) -> bool {
        (self.write || !needed.write)
            && (self.user || !needed.user)
            && (self.execute || !needed.execute)
            && (self.push || !needed.push)
    }
}

pub(crate) const ACCESSED: u64 = 0x20;
pub(crate) const DIRTY: u64 = 0x40;
/// An entry of a frame's earlier life: present, writable, of a user, accessed.
pub(crate) const LEFT_OVER: u64 = 0x27;
/// Bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl Paging {
    /// The level of the table that CR3 names; tables of level 1 map pages of 4 KiB.
    pub(crate) const fn top(self) -> u8 {
        match self {
            Self::Pae => 3,
            Self::FourLevel => 4,
            Self::FiveLevel => 5,
        }
    }

    /// `log2` of the bytes that an entry of this level translates.
    pub(crate) const fn shift(level: u8) -> u32 {
        3 + 9 * level as u32
    }

    /// The first address that is translated by the same entry of this level.
    pub(crate) const fn align(address: u64, level: u8) -> u64 {
        address >> Self::shift(level) << Self::shift(level)
    }

    /// Which entry of a table of this level translates an address.
    pub(crate) const fn index(self, address: VirtAddr, level: u8) -> usize {
        let entries = match (self, level) {
            (Self::Pae, 3) => 4,
            _ => 512,
        };
        (address.as_u64() >> Self::shift(level)) as usize % entries
    }

    /// The table that CR3 names: bits 31:5 on PAE, else bits 51:12.
    pub(crate) const fn root(self, cr3: u64) -> u64 {
        match self {
            Self::Pae => cr3 & 0xffff_ffe0,
            _ => cr3 & ADDRESS,
        }
    }

    pub(crate) const fn read(self, level: u8, entry: u64) -> Entry {
        if entry & 1 == 0 {
            return Entry::Absent;
        }
        // A PDPTE of PAE has no flags but P: bits 1, 2, 5 and 63 are reserved or ignored (SDM 4.4.1, table 4-8).
        if matches!((self, level), (Self::Pae, 3)) {
            return Entry::Table { frame: (entry & ADDRESS) >> 12, rights: Rights::ALL, accessed: true };
        }
        let rights = Rights { write: entry & 2 != 0, user: entry & 4 != 0, execute: entry >> 63 == 0, push: false };
        let accessed = entry & ACCESSED != 0;
        // PS is bit 7 of PDEs, and of PDPTEs outside PAE; in PTEs bit 7 is PAT, above it is reserved.
        let maps = match level {
            1 => true,
            2 | 3 => entry & 0x80 != 0,
            _ => false,
        };
        if !maps {
            return Entry::Table { frame: (entry & ADDRESS) >> 12, rights, accessed };
        }
        let frame = Self::align(entry & ADDRESS, level) >> 12;
        // Bits 62:59, which PAE reserves (SDM 4.6.2).
        let key = if matches!(self, Self::Pae) { 0 } else { (entry >> 59) as u32 % 16 };
        Entry::Page { frame, rights, accessed, dirty: entry & DIRTY != 0, global: entry & 0x100 != 0, key }
    }
}
