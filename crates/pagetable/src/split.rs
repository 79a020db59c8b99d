//! A single owner's change of one huge leaf into a table of smaller ones.

use machine::{Cpu, VirtAddr};

use crate::entry::Entry;
use crate::error::{MapError, WalkError};
use crate::map::Mapper;
use crate::memory::{TableMemory, TableSource};
use crate::mode::Mode;
use crate::owner::Offline;
use crate::rights::Attributes;
use crate::width::Width;

impl<C: Cpu, M: Mode, T: TableMemory> Mapper<'_, C, M, T, Offline> {
    /// Replaces the huge leaf that maps `address` by a table of 512 leaves of the next smaller size, that map
    /// the same frames in the same way: rights, caching, software bits, accessed and dirty.
    ///
    /// Offline only. On a live tree the hardware may hold both translations at once and set dirty in either,
    /// which needs an invalidation in the middle, and lockless walkers need to notice: a protocol of its own.
    ///
    /// # Errors
    /// There is no leaf, or it is a 4 KiB page already ([`WalkError::Leaf`]); no frame for the table. Nothing
    /// changed then.
    #[track_caller]
    pub fn split<S: TableSource>(&mut self, source: &S, address: VirtAddr) -> Result<(), MapError> {
        let (slot, level, entry) = self.find_leaf(address)?;
        let Some(lower) = level.lower() else {
            return Err(WalkError::Leaf { address, level, entry }.into());
        };
        let frame = source.allocate_table(self.cpu).map_err(|_| MapError::OutOfFrames { address, level })?;
        let table = match self.memory.table(frame) {
            Ok(table) => table,
            Err(table) => {
                source.free_table(self.cpu, frame);
                return Err(WalkError::NotATable { address, level, table }.into());
            }
        };
        let attributes: Attributes = entry.attributes(level);
        let mut from = entry.leaf_frame(level);
        for cell in table.cells() {
            M::Width::owned_store(self.cpu, cell, Entry::leaf_unchecked(lower, from, attributes));
            from = from.wrapping_add(lower.frames());
        }
        self.cpu.owned_store(&table.meta().children, table.cells().len() as u32);
        M::Width::owned_store(self.cpu, slot.cell(), self.mode.table_entry(level, frame));
        Ok(())
    }
}
