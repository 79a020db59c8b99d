//! A whole area at once: what a driver with memory of its own does when it is mapped (Linux: `remap_pfn_range`).

use machine::Access;
use machine::addr::{PAGE_SIZE, VirtAddr};
use pagetable::Level;

use crate::area::Area;
use crate::file::FileKind;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::special::insert::{InsertError, Inserted};
use crate::special::leaf::PfnLeaf;
use crate::special::prefault::{Pages, Populated};
use crate::zap::ZapOf;

impl<'m, P: Platform> Mm<'m, P> {
    /// Maps `pages` pages from `start` on to the frames from `first.frame` on, in the largest leaves that fit, but none larger than `first.level`.
    ///
    /// The range lies in one area of a PFN-mapped file, and nothing is mapped there yet.
    ///
    /// Faults wait meanwhile. A revoke does not, but for one by [`Mm::revoke`]: the file's driver lock is held.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Why the range is not mapped. Nothing of it is then, but tables may have been added (Linux since 79a61cc3fc04: no half of a mapping stays behind).
    pub fn remap_pfn_range(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, pages): (VirtAddr, u64),
        first: &PfnLeaf,
    ) -> Result<(), InsertError> {
        let mmap = space.mmap_write(cpu, (start, start));
        let result = match space.find(cpu, start) {
            Some(area) => self.remap_in_area(cpu, space, &area, (start, pages), first),
            None => Err(InsertError::NoArea { address: start }),
        };
        mmap.unlock();
        result
    }

    fn remap_in_area(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        (start, pages): (VirtAddr, u64),
        first: &PfnLeaf,
    ) -> Result<(), InsertError> {
        let file = self.special_file(area)?;
        if file.kind() != FileKind::PfnMapped {
            return Err(InsertError::NotSpecial { area: *area });
        }
        let left = (area.end().as_u64() - start.as_u64()) / PAGE_SIZE;
        if !start.is_aligned(PAGE_SIZE) || pages > left {
            return Err(InsertError::Misplaced { address: start, level: Level::Pte, area: *area });
        }
        let driver = file.driver_lock().lock(cpu);
        let mut done = 0;
        let mut result = Ok(());
        while done < pages && result.is_ok() {
            let at = start.wrapping_add(done * PAGE_SIZE);
            let (inserted, ended) = self.remap_some(cpu, space, area, (at, pages - done), &first.behind(done));
            done += inserted;
            result = ended;
        }
        driver.unlock();
        if result.is_err() && done > 0 {
            // Only this function maps anything there while the mmap lock is held for writing; a malformed table was left out above already.
            let end = start.wrapping_add(done * PAGE_SIZE);
            let _ = self
                .notify_of(cpu, space, (start, end), || self.zap_and_finish(cpu, space, start, end, ZapOf::FilePages));
        }
        result
    }

    /// One huge leaf, or the pages up to where the next may be.
    fn remap_some(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        (at, pages): (VirtAddr, u64),
        first: &PfnLeaf,
    ) -> (u64, Result<(), InsertError>) {
        let mut leaf = *first;
        while leaf.level > Level::Pte {
            if fits(at, pages, &leaf) {
                match self.insert_in_area(cpu, space, area, at, &leaf, Access::Read) {
                    Ok(Inserted::New) => return (leaf.level.frames(), Ok(())),
                    Ok(Inserted::Already) => return (0, Err(self.occupied(cpu, space, at))),
                    Err(InsertError::Fallback { .. }) => {}
                    Err(error) => return (0, Err(error)),
                }
            }
            match leaf.level.lower() {
                Some(lower) => leaf.level = lower,
                None => break,
            }
        }
        self.remap_pages(cpu, space, area, (at, pages.min(pages_of_table(at))), first)
    }

    fn remap_pages(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        (at, pages): (VirtAddr, u64),
        first: &PfnLeaf,
    ) -> (u64, Result<(), InsertError>) {
        let page = area.file_page(at);
        let what = Pages { area, like: first, access: Access::Read, start: at, populated: Populated::Refuse };
        let frame_of = |wanted| Some(first.frame.wrapping_add(wanted - page));
        let progress = self.insert_run(cpu, space, what, pages, frame_of);
        (progress.pages, progress.ended)
    }

    fn occupied(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, address: VirtAddr) -> InsertError {
        let found = match self.page_tables(space).translate(cpu, address) {
            Ok(found) => found.entry,
            Err(pagetable::WalkError::NotPresent { entry, .. }) => entry,
            Err(error) => return InsertError::Malformed(error.into()),
        };
        InsertError::Occupied { address, found }
    }
}

impl PfnLeaf {
    /// The same, `pages` frames further on.
    const fn behind(&self, pages: u64) -> Self {
        Self { frame: self.frame.wrapping_add(pages), ..*self }
    }
}

/// How many pages there are from `at` to the end of its table.
const fn pages_of_table(at: VirtAddr) -> u64 {
    (Level::Pmd.next(at).as_u64().wrapping_sub(at.as_u64())) / PAGE_SIZE
}

const fn fits(at: VirtAddr, pages: u64, leaf: &PfnLeaf) -> bool {
    at.is_aligned(leaf.level.size())
        && leaf.frame.number().is_multiple_of(leaf.level.frames())
        && pages >= leaf.level.frames()
}
