//! How the simulated hardware reads page tables.
//!
//! Written from the SDM (vol. 3A, chapter 4 "Paging") and from nothing else: the engine's own decoder is not used, so that a
//! mistake there is a difference here.

use machine::{Frame, PhysAddr, VirtAddr};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
pub(crate) const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const EXECUTE_DISABLE: u64 = 1 << 63;
const PROTECTION_KEY_SHIFT: u32 = 59;

/// A format of page tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Paging {
    /// Levels that translate, the top one included.
    levels: u8,
    /// Bits of the index into the top table; 9 everywhere else.
    top_bits: u32,
    /// The largest level whose entries may map a page: 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB.
    largest_leaf: u8,
    /// Whether the top table is four registers, loaded with CR3 (SDM vol. 3A, 4.4.1).
    registers: bool,
}

/// What one entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// Bit 0.
    pub present: bool,
    /// Whether it maps a page, and does not name a table.
    pub leaf: bool,
    /// The first frame of the page, or the table's frame.
    pub frame: Frame,
    /// Bit 1. PDPTEs of PAE have none: `true`.
    pub writable: bool,
    /// Bit 2. PDPTEs of PAE have none: `true`.
    pub user: bool,
    /// Bit 5. PDPTEs of PAE have none: `true`.
    pub accessed: bool,
    /// Bit 6; only of leaves.
    pub dirty: bool,
    /// Bit 8; only of leaves.
    pub global: bool,
    /// Not bit 63. PDPTEs of PAE have none: `true`.
    pub executable: bool,
    /// Bits 62:59; only of leaves, and on PAE of none (SDM vol. 3A, 4.6.2): 0.
    pub protection_key: u8,
}

impl Paging {
    /// 32-bit PAE paging (SDM vol. 3A, 4.4): PDPTE registers, then two levels; 4 KiB and 2 MiB pages.
    pub const PAE: Self = Self { levels: 3, top_bits: 2, largest_leaf: 2, registers: true };
    /// 4-level paging (SDM vol. 3A, 4.5): 4 KiB, 2 MiB and 1 GiB pages.
    pub const FOUR_LEVEL: Self = Self { levels: 4, top_bits: 9, largest_leaf: 3, registers: false };
    /// 5-level paging (SDM vol. 3A, 4.5).
    pub const FIVE_LEVEL: Self = Self { levels: 5, top_bits: 9, largest_leaf: 3, registers: false };

    /// How many levels there are. The top table is at this level, entries that map 4 KiB pages at level 1.
    pub const fn levels(self) -> u8 {
        self.levels
    }

    /// Whether `load_root` copies the top table into registers.
    pub const fn has_registers(self) -> bool {
        self.registers
    }

    /// Whether this is an address that can be translated: below 4 GiB on PAE, else canonical (SDM vol. 1, 3.3.7.1).
    pub const fn has_address(self, address: VirtAddr) -> bool {
        let bits = 12 + 9 * (self.levels as u32 - 1) + self.top_bits;
        let above =
            if self.registers { address.as_u64() >> bits } else { (address.as_u64() as i64 >> (bits - 1)) as u64 };
        above == 0 || !self.registers && above == u64::MAX
    }

    /// The index of the entry for `address` in a table of `level`.
    pub const fn index(self, address: VirtAddr, level: u8) -> usize {
        let bits = if level == self.levels { self.top_bits } else { 9 };
        (address.as_u64() >> Self::shift(level)) as usize & ((1 << bits) - 1)
    }

    /// Bytes that one entry of `level` translates.
    pub const fn span(level: u8) -> u64 {
        1 << Self::shift(level)
    }

    const fn shift(level: u8) -> u32 {
        12 + 9 * (level as u32 - 1)
    }

    /// The physical address of the top table that `root` (CR3) names: 32-byte aligned on PAE, else 4096.
    pub const fn table_of_root(self, root: PhysAddr) -> PhysAddr {
        let ignored = if self.registers { 0x1f } else { 0xfff };
        PhysAddr::new(root.as_u64() & 0x000f_ffff_ffff_ffff & !ignored)
    }

