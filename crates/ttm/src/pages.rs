//! The pages of an object that lies in memory of the system: allocated, swapped out, brought back (Linux: `ttm_tt`, `ttm_pool`).

use mm::SwapStore;
use mm::swap::SwapError;

use crate::device::{Device, Patience, Reaped};
use crate::driver::{CpuOf, Driver};
use crate::error::MoveError;
use crate::fence::Usage;
use crate::object::{PagesState, Reserved};
use crate::page::PageWord;
use crate::place::Kind;

/// The largest folio that is asked for: one that a 1 GiB leaf can map.
const LARGEST_ORDER: u32 = 18;

/// What the pages of an object must hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// What the object holds.
    Kept,
    /// Anything: they are going to be written.
    Overwritten,
}

impl<'d, D: Driver> Device<'d, D> {
    /// Sees to it that an object in memory of the system has frames.
    ///
    /// # Errors
    /// There are none, and nothing to swap out; or swap failed. Nothing has changed then.
    pub(crate) fn populate(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>) -> Result<(), MoveError> {
        if self.has_frames(reserved) {
            return Ok(());
        }
        self.make_pages(reserved, Contents::Kept)?;
        self.used_just_now(reserved);
        Ok(())
    }

    /// Fills the page words with frames.
    pub(crate) fn make_pages(
        &self,
        reserved: &mut Reserved<'_, 'd, CpuOf<D>>,
        contents: Contents,
    ) -> Result<(), MoveError> {
        let (cpu, object) = (reserved.cpu(), reserved.object);
        match object.pages_state(cpu) {
            PagesState::Populated => return Ok(()),
            // The frames are still there. Nobody reads them any more once the object has moved out of them.
            PagesState::Leaving => self.wait_for_moves(reserved),
            PagesState::Empty => self.allocate_pages(reserved)?,
            PagesState::Swapped => {
                self.allocate_pages(reserved)?;
                if contents == Contents::Kept {
                    self.read_swap(reserved)?;
                }
                self.free_swap(reserved, reserved.pages());
            }
            PagesState::Quarantined => return Err(MoveError::Quarantined),
        }
        object.set_pages_state(cpu, PagesState::Populated);
        Ok(())
    }

    /// Allocates frames, in folios as large as can be had and as the page number allows, so that huge leaves can map them.
    fn allocate_pages(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) -> Result<(), MoveError> {
        let (cpu, pages) = (reserved.cpu(), reserved.pages());
        let mut page = 0;
        let mut largest = LARGEST_ORDER;
        while page < pages {
            let order = largest.min(page.trailing_zeros()).min((pages - page).ilog2());
            match self.mm().allocate_folio(cpu, order as u8) {
                Ok(frame) => {
                    for index in 0..1 << order {
                        let word = &reserved.object.room.pages[(page + index) as usize];
                        PageWord::in_folio(frame.wrapping_add(index), order as u8).store(cpu, word);
                    }
                    page += 1 << order;
                }
                Err(_) if order > 0 => largest = order - 1,
                Err(_) if self.find_frames(cpu) == Reaped::Something => {}
                Err(_) => {
                    self.free_frames(reserved, page)?;
                    return Err(MoveError::OutOfFrames);
                }
            }
        }
        Ok(())
    }

    /// Frames are short: takes back what nobody needs any more, else what is used least, else what an engine will not need soon.
    fn find_frames(&self, cpu: &CpuOf<D>) -> Reaped {
        let found = self.reap_pages(cpu, Patience::None);
        if found == Reaped::Something || matches!(self.swap_out(cpu), Ok(Some(_))) {
            return Reaped::Something;
        }
        self.reap_pages(cpu, Patience::Waits)
    }

    /// Gives the frames of the first `pages` pages back.
    fn free_frames(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>, pages: u64) -> Result<(), MoveError> {
        let cpu = reserved.cpu();
        let mut page = 0;
        let mut result = Ok(());
        while page < pages {
            let word = &reserved.object.room.pages[page as usize];
            let Some((frame, order)) = PageWord::load(cpu, word).frame() else {
                page += 1;
                continue;
            };
            for word in &reserved.object.room.pages[page as usize..(page + (1 << order)) as usize] {
                PageWord::NOTHING.store(cpu, word);
            }
            result = result.and(self.mm().free_folio(cpu, frame).map(|_| ()).map_err(MoveError::from));
            page += 1 << order;
        }
        result
    }

