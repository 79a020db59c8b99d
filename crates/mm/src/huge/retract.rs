//! The table with the small leaves of a file's area goes, with what it maps (Linux: `retract_page_tables`, `collapse_pte_mapped_thp`).
//!
//! The pages are the file's and come back by faults: into a huge leaf, if the file has a huge page by then, or into a table that others have.
//!
//! The order is that of a collapse: with the mmap lock and the rmap lock held for writing, so that nobody fills the table meanwhile, the entry that leads
//! to it is cleared, TLBs are flushed, lockless walkers waited for, and only then the entries are looked at and the table freed (Linux 8d3c106e19e8,
//! f268f6cf875f).

use machine::addr::VirtAddr;
use pagetable::{DetachedTable, Level, Position};

use crate::error::RetractError;
use crate::gather::Gather;
use crate::huge::collapse::{Drained, first_used};
use crate::mm::Mm;
use crate::notify::Notify;
use crate::platform::{Platform, Protocols};
use crate::space::AddressSpace;

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes the table with the small leaves for `address` out of the tree, with all that it maps, and frees it. If others share it, only leaves it.
    ///
    /// On return no CPU can reach the pages through it.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// No shared area of a cached file with small pages has all that the table translates, or no table is there. Nothing has changed then.
    pub fn retract_table(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, address: VirtAddr) -> Result<(), RetractError> {
        let mmap = space.mmap_write(cpu, (address, address));
        let result = match self.shareable(cpu, space, address) {
            Ok((area, Level::Pte)) => {
                let file = self.file(area.file).ok_or(RetractError::Area { address });
                file.and_then(|file| {
                    let rmap = file.rmap_lock().write(cpu);
                    let result = self.retract_under_locks(cpu, space, address);
                    rmap.unlock();
                    result
                })
            }
            _ => Err(RetractError::Area { address }),
        };
        mmap.unlock();
        result
    }

    fn retract_under_locks(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<(), RetractError> {
        let start = address.align_down(Level::Pmd.size());
        let end = Level::Pmd.next(start);
        let tables = self.page_tables(space);
        let table = tables.find(cpu, start, Level::Pte).map_err(|_| RetractError::NoTable { address })?.lock(cpu);
        let guard = self.first_guard(space, &table, start);
        table.unlock();
        if let Some(address) = guard {
            return Err(RetractError::Guarded { address });
        }
        self.notify().start(cpu, space, start, end);
        // Others would lose its entries, too. Whether this address space was the last owner is known afterwards.
        self.leave_table(cpu, space, start, Level::Pte);
        if let (Ok(parent), Ok(child)) = (tables.find(cpu, start, Level::Pmd), tables.find(cpu, start, Level::Pte)) {
            self.retract(cpu, space, (start, end), (&parent, &child));
        }
        self.notify().end(cpu, space, start, end);
        Ok(())
    }

    fn retract(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        (parent, child): (&Position<'_>, &Position<'_>),
    ) {
        let Protocols { write, .. } = self.protocols();
        let mut upper = parent.lock(cpu);
        let link = upper.get_and_clear(write, start);
        upper.unlock();
        self.drain(cpu, space, start, Level::Pmd.frames());
        let mut gather = Gather::begin(cpu, self, space, (start, end));
        let mut table = child.lock(cpu);
        let level = table.level();
        let mut next = first_used(&table, start, end);
        while let Some(address) = next {
            let cleared = table.get_and_clear(write, address);
            gather.entry(cpu, level, address, cleared);
            next = first_used(&table, level.next(address), end);
        }
        gather.unlock(cpu, table);
        gather.finish(cpu);
        let table = DetachedTable::new(link.table_frame(), level).after_flush(&Drained);
        self.trace_free(cpu, &table);
        table.free(cpu, self.tables());
    }
}
