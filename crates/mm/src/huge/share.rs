//! Two address spaces use one table (Linux: hugetlb's `huge_pmd_share`, `huge_pmd_unshare`).
//!
//! Large files that many processes map at the same place of their tables, with the same rights, can do with the tables of one. A leaf in a shared table
//! counts once. Faults fill it for all.
//!
//! # Leaving
//!
//! Whoever takes entries of *its* address space away, or rights from them, would take them from the others as well. So it does not touch them: it leaves the
//! table ([`Mm::for_each_own_table`]), and its pages come back by faults, in a table of its own. Only the last owner changes entries. Hence the order:
//!
//! 1. under the lock of the upper table and that of the shared one, the table is marked: somebody is leaving. The entry that leads to it is cleared;
//! 2. this address space's TLBs are flushed: by now the others may be about to free pages, and ask their own CPUs only (CVE-2021-4002);
//! 3. lockless walkers are waited for that came by the entry: the last owner may map other pages there (CVE-2025-38085);
//! 4. the number of owners goes down, and the mark away.
//!
//! Meanwhile the others do not know that they are fewer: who wants to zap waits for step 4. So exactly one is the last.

use machine::addr::VirtAddr;
use machine::{Cpu, Invalidation};
use pagetable::level::ENTRIES;
use pagetable::recheck::Atomic;
use pagetable::{Level, LockedRun, LockedTable, MapError, Mode, WalkError};

use crate::area::{Area, Sharing};
use crate::error::{ShareError, ZapError};
use crate::file::FileKind;
use crate::guard::Guards;
use crate::mm::Mm;
use crate::platform::{Platform, Protocols};
use crate::shootdown::Stale;
use crate::space::{AddressSpace, SpaceId};

/// In the word that counts owners besides one: somebody is leaving the table.
const LEAVING: u32 = 1 << 31;

/// Why a walk over tables paused.
enum Paused {
    /// At a table that others share.
    Shared(VirtAddr, Level),
    Malformed(WalkError),
}

impl From<WalkError> for Paused {
    fn from(error: WalkError) -> Self {
        Self::Malformed(error)
    }
}

