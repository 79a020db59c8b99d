//! The counts of a large folio, when the entries that map it become more or fewer at once.

use machine::Cpu;
use machine::addr::Frame;
use pagetable::Level;
use pagetable::level::ENTRIES;

use crate::exclusive::{Exclusivity, exclusivity, make_exclusive};
use crate::folio::{Folio, MemoryMap};

/// One leaf becomes this many more.
const MORE_LEAVES: u32 = ENTRIES as u32 - 1;

impl Folio<'_> {
    /// A leaf that maps (part of) the folio from `first` on becomes 512 leaves of `lower`, of which each holds a reference and a mapping. Whether the
    /// leaf belonged to one address space alone, its first frame's record says, and now that of the first frame of each.
    ///
    /// Context: the page-table lock of the leaf's table held, and the hardware does not use the leaf.
    pub(super) fn split_mapping<C: Cpu, M: MemoryMap<C>>(&self, cpu: &C, map: &M, first: Frame, lower: Level) {
        let page = self.head_page();
        cpu.fetch_add(page.refcount_word(), MORE_LEAVES);
        cpu.fetch_add(page.mapcount_word(), MORE_LEAVES);
        if exclusivity(map, cpu, first) == Exclusivity::Exclusive {
            for leaf in 1..ENTRIES as u64 {
                make_exclusive(map, cpu, first.wrapping_add(leaf * lower.frames()));
            }
        }
    }
}
