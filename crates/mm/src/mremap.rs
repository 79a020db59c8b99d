//! Moving part of an area, growing and shrinking it.
//!
//! # Protocol of a move
//!
//! 1. Everything that can fail comes first: slots are set aside, huge leaves that cannot move are split, tables are made at the new place.
//! 2. The file learns of the new place, and forgets the old one last: who goes by its rmap finds a page at either. It goes through the slots in order,
//!    so a slot behind the old one is taken if there is one; if there is not, nobody goes by the rmap until the move is over (Linux:
//!    `need_rmap_locks`).
//! 3. Entries move table by table, with the locks of both tables held. **TLBs are flushed before either lock is dropped**: with the locks dropped,
//!    somebody may take the page from its new place and free it, flushing only that (Linux eb66ae030829, CVE-2018-18281).
//!
//! No other CPU takes two page-table locks of one level in this address space, because that needs the mmap lock for writing. So the table of the old place is locked
//! first, whichever it is.

use machine::addr::{PAGE_SIZE, VirtAddr};
use pagetable::{Level, LockedTable, Position, WalkError};

use crate::area::Area;
use crate::error::{AreaError, MapError, RangeError, ZapError};
use crate::file::{File, Found, MappedAt};
use crate::gather::Gather;
use crate::guard::Guards;
use crate::leaf::Held;
use crate::mm::Mm;
use crate::order::FlushMoment;
use crate::platform::{Platform, Protocols};
use crate::space::{AddressRange, AddressSpace, MmapWrite, Placement, SpaceId};
use crate::uffd::UffdModes;
use crate::zap::ZapOf;

/// From where to where.
#[derive(Clone, Copy)]
struct Move {
    from: VirtAddr,
    /// The first address behind the entries that move.
    end: VirtAddr,
    to: VirtAddr,
}

impl Move {
    /// The new place of an address.
    const fn new_place(&self, at: VirtAddr) -> VirtAddr {
        self.to.wrapping_add(at.as_u64().wrapping_sub(self.from.as_u64()))
    }

    /// The old place of a new one.
    const fn old_place(&self, at: VirtAddr) -> VirtAddr {
        self.from.wrapping_add(at.as_u64().wrapping_sub(self.to.as_u64()))
    }

    /// Whether a leaf of this level can be one at its new place, too.
    const fn keeps(&self, level: Level) -> bool {
        self.new_place(self.from).as_u64().wrapping_sub(self.from.as_u64()).is_multiple_of(level.size())
    }
}

const GONE: fn(&Area) -> Option<Area> = |_| None;

impl<'m, P: Platform> Mm<'m, P> {
    /// Moves `pages` pages from `from` on, which lie in one area, to `to`, where there is no area and no gap of a stack, and makes them `new_pages`. What is mapped stays
    /// mapped; the pages that are added are not mapped yet. With `to` equal to `from` the area grows or shrinks where it is; it can grow at its
    /// end only.
    ///
    /// On return no CPU can reach a page by an address that is not of the area any more. Pages that moved count as soft-dirty.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing has changed: a range is wrong, the first one is not in one area, there is an area where the second one is or a stack too near above it, an area is cut where it must
    /// not be, there are no slots, or no frames for tables; of these, some may have been found and stay, empty, where another area reaches into them. Or
    /// tables were malformed: then the areas have moved, but not all entries.
    pub fn mremap(
        &self,
        cpu: &P::Cpu,
        id: SpaceId,
        (from, pages): (VirtAddr, u64),
        (to, new_pages): (VirtAddr, u64),
    ) -> Result<(), AreaError> {
        let space = self.space(id).ok_or(AreaError::NoSpace(id))?;
        let (from, end) = self.tagged_range(space, from, pages)?;
        let new_end = self.page_range(to, new_pages)?;
        for (address, pages) in [(from, pages), (to, new_pages)] {
            if pages == 0 {
                return Err(RangeError::Empty { address }.into());
            }
        }
        // Both places, and what lies between them: a move is not so frequent that it would pay to leave that out.
        let mmap = space.mmap_write(cpu, space.stack_gap_above((from.min(to), end.max(new_end))));
        let result = match space.find(cpu, from) {
            None => Err(AreaError::NoArea { address: from }),
            Some(area) if area.end() < end => Err(AreaError::NoArea { address: area.end() }),
            Some(area) if from != to => self.move_area(cpu, (id, space), &mmap, &area, ((from, end), (to, new_end))),
            Some(area) if end < new_end => self.grow_area(cpu, (id, space), &area, end, new_pages - pages),
            Some(_) if new_end < end => self.unmap_range(cpu, (id, space), &mmap, (new_end, end)),
            Some(_) => Ok(()),
        };
        mmap.unlock();
        result
    }

