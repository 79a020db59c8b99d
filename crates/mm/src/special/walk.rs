//! Walks of those who know small pages only.

use machine::Cpu;
use machine::addr::VirtAddr;
use pagetable::walk::{self, Step};
use pagetable::{Entry, Level, Mode, TableMemory};

use crate::error::{SplitError, ZapError};
use crate::guard::Guards;
use crate::leaf::Held;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::zap::ZapOf;

/// Why an address was not walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SmallEntryError {
    /// A huge leaf could not be split.
    Split(SplitError),
    /// A driver's huge leaf could not be taken away.
    Zap(ZapError),
    /// A page table holds what it must not.
    Malformed(Level),
}

impl<'m, P: Platform> Mm<'m, P> {
    /// The entry of the 4 KiB page at `address`; `None` if there is none.
    ///
    /// Huge leaves on the way are split. One of a driver is taken away instead, and comes back by a fault (Linux: `walk_page_range` with a `pmd_entry`;
    /// `split_huge_pud` does no more for a PFN mapping). The driver may have mapped it again before this walk looks again: what was a leaf is
    /// looked at anew, and not taken for a table because it was split a moment ago (CVE-2026-31456).
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn small_entry(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<Option<Entry>, SmallEntryError> {
        let mmap = space.mmap_read(cpu, (address, address));
        let result = self.small_entry_under_lock(cpu, space, address);
        mmap.unlock();
        result
    }

    /// The caller holds the mmap lock: no table is detached.
    fn small_entry_under_lock(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<Option<Entry>, SmallEntryError> {
        let protocols = self.protocols();
        let mode = &protocols.mode;
        let mut level = mode.root_level();
        let Ok(mut slot) = walk::root_slot(mode, self.tables(), space.root(), address) else {
            return Err(SmallEntryError::Malformed(level));
        };
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, level as u64);
            let entry = walk::read(cpu, mode, level, slot, &protocols.read);
            if !entry.is_present() {
                return Ok(None);
            }
            match (walk::step(mode, self.tables(), level, entry, address), level.lower()) {
                (Ok(Step::Leaf), None) => return Ok(Some(entry)),
                (Ok(Step::Lower(next)), Some(lower)) => (slot, level) = (next, lower),
                (Ok(Step::Leaf), Some(lower)) => {
                    self.make_small(cpu, space, address, level, entry)?;
                    let now = walk::read(cpu, mode, level, slot, &protocols.read);
                    if protocols.guards.is_table_after_split(mode, level, now) {
                        let table = self.tables().table(now.table_frame());
                        let table = table.map_err(|_| SmallEntryError::Malformed(level))?;
                        (slot, level) = (table.slot(lower, address), lower);
                    }
                }
                _ => return Err(SmallEntryError::Malformed(level)),
            }
        }
    }

    /// A huge leaf of this level goes.
    fn make_small(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        level: Level,
        entry: Entry,
    ) -> Result<(), SmallEntryError> {
        if let Held::Special(_) = self.held(level, entry) {
            let start = address.align_down(level.size());
            let end = level.next(start);
            let zap = || self.zap_and_finish(cpu, space, start, end, ZapOf::FilePages);
            return self.notify_of(cpu, space, (start, end), zap).map_err(SmallEntryError::Zap);
        }
        match self.split_leaf_under_lock(cpu, space, address) {
            // Somebody else was faster.
            Ok(_) | Err(SplitError::NotHuge { .. }) => Ok(()),
            Err(error) => Err(SmallEntryError::Split(error)),
        }
    }
}
