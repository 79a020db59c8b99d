//! Changing a range under page-table locks: one lock and one descent per table.

use machine::addr::PAGE_SHIFT;
use machine::{Cpu, VirtAddr};

use crate::error::WalkError;
use crate::level::{ENTRIES, Level};
use crate::locked::{LockedTable, Unlinked};
use crate::memory::TableMemory;
use crate::mode::Mode;
use crate::read::EntryRead;
use crate::recheck::Recheck;
use crate::tables::Tables;
use crate::write::EntryWrite;

/// Neighbouring pages that one locked table decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockedRun {
    /// The first address of the range that the table translates; for a huge leaf it may lie inside it.
    pub start: VirtAddr,
    /// How many bytes of the range.
    pub bytes: u64,
}

impl LockedRun {
    /// The first address of every entry of `level` that the run touches.
    pub fn addresses(self, level: Level) -> impl Iterator<Item = VirtAddr> {
        let first = self.start.align_down(level.size());
        let touched = (self.start.as_u64() - first.as_u64() + self.bytes).div_ceil(level.size());
        (0..touched).map(move |index| first.wrapping_add(index * level.size()))
    }
}

impl<'a, M: Mode, T: TableMemory, R: EntryRead, W: EntryWrite> Tables<'a, M, T, R, W> {
    /// Goes through a range, takes the page-table lock of each table that holds its pages, one at a time, and
    /// gives the table to `each`: a table of pages with the part of the range that it translates, or the table
    /// of a huge leaf (or of an upper non-present encoding) with that one entry. What missing tables cover is
    /// skipped. `each` owns the lock, so that it can drop it where its protocol wants.
    ///
    /// A table that is detached, or an upper entry that changes, between the look and the lock is looked at again.
    ///
    /// Context: as for [`crate::walk`], and no page-table lock is held.
    ///
    /// # Errors
    /// A bad range, a malformed table, or what `each` says; what came before is done.
    #[track_caller]
    pub fn for_each_locked<C: Cpu, K: Recheck, E: From<WalkError>>(
        &self,
        cpu: &'a C,
        recheck: &K,
        (start, bytes): (VirtAddr, u64),
        mut each: impl FnMut(LockedTable<'a, C>, LockedRun) -> Result<(), E>,
    ) -> Result<(), E> {
        self.mode.check_range(start, bytes).map_err(WalkError::from)?;
        let mut at = start;
        let mut left = bytes;
        while left != 0 {
            match self.lock_one(cpu, recheck, at, left)? {
                Found::Table(table, run) => {
                    each(table, run)?;
                    at = at.wrapping_add(run.bytes);
                    left -= run.bytes;
                }
                Found::Nothing { bytes } => {
                    at = at.wrapping_add(bytes);
                    left -= bytes;
                }
                Found::Changed => {}
            }
        }
        Ok(())
    }

    /// Locks the table that decides about `at`.
    #[inline]
    #[track_caller]
    fn lock_one<C: Cpu, K: Recheck>(
        &self,
        cpu: &'a C,
        recheck: &K,
        at: VirtAddr,
        left: u64,
    ) -> Result<Found<'a, C>, WalkError> {
        let mut position = self.root_position(at)?;
        loop {
            let level = position.level();
            let rest = |size: u64| (size - (at.as_u64() & (size - 1))).min(left);
            if level == Level::Pte {
                let bytes = rest((ENTRIES as u64) << PAGE_SHIFT);
                return Ok(match position.lock_linked(cpu, recheck) {
                    Ok(table) => Found::Table(table, LockedRun { start: at, bytes }),
                    Err(Unlinked) => Found::Changed,
                });
            }
            let bytes = rest(level.size());
            let entry = position.slot().read(cpu, self.reader);
            if entry.is_none() {
                return Ok(Found::Nothing { bytes });
            }
            if !self.mode.leads_to_table(level, entry) {
                let Ok(table) = position.lock_linked(cpu, recheck) else { return Ok(Found::Changed) };
                let locked = table.entry(self.mode, at);
                if locked.is_none() || self.mode.leads_to_table(level, locked) {
                    return Ok(Found::Changed);
                }
                if locked.is_present() {
                    self.mode.check_entry(level, locked, at)?;
                }
                return Ok(Found::Table(table, LockedRun { start: at, bytes }));
            }
            position = self.lower(&position, entry, at)?;
        }
    }
}

enum Found<'m, C: Cpu> {
    Table(LockedTable<'m, C>, LockedRun),
    Nothing { bytes: u64 },
    Changed,
}
