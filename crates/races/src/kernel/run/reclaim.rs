//! Operations of reclaim.

use machine::addr::PAGE_SIZE;
use machine::{Frame, VirtAddr};
use mm::{FileId, FolioSplitError, ReclaimError, SpaceId, Usage, ZapError};
use pagetable::{Mode, walk};

use super::Runner;
use crate::checker::CheckedCpu;
use crate::kernel::watch::Told;

/// The most pages that one operation swaps out.
const MOST_SWAPPED: usize = 8;

impl<M: Mode, C: CheckedCpu> Runner<'_, '_, M, C> {
    /// Whether all of these pages were mapped, and are on swap now. The others stay.
    pub(super) fn swap_out(&self, space: SpaceId, start: VirtAddr, pages: u64) -> Result<(), Option<ReclaimError>> {
        let mut frames = [Frame::new(0); MOST_SWAPPED];
        let mut found = 0;
        for page in 0..pages {
            if let Some(frame) = self.frame_at(space, start.wrapping_add(page * PAGE_SIZE))
                && let Some(slot) = frames.get_mut(found)
            {
                *slot = frame;
                found += 1;
            }
        }
        let mut result = if found as u64 == pages { Ok(()) } else { Err(None) };
        self.mm.swap_out_many(self.cpu, &frames[..found], |_, outcome| result = result.and(outcome.map_err(Some)));
        result
    }

    /// The frame of the page that is mapped at an address: what reclaim would find on a list of its own.
    fn frame_at(&self, space: SpaceId, address: VirtAddr) -> Option<Frame> {
        let protocols = self.mm.protocols();
        let irq = self.cpu.irq_off();
        let root = self.space(space).root();
        let found = walk::translate(irq.cpu(), &protocols.mode, self.mm.tables(), &protocols.read, root, address);
        found.ok().map(|found| found.frame)
    }

    /// Whether a folio was mapped there, and has moved.
    pub(super) fn migrate(&self, space: SpaceId, address: VirtAddr) -> Result<(), Option<ReclaimError>> {
        let frame = self.frame_at(space, address).ok_or(None)?;
        self.mm.migrate(self.cpu, frame).map(drop).map_err(Some)
    }

    /// Whether a page was mapped there, and is out of use because its memory failed.
    pub(super) fn fail(&self, space: SpaceId, address: VirtAddr) -> Result<(), Option<ReclaimError>> {
        let frame = self.frame_at(space, address).ok_or(None)?;
        self.mm.memory_failure(self.cpu, frame).map_err(Some)?;
        Told::OutOfUse { frame }.tell(self.cpu);
        Ok(())
    }

    /// Whether a large folio was mapped there, and is in pieces.
    pub(super) fn split_folio(&self, space: SpaceId, address: VirtAddr) -> Result<(), Option<FolioSplitError>> {
        let frame = self.frame_at(space, address).ok_or(None)?;
        self.mm.split_folio(self.cpu, frame).map_err(Some)
    }

    /// Whether all pages of the range have moved.
    pub(super) fn migrate_range(
        &self,
        space: SpaceId,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), Option<ReclaimError>> {
        match self.mm.migrate_range(self.cpu, self.space(space), start, pages) {
            Ok(moved) if moved == pages => Ok(()),
            Ok(_) => Err(None),
            Err(error) => Err(Some(ReclaimError::Table(error))),
        }
    }

    /// Whether all pages of the range have a NUMA hint that had none.
    pub(super) fn numa_hint(&self, space: SpaceId, start: VirtAddr, pages: u64) -> Result<(), Option<ZapError>> {
        match self.mm.hint_numa(self.cpu, self.space(space), start, pages) {
            Ok(hinted) if hinted == pages => Ok(()),
            Ok(_) => Err(None),
            Err(error) => Err(Some(error)),
        }
    }

    /// Whether a page of the range was used in one of these ways since that was last forgotten. It is forgotten now.
    pub(super) fn harvest(&self, space: SpaceId, range: (VirtAddr, u64), ways: Usage) -> Result<bool, ZapError> {
        let asked = [Usage::ACCESSED, Usage::DIRTY, Usage::SOFT_DIRTY].map(|way| (way, ways.contains(way)));
        let mut used = false;
        self.mm.harvest(self.cpu, self.space(space), range, ways, |page| {
            used |= asked.iter().any(|&(way, is_asked)| is_asked && page.usage.contains(way));
        })?;
        Ok(used)
    }

    pub(super) fn write_back(&self, file: FileId, page: u64) -> Result<(), ReclaimError> {
        let written_out = |frame| Told::WrittenOut { frame }.tell(self.cpu);
        self.mm.write_back(self.cpu, self.file(file), page, written_out).map(drop)
    }
}
