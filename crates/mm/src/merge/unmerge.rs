//! An address space gets pages of its own again (Linux: `unmerge_ksm_pages`, `break_ksm`).

use machine::Cpu;
use machine::addr::{PAGE_SIZE, VirtAddr};
use pagetable::{Level, LockedTable, WalkError};

use crate::fault::Outcome;
use crate::folio::{Folio, FolioFlags};
use crate::leaf::Held;
use crate::merge::error::UnmergeError;
use crate::merge::zero::is_merged;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

impl<'m, P: Platform> Mm<'m, P> {
    /// Gives an address space a page of its own wherever a merged one is mapped, or the zero page by a merge, in `pages` pages from `start` on, as if each was written, but that nothing is. Returns how many those are.
    ///
    /// Pages that are merged there meanwhile may stay so.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Where it ended, and why: no frame for a copy, or a malformed table. The pages before are the address space's own.
    pub fn unmerge(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<u64, UnmergeError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let result = self.unmerge_range(cpu, space, (start, end));
        mmap.unlock();
        result
    }

    fn unmerge_range(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<u64, UnmergeError> {
        let tables = self.page_tables(space);
        let mut copied = 0;
        let mut at = start;
        let head = cpu.loop_head();
        while at < end {
            cpu.round(&head, at.as_u64() ^ copied);
            let position = match tables.find(cpu, at, Level::Pte) {
                Ok(position) => position,
                Err(WalkError::NotPresent { level, .. } | WalkError::Leaf { level, .. }) => {
                    at = level.next(at);
                    continue;
                }
                Err(error) => return Err(UnmergeError::Malformed(error)),
            };
            // The mmap lock is held: no table is detached.
            let table = position.lock(cpu);
            let until = Level::Pmd.next(at).min(end);
            let Some(found) = self.first_merged(&table, at, until) else {
                table.unlock();
                at = until;
                continue;
            };
            let seen = table.entry(&self.protocols().mode, found);
            table.unlock();
            at = found;
            let failed = |error| UnmergeError::Fault { address: found, error };
            if self.unshare_page(cpu, space, &position, (found, seen)).map_err(failed)? == Outcome::Mapped {
                copied += 1;
                at = found.wrapping_add(PAGE_SIZE);
            }
        }
        Ok(copied)
    }

    /// The first address of `from..until`, all of which the table translates, where a merged page is mapped.
    fn first_merged(&self, table: &LockedTable<'_, P::Cpu>, from: VirtAddr, until: VirtAddr) -> Option<VirtAddr> {
        let cpu = table.cpu();
        let pages = (until.as_u64() - from.as_u64()) / PAGE_SIZE;
        let mut addresses = (0..pages).map(|page| from.wrapping_add(page * PAGE_SIZE));
        addresses.find(|&at| match self.held(Level::Pte, table.entry(&self.protocols().mode, at)) {
            Held::Page(leaf) => {
                let folio = Folio::held(self.map(), cpu, leaf.frame);
                folio.is_some_and(|folio| folio.flags(cpu).contains(FolioFlags::KSM))
            }
            Held::Zero(leaf) => is_merged(&leaf),
            _ => false,
        })
    }
}
