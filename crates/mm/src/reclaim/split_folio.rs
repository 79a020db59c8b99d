//! A large folio becomes small ones (Linux: `split_huge_page`).
//!
//! # Protocol
//!
//! Steps 1 to 4 are those of a folio that leaves its frames ([`crate::reclaim`]); huge leaves are split on the way, so that every entry is of one
//! page. Then, with the reference count 0:
//!
//! 5. every frame's record is made that of a small folio. A lockless walker that read the old record adds to the old head's count: that is 0 until
//!    the last record is made, and from then on the walker finds, when it looks at its frame's record again, that it changed (Linux c24d37322548);
//! 6. every migration entry becomes a leaf again, which holds a reference of its page's own folio.
//!
//! This CPU has a reference to each small folio until then: those that nothing maps any more go with it.

use machine::Cpu;
use machine::addr::VirtAddr;
use pagetable::{Level, MigrationAccess};

use crate::batched_flush::FlushBatch;
use crate::error::{FolioSplitError, ReclaimError, SplitError, ZapError};
use crate::exclusive::{MaybePinned, make_exclusive};
use crate::folio::{Folio, FolioFlags, FolioMapping, Membership, MemoryMap, Reference};
use crate::folio_lock::FolioLock;
use crate::leaf::Held;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::rmap::{Intent, Step, contains};
use crate::reclaim::unmap::Unmapped;
use crate::space::AddressSpace;