    /// Gives back whatever the page words hold. Nobody uses it any more.
    pub(crate) fn release_pages(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) {
        let (cpu, pages) = (reserved.cpu(), reserved.pages());
        match reserved.object.pages_state(cpu) {
            PagesState::Empty => {}
            // From quarantine only when the card was reset.
            PagesState::Populated | PagesState::Leaving | PagesState::Quarantined => {
                let freed = self.free_frames(reserved, pages);
                debug_assert!(freed.is_ok(), "{freed:?}: each folio had one reference, the object's");
            }
            PagesState::Swapped => self.free_swap(reserved, pages),
        }
        reserved.object.set_pages_state(cpu, PagesState::Empty);
    }

    /// Swaps the object in system memory out that was used longest ago, if any can be. Returns how many pages became free (Linux: `ttm_device_swapout`).
    ///
    /// Context: interrupts on, no spin lock, no rmap lock; any reservations.
    ///
    /// # Errors
    /// Swap is full or failed. Nothing was swapped out.
    pub fn swap_out(&self, cpu: &CpuOf<D>) -> Result<Option<u64>, MoveError> {
        let system = &self.parts.kinds[Kind::SYSTEM.index()];
        let found = system.find_oldest(cpu, self.parts.objects, |index, object| {
            let reserved = Reserved { object, index, guard: object.lock.try_lock(cpu)? };
            let can_be =
                object.pages_state(cpu) == PagesState::Populated && object.room.swap.len() as u64 >= reserved.pages();
            can_be.then_some(reserved)
        });
        let Some(mut reserved) = found else { return Ok(None) };
        self.swap_out_reserved(&mut reserved)?;
        Ok(Some(reserved.pages()))
    }

    /// Swaps one object out.
    fn swap_out_reserved(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>) -> Result<(), MoveError> {
        let (cpu, pages) = (reserved.cpu(), reserved.pages());
        self.notify_importers(reserved);
        self.unmap(reserved)?;
        self.wait(reserved, Usage::Kernel);
        for page in 0..pages {
            if let Err(error) = self.write_swap(reserved, page) {
                self.free_swap(reserved, page);
                return Err(error.into());
            }
        }
        let freed = self.free_frames(reserved, pages);
        reserved.object.set_pages_state(cpu, PagesState::Swapped);
        self.parts.kinds[Kind::SYSTEM.index()].unlist(cpu, self.parts.objects, reserved.index, Kind::SYSTEM);
        freed
    }

    fn write_swap(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>, page: u64) -> Result<(), SwapError> {
        let (cpu, room) = (reserved.cpu(), &reserved.object.room);
        let swap = self.mm().swap();
        let Some((frame, _)) = PageWord::load(cpu, &room.pages[page as usize]).frame() else { return Ok(()) };
        let place = swap.allocate(cpu)?;
        if let Err(error) = swap.write(cpu, place, frame) {
            swap.free(cpu, place);
            return Err(error);
        }
        PageWord::swapped(place).store(cpu, &room.swap[page as usize]);
        Ok(())
    }

    /// Reads all pages back into frames that are there already. Fails whole: the frames are given back then.
    fn read_swap(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) -> Result<(), MoveError> {
        let (cpu, room, pages) = (reserved.cpu(), &reserved.object.room, reserved.pages());
        for (word, swapped) in room.pages.iter().zip(room.swap).take(pages as usize) {
            let words = (PageWord::load(cpu, word).frame(), PageWord::load(cpu, swapped).swap_place());
            if let (Some((frame, _)), Some(place)) = words
                && let Err(error) = self.mm().swap().read(cpu, place, frame)
            {
                self.free_frames(reserved, pages)?;
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Gives the places of the first `pages` pages on swap back.
    fn free_swap(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>, pages: u64) {
        let cpu = reserved.cpu();
        for word in reserved.object.room.swap.iter().take(pages as usize) {
            if let Some(place) = PageWord::load(cpu, word).swap_place() {
                self.mm().swap().free(cpu, place);
            }
            PageWord::NOTHING.store(cpu, word);
        }
    }
}
