//! Gather: what a zap took away, kept until every TLB has forgotten it (Linux: `mmu_gather`).
//!
//! # Protocol
//!
//! 1. Entries are cleared under the page-table lock, and what they mapped is *gathered*: the range to flush, the folios to give back.
//! 2. TLBs are flushed, on this CPU and all others that may hold a translation. When, relative to the lock, is [`crate::order::FlushOrder`]'s choice; a
//!    dirty page of a file always before the lock is dropped, because a store through a stale TLB entry after the folio's last mapping is gone would be
//!    forgotten (Linux 5df397dec7c4).
//! 3. Only now folios lose the mapping's reference, and detached tables are freed, these after the wait of [`crate::lifetime`] besides.
//!
//! # Two at once
//!
//! While one gather has cleared entries and not flushed yet, another may come upon them, find nothing to do, and return to a caller who takes that
//! for "nobody can reach my pages any more". So gathers count themselves in the parts of the address space into which they reach, and one that is not alone there at its end
//! flushes everything (Linux: `mm_tlb_flush_nested`).

mod waiting;

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};
use machine::{Cpu, Invalidation};
use pagetable::{DetachedTable, Entry, Flags, Level, LockedTable, NobodyWalks};

use crate::folio::{Folio, FolioFlags, Reference};
use crate::guard::{Guards, RmapRemoval};
use crate::leaf::{Held, Leaf};
use crate::lifetime::TableLifetime;
use crate::merge::zero::zeros_go;
use crate::mm::Mm;
use crate::order::{FlushMoment, FlushOrder};
use crate::platform::Platform;
use crate::shootdown::Stale;
use crate::space::AddressSpace;
use crate::swap::{SwapPlace, SwapStore};

use waiting::{Full, Waiting};

/// How many tables wait for one flush.
const TABLES: usize = 8;

/// What was taken away and not given back yet.
#[must_use = "what was gathered is lost without `finish`"]
pub(crate) struct Gather<'g, 'm, P: Platform> {
    mm: &'g Mm<'m, P>,
    space: &'g AddressSpace<'m>,
    /// Where it may clear entries: first, and last plus one.
    range: (VirtAddr, VirtAddr),
    /// The addresses whose translations must go: first, and last plus one.
    stale: Option<(VirtAddr, VirtAddr)>,
    /// Whether a dirty file page waits: then the flush must come before the page-table lock is dropped.
    urgency: FlushMoment,
    folios: Waiting,
    /// Of [`Self::folios`], how many have been taken off their rmap.
    off_rmap: usize,
    tables: [Option<DetachedTable>; TABLES],
    table_count: usize,
}

/// Tables detached before this was made are walked by nobody: TLBs are flushed, and lockless walkers were waited for.
struct Waited;

impl NobodyWalks for Waited {}

impl<'g, 'm, P: Platform> Gather<'g, 'm, P> {
    /// An empty gather for this range of an address space. Every gather that was begun must be [finished](Self::finish).
    pub(crate) fn begin(
        cpu: &P::Cpu,
        mm: &'g Mm<'m, P>,
        space: &'g AddressSpace<'m>,
        range: (VirtAddr, VirtAddr),
    ) -> Self {
        space.gather_begins(cpu, range);
        Self {
            mm,
            space,
            range,
            stale: None,
            urgency: mm.protocols().flush_order.moment(),
            folios: Waiting::new(),
            off_rmap: 0,
            tables: [const { None }; TABLES],
            table_count: 0,
        }
    }

    /// Takes in what an entry held that was cleared just now, under the page-table lock that is still held.
    pub(crate) fn entry(&mut self, cpu: &P::Cpu, level: Level, address: VirtAddr, cleared: Entry) {
        match self.mm.held(level, cleared) {
            Held::Page(leaf) => self.leaf(cpu, level, address, &leaf),
            Held::Zero(leaf) => {
                zeros_go(cpu, self.space, &leaf);
                self.stale(address, level);
            }
            Held::Special(_) => self.stale(address, level),
            Held::Swap(swap) => self.mm.swap().free(cpu, SwapPlace { device: swap.device, offset: swap.offset }),
            // Whoever moves the page took its counts off when it put the entry here.
            Held::Nothing | Held::Table | Held::Migration(_) | Held::Marker(_) | Held::Unknown => {}
        }
    }

    fn leaf(&mut self, cpu: &P::Cpu, level: Level, address: VirtAddr, leaf: &Leaf) {
        self.stale(address, level);
        // The mapping's reference keeps the folio as it is until this gather gives it back.
        let Some(folio) = Folio::held(self.mm.map(), cpu, leaf.frame) else { return };
        // What nobody maps nobody asks of anonymous memory: it has no copy that could be out of date.
        let flags = folio.flags(cpu);
        if !flags.contains(FolioFlags::ANON) {
            if leaf.attributes.has(Flags::ACCESSED) {
                folio.mark_seen(cpu, flags, FolioFlags::REFERENCED);
            }
            if leaf.attributes.has(Flags::DIRTY) {
                folio.mark_seen(cpu, flags, FolioFlags::DIRTY);
                self.urgency = FlushMoment::BeforeUnlock;
            }
        }
        self.keep(cpu, folio.membership().head);
        if self.mm.protocols().guards.rmap_removal() == RmapRemoval::BeforeFlush {
            self.take_off_rmap(cpu);
        }
    }

    /// One more leaf of the folio waits for the flush.
    fn keep(&mut self, cpu: &P::Cpu, head: Frame) {
        let tables = self.mm.tables();
        // A flush that interrupts nobody costs less than to come back to the records of many folios.
        let interrupts_others = || !self.space.active(cpu).without(cpu.id()).is_empty();
        if let Err(Full) = self.folios.keep(cpu, tables, self.off_rmap, head, interrupts_others) {
            self.flush_stale(cpu);
            self.give_back_folios(cpu);
            // Where nothing waits there is room for one.
            let _ = self.folios.keep(cpu, tables, 0, head, || false);
        }
    }

