//! Mapping areas; changing which frames a file has.

use machine::Cpu;
use machine::addr::{Frame, PAGE_SIZE, VirtAddr};
use pagetable::{Level, Mode};

use crate::area::{Area, Growth, MAX_OFFSET};
use crate::error::{FaultError, MapError, ZapError};
use crate::file::{File, FileKind, MappedAt, PageSlot, SlotTaken};
use crate::folio::{Folio, NotGrabbed, Reference};
use crate::folio_lock::FolioLock;
use crate::guard::{DriverLock, Guards};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::{AddressSpace, Placement, SpaceId};
use crate::stack::may_grow;
use crate::uffd::UffdModes;

impl<'m, P: Platform> Mm<'m, P> {
    /// Adds an area to an address space. Nothing is mapped yet: accesses fault.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// What is wrong with the area. Nothing has changed then.
    pub fn mmap(&self, cpu: &P::Cpu, id: SpaceId, area: Area) -> Result<(), MapError> {
        // Registered is what is there already.
        let area = area.with_uffd(UffdModes::NONE);
        let space = self.space(id).ok_or(MapError::NoSpace(id))?;
        let file = self.file(area.file).ok_or(MapError::NoFile(area.file))?;
        self.check_area(&area, file.alignment())?;
        if let Some(boundary) = space.boundary_in((area.start, area.end())) {
            return Err(MapError::AcrossParts { area, boundary });
        }
        if area.growth == Growth::Down && !may_grow(&area, file) {
            return Err(MapError::NotAStack { area });
        }
        let mmap = space.mmap_write(cpu, space.stack_gap_above((area.start, area.end())));
        let result = match space.place(cpu, &area) {
            _ if !space.keys().have(cpu, area.key) => Err(MapError::NoKey(area.key)),
            Placement::Overlaps(other) => Err(MapError::Overlaps(other)),
            Placement::Full => Err(MapError::SpaceFull),
            Placement::At(_)
                if let Some(stack) = self.stack_with_gap_in(cpu, space, area.rights, (area.start, area.end())) =>
            {
                Err(MapError::InGuardGap(stack))
            }
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

    pub(crate) fn check_area(&self, area: &Area, leaf: Level) -> Result<(), MapError> {
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
        let old = self.change_slot(cpu, slot, new);
        let pages = file.leaf().frames();
        let result = self.unmap_mapping(cpu, file, page - page % pages, pages);
        if let Some(folio) = old.and_then(|frame| Folio::held(self.map(), cpu, frame)) {
            // The file held one reference, so this cannot underflow.
            let _ = folio.put(cpu, self.map(), 1, Reference::Get);
        }
        result
    }

    /// Changes what a slot of a cached file holds. Returns what it held; the slot's reference to that is the caller's then.
    ///
    /// Who migrates the folio, or drops it, holds its lock and counts on the slot's reference until it is done: it is waited for.
    fn change_slot(&self, cpu: &P::Cpu, slot: &PageSlot, new: Option<Frame>) -> Option<Frame> {
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let Some(frame) = slot.get(cpu) else {
                match slot.fill(cpu, new) {
                    Ok(()) => return None,
                    Err(SlotTaken) => continue,
                }
            };
            match Folio::try_grab(self.map(), cpu, frame, 1, Reference::Get) {
                Ok(folio) => {
                    let lock = FolioLock::take(cpu, &folio);
                    let held = slot.get(cpu) == Some(frame);
                    if held {
                        slot.replace(cpu, new);
                    }
                    lock.unlock();
                    // Taken above.
                    let _ = folio.put(cpu, self.map(), 1, Reference::Get);
                    if held {
                        return Some(frame);
                    }
                }
                Err(NotGrabbed::Free) if self.leaves_slot(cpu, slot, frame) => {}
                // Nobody moves what has no record, or more references than can be.
                Err(NotGrabbed::Free | NotGrabbed::NoRecord | NotGrabbed::CountLimit) => return slot.replace(cpu, new),
            }
        }
    }

    /// Takes a driver's frames away from all address spaces: `change` decides what the file has afterwards. Between the two no fault can map one of
    /// its pages.
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
        let zap = || self.unmap_mapping(cpu, file, first, pages);
        let (driver, zapped) = match self.protocols().guards.driver_lock() {
            DriverLock::WholeRevoke => (file.driver_lock().lock(cpu), zap()),
            DriverLock::ChangeOnly => {
                let zapped = zap();
                (file.driver_lock().lock(cpu), zapped)
            }
        };
        let result = zapped.map(|()| change(&DriverFrames { cpu, file }));
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

    pub(crate) fn root_is_read_at_load(&self) -> bool {
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
