//! Areas: which addresses mean which pages of which file (Linux: VMAs).

use machine::addr::{PAGE_SIZE, VirtAddr};
use machine::{Access, Cpu, Word64};

use crate::file::FileId;

/// Pages mapped from a file, contiguous in both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// The first page; 4 KiB aligned.
    pub start: VirtAddr,
    /// How many 4 KiB pages, at least 1.
    pub pages: u64,
    /// What user code may do.
    pub rights: AreaRights,
    /// The file.
    pub file: FileId,
    /// The page of the file that lies at `start`.
    pub offset: u64,
}

/// What user code may do in an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AreaRights {
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

impl AreaRights {
    /// Whether an access of this kind is allowed.
    pub const fn allow(self, access: Access) -> bool {
        matches!((self, access), (_, Access::Read) | (Self::ReadWrite, Access::Write))
    }
}

impl Area {
    /// The first address behind the area.
    pub const fn end(&self) -> VirtAddr {
        self.start.wrapping_add(self.pages * PAGE_SIZE)
    }

    /// Whether the address is in the area.
    pub fn contains(&self, address: VirtAddr) -> bool {
        self.start <= address && address < self.end()
    }

    /// The page of the file that lies at `address`, which must be in the area.
    pub const fn file_page(&self, address: VirtAddr) -> u64 {
        self.offset + (address.as_u64() - self.start.as_u64()) / PAGE_SIZE
    }
}

/// Room for one area. Who mutates or reads it holds the lock of what it is part of.
pub struct AreaSlot {
    /// The start, and in bit 0 whether it is writable.
    start: Word64,
    pages: Word64,
    /// The file, in the upper 16 bits, and the offset.
    backing: Word64,
}

const WRITABLE: u64 = 1;
const OFFSET_BITS: u32 = 48;

impl AreaSlot {
    /// A slot without a meaning yet.
    pub const fn new() -> Self {
        Self { start: Word64::new(0), pages: Word64::new(0), backing: Word64::new(0) }
    }

    pub(crate) fn get<C: Cpu>(&self, cpu: &C) -> Area {
        let start = cpu.owned_load(&self.start);
        let backing = cpu.owned_load(&self.backing);
        Area {
            start: VirtAddr::new(start & !WRITABLE),
            pages: cpu.owned_load(&self.pages),
            rights: if start & WRITABLE == 0 { AreaRights::Read } else { AreaRights::ReadWrite },
            file: FileId::new((backing >> OFFSET_BITS) as u16),
            offset: backing & ((1 << OFFSET_BITS) - 1),
        }
    }

    pub(crate) fn set<C: Cpu>(&self, cpu: &C, area: &Area) {
        let writable = match area.rights {
            AreaRights::Read => 0,
            AreaRights::ReadWrite => WRITABLE,
        };
        cpu.owned_store(&self.start, area.start.as_u64() | writable);
        cpu.owned_store(&self.pages, area.pages);
        cpu.owned_store(&self.backing, u64::from(area.file.number()) << OFFSET_BITS | area.offset);
    }
}

impl Default for AreaSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// The highest page offset that a slot can hold.
pub const MAX_OFFSET: u64 = (1 << OFFSET_BITS) - 1;
