//! `x86_64`.

use x86_64::structures::paging::mapper::CleanUp;
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::Contestant;
use crate::page_tables::frames;

pub(crate) struct X86_64 {
    tables: OffsetPageTable<'static>,
    root: u64,
}

struct Frames;

// SAFETY: the arena hands out each frame once.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        Some(PhysFrame::containing_address(PhysAddr::new(frames::allocate())))
    }
}

impl FrameDeallocator<Size4KiB> for Frames {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        frames::free(frame.start_address().as_u64());
    }
}

const FLAGS: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::USER_ACCESSIBLE)
    .union(PageTableFlags::NO_EXECUTE);

#[inline(always)]
fn page(virt: u64) -> Page<Size4KiB> {
    Page::containing_address(VirtAddr::new(virt))
}

impl Contestant for X86_64 {
    const NAME: &'static str = "x86_64 0.15";

    fn new() -> Self {
        let root = frames::allocate();
        let table: *mut PageTable = frames::at(root);
        // SAFETY: a frame of the arena, 4096 bytes, that is ours alone.
        unsafe { table.write_bytes(0, 1) };
        // SAFETY: as above; zeros are a valid `PageTable`.
        let table = unsafe { &mut *table };
        // SAFETY: all tables lie in the arena, at this offset; `table` is a valid root that nobody else uses.
        let tables = unsafe { OffsetPageTable::new(table, VirtAddr::new(frames::direct_map() as u64)) };
        Self { tables, root }
    }

    #[inline]
    fn map(&mut self, virt: u64, phys: u64) {
        let frame = PhysFrame::containing_address(PhysAddr::new(phys));
        // SAFETY: no CPU loads these tables, so nothing is aliased.
        unsafe { self.tables.map_to(page(virt), frame, FLAGS, &mut Frames) }.expect("the page is free").ignore();
    }

    /// Its quicker way to look up a page of known size.
    #[inline]
    fn translate(&self, virt: u64) -> Option<u64> {
        Some(self.tables.translate_page(page(virt)).ok()?.start_address().as_u64() | virt & 0xfff)
    }

    #[inline]
    fn unmap(&mut self, virt: u64) -> Option<u64> {
        let (frame, flush) = self.tables.unmap(page(virt)).ok()?;
        flush.ignore();
        Some(frame.start_address().as_u64())
    }

    fn free(mut self) {
        // SAFETY: the tables below the root are in no other tree.
        unsafe { self.tables.clean_up(&mut Frames) };
        frames::free(self.root);
    }
}
