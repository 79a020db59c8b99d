//! A huge leaf becomes a table of 512 leaves that map the same (Linux: `__split_huge_pmd`).
//!
//! # Protocol
//!
//! Before anything changes, a frame for the table is allocated. Then, all under the lock of the leaf's table:
//!
//! 1. the leaf is replaced by one that the hardware does not use, in *one exchange*: what it returns has the accessed and dirty bits exactly;
//! 2. TLBs are flushed, and the flush waited for. Until then CPUs may use the old translation, and no new one exists;
//! 3. the table, which nobody can reach yet, is filled with leaves that carry the bits of step 1; counts and marks of exclusive pages go up;
//! 4. the entry is made to lead to the table.
//!
//! Steps 1 and 2 come first because a CPU may hold translations of both sizes for one address, and use either: with different attributes that is not
//! defined, and on some CPUs a machine check. Clear P, invalidate, then set up the new size (SDM vol. 3A, 4.10.2.3). The same order makes dirty
//! exact: in a table that were linked first, a store through the old translation would set a bit that nobody carries over.
//!
//! # Others, meanwhile
//!
//! * Hardware walkers fault, and the fault waits for the lock. Fast GUP takes the entry for one that it may not use, and leaves it to the slow path.
//! * A walker that read the huge leaf before step 1 pins its folio and finds the entry changed afterwards. It gives the pin back, which is of the
//!   same folio still: splitting a leaf does not split the folio.
//! * Nothing is freed, so no lifetime of tables is involved.

use machine::addr::{Frame, VirtAddr};
use machine::{Cpu, Invalidation};
use pagetable::recheck::Atomic;
use pagetable::{Entry, Level, Mode, NonPresent, Position, ProtNone, Table, TableMemory, TableSource, WalkError};

use crate::error::SplitError;
use crate::folio::Folio;
use crate::guard::Guards;
use crate::leaf::{Held, Leaf, Presence};
use crate::mm::Mm;
use crate::platform::{Platform, Protocols};
use crate::shootdown::Stale;
use crate::space::AddressSpace;

impl<'m, P: Platform> Mm<'m, P> {
    /// Splits the huge leaf that maps `address` into a table of leaves of the next lower level: a 1 GiB leaf into 2 MiB ones, a 2 MiB leaf into pages.
    /// Returns the level of the leaf that was split.
    ///
    /// What user code can do stays the same, and so does the folio. It has 511 references and mappings more.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// No huge leaf maps the address, or there is no frame for the table. Nothing has changed then.
    pub fn split_leaf(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, address: VirtAddr) -> Result<Level, SplitError> {
        let mmap = space.mmap_read(cpu, (address, address));
        let result = self.split_leaf_under_lock(cpu, space, address);
        mmap.unlock();
        result
    }

    /// [`Self::split_leaf`] for a caller who sees to it that tables of the address are not detached meanwhile (mmap lock, or rmap lock of a file
    /// mapped there).
    pub(crate) fn split_leaf_under_lock(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<Level, SplitError> {
        // Looked for first: most callers only want to be sure that there is none.
        self.find_huge_leaf(cpu, space, address)?;
        let frame = self.tables().allocate_table(cpu).map_err(|_| SplitError::OutOfFrames)?;
        let result = match self.tables().table(frame) {
            Ok(table) => self.split_into(cpu, space, address, frame, table),
            Err(_) => Err(SplitError::OutOfFrames),
        };
        if result.is_err() {
            self.tables().free_table(cpu, frame);
        }
        result
    }

    /// Splits whatever huge leaf maps `address`, until none does or the leaf begins there: what lies before the address and what follows can be
    /// changed one without the other then.
    ///
    /// Context: as for [`Self::split_leaf_under_lock`].
    ///
    /// # Errors
    /// No frame for a table: the leaf that maps the address is another one at most, and maps the same.
    pub(crate) fn split_to_begin_at(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<(), SplitError> {
        while !address.is_aligned(Level::Pud.size()) {
            match self.find_huge_leaf(cpu, space, address) {
                Ok(position) if address.is_aligned(position.level().size()) => return Ok(()),
                Err(SplitError::NotHuge { .. }) => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            match self.split_leaf_under_lock(cpu, space, address) {
                Ok(_) | Err(SplitError::NotHuge { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The table with the huge leaf that maps `address`, found without a lock.
    fn find_huge_leaf(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<Position<'_>, SplitError> {
        let tables = self.page_tables(space);
        let level = match tables.find(cpu, address, Level::Pte) {
            Err(WalkError::Leaf { level, .. }) => level,
            // Somebody else is splitting it, or user code must not use it for now: the lock will tell.
            Err(WalkError::NotPresent { level, entry, .. }) if entry.is_prot_none() => level,
            Ok(_) | Err(WalkError::NotPresent { .. }) => return Err(SplitError::NotHuge { address }),
            Err(error) => return Err(SplitError::Malformed(error)),
        };
        tables.find(cpu, address, level).map_err(|_| SplitError::NotHuge { address })
    }

    /// Steps 1 to 4, with a table that lies in `frame`.
    fn split_into(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        frame: Frame,
        table: Table<'_>,
    ) -> Result<Level, SplitError> {
        let Protocols { mode, write, guards, .. } = self.protocols();
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let position = self.find_huge_leaf(cpu, space, address)?;
            let Ok(mut parent) = position.lock_linked(cpu, &Atomic) else { continue };
            let level = parent.level();
            if cpu.load(&parent.meta().sharers) != 0 {
                parent.unlock();
                self.leave_table(cpu, space, address, level);
                continue;
            }
            let found = parent.entry(mode, address);
            let (Some(lower), Some(kept)) = (level.lower(), self.huge_leaf(level, found)) else { continue };
            let mut leaf = found;
            if kept.presence == Presence::Present {
                let Leaf { frame, attributes, .. } = kept;
                let invalid = NonPresent::ProtNone(ProtNone { frame, attributes }).encode(level);
                leaf = guards.invalidate_leaf(&mut parent, write, address, invalid);
                self.flush(cpu, space, Invalidation::page(address.align_down(level.size())), Stale::Leaves);
            }
            table.fill_from_leaf::<P::Mode, _, _>(cpu, write, level, lower, leaf);
            if let Held::Page(_) = self.held(level, leaf)
                && let Some(folio) = Folio::held(self.map(), cpu, kept.frame)
            {
                folio.split_mapping(cpu, self.map(), kept.frame, lower);
            }
            parent.replace(write, address, mode.table_entry(level, frame));
            parent.unlock();
            return Ok(level);
        }
    }

    /// The huge leaf that an entry is, whether or not the hardware uses it.
    fn huge_leaf(&self, level: Level, entry: Entry) -> Option<Leaf> {
        match self.held(level, entry) {
            Held::Page(leaf) | Held::Special(leaf) | Held::Zero(leaf) => Some(leaf),
            _ => None,
        }
    }
}
