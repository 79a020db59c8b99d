//! A single owner takes empty tables out of the tree.

use machine::{Cpu, VirtAddr};

use crate::detach::DetachedTable;
use crate::error::WalkError;
use crate::level::Level;
use crate::map::Mapper;
use crate::memory::TableMemory;
use crate::mode::Mode;
use crate::owner::Ownership;
use crate::walk::descend;

impl<C: Cpu, M: Mode, T: TableMemory, O: Ownership> Mapper<'_, C, M, T, O> {
    /// Detaches every table without children that translates addresses of the range, and those that lose their
    /// last child by that. `detached` gets each, lower ones first: flush, then free ([`crate::detach`]).
    ///
    /// Whether a table is empty is one load of its child count. The root is never detached, nor are the pmd
    /// tables of PAE: their PDPTEs are inside the CPU.
    ///
    /// # Errors
    /// A bad range, or a malformed table; what came before was detached.
    #[track_caller]
    pub fn prune(
        &mut self,
        (start, bytes): (VirtAddr, u64),
        mut detached: impl FnMut(DetachedTable),
    ) -> Result<(), WalkError> {
        self.mode.check_range(start, bytes)?;
        let mut level = Level::Pmd;
        // Tables of pages in all of the range first, then the tables that pointed to them, and so on.
        while level <= self.mode.highest_detachable() {
            self.prune_level((start, bytes), level, &mut detached)?;
            match level.upper() {
                Some(upper) => level = upper,
                None => break,
            }
        }
        Ok(())
    }

    /// Detaches the empty tables that entries of `level` point to.
    fn prune_level(
        &mut self,
        (start, bytes): (VirtAddr, u64),
        level: Level,
        detached: &mut impl FnMut(DetachedTable),
    ) -> Result<(), WalkError> {
        let mut address = start;
        let mut left = bytes;
        while left != 0 {
            let end = descend(&self.mode, self.memory, self.root, address, level, |slot| self.load(slot))?;
            // Where a table above is missing, or empty by now, there is nothing to detach as far as its entry reaches.
            let is_empty = end.seen.is_none() && self.cpu.owned_load(&end.slot.meta().children) == 0;
            if end.seen.is_none() && !is_empty {
                let entry = self.load(end.slot);
                if let Some(lower) = level.lower().filter(|_| self.mode.leads_to_table(level, entry)) {
                    let frame = entry.table_frame();
                    let table = self.memory.table(frame);
                    let table = table.map_err(|table| WalkError::NotATable { address, level, table })?;
                    if self.cpu.owned_load(&table.meta().children) == 0 {
                        self.owner.take::<M::Width, C>(self.cpu, end.slot, entry);
                        self.remove_children(end.slot.meta(), 1);
                        detached(DetachedTable::new(frame, lower));
                    }
                }
            }
            let reach = if is_empty { end.level.upper().unwrap_or(end.level) } else { end.level };
            let size = reach.size();
            let covered = (size - (address.as_u64() & (size - 1))).min(left);
            address = address.wrapping_add(covered);
            left -= covered;
        }
        Ok(())
    }
}
