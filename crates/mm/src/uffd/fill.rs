//! Pages for where nothing is mapped.

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};

use crate::area::Area;
use crate::file::FileKind;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::uffd::{UffdError, UffdFillError, UffdHandler};

/// What may be done with a page that is filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UffdProtection {
    /// What the area allows.
    None,
    /// The first store is handed over, too (Linux: `UFFDIO_COPY_MODE_WP`).
    WriteProtected,
}

/// Where the contents of a page come from.
pub(crate) enum UffdContents<F> {
    /// Whoever resolves the fault fills the frame.
    From(F),
    /// Zeros: the zero page, if there is one.
    Zeros,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Maps new pages, with contents that `fill` puts into them, where nothing is mapped in `pages` pages from `start` on, and wakes who waits there (Linux: UFFDIO_COPY). `fill` is told which page it is, counted from
    /// `start`, and its frame.
    ///
    /// A page is filled before it is mapped, and mapped by one store: nobody sees half of it.
    ///
    /// Context: interrupts on, no lock. `fill` runs with the mmap lock held for reading: it neither waits for it nor faults.
    ///
    /// # Errors
    /// How many pages were mapped, and why the next one was not: something is there, the area is not registered (any more), or no frame. Nothing of that page has changed, but that tables may have been
    /// added.
    pub fn uffd_copy(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, pages): (VirtAddr, u64),
        protection: UffdProtection,
        mut fill: impl FnMut(u64, Frame),
    ) -> Result<(), UffdFillError> {
        self.uffd_fill_range(cpu, space, (start, pages), |area, at, number| {
            let contents = UffdContents::From(|frame| fill(number, frame));
            self.uffd_fill_page(cpu, space, area, at, protection, contents)
        })
    }

    /// Maps zeros where nothing is mapped in `pages` pages from `start` on, and wakes who waits there (Linux: UFFDIO_ZEROPAGE).
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// As for [`Self::uffd_copy`].
    pub fn uffd_zeropage(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), UffdFillError> {
        self.uffd_fill_range(cpu, space, (start, pages), |area, at, _| {
            let contents = UffdContents::<fn(Frame)>::Zeros;
            self.uffd_fill_page(cpu, space, area, at, UffdProtection::None, contents)
        })
    }

    fn uffd_fill_range(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, pages): (VirtAddr, u64),
        mut fill_page: impl FnMut(&Area, VirtAddr, u64) -> Result<(), UffdError>,
    ) -> Result<(), UffdFillError> {
        let failed = |pages: u64, error: UffdError| UffdFillError { pages, error };
        let (start, end) = self.tagged_range(space, start, pages).map_err(|error| failed(0, error.into()))?;
        let mmap = space.mmap_read(cpu, (start, end));
        let mut at = start;
        let mut result = Ok(());
        while at < end && result.is_ok() {
            result = self.area_to_fill(cpu, space, at).and_then(|area| {
                let number = (at.as_u64() - start.as_u64()) / PAGE_SIZE;
                fill_page(&area, at, number)
            });
            if result.is_ok() {
                at = at.wrapping_add(PAGE_SIZE);
            }
        }
        mmap.unlock();
        if at > start {
            self.uffd().wake(cpu, space, start, at);
        }
        result.map_err(|error| failed((at.as_u64() - start.as_u64()) / PAGE_SIZE, error))
    }

    /// The area that a page is filled in for. It may be registered for any fault (Linux: whichever `vm_userfaultfd_ctx` is there). The caller holds the mmap lock.
    fn area_to_fill(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, address: VirtAddr) -> Result<Area, UffdError> {
        let area = space.find(cpu, address).filter(|area| area.uffd.is_registered());
        let area = area.ok_or(UffdError::NotRegistered { address })?;
        match self.file(area.file).map(|file| file.kind()) {
            Some(FileKind::Anonymous) => Ok(area),
            _ => Err(UffdError::Unsuitable { area }),
        }
    }
}