    /// Adds pages behind an area, which ends at `end`.
    fn grow_area(
        &self,
        cpu: &P::Cpu,
        (id, space): (SpaceId, &AddressSpace<'m>),
        area: &Area,
        end: VirtAddr,
        more: u64,
    ) -> Result<(), AreaError> {
        let grown = Area { pages: area.pages + more, ..*area };
        let file = self.checked_file(space, &grown)?;
        if let Some((_, other)) = space.first_in(cpu, end, grown.end()) {
            return Err(AreaError::Overlaps(other));
        }
        if let Some(stack) = self.stack_with_gap_in(cpu, space, area.rights, (end, grown.end())) {
            return Err(AreaError::InGuardGap(stack));
        }
        if let Some((index, _)) = space.first_in(cpu, area.start, area.end()) {
            let rmap = file.rmap_lock().write(cpu);
            file.relink(cpu, &MappedAt::new(id, area), [MappedAt::new(id, &grown)]);
            rmap.unlock();
            space.splice(cpu, index, 1, &[grown]);
        }
        Ok(())
    }

    /// The file of an area that is to be, if it can be.
    fn checked_file(&self, space: &AddressSpace<'m>, area: &Area) -> Result<&'m File<'m>, AreaError> {
        let file = self.file(area.file).ok_or(AreaError::BadArea(*area))?;
        match self.check_area(area, file.alignment()) {
            Ok(()) => match space.boundary_in((area.start, area.end())) {
                None => Ok(file),
                Some(boundary) => Err(AreaError::AcrossParts { area: *area, boundary }),
            },
            Err(MapError::NotLeafAligned { area, level }) => Err(AreaError::NotLeafAligned { area, level }),
            Err(_) => Err(AreaError::BadArea(*area)),
        }
    }

    fn move_area(
        &self,
        cpu: &P::Cpu,
        (id, space): (SpaceId, &AddressSpace<'m>),
        mmap: &MmapWrite<'_, P::Cpu>,
        area: &Area,
        ((from, end), (to, new_end)): (AddressRange, AddressRange),
    ) -> Result<(), AreaError> {
        let pages = (new_end.as_u64() - to.as_u64()) / PAGE_SIZE;
        // Who reads the userfaultfd knows the old place (Linux: without UFFD_EVENT_REMAP).
        let new = Area { start: to, pages, offset: area.file_page(from), ..*area }.with_uffd(UffdModes::NONE);
        let file = self.checked_file(space, &new)?;
        if let Some((_, other)) = space.first_in(cpu, to, new_end) {
            return Err(AreaError::Overlaps(other));
        }
        if let Some(stack) = self.stack_with_gap_in(cpu, space, area.rights, (to, new_end)) {
            return Err(AreaError::InGuardGap(stack));
        }
        let room = self.room_for_cut(cpu, space, (from, end), &GONE)?;
        let moved = Move { from, end: end.min(from.wrapping_add(pages * PAGE_SIZE)), to };
        let result = self.prepare_move(cpu, space, area, (from, end), &moved);
        let result = result.and_then(|()| self.link_new_place(cpu, id, file, area, &new));
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                self.cancel_cut(cpu, &room);
                self.free_tables_between(cpu, (space, mmap), to, new_end);
                return Err(error);
            }
        };
        let changed = self.notify_of(cpu, space, (from, end), || {
            let mut gather = Gather::begin(cpu, self, space, (from, end));
            let mut moved_all = || {
                let result = self.move_entries(cpu, &mut gather, space, &moved);
                result.and(self.zap_range(cpu, &mut gather, space, moved.end, end, ZapOf::Everything))
            };
            let changed = match found {
                Found::AfterTheOld => moved_all(),
                Found::BeforeTheOld => {
                    let rmap = file.rmap_lock().write(cpu);
                    let changed = moved_all();
                    rmap.unlock();
                    changed
                }
            };
            gather.finish(cpu);
            changed
        });
        self.cut(cpu, (id, space), (from, end), &GONE, room);
        if let Placement::At(index) = space.place(cpu, &new) {
            space.insert(cpu, index, &new);
        }
        self.free_tables_between(cpu, (space, mmap), from, end);
        changed.map_err(AreaError::Zap)
    }

    /// Step 1, but for the new place's mapping slot.
    fn prepare_move(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        (from, end): (VirtAddr, VirtAddr),
        moved: &Move,
    ) -> Result<(), AreaError> {
        // The new area takes the slot of the old one, if that goes wholly and they are of one part.
        let left = usize::from(area.start < from) + usize::from(end < area.end());
        let needed = if space.are_together(area.start, moved.to) { left } else { 1 };
        if needed > space.free_slots(cpu, moved.to) {
            return Err(AreaError::SpaceFull);
        }
        self.split_edges(cpu, space, (from, end))?;
        self.split_edges(cpu, space, (from, moved.end))?;
        self.prepare_tables(cpu, space, moved)
    }

