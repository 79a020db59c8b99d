//! Areas: which addresses mean which pages of which file (Linux: VMAs).

use machine::addr::{PAGE_SIZE, VirtAddr};
use machine::{Access, Cpu, ProtectionKey, Word64};
use pagetable::Level;

use crate::file::FileId;
use crate::uffd::UffdModes;

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
    /// Whether stores reach the file.
    pub sharing: Sharing,
    /// Whether anonymous memory may come in huge pages.
    pub huge: HugePages,
    /// Whether it is a stack: see the module `stack`.
    pub growth: Growth,
    /// Which of its faults are handed over ([`crate::Mm::uffd_register`]). None of an area that is to be mapped, whatever is said here.
    pub uffd: UffdModes,
    /// The protection key of its pages: see the module `protection_keys`.
    pub key: ProtectionKey,
}

/// Whether faults below an area make it larger (Linux: MAP_GROWSDOWN).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// They do not.
    Never,
    /// They do: it is a stack. Private anonymous memory only.
    Down,
}

/// Whether stores to an area reach its file (MAP_SHARED) or copies (MAP_PRIVATE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// They reach the file, and everybody who maps it sees them.
    Shared,
    /// The first store to a page makes a copy, which belongs to the address space. Children share it until one of them stores.
    Private,
}

/// Whether faults on anonymous memory may map huge pages (Linux: MADV_HUGEPAGE, MADV_NOHUGEPAGE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePages {
    /// 4 KiB pages only.
    Never,
    /// A 2 MiB page where one fits and one can be had.
    Allowed,
}

/// What user code may do in an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AreaRights {
    /// Nothing (PROT_NONE).
    None,
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

impl AreaRights {
    /// Whether an access of this kind is allowed.
    pub const fn allow(self, access: Access) -> bool {
        matches!((self, access), (Self::Read | Self::ReadWrite, Access::Read) | (Self::ReadWrite, Access::Write))
    }
}

impl Area {
    /// A shared area of small pages: `pages` pages of `file`, from its page `offset` on, at `start`.
    pub const fn shared(start: VirtAddr, pages: u64, rights: AreaRights, file: FileId, offset: u64) -> Self {
        Self {
            start,
            pages,
            rights,
            file,
            offset,
            sharing: Sharing::Shared,
            huge: HugePages::Never,
            growth: Growth::Never,
            uffd: UffdModes::NONE,
            key: ProtectionKey::DEFAULT,
        }
    }

    /// A private area of small pages.
    pub const fn private(start: VirtAddr, pages: u64, rights: AreaRights, file: FileId, offset: u64) -> Self {
        Self { sharing: Sharing::Private, ..Self::shared(start, pages, rights, file, offset) }
    }

    /// The same area, in which faults may map huge pages.
    #[must_use]
    pub const fn with_huge_pages(self) -> Self {
        Self { huge: HugePages::Allowed, ..self }
    }

    /// The same area, as a stack that grows down. Its pages are named by the file's: `offset` is how many it can grow by.
    #[must_use]
    pub const fn as_stack(self) -> Self {
        Self { growth: Growth::Down, ..self }
    }

    /// The same area, these faults of which are handed over.
    #[must_use]
    pub(crate) const fn with_uffd(self, uffd: UffdModes) -> Self {
        Self { uffd, ..self }
    }

    /// The same area, whose pages have this protection key.
    #[must_use]
    pub const fn with_key(self, key: ProtectionKey) -> Self {
        Self { key, ..self }
    }

    /// The first address behind the area.
    pub const fn end(&self) -> VirtAddr {
        self.start.wrapping_add(self.pages * PAGE_SIZE)
    }

    /// Whether the address is in the area.
    pub fn contains(&self, address: VirtAddr) -> bool {
        self.start <= address && address < self.end()
    }

    /// What of the area lies in `start..end`: the area itself if all of it does.
    pub(crate) fn part(&self, start: VirtAddr, end: VirtAddr) -> Option<Self> {
        let from = self.start.max(start);
        let until = self.end().min(end);
        (from < until).then(|| Self {
            start: from,
            pages: (until.as_u64() - from.as_u64()) / PAGE_SIZE,
            offset: self.file_page(from),
            ..*self
        })
    }

    /// Whether the leaf of `level` that covers `address` lies inside the area.
    pub fn holds_leaf(&self, address: VirtAddr, level: Level) -> bool {
        let first = address.align_down(level.size());
        let end = first.checked_add(level.size());
        self.start <= first && end.is_some_and(|end| end <= self.end())
    }

