//! The tables of an area, one after the other.

use machine::addr::VirtAddr;
use pagetable::{Level, WalkError};

use crate::area::Area;
use crate::error::ForkError;
use crate::folio::{Folio, FolioFlags, FolioMapping, Reference};
use crate::fork::entry::{Copied, Copier};
use crate::fork::{Copies, Pair, order_of};
use crate::frames::allocate_folio;
use crate::gather::Gather;
use crate::mm::Mm;
use crate::platform::Platform;

/// How far one table was copied.
enum Progress {
    /// To here.
    To(VirtAddr),
    /// To here, where a page is pinned: a folio of this order is needed for a copy of it.
    NeedsFolio(VirtAddr, Level),
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Copies the entries of an area to the child.
    ///
    /// Context: mmap locks of both held for writing, rmap lock of the area's file held for writing, the parent's `write_protect` sequence odd.
    pub(super) fn fork_range(
        &self,
        cpu: &P::Cpu,
        pair: &Pair<'_, 'm>,
        (area, copies): (&Area, Copies),
        gather: &mut Gather<'_, 'm, P>,
    ) -> Result<(), ForkError> {
        let mut spare: Option<Folio<'m>> = None;
        let mut at = area.start;
        let mut result = Ok(());
        while at < area.end() && result.is_ok() {
            result = match self.fork_table(cpu, pair, (area, copies), at, &mut spare, gather) {
                Ok(Progress::To(next)) => {
                    at = next;
                    Ok(())
                }
                Ok(Progress::NeedsFolio(next, level)) => {
                    at = next;
                    let folio = self.spare_folio(cpu, area, at, level);
                    folio.map(|folio| spare = Some(folio))
                }
                Err(error) => Err(error),
            };
        }
        if let Some(folio) = spare {
            // Nobody knows it, so this is the last reference.
            let _ = folio.put(cpu, self.map(), 1, Reference::Get);
        }
        result
    }

    /// A folio for a copy of the page at `at`, allocated with no page-table lock held.
    fn spare_folio(&self, cpu: &P::Cpu, area: &Area, at: VirtAddr, level: Level) -> Result<Folio<'m>, ForkError> {
        let flags = FolioFlags::ANON.and(FolioFlags::EXCLUSIVE);
        let mapping = FolioMapping { file: area.file, page: area.file_page(at) };
        allocate_folio(self.map(), self.frames(), cpu, order_of(level), flags, Some(mapping))
            .map_err(|_| ForkError::OutOfFrames)
    }

    /// Copies entries from `at` on, of the one table that decides about it.
    fn fork_table(
        &self,
        cpu: &P::Cpu,
        pair: &Pair<'_, 'm>,
        (area, copies): (&Area, Copies),
        at: VirtAddr,
        spare: &mut Option<Folio<'m>>,
        gather: &mut Gather<'_, 'm, P>,
    ) -> Result<Progress, ForkError> {
        let (from, to) = (self.page_tables(pair.parent), self.page_tables(pair.child));
        let source = match from.find(cpu, at, Level::Pte) {
            Ok(position) => position,
            Err(WalkError::NotPresent { level, entry, .. }) if entry.is_none() => {
                return Ok(Progress::To(level.next(at)));
            }
            Err(WalkError::NotPresent { level, .. } | WalkError::Leaf { level, .. }) => from.find(cpu, at, level)?,
            Err(error) => return Err(error.into()),
        };
        let level = source.level();
        // Before the lock: it may fail, and take locks of the child's tables.
        let target = to.populate(cpu, self.tables(), &self.protocols().publish, at, level)?;
        // The parent's table before the child's. Nobody takes them the other way round: that would be a fork of the child, whose mmap lock is held.
        let mut source = source.lock(cpu);
        self.settle_batched_flush(cpu, pair.parent);
        let mut target = target.lock(cpu);
        let end = match level {
            Level::Pte => Level::Pmd.next(at).min(area.end()),
            level => level.next(at),
        };
        let mut copier =
            Copier { mm: self, cpu, parent: pair.parent, child: pair.child, area, copies, level, spare, gather };
        let mut at = at;
        while at < end {
            match copier.copy(&mut source, &mut target, at)? {
                Copied::Done => at = level.next(at),
                Copied::NeedsFolio => return Ok(Progress::NeedsFolio(at, level)),
                // A huge leaf was split between the look and the lock.
                Copied::Table => return Ok(Progress::To(at)),
            }
        }
        Ok(Progress::To(at))
    }
}
