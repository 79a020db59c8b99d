//! Mapping and unmapping areas; changing which frames a file has.

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};
use pagetable::{Level, Mode};

use crate::area::{Area, MAX_OFFSET};
use crate::error::{FaultError, MapError, UnmapError, ZapError};
use crate::file::{File, FileKind, MappedAt};
use crate::folio::{Folio, Reference};
use crate::gather::Gather;
use crate::mm::Mm;
use crate::platform::{Platform, Protocols};
use crate::space::{AddressSpace, Placement, SpaceId};
use crate::zap::ZapOf;

impl<'m, P: Platform> Mm<'m, P> {
    /// Adds an area to an address space. Nothing is mapped yet: accesses fault.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// What is wrong with the area. Nothing has changed then.
    pub fn mmap(&self, cpu: &P::Cpu, id: SpaceId, area: Area) -> Result<(), MapError> {
        let space = self.space(id).ok_or(MapError::NoSpace(id))?;
        let file = self.file(area.file).ok_or(MapError::NoFile(area.file))?;
        self.check_area(&area, file.leaf())?;
        let mmap = space.mmap_lock().write(cpu);
        let result = match space.place(cpu, &area) {
            Placement::Overlaps(other) => Err(MapError::Overlaps(other)),
            Placement::Full => Err(MapError::SpaceFull),
            Placement::At(index) => {
                let rmap = file.rmap_lock().write(cpu);
                let linked = file.link(cpu, &MappedAt::new(id, &area));
                rmap.unlock();
                match linked {
                    Ok(()) => {
                        space.insert(cpu, index, &area);
                        Ok(())
                    }
                    Err(_) => Err(MapError::FileFull),
                }
            }
        };
        mmap.unlock();
        result
    }

    /// Takes the area that starts at `start` out of an address space, with its entries and the tables that it leaves empty.
    ///
    /// On return no CPU can reach the area's pages through it.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// There is no such area; or its tables were malformed: then the area is gone, but entries behind the malformed one stay.
    pub fn munmap(&self, cpu: &P::Cpu, id: SpaceId, start: VirtAddr) -> Result<(), UnmapError> {
        let space = self.space(id).ok_or(UnmapError::NoSpace(id))?;
        let mmap = space.mmap_lock().write(cpu);
        let result = match space.remove(cpu, start) {
            Some(area) => self.tear_down(cpu, id, space, &area).map_err(UnmapError::Zap),
            None => Err(UnmapError::NoArea { address: start }),
        };
        mmap.unlock();
        result
    }

    /// The order matters: entries go first, then TLBs are flushed, and only then the file forgets the area: a revoke by rmap
    /// that no longer found it would return although its pages can still be reached (Linux b67fbebd4cf9, CVE-2022-39188).
    fn tear_down(&self, cpu: &P::Cpu, id: SpaceId, space: &AddressSpace<'m>, area: &Area) -> Result<(), ZapError> {
        let mut gather = Gather::begin(cpu, self, space);
        let zapped = self.zap_range(cpu, &mut gather, space, area.start, area.end(), ZapOf::Everything);
        gather.finish(cpu);
        if let Some(file) = self.file(area.file) {
            let rmap = file.rmap_lock().write(cpu);
            file.unlink(cpu, &MappedAt::new(id, area));
            rmap.unlock();
        }
        let mut gather = Gather::begin(cpu, self, space);
        self.free_tables(cpu, &mut gather, space, area.start, area.end());
        gather.finish(cpu);
        zapped
    }

    fn check_area(&self, area: &Area, leaf: Level) -> Result<(), MapError> {
        let bad_range = MapError::BadRange { area: *area };
        let bytes = area.pages.checked_mul(PAGE_SIZE).ok_or(bad_range)?;
        let in_user = self.protocols().mode.check_user(area.start, bytes).is_ok();
        let last_page = area.offset.checked_add(area.pages).ok_or(bad_range)?;
        if bytes == 0 || !in_user || !area.start.is_aligned(PAGE_SIZE) || last_page > MAX_OFFSET {
            return Err(bad_range);
        }
        let pages = leaf.frames();
        if !leaf.may_be_leaf()
            || !area.start.is_aligned(leaf.size())
            || !area.pages.is_multiple_of(pages)
            || !area.offset.is_multiple_of(pages)
        {
            return Err(MapError::NotLeafAligned { area: *area, level: leaf });
        }
        Ok(())
    }

