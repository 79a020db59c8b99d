//! What to invalidate.

use crate::addr::{PAGE_SIZE, VirtAddr};

/// What a TLB invalidation covers, within the address space that is loaded on the CPU where it takes place.
///
/// Every form also drops all paging-structure caches of the address space (SDM vol. 3A, 4.10.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Invalidation {
    /// The translations, of whatever size, of `pages` 4 KiB pages from `start` on.
    Pages {
        /// The first page; 4 KiB aligned.
        start: VirtAddr,
        /// How many 4 KiB pages, at least 1.
        pages: u64,
    },
    /// Everything but global translations.
    All,
}

impl Invalidation {
    /// From how many pages on dropping everything is cheaper than one `invlpg` a page (as Linux does:
    /// `tlb_single_page_flush_ceiling`, Documentation/arch/x86/tlb.rst).
    pub const PAGES_CEILING: u64 = 33;

    /// Just the page that holds `address`.
    #[inline]
    pub const fn page(address: VirtAddr) -> Self {
        Self::Pages { start: address.align_down(PAGE_SIZE), pages: 1 }
    }

    /// `pages` pages from `start` on, or everything where that is cheaper.
    #[inline]
    pub const fn pages(start: VirtAddr, pages: u64) -> Self {
        if pages > Self::PAGES_CEILING { Self::All } else { Self::Pages { start: start.align_down(PAGE_SIZE), pages } }
    }

    /// Whether a translation of `size` bytes for the page at `start` (aligned to `size`) is dropped.
    #[inline]
    pub const fn covers(self, start: VirtAddr, size: u64) -> bool {
        match self {
            Self::All => true,
            Self::Pages { start: from, pages } => {
                let last = start.as_u64() + (size - 1);
                let until = from.as_u64().saturating_add(pages.saturating_mul(PAGE_SIZE) - 1);
                from.as_u64() <= last && start.as_u64() <= until
            }
        }
    }
}