    /// Takes in a table that was detached just now.
    pub(crate) fn table(&mut self, cpu: &P::Cpu, address: VirtAddr, table: DetachedTable) {
        // What must be forgotten is not a translation but the paging-structure caches' way to the table: any page below it will do.
        self.stale(address, Level::Pte);
        if self.table_count == TABLES {
            self.flush(cpu);
            self.free_tables(cpu);
        }
        self.tables[self.table_count] = Some(table);
        self.table_count += 1;
    }

    /// Takes note that an entry of a page that is written back has lost its dirty bit: who comes upon it once the page-table lock is dropped takes the
    /// page for clean, and no TLB may know better then.
    pub(crate) fn cleaned(&mut self) {
        if self.mm.protocols().guards.flush_of_cleaned() == FlushMoment::BeforeUnlock {
            self.urgency = FlushMoment::BeforeUnlock;
        }
    }

    /// Drops the page-table lock under which leaves were cleared, after the flush if it has to come before.
    pub(crate) fn unlock(&mut self, cpu: &P::Cpu, table: LockedTable<'_, P::Cpu>) {
        if self.urgency == FlushMoment::BeforeUnlock {
            self.flush(cpu);
            self.urgency = self.mm.protocols().flush_order.moment();
        }
        table.unlock();
    }

    /// Flushes what has not been flushed, and gives everything back.
    ///
    /// Context: interrupts on, no page-table lock held.
    pub(crate) fn finish(mut self, cpu: &P::Cpu) {
        if self.mm.protocols().guards.is_gather_alone(cpu, self.space, self.range) {
            self.flush_stale(cpu);
        } else {
            self.invalidate(cpu, Invalidation::All);
        }
        self.free_tables(cpu);
        self.give_back_folios(cpu);
        self.folios.free(cpu, self.mm.tables());
        self.space.gather_ends(cpu, self.range);
    }

    /// Takes note that an entry of `level` for `address` is `new` now, where it was `old`: what TLBs may hold of the old one must go, if that makes a
    /// difference. The page-table lock is still held.
    pub(crate) fn changed(&mut self, address: VirtAddr, level: Level, old: Entry, new: Entry) {
        if self.mm.protocols().guards.needs_flush(old, new) {
            self.stale(address, level);
        }
    }

    /// Takes note that TLBs may hold a translation of `level` for `address` that must go.
    pub(crate) fn stale(&mut self, address: VirtAddr, level: Level) {
        let start = address.align_down(level.size());
        let end = start.wrapping_add(level.size());
        self.stale = Some(match self.stale {
            None => (start, end),
            Some((first, last)) => (first.min(start), last.max(end)),
        });
    }

    /// Flushes what has not been flushed. The caller may hold page-table locks.
    pub(crate) fn flush(&mut self, cpu: &P::Cpu) {
        self.flush_stale(cpu);
        self.take_off_rmap(cpu);
    }

    fn flush_stale(&mut self, cpu: &P::Cpu) {
        if let Some((start, end)) = self.stale.take() {
            let pages = (end.as_u64() - start.as_u64()) / PAGE_SIZE;
            self.invalidate(cpu, Invalidation::pages(start, pages));
        }
    }

    fn invalidate(&self, cpu: &P::Cpu, what: Invalidation) {
        // Tables of another gather are that one's affair: it flushes before it frees them.
        let stale = if self.table_count == 0 { Stale::Leaves } else { Stale::Tables };
        self.mm.flush(cpu, self.space, what, stale);
    }

    /// The flush is over: no store can reach the folios through the mappings any more ([`Guards::rmap_removal`]).
    fn take_off_rmap(&mut self, cpu: &P::Cpu) {
        let waiting = self.off_rmap..self.folios.count();
        self.off_rmap = waiting.end;
        for index in waiting {
            if let Some((folio, leaves)) = self.waiting(cpu, index) {
                folio.remove_rmap(cpu, leaves);
            }
        }
    }

    /// The flush is over: takes off the rmap who still is on it, and gives back all.
    fn give_back_folios(&mut self, cpu: &P::Cpu) {
        for index in 0..self.folios.count() {
            let Some((folio, leaves)) = self.waiting(cpu, index) else { continue };
            if index >= self.off_rmap {
                folio.remove_rmap(cpu, leaves);
            }
            // Each mapping held one reference, so this cannot underflow.
            let _ = folio.put(cpu, self.mm.map(), leaves, Reference::Get);
        }
        self.folios.clear();
        self.off_rmap = 0;
    }

    /// The folio with this number among those that wait, and how many of its leaves were cleared.
    #[inline]
    fn waiting(&self, cpu: &P::Cpu, index: usize) -> Option<(Folio<'m>, u32)> {
        let cleared = self.folios.get(cpu, self.mm.tables(), index)?;
        Some((Folio::headed_by(self.mm.map(), cpu, cleared.head)?, cleared.leaves))
    }

    /// The flush is over, so hardware walkers are out of the tables; lockless software walkers may still be in them.
    fn free_tables(&mut self, cpu: &P::Cpu) {
        if self.table_count == 0 {
            return;
        }
        self.mm.protocols().lifetime.wait(cpu, self.mm.shootdown(), self.space.active(cpu));
        for table in self.tables.iter_mut().filter_map(Option::take) {
            let table = table.after_flush(&Waited);
            self.mm.trace_free(cpu, &table);
            self.mm.protocols().guards.free_table(cpu, self.mm.tables(), table);
        }
        self.table_count = 0;
    }
}
