//! Which pages of a range were used: accessed, dirty, soft-dirty. Told, and cleared if that is asked for.
//!
//! | cleared | TLB flush | what may be missed |
//! |---|---|---|
//! | accessed | none: it is a hint, and as cheap as it can be had (Linux: `ptep_clear_young`) | use through a translation that a TLB holds already |
//! | dirty | before the harvest returns; of a file's page, before the page-table lock is dropped ([`Guards::flush_of_cleaned`](crate::Guards::flush_of_cleaned)) | nothing: the folio is marked dirty for what the entry forgets, and the next store after the return sets the bit again |
//! | soft-dirty | before the harvest returns, if the right to write had to be taken with it | nothing: the next store after the return faults |
//!
//! Flushes are where [`pagetable::flush`] asks for them.
//!
//! A store that happens while the harvest runs is told by this harvest or by the next one. So who copies what was told copies it *after* the harvest has
//! returned, not from within the closure.

use machine::addr::VirtAddr;
use pagetable::{Entry, Flags, Level, LockedTable, NonPresent, Swap, SwapFlags};

use crate::error::ZapError;
use crate::folio::{Folio, FolioFlags};
use crate::gather::Gather;
use crate::leaf::{Held, Leaf, Presence};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

/// How a page was used: a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Usage(u8);

impl Usage {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Translated since accessed was last cleared.
    pub const ACCESSED: Self = Self(1);
    /// Written since the page was last cleaned.
    pub const DIRTY: Self = Self(2);
    /// Written since soft-dirty was last cleared, or mapped so that it could be.
    pub const SOFT_DIRTY: Self = Self(4);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn collect<const N: usize>(these: [(Self, bool); N]) -> Self {
        these.into_iter().filter(|(_, is)| *is).fold(Self::NONE, |all, (one, _)| all.and(one))
    }
}

