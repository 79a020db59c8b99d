//! One huge leaf becomes a table of smaller ones: what such a table holds, and how a single owner puts it there.

use machine::{Cpu, VirtAddr};

use crate::entry::Entry;
use crate::error::{MapError, WalkError};
use crate::level::Level;
use crate::map::Mapper;
use crate::memory::{TableMemory, TableSource};
use crate::mode::Mode;
use crate::nonpresent::{NonPresent, ProtNone};
use crate::owner::Offline;
use crate::table::Table;
use crate::width::Width;
use crate::write::{EntryWrite, Whole};

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
        table.fill_from_leaf::<M, C, _>(self.cpu, &Whole, level, lower, entry);
        M::Width::owned_store(self.cpu, slot.cell(), self.mode.table_entry(level, frame));
        Ok(())
    }
}

impl Table<'_> {
    /// Fills a table of `lower` that nobody can reach yet with leaves that together map what `leaf`, of `level`, one above, maps: the same
    /// frames, rights, protection key, caching, software bits, accessed and dirty. A PROT_NONE leaf becomes PROT_NONE leaves. `writer` does not write, but says how entries lie in memory
    /// ([`EntryWrite::as_stored`]), and is told of each ([`EntryWrite::changed`]).
    #[track_caller]
    pub fn fill_from_leaf<M: Mode, C: Cpu, W: EntryWrite>(
        self,
        cpu: &C,
        writer: &W,
        level: Level,
        lower: Level,
        leaf: Entry,
    ) {
        let kept = match leaf.non_present(level) {
            Ok(Some(NonPresent::ProtNone(kept))) => Some(kept),
            _ => None,
        };
        let attributes = kept.map_or(writer.as_read(leaf).attributes(level), |kept| kept.attributes);
        let mut frame = kept.map_or(leaf.leaf_frame(level), |kept| kept.frame);
        for cell in self.cells() {
            let entry = match kept {
                Some(_) => NonPresent::ProtNone(ProtNone { frame, attributes }).encode(lower),
                None => Entry::leaf_unchecked(lower, frame, attributes),
            };
            M::Width::owned_store(cpu, cell, writer.as_stored(entry));
            writer.changed(cpu, lower, Entry::NONE, entry);
            frame = frame.wrapping_add(lower.frames());
        }
        cpu.owned_store(&self.meta().children, self.cells().len() as u32);
    }
}
