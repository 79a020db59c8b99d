//! The paging modes of x86.
//!
//! A mode is a value, so that one binary can choose 4 or 5 levels at boot ([`LongMode`]); where the choice is made at
//! compile time ([`FourLevel`], [`FiveLevel`], [`Pae`]) the missing levels cost nothing.
//!
//! All modes assume `EFER.NXE` = 1: bit 63 means no-execute, and is not reserved.

use core::fmt;

use machine::{PhysAddr, VirtAddr};

use crate::entry::{Entry, bits};
use crate::error::{AddressError, BadRoot, Malformed};
use crate::level::Level;
use crate::rights::Flags;
use crate::software;
use crate::width::{Split, Wide, Width};

/// A paging mode: which levels there are, which addresses they translate, and which bits an entry must not have.
pub trait Mode: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// How wide the plain accesses of a CPU in this mode are.
    type Width: Width;

    /// What the mode is called.
    fn name(&self) -> &'static str;

    /// The level of the root table. The mode has this level and all lower ones.
    fn root_level(&self) -> Level;

    /// How many entries the root has: 512, or the four PDPTEs of PAE.
    #[inline(always)]
    fn root_shape(&self) -> RootShape {
        RootShape::Table
    }

    /// The physical width, MAXPHYADDR.
    fn physical_width(&self) -> PhysicalWidth;

    /// Whether the mode translates this address at all: whether it is canonical.
    fn translates(&self, address: VirtAddr) -> bool;

    /// The first address behind those that user mode can have: the lower half, or on PAE all 4 GiB. A kernel
    /// that keeps a part of that for itself says so in its address spaces.
    fn user_end(&self) -> VirtAddr;

    /// The highest level at which an entry that points to a table may be cleared while the root is in use. All
    /// of them, but for the PDPTEs of PAE: the CPU holds copies of those.
    #[inline(always)]
    fn highest_detachable(&self) -> Level {
        self.root_level()
    }

    /// Whether entries of `level` give or withhold rights. The PDPTEs of PAE do not: SDM vol. 3A, table 4-8.
    #[inline(always)]
    fn has_rights(&self, level: Level) -> bool {
        let _ = level;
        true
    }

    /// Whether leaves have a protection key, in bits 62:59. PAE reserves these: SDM vol. 3A, tables 4-10 and 4-11. Where the CPU was not told to obey keys (CR4.PKE), it ignores them.
    #[inline(always)]
    fn has_protection_keys(&self) -> bool {
        true
    }

    /// Bits that are reserved in a present pte, pmd, pud (but for PDPTEs of PAE), p4d or pgd alike.
    fn reserved_always(&self) -> u64;

    /// Those bits of a *present* entry that must be zero at `level` and are not. Zero for an entry that the
    /// hardware accepts.
    #[inline]
    fn reserved(&self, level: Level, entry: Entry) -> u64 {
        let by_level = match level {
            Level::Pgd | Level::P4d => bits::HUGE,
            Level::Pud | Level::Pmd if entry.is_leaf(level) => (level.size() - 1) & bits::ADDRESS & !bits::PAT_HUGE,
            _ => 0,
        };
        entry.bits() & (by_level | self.reserved_always())
    }

    /// Whether a hardware walker at `level` would go on into the table that the entry points to. One test; if it fails,
    /// [`crate::walk::step`] says why.
    #[inline(always)]
    fn leads_to_table(&self, level: Level, entry: Entry) -> bool {
        let _ = level;
        entry.bits() & (bits::PRESENT | bits::HUGE | self.reserved_always()) == bits::PRESENT
    }

    /// Whether the hardware would use an entry of the lowest level. One test; if it fails, the entry is not
    /// present or malformed.
    #[inline(always)]
    fn maps_page(&self, entry: Entry) -> bool {
        entry.bits() & (bits::PRESENT | self.reserved_always()) == bits::PRESENT
    }

    /// The bits that the hardware ignores in present entries of every level, so that software may use them.
    fn software_bits(&self) -> u64;

    /// The flag of leaves that userfaultfd write-protects ([`software::UFFD_WP`]); `None` where its bit has another use (PAE, as in Linux).
    #[inline(always)]
    fn uffd_wp(&self) -> Option<Flags> {
        None
    }

    /// An entry of `level` that points to the table in `frame`.
    #[inline(always)]
    fn table_entry(&self, level: Level, frame: machine::Frame) -> Entry {
        let _ = level;
        Entry::table(frame)
    }

    /// Checks a single address.
    ///
    /// # Errors
    /// The mode does not translate it.
    #[inline(always)]
    fn check(&self, address: VirtAddr) -> Result<(), AddressError> {
        if self.translates(address) { Ok(()) } else { Err(AddressError::Outside { address, mode: self.name() }) }
    }

    /// Checks that user mode can have all of `bytes` bytes from `start` on.
    ///
    /// # Errors
    /// The first address that it cannot have, or that the range wraps around.
    #[inline]
    fn check_user(&self, start: VirtAddr, bytes: u64) -> Result<(), AddressError> {
        let end = start.checked_add(bytes).ok_or(AddressError::Wraps { start, bytes })?;
        if end <= self.user_end() {
            Ok(())
        } else {
            Err(AddressError::Outside { address: start.max(self.user_end()), mode: self.name() })
        }
    }

    /// Checks a range that may lie in either half, but not in both: 4 KiB aligned, and all of it translated.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    fn check_range(&self, start: VirtAddr, bytes: u64) -> Result<(), AddressError> {
        let page = Level::Pte.size();
        if !start.is_aligned(page) {
            return Err(AddressError::Misaligned { address: start, size: page });
        }
        if bytes & (page - 1) != 0 {
            return Err(AddressError::Misaligned { address: start.wrapping_add(bytes), size: page });
        }
        self.check(start)?;
        if bytes == 0 {
            return Ok(());
        }
        let last = start.checked_add(bytes - 1).ok_or(AddressError::Wraps { start, bytes })?;
        self.check(last)?;
        // Both ends canonical, but in different halves: everything between them is a hole.
        if start < self.user_end() && last >= self.user_end() {
            return Err(AddressError::Outside { address: self.user_end(), mode: self.name() });
        }
        Ok(())
    }

    /// Checks an entry of `level` on the way to `address`.
    ///
    /// # Errors
    /// Reserved bits are set.
    #[inline]
    fn check_entry(&self, level: Level, entry: Entry, address: VirtAddr) -> Result<(), Malformed> {
        match self.reserved(level, entry) {
            0 => Ok(()),
            reserved => Err(Malformed { level, entry, reserved, address }),
        }
    }
}

