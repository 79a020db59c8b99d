//! The pages of a range move: collected by address (Linux: `migrate_vma_setup`, `migrate_vma_collect_pmd`).
//!
//! The range's own entries are taken under the lock of their table, many at a time. Unlike those that rmap finds, they are flushed *before the lock
//! is dropped* and nothing is left owed: whoever comes upon them next finds migration entries and trusts them (Linux 60bae7370896).

use machine::Invalidation;
use machine::addr::{PAGE_SIZE, VirtAddr};
use pagetable::{Level, LockedTable};

use crate::batched_flush::FlushBatch;
use crate::error::{ReclaimError, ZapError};
use crate::folio::{Folio, FolioFlags, Reference};
use crate::folio_lock::FolioLock;
use crate::guard::Guards;
use crate::leaf::{Held, Leaf};
use crate::mm::Mm;
use crate::notify::Notify;
use crate::order::FlushMoment;
use crate::platform::Platform;
use crate::reclaim::migrate::Home;
use crate::reclaim::rmap::At;
use crate::shootdown::Stale;
use crate::space::AddressSpace;

/// How many pages are collected for one flush. They lie on the stack of whoever migrates.
const BATCH: u64 = 16;

/// A folio whose entry in the range is away: locked, and referenced.
struct Collected<'c, 'm, P: Platform> {
    folio: Folio<'m>,
    lock: FolioLock<'c, P::Cpu>,
    home: Home<'m>,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Moves the anonymous pages of a range to frames that [`crate::FrameSource::allocate`] gives. Returns how many moved; the others stay as they
    /// are: pinned, used, of a large folio, or just being moved by somebody else.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// The range cannot be meant, or a page table was malformed: what lies behind stays.
    pub fn migrate_range(
        &self,
        cpu: &P::Cpu,
        space: &'m AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<u64, ZapError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let mut moved = 0;
        let mut result = Ok(());
        let mut at = start;
        while at < end && result.is_ok() {
            let until = at.wrapping_add(BATCH * PAGE_SIZE).min(end);
            let mut batch: [Option<Collected<'_, 'm, P>>; BATCH as usize] = [const { None }; BATCH as usize];
            self.notify().start(cpu, space, at, until);
            result = self.collect(cpu, space, at, until, &mut batch);
            self.notify().end(cpu, space, at, until);
            for collected in batch.into_iter().flatten() {
                moved += u64::from(self.move_collected(cpu, collected).is_ok());
            }
            at = until;
        }
        mmap.unlock();
        result.map(|()| moved)
    }

    /// Makes migration entries of the leaves that can move. There is room for all of the range.
    fn collect<'c>(
        &self,
        cpu: &'c P::Cpu,
        space: &'m AddressSpace<'m>,
        start: VirtAddr,
        end: VirtAddr,
        batch: &mut [Option<Collected<'c, 'm, P>>],
    ) -> Result<(), ZapError>
    where
        'm: 'c,
    {
        let moment = self.protocols().guards.collected_flush();
        let mut room = batch.iter_mut();
        self.for_each_table(cpu, space, start, end, |mut table, from, until| {
            if table.level() != Level::Pte {
                return;
            }
            let before = room.len();
            let mut address = from;
            while address < until {
                if let Held::Page(leaf) = self.held(Level::Pte, table.entry(&self.protocols().mode, address))
                    && let Some(collected) = self.collect_one(cpu, space, &mut table, address, &leaf)
                    && let Some(slot) = room.next()
                {
                    *slot = Some(collected);
                }
                address = Level::Pte.next(address);
            }
            if room.len() == before {
                return;
            }
            if moment == FlushMoment::BeforeUnlock {
                self.flush_collected(cpu, space, from, until);
                table.unlock();
            } else {
                table.unlock();
                self.flush_collected(cpu, space, from, until);
            }
        })
    }

    /// One leaf becomes a migration entry, if its folio can be had. Under the page-table lock.
    fn collect_one<'c>(
        &self,
        cpu: &'c P::Cpu,
        space: &'m AddressSpace<'m>,
        table: &mut LockedTable<'_, P::Cpu>,
        address: VirtAddr,
        leaf: &Leaf,
    ) -> Option<Collected<'c, 'm, P>>
    where
        'm: 'c,
    {
        let folio = Folio::try_grab(self.map(), cpu, leaf.frame, 1, Reference::Get).ok()?;
        // Tried for only: a page-table lock is held.
        if folio.membership().order == 0
            && folio.flags(cpu).contains(FolioFlags::ANON)
            && let Some(lock) = FolioLock::try_take(cpu, &folio)
        {
            let mut at = At { space, table, level: Level::Pte, address, held: Held::Page(*leaf) };
            if let Ok(home) = self.home(cpu, &folio)
                && self.leaf_to_migration(cpu, &folio, &mut at, leaf).is_ok()
            {
                return Some(Collected { folio, lock, home });
            }
            lock.unlock();
        }
        self.drop_own_reference(cpu, &folio);
        None
    }

    fn flush_collected(&self, cpu: &P::Cpu, space: &AddressSpace<'_>, start: VirtAddr, end: VirtAddr) {
        let pages = (end.as_u64() - start.as_u64()) / PAGE_SIZE;
        self.flush(cpu, space, Invalidation::pages(start, pages), Stale::Leaves);
    }

    /// Takes the other entries of a collected folio away, and moves it.
    fn move_collected(&self, cpu: &P::Cpu, collected: Collected<'_, 'm, P>) -> Result<(), ReclaimError> {
        let Collected { folio, lock, home } = collected;
        let new = self.allocate_successor(cpu, &folio);
        let mut owed = FlushBatch::default();
        // If this fails, all entries of the folio come back, the one of the range with them.
        let unmapped = self.unmap_for_migration(cpu, &folio, home.mapping, &mut owed);
        owed.flush(cpu, self);
        let moved = match (unmapped, &new) {
            (Ok(unmapped), Ok(new)) => self.move_unmapped(cpu, &folio, &home, &unmapped, new),
            (Ok(unmapped), Err(error)) => {
                self.remap(cpu, folio.membership(), &folio, &unmapped);
                Err(*error)
            }
            (Err(error), _) => Err(error),
        };
        lock.unlock();
        let result = match &new {
            Ok(new) => self.conclude_move(cpu, &folio, new, moved).map(drop),
            Err(error) => Err(*error),
        };
        if result.is_err() {
            self.drop_own_reference(cpu, &folio);
        }
        result
    }
}
