//! Zap: taking entries away, by address or by rmap.

use machine::Cpu;
use machine::addr::{Frame, VirtAddr};
use pagetable::{Level, LockedTable, Marker};

use crate::area::HugePages;
use crate::error::{SplitError, ZapError};
use crate::file::{File, FileKind};
use crate::folio::{Folio, FolioFlags};
use crate::gather::Gather;
use crate::guard::Guards;
use crate::leaf::Held;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::trace::Event;

/// Which entries a zap takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ZapOf {
    /// All: the area goes.
    Everything,
    /// All but guards, and what says that userfaultfd protects a file's page, which stay until the area goes (Linux: MADV_DONTNEED).
    Contents,
    /// Those of the file's own pages, and of a driver's. Copies of them, which belong to the address space, stay (Linux: `unmap_mapping_pages`
    /// without `even_cows`).
    FilePages,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes the entries of `pages` pages from `start` on away (Linux: MADV_DONTNEED). The areas stay: accesses fault the pages back in.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing was zapped: the range is wrong, or there is no frame to split a huge page of which only part is to go (if another CPU maps such a page
    /// meanwhile, the rest of the range may be zapped). Behind a malformed table nothing was.
    pub fn zap(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, start: VirtAddr, pages: u64) -> Result<(), ZapError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let reach = self.reach(cpu, space, (start, end));
        let result = self.split_anonymous_edges(cpu, space, (start, end)).map_err(ZapError::from).and_then(|()| {
            self.notify_of(cpu, space, reach, || self.zap_and_finish(cpu, space, start, end, ZapOf::Contents))
        });
        mmap.unlock();
        result
    }

    /// Splits the huge pages of anonymous memory that lie across an edge of the range, so that what can fail comes before anything is zapped. The caller
    /// holds the mmap lock.
    fn split_anonymous_edges(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<(), SplitError> {
        for edge in [start, end] {
            let area = space.find(cpu, edge);
            if area.is_some_and(|area| area.huge == HugePages::Allowed && area.start < edge) {
                self.split_to_begin_at(cpu, space, edge)?;
            }
        }
        Ok(())
    }

    /// Takes every entry away, in every address space, that maps one of `pages` pages of a file from `first` on (Linux: `unmap_mapping_pages`).
    ///
    /// Finds them by the file's rmap. Holds *no lock of any address space*: faults on the same addresses go on, excluded only by page-table
    /// locks.
    ///
    /// On return no CPU can reach the pages by a translation that existed before the call. Later faults may map them again, unless the caller
    /// prevents that.
    ///
    /// Context: interrupts on, no lock but perhaps the file's driver lock.
    ///
    /// # Errors
    /// A page table was malformed: what lies behind was not zapped. All other mappings were.
    pub fn unmap_mapping(&self, cpu: &P::Cpu, file: &File<'m>, first: u64, pages: u64) -> Result<(), ZapError> {
        let rmap = file.rmap_lock().read(cpu);
        let mut result = Ok(());
        for mapping in file.mappings(cpu) {
            let Some((start, end)) = mapping.addresses(first, pages) else { continue };
            let Some(space) = self.space(mapping.space) else { continue };
            self.protocols().guards.wait_for_huge_faults(|| self.wait_for_huge_faults(cpu, space, file, (start, end)));
            let reach = self.reach_of_file(file, (start, end));
            let zapped =
                self.notify_of(cpu, space, reach, || self.zap_and_finish(cpu, space, start, end, ZapOf::FilePages));
            result = result.and(zapped);
        }
        rmap.unlock();
        result
    }

    /// Waits for faults that looked the file's huge pages up before it lost them, and are about to map them.
    ///
    /// They hold the lock of the table with the leaf over both. A walk does not take it where it finds nothing: only tables of small pages
    /// are locked unseen. So it may pass while such a fault is at work.
    fn wait_for_huge_faults(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        file: &File<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) {
        let level = file.leaf();
        let Some(table) = level.upper().filter(|_| level > Level::Pte && file.kind() == FileKind::Cached) else {
            return;
        };
        let mut at = start;
        while at < end {
            if let Ok(position) = self.page_tables(space).find(cpu, at, level) {
                position.lock(cpu).unlock();
            }
            at = table.next(at);
        }
    }

    pub(crate) fn zap_and_finish(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        end: VirtAddr,
        what: ZapOf,
    ) -> Result<(), ZapError> {
        let mut gather = Gather::begin(cpu, self, space, (start, end));
        let result = self.zap_range(cpu, &mut gather, space, start, end, what);
        gather.finish(cpu);
        result
    }

    /// Clears the entries of a range and gathers what they mapped. A huge leaf that reaches beyond the range goes whole if its pages come back by faults;
    /// one of anonymous memory, whose contents are nowhere else, is split first.
    ///
    /// # Errors
    /// No frame to split a leaf: it stays. Or a table is malformed: nothing behind it was zapped.
    ///
    /// Context: tables of the range are not detached meanwhile (mmap lock, or rmap lock of a file mapped there).
    pub(crate) fn zap_range(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        end: VirtAddr,
        what: ZapOf,
    ) -> Result<(), ZapError> {
        self.trace(cpu, || Event::Zap { start, end });
        let mut start = start;
        loop {
            let mut partial = None;
            self.for_each_table(cpu, space, start, end, |mut table, from, until| {
                let level = table.level();
                let mut at = from;
                while at < until && table.children() > 0 {
                    let held = self.held(level, table.entry(&self.protocols().mode, at));
                    if self.is_zapped(cpu, held, what) {
                        if self.goes_in_part(cpu, level, held, (at, start, end)) {
                            partial = partial.or(Some((at, table.slot(at), table.entry(&self.protocols().mode, at))));
                        } else {
                            let write = &self.protocols().write;
                            let cleared = match self.leaves_uffd_marker(cpu, space, at, (held, what)) {
                                true => table.replace(write, at, Self::uffd_marker()),
                                false => table.get_and_clear(write, at),
                            };
                            gather.entry(cpu, level, at, cleared);
                        }
                    }
                    at = level.next(at);
                }
                gather.unlock(cpu, table);
            })?;
            let Some((at, slot, entry)) = partial else { return Ok(()) };
            if entry.holds_page() {
                match self.split_leaf_under_lock(cpu, space, at) {
                    // Gone meanwhile, and what may have come since is looked at again.
                    Ok(_) | Err(SplitError::NotHuge { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            } else {
                // Its page is on its way elsewhere: whoever moves it needs no lock that is held here.
                cpu.await_value(slot.cell(), |found| found != entry.bits());
            }
            start = at;
        }
    }

    /// Whether a huge page of anonymous memory reaches beyond the range: it is all that has its contents. `at` is the first address of the range that the
    /// entry translates.
    fn goes_in_part(
        &self,
        cpu: &P::Cpu,
        level: Level,
        held: Held,
        (at, start, end): (VirtAddr, VirtAddr, VirtAddr),
    ) -> bool {
        let first = at.align_down(level.size());
        let reaches_beyond = first < start || end.as_u64() - first.as_u64() < level.size();
        reaches_beyond
            && match held {
                Held::Page(leaf) => self.is_anonymous(cpu, leaf.frame),
                Held::Migration(away) => self.is_anonymous(cpu, away.from),
                _ => false,
            }
    }

    /// Whether an entry goes. Asked under its page-table lock.
    fn is_zapped(&self, cpu: &P::Cpu, held: Held, what: ZapOf) -> bool {
        match (held, what) {
            (Held::Nothing | Held::Table, _) => false,
            (_, ZapOf::Everything) => true,
            (Held::Marker(marker), ZapOf::Contents) => marker == Marker::Poisoned,
            (_, ZapOf::Contents) => true,
            (Held::Page(leaf), ZapOf::FilePages) => !self.is_anonymous(cpu, leaf.frame),
            (Held::Special(_), ZapOf::FilePages) => true,
            // A page under migration is of the file unless its record says otherwise, like one that is mapped.
            (Held::Migration(migration), ZapOf::FilePages) => !self.is_anonymous(cpu, migration.from),
            (Held::Zero(_) | Held::Swap(_) | Held::Marker(_) | Held::Unknown, ZapOf::FilePages) => false,
        }
    }

    /// Whether the folio of a frame that an entry holds belongs to address spaces, not to a file. The entry keeps it: its page-table lock is held.
    pub(crate) fn is_anonymous(&self, cpu: &P::Cpu, frame: Frame) -> bool {
        Folio::held(self.map(), cpu, frame).is_some_and(|folio| folio.flags(cpu).contains(FolioFlags::ANON))
    }

    /// Calls `visit` for every table with leaves for `start..end`, locked, with the part of the range that it translates (of a table of huge leaves:
    /// one leaf at a time). A table that others share is left first, and not visited.
    ///
    /// Context: tables of the range are not detached meanwhile (mmap lock, or rmap lock of a file mapped there).
    pub(crate) fn for_each_table<'t>(
        &'t self,
        cpu: &'t P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        end: VirtAddr,
        mut visit: impl FnMut(LockedTable<'t, P::Cpu>, VirtAddr, VirtAddr),
    ) -> Result<(), ZapError> {
        self.for_each_own_table(cpu, space, (start, end), |table, run| {
            self.settle_batched_flush(cpu, space);
            visit(table, run.start, run.start.wrapping_add(run.bytes));
        })
    }
}