/// One entry that a harvest came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Harvested {
    /// The first address that it translates; for a huge leaf this may lie before the range.
    pub address: VirtAddr,
    /// Its level.
    pub level: Level,
    /// How what it maps was used. Of a page on swap or under migration: as far as the entry remembers.
    pub usage: Usage,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Tells `each` of every entry of `pages` pages from `start` on that was used, in order, and clears the marks of `clear`; see the module `harvest` for
    /// what that means. A huge leaf is told of and cleared whole.
    ///
    /// Context: interrupts on, no lock. `each` runs with a page-table lock held: it must neither wait nor call the engine.
    ///
    /// # Errors
    /// Nothing was done if the range is wrong. Behind a malformed table nothing was.
    pub fn harvest(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, pages): (VirtAddr, u64),
        clear: Usage,
        mut each: impl FnMut(Harvested),
    ) -> Result<(), ZapError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let mut harvest = || {
            let mut gather = Gather::begin(cpu, self, space, (start, end));
            let result = self.for_each_table(cpu, space, start, end, |mut table, from, until| {
                let level = table.level();
                let mut at = from.align_down(level.size());
                while at < until && table.children() > 0 {
                    let usage = self.harvest_entry(cpu, &mut gather, &mut table, at, clear);
                    if !usage.is_empty() {
                        each(Harvested { address: at, level, usage });
                    }
                    at = level.next(at);
                }
                gather.unlock(cpu, table);
            });
            gather.finish(cpu);
            result
        };
        let result = if Usage::ACCESSED.contains(clear) {
            harvest()
        } else {
            let reach = self.reach(cpu, space, (start, end));
            self.notify_of(cpu, space, reach, harvest)
        };
        mmap.unlock();
        result
    }

    fn harvest_entry(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        table: &mut LockedTable<'_, P::Cpu>,
        at: VirtAddr,
        clear: Usage,
    ) -> Usage {
        let level = table.level();
        let seen = table.entry(&self.protocols().mode, at);
        match self.held(level, seen) {
            Held::Page(leaf) => {
                if clear.contains(Usage::DIRTY) && leaf.attributes.has(Flags::DIRTY) {
                    // First, so that there is no moment at which neither says so.
                    self.mark_dirty(cpu, gather, &leaf);
                }
                let usage = self.harvest_leaf(gather, table, at, &leaf, clear);
                if clear.contains(Usage::DIRTY) && usage.contains(Usage::DIRTY) {
                    // The hardware may have set it only just before it was cleared.
                    self.mark_dirty(cpu, gather, &leaf);
                }
                usage
            }
            // Nobody asks whether they are dirty but by these bits.
            Held::Special(leaf) => self.harvest_leaf(gather, table, at, &leaf, clear),
            Held::Swap(swap) => {
                let is = swap.flags.has(SwapFlags::SOFT_DIRTY);
                if is && clear.contains(Usage::SOFT_DIRTY) {
                    let flags = swap.flags.without(SwapFlags::SOFT_DIRTY);
                    let entry = NonPresent::Swap(Swap { flags, ..swap }).encode(level);
                    table.replace(&self.protocols().write, at, entry);
                }
                Usage::collect([(Usage::SOFT_DIRTY, is)])
            }
            // Who merges leaves the mark of what was written; dirty and accessed say nothing of a page that all have.
            Held::Zero(leaf) => {
                let clear = Usage::collect([(Usage::SOFT_DIRTY, clear.contains(Usage::SOFT_DIRTY))]);
                let usage = self.harvest_leaf(gather, table, at, &leaf, clear);
                Usage::collect([(Usage::SOFT_DIRTY, usage.contains(Usage::SOFT_DIRTY))])
            }
            // It is told once it is a leaf again.
            Held::Migration(_) | Held::Nothing | Held::Table | Held::Marker(_) | Held::Unknown => Usage::NONE,
        }
    }

    fn harvest_leaf(
        &self,
        gather: &mut Gather<'_, 'm, P>,
        table: &mut LockedTable<'_, P::Cpu>,
        at: VirtAddr,
        leaf: &Leaf,
        clear: Usage,
    ) -> Usage {
        let level = table.level();
        let write = &self.protocols().write;
        let usage = |leaf: &Leaf| {
            let soft_dirty = Flags::soft_dirty(level);
            Usage::collect([
                (Usage::ACCESSED, leaf.attributes.has(Flags::ACCESSED)),
                (Usage::DIRTY, leaf.attributes.has(Flags::DIRTY)),
                // Where the level has no such bit, dirty must do.
                (
                    Usage::SOFT_DIRTY,
                    leaf.attributes.has(soft_dirty) && (soft_dirty != Flags::NONE || leaf.attributes.has(Flags::DIRTY)),
                ),
            ])
        };
        let cleared = |entry: Entry| {
            let clear = |entry: Entry, one: Usage, flags: Flags| {
                if clear.contains(one) { entry.without(flags) } else { entry }
            };
            let entry = clear(entry, Usage::ACCESSED, Flags::ACCESSED);
            let entry = clear(entry, Usage::DIRTY, Flags::DIRTY);
            match Flags::soft_dirty(level) {
                Flags::NONE => entry,
                soft_dirty => clear(entry, Usage::SOFT_DIRTY, soft_dirty.and(Flags::WRITE)),
            }
        };
        match (leaf.presence, leaf.entry(level)) {
            (_, None) => Usage::NONE,
            (Presence::Present, Some(seen)) => {
                // An entry that is as it should be costs no locked instruction. If the hardware sets a bit after this look, the bit stays.
                if cleared(seen) == seen {
                    return usage(leaf);
                }
                let old = table.update(write, at, cleared);
                gather.changed(at, level, old, cleared(old));
                usage(&Leaf { attributes: old.attributes(level), ..*leaf })
            }
            (Presence::ProtNone, Some(seen)) => {
                let present = Leaf { presence: Presence::Present, ..*leaf };
                if let Some(entry) = present.entry(level)
                    && let attributes = cleared(entry).attributes(level)
                    && let Some(new) = (Leaf { attributes, ..*leaf }).entry(level)
                    && new != seen
                {
                    table.replace(write, at, new);
                }
                usage(leaf)
            }
        }
    }

    /// What an entry is going to forget, the folio remembers.
    fn mark_dirty(&self, cpu: &P::Cpu, gather: &mut Gather<'_, 'm, P>, leaf: &Leaf) {
        if let Some(folio) = Folio::held(self.map(), cpu, leaf.frame) {
            folio.mark(cpu, FolioFlags::DIRTY);
            // Swap does not ask entries whether they are dirty.
            if !folio.flags(cpu).contains(FolioFlags::ANON) {
                gather.cleaned();
            }
        }
    }
}