/// The shape of a root table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RootShape {
    /// 512 entries in a frame of their own.
    Table,
    /// The four PDPTEs of PAE: 32 bytes, 32-byte aligned, anywhere below 4 GiB.
    FourPdptes,
}

/// MAXPHYADDR: how many bits a physical address has (CPUID.80000008H:EAX bits 7:0; SDM vol. 3A, 4.1.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PhysicalWidth(u8);

impl PhysicalWidth {
    /// The greatest that entries have room for: 52 bits.
    pub const MAX: Self = Self(52);

    /// A width of 32 to 52 bits; `None` for others.
    #[inline]
    pub const fn new(bits: u32) -> Option<Self> {
        if bits >= 32 && bits <= 52 { Some(Self(bits as u8)) } else { None }
    }

    /// The width in bits.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Whether a frame has an address of this width.
    #[inline]
    pub const fn holds(self, frame: machine::Frame) -> bool {
        frame.number() >> (self.0 as u32 - machine::addr::PAGE_SHIFT) == 0
    }

    /// Address bits that an entry has room for but the machine does not have.
    const fn excess(self) -> u64 {
        bits::ADDRESS & (u64::MAX << self.0)
    }
}

/// Where a root table lies: what goes into CR3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Root(PhysAddr);

impl Root {
    /// The root at this address.
    ///
    /// # Errors
    /// It is not aligned (4 KiB; 32 bytes on PAE), or lies above the physical width (4 GiB on PAE, whose CR3
    /// has 32 bits).
    #[inline]
    pub fn new<M: Mode>(mode: &M, address: PhysAddr) -> Result<Self, BadRoot> {
        let (align, end) = match mode.root_shape() {
            RootShape::Table => (Level::Pte.size(), 1 << mode.physical_width().bits()),
            RootShape::FourPdptes => (32, 1 << 32),
        };
        if address.is_aligned(align) && address.as_u64() < end {
            Ok(Self(address))
        } else {
            Err(BadRoot { address, align, end, mode: mode.name() })
        }
    }