/// Why entries could not all be made migration entries.
enum Stopped<'m> {
    /// A huge leaf maps the folio there.
    Huge(&'m AddressSpace<'m>, VirtAddr),
    /// A device may be accessing the folio.
    Pinned,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Splits the large anonymous folio that `frame` belongs to into folios of one page. Wherever it was mapped, the same frames are mapped with the
    /// same rights, by leaves of one page. Whoever faults there meanwhile waits. Pages that are not mapped any more are freed.
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock. The caller has no reference of its own to the folio.
    ///
    /// # Errors
    /// Why it stays as it is: contents, rights and counts are as they were, but huge leaves that map it may have been split.
    pub fn split_folio(&self, cpu: &P::Cpu, frame: machine::Frame) -> Result<(), FolioSplitError> {
        let folio = self.reclaim_begin(cpu, frame)?;
        let lock = FolioLock::take(cpu, &folio);
        let result = self.split_locked(cpu, &folio);
        lock.unlock();
        let Membership { head, order } = folio.membership();
        match result {
            Ok(()) => {
                for index in 0..1 << order {
                    if let Some(small) = Folio::held(self.map(), cpu, head.wrapping_add(index)) {
                        // This CPU's own reference, perhaps the last.
                        let _ = small.put(cpu, self.map(), 1, Reference::Get);
                    }
                }
            }
            Err(_) => {
                // Taken above, and not frozen.
                let _ = folio.put(cpu, self.map(), 1, Reference::Get);
            }
        }
        result
    }

    /// On success the caller has one reference to each of the small folios, instead of the one that it had.
    fn split_locked(&self, cpu: &P::Cpu, folio: &Folio<'m>) -> Result<(), FolioSplitError> {
        let old = folio.membership();
        let unmovable = ReclaimError::Unmovable { frame: old.head };
        if old.order == 0 {
            return Err(FolioSplitError::Small { frame: old.head });
        }
        // Files keep one slot for a large folio, not one for each of its pages.
        let home = self.home(cpu, folio)?;
        if home.slot.is_some() {
            return Err(unmovable.into());
        }
        let unmapped = self.unmap_pages(cpu, folio, home.mapping)?;
        let expected = home.expected_references();
        if let Err(references) = folio.freeze(cpu, expected) {
            self.remap(cpu, old, folio, &unmapped);
            return Err(ReclaimError::Referenced { expected, references }.into());
        }
        folio.break_up(cpu, self.map(), home.mapping);
        self.remap_small(cpu, old, home.mapping);
        Ok(())
    }

    /// Step 6.
    fn remap_small(&self, cpu: &P::Cpu, old: Membership, mapping: FolioMapping) {
        let walked = self.for_each_place(cpu, mapping, old.order, Intent::LookOrGive, |at| {
            if let Held::Migration(away) = at.held
                && contains(old, away.from)
                && let Some(page) = Folio::held(self.map(), cpu, away.from)
            {
                page.get_held(cpu);
                page.add_rmap(cpu);
                if away.access != MigrationAccess::Read {
                    make_exclusive(self.map(), cpu, away.from);
                }
                at.table.replace(&self.protocols().write, at.address, self.back(at.level, away.from, &away));
            }
            Step::Continue(())
        });
        // What lies behind a malformed table was not reached on the way there either.
        let _: Result<(), ZapError> = walked;
    }

    /// Puts a migration entry in the place of every leaf that maps the folio, and flushes. Huge leaves are split first.
    ///
    /// # Errors
    /// The folio may be pinned, there is no frame for a table, or a table is malformed. All leaves map what they mapped.
    fn unmap_pages(&self, cpu: &P::Cpu, folio: &Folio<'m>, mapping: FolioMapping) -> Result<Unmapped, FolioSplitError> {
        let mut owed = FlushBatch::default();
        let mut entries = 0;
        let head = cpu.loop_head();
        let result = loop {
            cpu.round(&head, u64::from(entries) << 32 ^ owed.digest());
            let mut stopped = None;
            let walked = self.for_each_mapping(cpu, mapping, folio.membership(), Intent::Take, |mut at, leaf| {
                if at.level > Level::Pte {
                    stopped = Some(Stopped::Huge(at.space, at.address));
                    return Step::Break(());
                }
                match self.leaf_to_migration(cpu, folio, &mut at, &leaf) {
                    Ok(()) => {
                        owed.add(cpu, at.space);
                        entries += 1;
                        Step::Continue(())
                    }
                    Err(MaybePinned) => {
                        stopped = Some(Stopped::Pinned);
                        Step::Break(())
                    }
                }
            });
            match (stopped, walked) {
                (None, Ok(())) => break Ok(()),
                (None, Err(error)) => break Err(ReclaimError::Table(error).into()),
                (Some(Stopped::Pinned), _) => break Err(ReclaimError::Pinned.into()),
                (Some(Stopped::Huge(space, address)), _) => {
                    if let Err(error) = self.split_mapping_leaf(cpu, mapping, space, address) {
                        break Err(error);
                    }
                }
            }
        };
        owed.flush(cpu, self);
        let unmapped = Unmapped { mapping, entries };
        match result {
            Ok(()) => Ok(unmapped),
            Err(error) => {
                self.remap(cpu, folio.membership(), folio, &unmapped);
                Err(error)
            }
        }
    }

    /// Splits a huge leaf, if it is still there. The rmap lock keeps the tables.
    fn split_mapping_leaf(
        &self,
        cpu: &P::Cpu,
        mapping: FolioMapping,
        space: &AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<(), FolioSplitError> {
        let Some(file) = self.file(mapping.file) else { return Ok(()) };
        let rmap = file.rmap_lock().read(cpu);
        let split = self.split_leaf_under_lock(cpu, space, address);
        rmap.unlock();
        match split {
            Ok(_) | Err(SplitError::NotHuge { .. }) => Ok(()),
            Err(SplitError::OutOfFrames) => Err(ReclaimError::OutOfFrames.into()),
            Err(SplitError::Malformed(error)) => Err(ReclaimError::Table(error.into()).into()),
        }
    }
}

impl Folio<'_> {
    /// Step 5: makes each of the frames a folio of its own, with one reference. The folio is locked and frozen; the new ones but the first are not
    /// locked.
    fn break_up<C: Cpu, M: MemoryMap<C>>(&self, cpu: &C, map: &M, mapping: FolioMapping) {
        let flags = self.flags(cpu).without(FolioFlags::LOCKED.and(FolioFlags::EXCLUSIVE));
        let Membership { head, order } = self.membership();
        for index in 1..1 << order {
            let small = Membership { head: head.wrapping_add(index), order: 0 };
            let mapping = FolioMapping { page: mapping.page + index, ..mapping };
            // Every frame of a folio has a record.
            let _ = Folio::begin(map, cpu, small, flags, Some(mapping));
        }
        cpu.store(self.head_page().pincount_word(), 0);
        cpu.store(self.head_page().membership_word(), Membership { head, order: 0 }.pack());
        self.unfreeze(cpu, 1);
    }
}