    /// Reads an entry of a table of `level`.
    pub const fn decode(self, level: u8, entry: u64) -> Decoded {
        let register = self.registers && level == self.levels;
        let leaf = level == 1 || level <= self.largest_leaf && !register && entry & PAGE_SIZE != 0;
        // Bits 51:12 are the address; of a large page the bits below its size are PAT or reserved.
        let address = entry & 0x000f_ffff_ffff_f000;
        let address = if leaf { address & !(Self::span(level) - 1) } else { address };
        Decoded {
            present: entry & PRESENT != 0,
            leaf,
            frame: PhysAddr::new(address).frame(),
            writable: register || entry & WRITABLE != 0,
            user: register || entry & USER != 0,
            accessed: register || entry & ACCESSED != 0,
            dirty: leaf && entry & DIRTY != 0,
            global: leaf && entry & GLOBAL != 0,
            executable: register || entry & EXECUTE_DISABLE == 0,
            protection_key: if leaf && !self.registers { (entry >> PROTECTION_KEY_SHIFT & 0xf) as u8 } else { 0 },
        }
    }

    /// The flags that a walk for a load (or a store) that uses this entry must find set, and sets if it does not.
    pub(crate) const fn walker_flags(decoded: &Decoded, write: bool) -> u64 {
        let accessed = if decoded.accessed { 0 } else { ACCESSED };
        if decoded.leaf && write && !decoded.dirty { accessed | DIRTY } else { accessed }
    }

    /// An entry as a dirty frame might hold one: present, writable, user, accessed, naming `frame`.
    pub(crate) const fn garbage(frame: Frame) -> u64 {
        frame.start().as_u64() | PRESENT | WRITABLE | USER | ACCESSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_mode() {
        let has = |paging: Paging, address| paging.has_address(VirtAddr::new(address));
        assert!(has(Paging::PAE, 0xffff_ffff) && !has(Paging::PAE, 1 << 32) && !has(Paging::PAE, u64::MAX));
        assert!(has(Paging::FOUR_LEVEL, 0x7fff_ffff_ffff) && !has(Paging::FOUR_LEVEL, 0x8000_0000_0000));
        assert!(has(Paging::FOUR_LEVEL, 0xffff_8000_0000_0000) && has(Paging::FIVE_LEVEL, 0x8000_0000_0000));
        assert!(!has(Paging::FIVE_LEVEL, 1 << 56) && has(Paging::FIVE_LEVEL, u64::MAX));
    }

    #[test]
    fn entries_are_read_as_the_manual_says() {
        let two_mib = Paging::FOUR_LEVEL.decode(2, 0x8000_0000_4020_10e7);
        assert_eq!(two_mib.frame, Frame::new(0x4_0200));
        assert!(
            two_mib.present && two_mib.leaf && two_mib.writable && two_mib.user && two_mib.accessed && two_mib.dirty
        );
        let table = Paging::FOUR_LEVEL.decode(3, 0x1067);
        assert!(!table.leaf && !table.dirty && table.frame == Frame::new(1));
        assert!(!two_mib.executable && table.executable);
        // Bits 62:59 of a leaf of any size, and nowhere else.
        let key = |paging: Paging, level, low: u64| paging.decode(level, 0b0101 << 59 | 1 << 63 | low).protection_key;
        for paging in [Paging::FOUR_LEVEL, Paging::FIVE_LEVEL] {
            assert_eq!(
                [key(paging, 1, 1), key(paging, 2, 0x81), key(paging, 3, 0x81), key(paging, 2, 1)],
                [5, 5, 5, 0]
            );
        }
        assert_eq!([key(Paging::PAE, 1, 1), key(Paging::PAE, 2, 0x81)], [0, 0]);
        assert!(Paging::PAE.decode(1, 0x101).global && !Paging::PAE.decode(2, 0x101).global);
        // Bit 7 is PAT in the last level, and reserved in the fourth.
        assert!(Paging::FOUR_LEVEL.decode(1, 0x1081).leaf && !Paging::FOUR_LEVEL.decode(4, 0x1081).leaf);
        // A PDPTE of PAE has no rights and no accessed flag of its own, and never maps a page.
        let register = Paging::PAE.decode(3, 0x1001);
        assert!(register.present && register.writable && register.user && register.accessed && !register.leaf);
        assert!(Paging::PAE.decode(2, 0x81).leaf);
        assert_eq!(Paging::PAE.table_of_root(PhysAddr::new(0x1_2fe5)).as_u64(), 0x1_2fe0);
    }
}