    /// The address.
    #[inline(always)]
    pub const fn address(self) -> PhysAddr {
        self.0
    }
}

macro_rules! long_mode {
    ($(#[$doc:meta])* $mode:ident, $name:literal, $root:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $mode {
            width: PhysicalWidth,
            reserved: u64,
        }

        impl $mode {
            /// The mode on a machine with physical addresses of this width.
            pub const fn new(width: PhysicalWidth) -> Self {
                Self { width, reserved: width.excess() }
            }
        }

        impl Mode for $mode {
            type Width = Wide;

            #[inline(always)]
            fn name(&self) -> &'static str {
                $name
            }
            #[inline(always)]
            fn root_level(&self) -> Level {
                $root
            }
            #[inline(always)]
            fn physical_width(&self) -> PhysicalWidth {
                self.width
            }
            #[inline(always)]
            fn translates(&self, address: VirtAddr) -> bool {
                is_canonical(address, $root)
            }
            #[inline(always)]
            fn user_end(&self) -> VirtAddr {
                user_end($root)
            }
            #[inline(always)]
            fn reserved_always(&self) -> u64 {
                self.reserved
            }
            #[inline(always)]
            fn software_bits(&self) -> u64 {
                software::Available::LONG_MODE.bits
            }
            #[inline(always)]
            fn uffd_wp(&self) -> Option<Flags> {
                Some(Flags::UFFD_WP)
            }
        }
    };
}

long_mode! {
    /// x86-64 with four levels: 48-bit addresses (SDM vol. 3A, 4.5).
    FourLevel, "x86-64, 4 levels", Level::P4d
}

long_mode! {
    /// x86-64 with five levels: 57-bit addresses (SDM vol. 3A, 4.5; CR4.LA57).
    FiveLevel, "x86-64, 5 levels", Level::Pgd
}

/// x86-64 with as many levels as the machine that boots it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LongMode {
    /// CR4.LA57 = 0.
    Four(FourLevel),
    /// CR4.LA57 = 1.
    Five(FiveLevel),
}

impl Mode for LongMode {
    type Width = Wide;

    #[inline(always)]
    fn name(&self) -> &'static str {
        match self {
            Self::Four(mode) => mode.name(),
            Self::Five(mode) => mode.name(),
        }
    }
    #[inline(always)]
    fn root_level(&self) -> Level {
        match self {
            Self::Four(mode) => mode.root_level(),
            Self::Five(mode) => mode.root_level(),
        }
    }
    #[inline(always)]
    fn physical_width(&self) -> PhysicalWidth {
        match self {
            Self::Four(mode) => mode.width,
            Self::Five(mode) => mode.width,
        }
    }
    #[inline(always)]
    fn translates(&self, address: VirtAddr) -> bool {
        is_canonical(address, self.root_level())
    }
    #[inline(always)]
    fn user_end(&self) -> VirtAddr {
        user_end(self.root_level())
    }
    #[inline(always)]
    fn reserved_always(&self) -> u64 {
        match self {
            Self::Four(mode) => mode.reserved,
            Self::Five(mode) => mode.reserved,
        }
    }
    #[inline(always)]
    fn software_bits(&self) -> u64 {
        software::Available::LONG_MODE.bits
    }
    #[inline(always)]
    fn uffd_wp(&self) -> Option<Flags> {
        Some(Flags::UFFD_WP)
    }
}

/// Whether all bits above the highest that the root translates equal that one.
#[inline(always)]
const fn is_canonical(address: VirtAddr, root: Level) -> bool {
    let unused = 64 - (root.shift() + 9);
    let value = address.as_u64() as i64;
    value << unused >> unused == value
}

#[inline(always)]
const fn user_end(root: Level) -> VirtAddr {
    VirtAddr::new(1 << (root.shift() + 8))
}