    /// Makes the tables at the new place that the entries need, and splits the leaves that cannot be there what they are.
    fn prepare_tables(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, moved: &Move) -> Result<(), AreaError> {
        let tables = self.page_tables(space);
        let populate = |at: VirtAddr, level: Level| {
            tables.populate(cpu, self.tables(), &self.protocols().publish, at, level).map_err(AreaError::from)
        };
        let is_free = |position: Position<'_>| position.slot().read(cpu, &self.protocols().read).is_none();
        let mut at = moved.from;
        while at < moved.end {
            let level = match tables.find(cpu, at, Level::Pte) {
                Ok(_) => {
                    let last = VirtAddr::new(Level::Pmd.next(at).min(moved.end).as_u64() - PAGE_SIZE);
                    populate(moved.new_place(at), Level::Pte)?;
                    populate(moved.new_place(last), Level::Pte)?;
                    Level::Pmd
                }
                Err(WalkError::NotPresent { level, entry, .. }) if entry.is_none() => level,
                Err(WalkError::Leaf { level, .. } | WalkError::NotPresent { level, .. }) => {
                    if !moved.keeps(level) || !is_free(populate(moved.new_place(at), level)?) {
                        self.split_leaf_under_lock(cpu, space, at)?;
                        continue;
                    }
                    level
                }
                Err(error) => return Err(AreaError::BadTable(error.into())),
            };
            at = level.next(at);
        }
        Ok(())
    }

    /// Step 2.
    fn link_new_place(
        &self,
        cpu: &P::Cpu,
        id: SpaceId,
        file: &File<'m>,
        old: &Area,
        new: &Area,
    ) -> Result<Found, AreaError> {
        let rmap = file.rmap_lock().write(cpu);
        let found = file.link_new_place(cpu, &MappedAt::new(id, old), &MappedAt::new(id, new));
        rmap.unlock();
        found.map_err(|_| AreaError::FileFull)
    }

    /// Step 3.
    fn move_entries(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        space: &AddressSpace<'m>,
        moved: &Move,
    ) -> Result<(), ZapError> {
        let mut result = Ok(());
        let walked = self.for_each_table(cpu, space, moved.from, moved.end, |mut table, from, until| {
            let level = table.level();
            // The tables at the new place need not begin where those at the old one do.
            let mut at = from;
            while at < until && table.children() > 0 {
                let of_table = moved.old_place(level.upper().unwrap_or(level).next(moved.new_place(at)));
                let end = if at < of_table { until.min(of_table) } else { until };
                result = result.and(self.move_run(cpu, gather, space, &mut table, (at, end), moved));
                at = end;
            }
            gather.unlock(cpu, table);
        });
        walked.and(result)
    }

    /// Moves the entries of `at..end`, which lie in one table, to one other table.
    fn move_run(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        space: &AddressSpace<'m>,
        old: &mut LockedTable<'_, P::Cpu>,
        (mut at, end): (VirtAddr, VirtAddr),
        moved: &Move,
    ) -> Result<(), ZapError> {
        let Protocols { mode, write, guards, .. } = self.protocols();
        let level = old.level();
        // It was made by step 1, and stays: the mmap lock is held for writing.
        let position = self.page_tables(space).find(cpu, moved.new_place(at), level)?;
        let mut new = match core::ptr::eq(position.slot().meta(), old.slot(at).meta()) {
            true => None,
            false => Some(position.lock(cpu)),
        };
        while at < end {
            if !matches!(self.held(level, old.entry(mode, at)), Held::Nothing | Held::Table) {
                let entry = old.get_and_clear(write, at);
                if entry.is_present() {
                    gather.stale(at, level);
                }
                let entry = self.soft_dirtied(level, self.uffd_unprotected(level, entry));
                match &mut new {
                    _ if entry.is_none() => {}
                    Some(new) => new.fill(write, moved.new_place(at), entry),
                    None => old.fill(write, moved.new_place(at), entry),
                }
            }
            at = level.next(at);
        }
        if guards.flush_moved() == FlushMoment::BeforeUnlock {
            gather.flush(cpu);
        }
        if let Some(new) = new {
            new.unlock();
        }
        Ok(())
    }

    fn free_tables_between(
        &self,
        cpu: &P::Cpu,
        (space, mmap): (&AddressSpace<'m>, &MmapWrite<'_, P::Cpu>),
        start: VirtAddr,
        end: VirtAddr,
    ) {
        let mut gather = Gather::begin(cpu, self, space, (start, end));
        self.free_tables(cpu, &mut gather, (space, mmap), start, end);
        gather.finish(cpu);
    }
}
