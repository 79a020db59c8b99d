//! `page-table-generic`, with x86-64's levels and entries.

use page_table_generic::{FrameAllocator, PageTable, PageTableEntry, PhysAddr, TableMeta, VirtAddr};

use super::{Contestant, Ranges};
use crate::page_tables::frames;

pub(crate) struct Generic(PageTable<FourLevels, Frames>);

#[derive(Clone, Copy)]
struct FourLevels;

impl TableMeta for FourLevels {
    type P = Entry;
    const PAGE_SIZE: usize = 4096;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;
    fn flush(_: Option<VirtAddr>) {}
}

/// An entry as x86-64 has it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Entry(u64);

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const HUGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl PageTableEntry for Entry {
    /// The bits besides the address.
    type PteConfig = u64;

    #[inline]
    fn new_page(phys: PhysAddr, config: u64, is_huge: bool) -> Self {
        Self(phys.as_usize() as u64 | config | if is_huge { HUGE } else { 0 })
    }
    #[inline]
    fn new_table(phys: PhysAddr) -> Self {
        Self(phys.as_usize() as u64 | PRESENT | WRITE | USER)
    }
    #[inline]
    fn paddr(&self, _: bool) -> PhysAddr {
        PhysAddr::from_usize((self.0 & ADDRESS) as usize)
    }
    #[inline]
    fn config(&self, _: bool) -> u64 {
        self.0 & !ADDRESS
    }
    #[inline]
    fn present(&self) -> bool {
        self.0 & PRESENT != 0
    }
    #[inline]
    fn huge(&self, is_dir: bool) -> bool {
        is_dir && self.0 & HUGE != 0
    }
    #[inline]
    fn unused(&self) -> bool {
        self.0 == 0
    }
    #[inline]
    fn clear(&mut self) {
        self.0 = 0;
    }
}

#[derive(Clone)]
struct Frames;

impl FrameAllocator for Frames {
    fn alloc_frame(&self) -> Option<PhysAddr> {
        Some(PhysAddr::from_usize(frames::allocate() as usize))
    }
    fn dealloc_frame(&self, frame: PhysAddr) {
        frames::free(frame.as_usize() as u64);
    }
    #[inline]
    fn phys_to_virt(&self, phys: PhysAddr) -> *mut u8 {
        frames::at(phys.as_usize() as u64)
    }
}

const CONFIG: u64 = PRESENT | WRITE | USER | NO_EXECUTE;

#[inline(always)]
fn virtual_address(virt: u64) -> VirtAddr {
    VirtAddr::from_usize(virt as usize)
}

impl Contestant for Generic {
    const NAME: &'static str = "page-table-generic 0.9";

    fn new() -> Self {
        Self(PageTable::new(Frames).expect("enough frames were reserved"))
    }

    #[inline]
    fn map(&mut self, virt: u64, phys: u64) {
        let phys = PhysAddr::from_usize(phys as usize);
        self.0.map_page(virtual_address(virt), phys, 4096, CONFIG).expect("the page is free");
    }

    #[inline]
    fn translate(&self, virt: u64) -> Option<u64> {
        Some(self.0.translate_phys(virtual_address(virt)).ok()?.as_usize() as u64)
    }

    #[inline]
    fn unmap(&mut self, virt: u64) -> Option<u64> {
        Some(self.0.unmap_page(virtual_address(virt)).ok()?.0.as_usize() as u64)
    }

    fn free(self) {
        drop(self.0);
    }
}

impl Ranges for Generic {
    fn map_range(&mut self, virt: u64, pages: u64, phys: u64) {
        let target = |at: VirtAddr| PhysAddr::from_usize(at.as_usize() - virt as usize + phys as usize);
        self.0.map_region(virtual_address(virt), target, (pages << 12) as usize, CONFIG).expect("the range is free");
    }

    fn protect_range(&mut self, virt: u64, pages: u64) {
        self.0
            .protect_region(virtual_address(virt), (pages << 12) as usize, CONFIG & !WRITE)
            .expect("the range is mapped");
    }

    fn unmap_range(&mut self, virt: u64, pages: u64) {
        self.0.unmap(virtual_address(virt), (pages << 12) as usize).expect("the range is mapped");
    }
}