/// What there was to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    /// Somebody else is leaving the table just now, or tables have changed: look again.
    Again,
    /// The table is left, or there is none, or it is this address space's alone.
    Done,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Lets address space `to` use the table with the leaves for `to_address` that address space `from` has for `from_address`.
    ///
    /// Both areas map the same pages of a cached file with the same rights and the same protection key, and reach as far as the table does.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Why not. Nothing has changed then but that tables above may have been added.
    pub fn share_table(
        &self,
        cpu: &P::Cpu,
        (to, to_address): (SpaceId, VirtAddr),
        (from, from_address): (SpaceId, VirtAddr),
    ) -> Result<(), ShareError> {
        let space = |id| self.space(id).ok_or(ShareError::NoSpace(id));
        let (to_space, from_space) = (space(to)?, space(from)?);
        if to == from {
            return Err(ShareError::Different);
        }
        // By number, like a fork, which holds one while it waits for the other.
        let (to_place, from_place) = ((to_space, to_address), (from_space, from_address));
        let ((first, first_address), (second, second_address)) =
            if to.number() < from.number() { (to_place, from_place) } else { (from_place, to_place) };
        let outer = first.mmap_read(cpu, (first_address, first_address));
        let inner = second.mmap_read(cpu, (second_address, second_address));
        let result = self.share_under_locks(cpu, to_place, from_place);
        inner.unlock();
        outer.unlock();
        result
    }

    fn share_under_locks(
        &self,
        cpu: &P::Cpu,
        (to, to_address): (&AddressSpace<'m>, VirtAddr),
        (from, from_address): (&AddressSpace<'m>, VirtAddr),
    ) -> Result<(), ShareError> {
        let Protocols { mode, write, publish, .. } = self.protocols();
        let (area, level) = self.shareable(cpu, to, to_address)?;
        let (other, _) = self.shareable(cpu, from, from_address)?;
        let upper = level.upper().ok_or(ShareError::Area { address: to_address })?;
        let (to_address, from_address) = (to_address.align_down(upper.size()), from_address.align_down(upper.size()));
        let same = area.file == other.file
            && area.rights == other.rights
            && area.key == other.key
            && area.file_page(to_address) == other.file_page(from_address);
        if !same {
            return Err(ShareError::Different);
        }
        let parent = self.page_tables(to).populate(cpu, self.tables(), publish, to_address, upper);
        let parent = parent.map_err(|error| match error {
            MapError::OutOfFrames { .. } => ShareError::OutOfFrames,
            _ => ShareError::Occupied { address: to_address },
        })?;
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let no_table = ShareError::NoTable { address: from_address };
            let child = self.page_tables(from).find(cpu, from_address, level).map_err(|_| no_table)?;
            let link = child.parent().ok_or(no_table)?;
            let mut upper_table = parent.lock(cpu);
            if !upper_table.entry(mode, to_address).is_none() {
                return Err(ShareError::Occupied { address: to_address });
            }
            // While this lock is held, `from` does not leave the table, nor does anybody detach it.
            let Ok(table) = child.lock_linked(cpu, &Atomic) else { continue };
            let sharers = &table.meta().sharers;
            let owners = cpu.load(sharers);
            if owners & LEAVING != 0 {
                table.unlock();
                upper_table.unlock();
                cpu.await_value(sharers, |owners| owners & LEAVING == 0);
                continue;
            }
            // Where a huge leaf was split, the table below would be shared without anybody knowing.
            if !self.has_leaves_only(&table, from_address) {
                return Err(ShareError::NoTable { address: from_address });
            }
            if let Some(address) = self.first_guard(from, &table, from_address) {
                return Err(ShareError::Guarded { address });
            }
            cpu.store(sharers, owners + 1);
            upper_table.fill(write, to_address, mode.table_entry(upper, link.entry.table_frame()));
            table.unlock();
            upper_table.unlock();
            return Ok(());
        }
    }

    /// Whether no entry of a table leads to another.
    fn has_leaves_only(&self, table: &LockedTable<'_, P::Cpu>, start: VirtAddr) -> bool {
        let mode = &self.protocols().mode;
        let level = table.level();
        let mut addresses = (0..ENTRIES as u64).map(|entry| start.wrapping_add(entry * level.size()));
        level == Level::Pte || !addresses.any(|address| mode.leads_to_table(level, table.entry(mode, address)))
    }

    /// The area at an address, if the table with its leaves for that address may be shared, and the level of that table.
    pub(super) fn shareable(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<(Area, Level), ShareError> {
        let not_here = ShareError::Area { address };
        let area = space.find(cpu, address).ok_or(not_here)?;
        let file = self.file(area.file).ok_or(not_here)?;
        let upper = file.leaf().upper().ok_or(not_here)?;
        let mode = &self.protocols().mode;
        let start = address.align_down(upper.size());
        let fits = area.start <= start && area.end().as_u64() - start.as_u64() >= upper.size();
        // An entry of a root that is read at load never changes.
        let can_change = upper < mode.root_level() || upper == mode.root_level() && !self.root_is_read_at_load();
        let is_plain = file.kind() == FileKind::Cached && !area.uffd.is_registered();
        match is_plain && area.sharing == Sharing::Shared && fits && can_change {
            true => Ok((area, file.leaf())),
            false => Err(not_here),
        }
    }

    /// Calls `visit` for every table with leaves for a range, locked, as [`pagetable::Tables::for_each_locked`] does. Tables that others share are left
    /// first: there is nothing to visit then.
    ///
    /// Context: tables of the range are not detached meanwhile (mmap lock, or rmap lock of a file mapped there); no page-table lock.
    pub(crate) fn for_each_own_table<'t>(
        &'t self,
        cpu: &'t P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        mut visit: impl FnMut(LockedTable<'t, P::Cpu>, LockedRun),
    ) -> Result<(), ZapError> {
        let mut at = start;
        loop {
            let range = (at, end.as_u64() - at.as_u64());
            let walked = self.page_tables(space).for_each_locked(cpu, &Atomic, range, |table, run| {
                if cpu.load(&table.meta().sharers) != 0 {
                    return Err(Paused::Shared(run.start, table.level()));
                }
                visit(table, run);
                Ok(())
            });
            match walked {
                Ok(()) => return Ok(()),
                Err(Paused::Malformed(error)) => return Err(error.into()),
                Err(Paused::Shared(address, level)) => {
                    self.leave_table(cpu, space, address, level);
                    at = address;
                }
            }
        }
    }

    /// Leaves the table of `level` for `address`, if others share it. It may come out that this address space is the last that uses it.
    ///
    /// Context: as for [`Self::for_each_own_table`].
    pub(crate) fn leave_table(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, address: VirtAddr, level: Level) {
        let Some(upper) = level.upper() else { return };
        let leave = || {
            let head = cpu.loop_head();
            loop {
                cpu.round(&head, 0);
                if self.try_to_leave(cpu, space, address, (level, upper)) == Left::Done {
                    return;
                }
            }
        };
        if self.protocols().guards.tells_of_left_table() {
            let start = address.align_down(upper.size());
            self.notify_of(cpu, space, (start, upper.next(start)), leave);
        } else {
            leave();
        }
    }

    fn try_to_leave(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        (level, upper): (Level, Level),
    ) -> Left {
        let Protocols { write, guards, lifetime, .. } = self.protocols();
        let tables = self.page_tables(space);
        let (Ok(parent), Ok(child)) = (tables.find(cpu, address, upper), tables.find(cpu, address, level)) else {
            return Left::Done;
        };
        let mut parent = parent.lock(cpu);
        let Ok(table) = child.lock_linked(cpu, &Atomic) else { return Left::Again };
        let sharers = &table.meta().sharers;
        let owners = cpu.load(sharers);
        if owners == 0 {
            return Left::Done;
        }
        if owners & LEAVING != 0 {
            table.unlock();
            parent.unlock();
            cpu.await_value(sharers, |owners| owners & LEAVING == 0);
            return Left::Again;
        }
        // Like a gather: whoever finds nothing here meanwhile must not take that for flushed.
        let start = address.align_down(upper.size());
        let range = (start, upper.next(start));
        space.gather_begins(cpu, range);
        cpu.store(sharers, owners | LEAVING);
        parent.get_and_clear(write, address);
        table.unlock();
        parent.unlock();
        // Its last owner frees it, and knows nothing of the CPUs of this address space.
        let what = Invalidation::pages(start, upper.frames());
        guards.flush_left_table(cpu, || self.flush(cpu, space, what, Stale::Tables));
        space.gather_ends(cpu, range);
        guards.wait_for_walkers_of_left_table(cpu, lifetime, self.shootdown(), space.active(cpu));
        // Marked as it is, nobody else changes it.
        cpu.store(sharers, owners - 1);
        Left::Done
    }
}
