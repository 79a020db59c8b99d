//! One address space's tables, and the protocols by which they are read and written.

use machine::{Cpu, VirtAddr};

use crate::entry::Entry;
use crate::error::{MapError, NotATable, WalkError};
use crate::level::Level;
use crate::locked::{Link, Position};
use crate::memory::{TableMemory, TableSource};
use crate::mode::{Mode, Root, RootShape};
use crate::publish::Publish;
use crate::read::EntryRead;
use crate::walk::{self, Translation};
use crate::write::EntryWrite;

/// Everything that a walk needs, in one value: borrow it together where it is used.
#[derive(Clone, Copy)]
pub struct Tables<'a, M, T, R, W> {
    /// The paging mode.
    pub mode: &'a M,
    /// Where the tables lie.
    pub memory: &'a T,
    /// How entries are read without a lock.
    pub reader: &'a R,
    /// How entries are written.
    pub writer: &'a W,
    /// The root.
    pub root: Root,
}

impl<'a, M: Mode, T: TableMemory, R: EntryRead, W: EntryWrite> Tables<'a, M, T, R, W> {
    /// [`walk::translate`].
    ///
    /// # Errors
    /// Why the address is not mapped.
    #[inline]
    #[track_caller]
    pub fn translate<C: Cpu>(&self, cpu: &C, address: VirtAddr) -> Result<Translation, WalkError> {
        walk::translate(cpu, self.mode, self.memory, self.reader, self.root, address)
    }

    /// The root table.
    ///
    /// # Errors
    /// The mode does not translate the address, or the root is not a table.
    pub fn root_position(&self, address: VirtAddr) -> Result<Position<'a>, WalkError> {
        self.mode.check(address)?;
        let level = self.mode.root_level();
        match self.mode.root_shape() {
            RootShape::Table => {
                let found = self.memory.table(self.root.address().frame());
                found.map(|table| Position::new(table.cells(), table.meta(), level, address, None))
            }
            RootShape::FourPdptes => {
                let found = self.memory.pdpt(self.root.address());
                found.map(|table| Position::new(table.cells(), table.meta(), level, address, None))
            }
        }
        .map_err(|table| WalkError::NotATable { address, level, table })
    }

    /// Walks down to the table of level `to` for `address`, without locks.
    ///
    /// Context: as for [`walk`]; what is found may be detached by the time the caller locks it
    /// ([`Position::lock_linked`]).
    ///
    /// # Errors
    /// A table on the way is missing or malformed, or there is a leaf.
    #[track_caller]
    pub fn find<C: Cpu>(&self, cpu: &C, address: VirtAddr, to: Level) -> Result<Position<'a>, WalkError> {
        let mut position = self.root_position(address)?;
        while position.level() > to {
            let entry = walk::read(cpu, self.mode, position.level(), position.slot(), self.reader);
            position = self.lower(&position, entry, address)?;
        }
        Ok(position)
    }

    /// Walks down to the table of level `to` for `address`, and makes the tables that are missing: `pte_alloc`.
    ///
    /// For each missing table: allocate; take the parent's page-table lock; look again whether it is still
    /// missing (else give the frame back); zero, link, count.
    ///
    /// Context: the caller sees to it that no table on the way is detached meanwhile (address-space lock), and
    /// holds no page-table lock.
    ///
    /// # Errors
    /// No frames, a malformed table, a leaf or a non-present encoding in the way. Tables made before that stay.
    #[track_caller]
    pub fn populate<C: Cpu, S: TableSource, P: Publish>(
        &self,
        cpu: &'a C,
        source: &S,
        publish: &P,
        address: VirtAddr,
        to: Level,
    ) -> Result<Position<'a>, MapError> {
        let mut position = self.root_position(address)?;
        while position.level() > to {
            let mut entry = walk::read(cpu, self.mode, position.level(), position.slot(), self.reader);
            if entry.is_none() {
                entry = self.populate_one(cpu, source, publish, &position, address)?;
            }
            position = self.lower(&position, entry, address)?;
        }
        Ok(position)
    }

    /// Fills the empty slot of `address` at `position`, unless somebody else does; returns what is there then.
    #[track_caller]
    fn populate_one<C: Cpu, S: TableSource, P: Publish>(
        &self,
        cpu: &'a C,
        source: &S,
        publish: &P,
        position: &Position<'a>,
        address: VirtAddr,
    ) -> Result<Entry, MapError> {
        let level = position.level();
        let frame = source.allocate_table(cpu).map_err(|_| MapError::OutOfFrames { address, level })?;
        let table = match self.memory.table(frame) {
            Ok(table) => table,
            Err(table) => {
                source.free_table(cpu, frame);
                return Err(not_a_table(address, level, table).into());
            }
        };
        let linked = position.lock(cpu).link(self.mode, publish, self.writer, address, frame, table);
        match linked {
            Ok(entry) => Ok(entry),
            Err(found) => {
                source.free_table(cpu, frame);
                Ok(found)
            }
        }
    }

    /// One level down from `position` by `entry`, a copy of what its slot held.
    #[inline]
    pub(crate) fn lower(
        &self,
        position: &Position<'a>,
        entry: Entry,
        address: VirtAddr,
    ) -> Result<Position<'a>, WalkError> {
        let level = position.level();
        if !entry.is_present() {
            return Err(WalkError::NotPresent { address, level, entry });
        }
        self.mode.check_entry(level, entry, address)?;
        let Some(lower) = level.lower().filter(|_| !entry.is_leaf(level)) else {
            return Err(WalkError::Leaf { address, level, entry });
        };
        let table = self.memory.table(entry.table_frame()).map_err(|table| not_a_table(address, level, table))?;
        let parent = Link { slot: position.slot(), level, entry };
        Ok(Position::new(table.cells(), table.meta(), lower, address, Some(parent)))
    }
}

const fn not_a_table(address: VirtAddr, level: Level, table: NotATable) -> WalkError {
    WalkError::NotATable { address, level, table }
}