    /// Puts another folio in the place of the one that holds page `page` of a cached file, or none, and takes the old one out of all address spaces
    /// (a hole punched and filled again). The file's reference to `new` is the caller's; the one to the old folio is dropped.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// The file has no such page or is not cached; or tables were malformed, see [`Self::unmap_mapping`].
    pub fn replace_page(&self, cpu: &P::Cpu, file: &File<'m>, page: u64, new: Option<Frame>) -> Result<(), ZapError> {
        let no_page = ZapError::NoPage { page };
        let slot = file.slot(page).filter(|_| file.kind() == FileKind::Cached).ok_or(no_page)?;
        let old = slot.replace(cpu, new);
        let pages = file.leaf().frames();
        let result = self.unmap_mapping(cpu, file, page - page % pages, pages);
        if let Some(folio) = old.and_then(|frame| Folio::held(self.map(), cpu, frame)) {
            // The file held one reference, so this cannot underflow.
            let _ = folio.put(cpu, self.map(), 1, Reference::Get);
        }
        result
    }

    /// Takes a driver's frames away from all address spaces: `change` decides what the file has afterwards. Between the two no fault can map one of its pages.
    ///
    /// `change` is given the file and the proof that its driver lock is held: see [`DriverFrames`]. When it runs, no CPU
    /// can reach the frames that the file had.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// A page table was malformed; `change` did not run.
    pub fn revoke<R>(
        &self,
        cpu: &P::Cpu,
        file: &File<'m>,
        first: u64,
        pages: u64,
        change: impl FnOnce(&DriverFrames<'_, 'm, P>) -> R,
    ) -> Result<R, ZapError> {
        let driver = file.driver_lock().lock(cpu);
        let result = self.unmap_mapping(cpu, file, first, pages);
        let result = result.map(|()| change(&DriverFrames { cpu, file }));
        driver.unlock();
        result
    }

    /// Makes the tables of a new address space that must exist before any CPU loads its root.
    ///
    /// On PAE these are the tables behind all four PDPTEs: a CPU reads PDPTEs only when it loads CR3 (SDM vol. 3A, 4.4.1), so one that is filled
    /// later would be missed. In other modes there are none.
    ///
    /// # Errors
    /// No frames, or the root is no table. Tables made before that stay.
    pub fn prepare(&self, cpu: &P::Cpu, space: &AddressSpace<'m>) -> Result<(), FaultError> {
        if !self.root_is_read_at_load() {
            return Ok(());
        }
        let tables = self.page_tables(space);
        let mut at = VirtAddr::new(0);
        while at < self.protocols().mode.user_end() {
            tables.populate(cpu, self.tables(), &self.protocols().publish, at, Level::Pmd)?;
            at = Level::Pud.next(at);
        }
        Ok(())
    }

    /// Detaches the tables between `start` and `end` that have no entries left.
    fn free_tables(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        end: VirtAddr,
    ) {
        let root = self.protocols().mode.root_level();
        let mut parent = Level::Pmd;
        loop {
            // An entry of a root that is read at load must never go away while CPUs use it.
            if parent > root || parent == root && self.root_is_read_at_load() {
                return;
            }
            let mut at = start;
            while at < end {
                // Others walk tables of their own areas: zap by rmap holds no lock of this address space. So only tables into which no other
                // area reaches go (Linux: floor and ceiling of `free_pgd_range`).
                if space.is_free(cpu, at.align_down(parent.size()), parent.size()) {
                    self.free_table(cpu, gather, space, at, parent);
                }
                at = parent.next(at);
            }
            match parent.upper() {
                Some(upper) => parent = upper,
                None => return,
            }
        }
    }

    /// Detaches the table to which the entry of level `parent` for `at` points, if it is empty.
    fn free_table(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        space: &AddressSpace<'m>,
        at: VirtAddr,
        parent: Level,
    ) {
        let Protocols { mode, write, .. } = self.protocols();
        let tables = self.page_tables(space);
        let Some(child) = parent.lower() else { return };
        // The mmap lock is held for writing: nobody else adds or detaches tables for areas of this address space. What is not there, need not be freed.
        let (Ok(parent), Ok(child)) = (tables.find(cpu, at, parent), tables.find(cpu, at, child)) else {
            return;
        };
        let mut parent = parent.lock(cpu);
        let child = child.lock(cpu);
        let detached = parent.detach(mode, self.tables(), write, at, &child);
        child.unlock();
        parent.unlock();
        if let Ok(table) = detached {
            gather.table(cpu, at, table);
        }
    }

    fn root_is_read_at_load(&self) -> bool {
        self.protocols().mode.root_shape() == pagetable::mode::RootShape::FourPdptes
    }
}

/// The frames of a driver's file, while its driver lock is held and nothing maps them.
pub struct DriverFrames<'d, 'm, P: Platform> {
    cpu: &'d P::Cpu,
    file: &'d File<'m>,
}

impl<P: Platform> DriverFrames<'_, '_, P> {
    /// The frame of the leaf-sized piece that holds page `page`.
    pub fn get(&self, page: u64) -> Option<Frame> {
        self.file.slot(page)?.get(self.cpu)
    }

    /// Gives the leaf-sized piece that holds page `page` another frame, or none, and returns the one that it had.
    pub fn set(&self, page: u64, frame: Option<Frame>) -> Option<Frame> {
        self.file.slot(page)?.replace(self.cpu, frame)
    }
}
