//! Protecting pages from stores, so that the next one is handed over.

use machine::Cpu;
use machine::addr::VirtAddr;
use pagetable::{Entry, Level, LockedTable, WalkError};

use crate::area::Area;
use crate::file::FileKind;
use crate::gather::Gather;
use crate::leaf::Held;
use crate::madvise_guard::GuardRegionError;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::uffd::{UffdError, UffdHandler, UffdModes};

impl<'m, P: Platform> Mm<'m, P> {
    /// Protects `pages` pages from `start` on: the next store to each is handed over (Linux: UFFDIO_WRITEPROTECT with `MODE_WP`). Of a file's areas also those that are not mapped yet; of
    /// anonymous memory only those that are.
    ///
    /// On return no CPU can write to what was mapped.
    ///
    /// # Protocol
    ///
    /// The mmap lock is held for reading: faults go on, and see entries that have lost the right to write and are not flushed yet. CPUs may write through TLBs until then. A fault that copies such a
    /// page would lose what they write after the copy; so it flushes first ([`Guards::flush_before_copy`](crate::Guards::flush_before_copy)).
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing has changed that user code could notice: the range is not registered for it, or no frames for tables. But behind a malformed table nothing was done.
    pub fn uffd_write_protect(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), UffdError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let result = self
            .check_registered(cpu, space, (start, end))
            .and_then(|()| self.make_room_to_protect(cpu, space, (start, end)))
            .and_then(|()| {
                let reach = self.reach(cpu, space, (start, end));
                self.notify_of(cpu, space, reach, || self.protect_range(cpu, space, (start, end)))
            });
        mmap.unlock();
        result
    }

    /// Takes the protection of `pages` pages from `start` on away, and wakes who waits there (Linux: UFFDIO_WRITEPROTECT without `MODE_WP`). The next store faults once more, and is resolved as everywhere
    /// else.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing has changed: the range is not registered for it. But behind a malformed table nothing was done.
    pub fn uffd_write_unprotect(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), UffdError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let result = self
            .check_registered(cpu, space, (start, end))
            .and_then(|()| self.make_room_in_areas(cpu, space, (start, end), Self::split_edges_for_good))
            .and_then(|()| self.unprotect_entries(cpu, space, (start, end)).map_err(UffdError::from));
        mmap.unlock();
        if result.is_ok() {
            self.uffd().wake(cpu, space, start, end);
        }
        result
    }

    /// Ends waits for addresses of `pages` pages from `start` on, whatever is there: each access faults again, if it must (Linux: UFFDIO_WAKE).
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// The range cannot be meant.
    pub fn uffd_wake(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), UffdError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        self.uffd().wake(cpu, space, start, end);
        Ok(())
    }

    /// Whether all of a range is registered for write protection. The caller holds the mmap lock.
    fn check_registered(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<(), UffdError> {
        let mut at = start;
        while at < end {
            let area = space.find(cpu, at).filter(|area| area.uffd.has(UffdModes::WRITE_PROTECT));
            at = area.ok_or(UffdError::NotRegistered { address: at })?.end();
        }
        Ok(())
    }

    /// Does all that can fail. The caller holds the mmap lock.
    fn make_room_to_protect(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        range: (VirtAddr, VirtAddr),
    ) -> Result<(), UffdError> {
        self.make_room_in_areas(cpu, space, range, |mm, cpu, space, part, kind| match kind {
            // Markers need tables.
            FileKind::Cached => Ok(mm.for_each_small_table(cpu, space, part, |table, _, _| table.unlock())?),
            _ => mm.split_edges_for_good(cpu, space, part, kind),
        })
    }

    fn make_room_in_areas(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        make_room: impl Fn(&Self, &P::Cpu, &AddressSpace<'m>, (VirtAddr, VirtAddr), FileKind) -> Result<(), UffdError>,
    ) -> Result<(), UffdError> {
        let mut at = start;
        while let Some((_, area)) = space.first_in(cpu, at, end) {
            at = area.end();
            if let (Some(part), Some(file)) = (area.part(start, end), self.file(area.file)) {
                make_room(self, cpu, space, (part.start, part.end()), file.kind())?;
            }
        }
        Ok(())
    }

    /// Splits huge leaves that lie across an edge. In registered areas no new ones come, so it stays so while the caller holds the mmap lock.
    fn split_edges_for_good(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        _: FileKind,
    ) -> Result<(), UffdError> {
        let tables = self.page_tables(space);
        let head = cpu.loop_head();
        for edge in [start, end] {
            loop {
                cpu.round(&head, edge.as_u64());
                self.split_to_begin_at(cpu, space, edge)?;
                match tables.find(cpu, edge, Level::Pte) {
                    Err(WalkError::NotPresent { level, entry, .. })
                        if !entry.is_none() && !entry.is_prot_none() && !edge.is_aligned(level.size()) =>
                    {
                        // A huge page is on its way elsewhere: whoever moves it needs no lock that is held here.
                        if let Ok(position) = tables.find(cpu, edge, level) {
                            cpu.await_value(position.slot().cell(), |found| found != entry.bits());
                        }
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    fn protect_range(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<(), UffdError> {
        let mut gather = Gather::begin(cpu, self, space, (start, end));
        let mut result = Ok(());
        let mut at = start;
        while let Some((_, area)) = space.first_in(cpu, at, end) {
            at = area.end();
            if let Some(part) = area.part(start, end) {
                result = result.and(self.protect_area(cpu, &mut gather, space, &part));
            }
        }
        gather.finish(cpu);
        result
    }

    fn protect_area(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        space: &AddressSpace<'m>,
        part: &Area,
    ) -> Result<(), UffdError> {
        let of_file = self.file(part.file).is_some_and(|file| file.kind() == FileKind::Cached);
        let mut protect = |mut table: LockedTable<'_, P::Cpu>, from: VirtAddr, until: VirtAddr| {
            let level = table.level();
            let mut at = from;
            while at < until {
                self.protect_entry(gather, &mut table, at, of_file.then(Self::uffd_marker));
                at = level.next(at);
            }
            gather.unlock(cpu, table);
        };
        match of_file {
            true => Ok(self.for_each_small_table(cpu, space, (part.start, part.end()), protect)?),
            false => Ok(self.for_each_table(cpu, space, part.start, part.end(), &mut protect)?),
        }
    }

    /// Protects one entry, or puts this in its place if it holds nothing.
    fn protect_entry(
        &self,
        gather: &mut Gather<'_, 'm, P>,
        table: &mut LockedTable<'_, P::Cpu>,
        at: VirtAddr,
        for_nothing: Option<Entry>,
    ) {
        let (level, write) = (table.level(), &self.protocols().write);
        let entry = table.entry(&self.protocols().mode, at);
        match (self.held(level, entry), for_nothing) {
            (Held::Nothing, Some(marker)) => table.fill(write, at, marker),
            (held, _) if self.is_uffd_wp(held) => {}
            (held, _) => {
                let protect = |entry: Entry| self.uffd_protected(level, entry);
                if matches!(held, Held::Page(_) | Held::Zero(_) | Held::Swap(_) | Held::Migration(_)) {
                    let old = table.update(write, at, protect);
                    gather.changed(at, level, old, protect(old));
                }
            }
        }
    }
}

impl From<GuardRegionError> for UffdError {
    fn from(error: GuardRegionError) -> Self {
        match error {
            GuardRegionError::Range(error) => Self::Range(error),
            GuardRegionError::NoArea { address } => Self::NotRegistered { address },
            GuardRegionError::Unsuitable { area } => Self::Unsuitable { area },
            GuardRegionError::OutOfFrames => Self::OutOfFrames,
            GuardRegionError::Malformed(error) => error.into(),
        }
    }
}