/// 32-bit PAE: 4 GiB of addresses, entries of 64 bits, a root of four PDPTEs (SDM vol. 3A, 4.4).
///
/// CPUs access entries in halves. The hardware reads the PDPTEs when CR3 is loaded, not at each walk; a kernel
/// therefore fills all four before, and leaves them alone. Their bits 2:1, 8:5 and 63:MAXPHYADDR are reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pae {
    width: PhysicalWidth,
    /// 62:MAXPHYADDR, or less: see [`Pae::with_ignored_high_bits`].
    reserved: u64,
}

/// Bits 62:52: reserved on PAE.
const PAE_ABOVE_ADDRESS: u64 = 0x7ff << 52;

impl Pae {
    /// The mode on a machine with physical addresses of this width. Bits 62:MAXPHYADDR of an entry are reserved
    /// (SDM vol. 3A, tables 4-9 to 4-11): the high half has no room for software bits.
    pub const fn new(width: PhysicalWidth) -> Self {
        Self { width, reserved: width.excess() | PAE_ABOVE_ADDRESS }
    }

    /// The same on a machine that ignores bits 58:52, so that software may use them.
    ///
    /// **No x86 does.** 32-bit Arm with LPAE does (58:55), and reads entries in halves if it is told to. This
    /// is for asking what a software bit in the high half would mean where entries tear.
    pub const fn with_ignored_high_bits(width: PhysicalWidth) -> Self {
        Self { width, reserved: width.excess() | PAE_ABOVE_ADDRESS & !software::HIGH }
    }

    /// Bits 2:1, 8:5 and 63:MAXPHYADDR (SDM vol. 3A, table 4-8). PS is among 8:5: there are no 1 GiB pages.
    #[inline(always)]
    const fn reserved_in_pdpte(self) -> u64 {
        0x1e6 | self.width.excess() | PAE_ABOVE_ADDRESS | bits::NO_EXECUTE
    }
}

impl Mode for Pae {
    type Width = Split;

    #[inline(always)]
    fn name(&self) -> &'static str {
        "x86 PAE"
    }
    #[inline(always)]
    fn root_level(&self) -> Level {
        Level::Pud
    }
    #[inline(always)]
    fn root_shape(&self) -> RootShape {
        RootShape::FourPdptes
    }
    #[inline(always)]
    fn physical_width(&self) -> PhysicalWidth {
        self.width
    }
    #[inline(always)]
    fn translates(&self, address: VirtAddr) -> bool {
        address.as_u64() >> 32 == 0
    }
    #[inline(always)]
    fn user_end(&self) -> VirtAddr {
        VirtAddr::new(1 << 32)
    }
    #[inline(always)]
    fn reserved_always(&self) -> u64 {
        self.reserved
    }
    #[inline(always)]
    fn highest_detachable(&self) -> Level {
        Level::Pmd
    }
    #[inline(always)]
    fn has_rights(&self, level: Level) -> bool {
        level < Level::Pud
    }
    #[inline(always)]
    fn has_protection_keys(&self) -> bool {
        false
    }
    #[inline]
    fn reserved(&self, level: Level, entry: Entry) -> u64 {
        let mask = match level {
            Level::Pud | Level::P4d | Level::Pgd => self.reserved_in_pdpte(),
            Level::Pmd if entry.is_leaf(level) => self.reserved | (level.size() - 1) & bits::ADDRESS & !bits::PAT_HUGE,
            Level::Pmd | Level::Pte => self.reserved,
        };
        entry.bits() & mask
    }
    #[inline(always)]
    fn leads_to_table(&self, level: Level, entry: Entry) -> bool {
        let reserved = if level == Level::Pud { self.reserved_in_pdpte() } else { self.reserved };
        entry.bits() & (bits::PRESENT | bits::HUGE | reserved) == bits::PRESENT
    }
    #[inline(always)]
    fn software_bits(&self) -> u64 {
        software::LOW | software::HIGH & !self.reserved
    }
    #[inline(always)]
    fn table_entry(&self, level: Level, frame: machine::Frame) -> Entry {
        if level == Level::Pud { Entry::pae_pdpte(frame) } else { Entry::table(frame) }
    }
}
