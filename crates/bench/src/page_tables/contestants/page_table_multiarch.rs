//! `page_table_multiarch`.

use memory_addr::{PhysAddr, VirtAddr};
use page_table_entry::MappingFlags;
use page_table_multiarch::x86_64::X64PageTable;
use page_table_multiarch::{PageSize, PagingHandler};

use super::{Contestant, Ranges};
use crate::page_tables::frames;

pub(crate) struct Multiarch(X64PageTable<Frames>);

struct Frames;

impl PagingHandler for Frames {
    fn alloc_frames(count: usize, _: usize) -> Option<PhysAddr> {
        (count == 1).then(|| PhysAddr::from(frames::allocate() as usize))
    }
    fn dealloc_frames(phys: PhysAddr, _: usize) {
        frames::free(phys.as_usize() as u64);
    }
    #[inline]
    fn phys_to_virt(phys: PhysAddr) -> VirtAddr {
        VirtAddr::from(frames::direct_map().wrapping_add(phys.as_usize()))
    }
}

const FLAGS: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE).union(MappingFlags::USER);

impl Contestant for Multiarch {
    const NAME: &'static str = "page_table_multiarch 0.6";

    fn new() -> Self {
        Self(X64PageTable::try_new().expect("enough frames were reserved"))
    }

    #[inline]
    fn map(&mut self, virt: u64, phys: u64) {
        let phys = PhysAddr::from(phys as usize);
        self.0.cursor().map(VirtAddr::from(virt as usize), phys, PageSize::Size4K, FLAGS).expect("the page is free");
    }

    #[inline]
    fn translate(&self, virt: u64) -> Option<u64> {
        Some(self.0.query(VirtAddr::from(virt as usize)).ok()?.0.as_usize() as u64)
    }

    #[inline]
    fn unmap(&mut self, virt: u64) -> Option<u64> {
        Some(self.0.cursor().unmap(VirtAddr::from(virt as usize)).ok()?.0.as_usize() as u64)
    }

    fn free(self) {
        drop(self.0);
    }
}

impl Ranges for Multiarch {
    fn map_range(&mut self, virt: u64, pages: u64, phys: u64) {
        let target = |at: VirtAddr| PhysAddr::from(at.as_usize() - virt as usize + phys as usize);
        let bytes = (pages << 12) as usize;
        self.0
            .cursor()
            .map_region(VirtAddr::from(virt as usize), target, bytes, FLAGS, false)
            .expect("the range is free");
    }

    fn protect_range(&mut self, virt: u64, pages: u64) {
        let flags = MappingFlags::READ.union(MappingFlags::USER);
        self.0
            .cursor()
            .protect_region(VirtAddr::from(virt as usize), (pages << 12) as usize, flags)
            .expect("the range is mapped");
    }

    fn unmap_range(&mut self, virt: u64, pages: u64) {
        self.0
            .cursor()
            .unmap_region(VirtAddr::from(virt as usize), (pages << 12) as usize)
            .expect("the range is mapped");
    }
}