    /// The page of the file that lies at `address`, which must be in the area.
    pub const fn file_page(&self, address: VirtAddr) -> u64 {
        self.offset + (address.as_u64() - self.start.as_u64()) / PAGE_SIZE
    }
}

/// Room for one area. Who mutates or reads it holds the lock of what it is part of.
pub struct AreaSlot {
    /// The start, and in its low bits rights, sharing, huge pages, growth and what is registered.
    start: Word64,
    /// How many pages, and in its upper 4 bits the protection key.
    pages: Word64,
    /// The file, in the upper 16 bits, and the offset.
    backing: Word64,
}

/// What the low bits of a start say, which are 0 in every page's address.
mod low {
    pub(super) const READ: u64 = 1 << 0;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const PRIVATE: u64 = 1 << 2;
    pub(super) const HUGE: u64 = 1 << 3;
    pub(super) const GROWS_DOWN: u64 = 1 << 4;
    pub(super) const UFFD_MISSING: u64 = 1 << 5;
    pub(super) const UFFD_WRITE_PROTECT: u64 = 1 << 6;
    pub(super) const ALL: u64 = machine::addr::PAGE_SIZE - 1;
}

const OFFSET_BITS: u32 = 48;
/// More pages than there are addresses.
const PAGES_BITS: u32 = 60;

impl AreaSlot {
    /// A slot without a meaning yet.
    pub const fn new() -> Self {
        Self { start: Word64::new(0), pages: Word64::new(0), backing: Word64::new(0) }
    }

    pub(crate) fn get<C: Cpu>(&self, cpu: &C) -> Area {
        let start = cpu.owned_load(&self.start);
        let backing = cpu.owned_load(&self.backing);
        let pages = cpu.owned_load(&self.pages);
        Area {
            start: VirtAddr::new(start & !low::ALL),
            pages: pages & ((1 << PAGES_BITS) - 1),
            rights: match (start & low::READ, start & low::WRITE) {
                (0, 0) => AreaRights::None,
                (_, 0) => AreaRights::Read,
                _ => AreaRights::ReadWrite,
            },
            file: FileId::new((backing >> OFFSET_BITS) as u16),
            offset: backing & ((1 << OFFSET_BITS) - 1),
            sharing: if start & low::PRIVATE == 0 { Sharing::Shared } else { Sharing::Private },
            huge: if start & low::HUGE == 0 { HugePages::Never } else { HugePages::Allowed },
            growth: if start & low::GROWS_DOWN == 0 { Growth::Never } else { Growth::Down },
            uffd: [(low::UFFD_MISSING, UffdModes::MISSING), (low::UFFD_WRITE_PROTECT, UffdModes::WRITE_PROTECT)]
                .into_iter()
                .filter(|(bit, _)| start & bit != 0)
                .fold(UffdModes::NONE, |all, (_, mode)| all.and(mode)),
            key: ProtectionKey::from_low_bits(pages >> PAGES_BITS),
        }
    }

    pub(crate) fn set<C: Cpu>(&self, cpu: &C, area: &Area) {
        let rights = match area.rights {
            AreaRights::None => 0,
            AreaRights::Read => low::READ,
            AreaRights::ReadWrite => low::READ | low::WRITE,
        };
        let sharing = match area.sharing {
            Sharing::Shared => 0,
            Sharing::Private => low::PRIVATE,
        };
        let huge = match area.huge {
            HugePages::Never => 0,
            HugePages::Allowed => low::HUGE,
        };
        let growth = match area.growth {
            Growth::Never => 0,
            Growth::Down => low::GROWS_DOWN,
        };
        let missing = if area.uffd.has(UffdModes::MISSING) { low::UFFD_MISSING } else { 0 };
        let protected = if area.uffd.has(UffdModes::WRITE_PROTECT) { low::UFFD_WRITE_PROTECT } else { 0 };
        cpu.owned_store(&self.start, area.start.as_u64() | rights | sharing | huge | growth | missing | protected);
        cpu.owned_store(&self.pages, u64::from(area.key.number()) << PAGES_BITS | area.pages);
        cpu.owned_store(&self.backing, u64::from(area.file.number()) << OFFSET_BITS | area.offset);
    }
}

impl Default for AreaSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// The highest page offset that a slot, and the record of a folio ([`crate::FolioMapping`]), can hold.
pub const MAX_OFFSET: u64 = (1 << (OFFSET_BITS - 1)) - 1;
