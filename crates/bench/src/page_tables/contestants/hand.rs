//! The reference: the same walk written by hand on `AtomicU64`, for this benchmark and nothing else.
//!
//! It does what a lockless walker must: refuse addresses that are not canonical, one acquire load a level, a decision on the copy, huge leaves, release
//! stores, an exchange to unmap so that no accessed or dirty bit is lost. It knows nothing else: no errors, no modes, no reserved bits, no counts
//! of children.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Contestant, Ranges};
use crate::page_tables::frames;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const HUGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

type Table = [AtomicU64; 512];

pub(crate) struct Hand {
    root: u64,
    direct_map: usize,
}

impl Hand {
    #[inline(always)]
    fn table(&self, phys: u64) -> &Table {
        // SAFETY: `phys` comes from the root or from an entry that leads to a table, both made by `new_table`: a frame of the arena, which lives for
        // ever, and whose bytes are only accessed as atomics while this tree has it.
        unsafe { &*ptr::with_exposed_provenance(self.direct_map.wrapping_add(phys as usize)) }
    }

    fn new_table(&self) -> u64 {
        let phys = frames::allocate();
        // SAFETY: the frame is one of the arena, 4096 bytes, and this tree has it alone.
        unsafe { ptr::write_bytes(frames::at::<u8>(phys), 0, 4096) };
        phys
    }

    /// Whether bits 63:47 are equal.
    #[inline(always)]
    const fn is_canonical(virt: u64) -> bool {
        virt.wrapping_add(1 << 47) >> 48 == 0
    }

    /// The physical address that a leaf for 4 KiB leads to.
    #[inline(always)]
    pub(crate) fn page_of(entry: u64) -> Option<u64> {
        (entry & PRESENT != 0).then_some(entry & ADDRESS)
    }

    /// The leaf for 4 KiB that translates an address.
    #[inline(always)]
    pub(crate) fn leaf(&self, virt: u64) -> Option<&AtomicU64> {
        if !Self::is_canonical(virt) {
            return None;
        }
        let mut table = self.table(self.root);
        for shift in [39, 30, 21] {
            let entry = table[(virt >> shift & 511) as usize].load(Ordering::Acquire);
            if entry & (PRESENT | HUGE) != PRESENT {
                return None;
            }
            table = self.table(entry & ADDRESS);
        }
        Some(&table[(virt >> 12 & 511) as usize])
    }

    #[inline(always)]
    fn leaf_or_new(&self, virt: u64) -> &AtomicU64 {
        assert!(Self::is_canonical(virt));
        let mut table = self.table(self.root);
        for shift in [39, 30, 21] {
            let slot = &table[(virt >> shift & 511) as usize];
            let mut entry = slot.load(Ordering::Acquire);
            if entry & PRESENT == 0 {
                entry = self.new_table() | PRESENT | WRITE | USER;
                slot.store(entry, Ordering::Release);
            }
            table = self.table(entry & ADDRESS);
        }
        &table[(virt >> 12 & 511) as usize]
    }

    fn free_below(&self, phys: u64, shift: u32) {
        if shift > 12 {
            for entry in self.table(phys).iter().map(|entry| entry.load(Ordering::Relaxed)) {
                if entry & PRESENT != 0 {
                    self.free_below(entry & ADDRESS, shift - 9);
                }
            }
        }
        frames::free(phys);
    }

    /// Calls `each` for the entries of every table in the range.
    fn for_each_table(&self, virt: u64, pages: u64, mut each: impl FnMut(&[AtomicU64])) {
        let (mut page, end) = (virt >> 12, (virt >> 12) + pages);
        while page < end {
            let first = (page & 511) as usize;
            let count = (512 - first).min((end - page) as usize);
            let leaf = ptr::from_ref(self.leaf_or_new(page << 12));
            // SAFETY: `leaf` is entry `first` of a table of 512, so `count` entries follow in it; see `table`.
            each(unsafe { std::slice::from_raw_parts(leaf, count) });
            page += count as u64;
        }
    }
}

impl Contestant for Hand {
    const NAME: &'static str = "hand-written";

    fn new() -> Self {
        frames::arena();
        let mut tree = Self { root: 0, direct_map: frames::direct_map() };
        tree.root = tree.new_table();
        tree
    }

    #[inline]
    fn map(&mut self, virt: u64, phys: u64) {
        let leaf = self.leaf_or_new(virt);
        assert!(leaf.load(Ordering::Relaxed) == 0);
        leaf.store(phys | PRESENT | WRITE | USER | NO_EXECUTE, Ordering::Release);
    }

    #[inline]
    fn translate(&self, virt: u64) -> Option<u64> {
        if !Self::is_canonical(virt) {
            return None;
        }
        let mut table = self.table(self.root);
        for shift in [39, 30, 21] {
            let entry = table[(virt >> shift & 511) as usize].load(Ordering::Acquire);
            if entry & (PRESENT | HUGE) != PRESENT {
                let within = (1 << shift) - 1;
                return (entry & PRESENT != 0).then_some(entry & ADDRESS & !within | virt & within);
            }
            table = self.table(entry & ADDRESS);
        }
        let entry = table[(virt >> 12 & 511) as usize].load(Ordering::Acquire);
        (entry & PRESENT != 0).then_some(entry & ADDRESS | virt & 0xfff)
    }

    #[inline]
    fn unmap(&mut self, virt: u64) -> Option<u64> {
        let entry = self.leaf(virt)?.swap(0, Ordering::AcqRel);
        (entry & PRESENT != 0).then_some(entry & ADDRESS)
    }

    fn free(self) {
        self.free_below(self.root, 39);
    }
}

impl Ranges for Hand {
    fn map_range(&mut self, virt: u64, pages: u64, phys: u64) {
        let mut entry = phys | PRESENT | WRITE | USER | NO_EXECUTE;
        self.for_each_table(virt, pages, |entries| {
            for slot in entries {
                assert!(slot.load(Ordering::Relaxed) == 0);
                slot.store(entry, Ordering::Release);
                entry += 4096;
            }
        });
    }

    fn protect_range(&mut self, virt: u64, pages: u64) {
        self.for_each_table(virt, pages, |entries| {
            for slot in entries {
                slot.fetch_and(!WRITE, Ordering::AcqRel);
            }
        });
    }

    fn unmap_range(&mut self, virt: u64, pages: u64) {
        self.for_each_table(virt, pages, |entries| {
            for slot in entries {
                std::hint::black_box(slot.swap(0, Ordering::AcqRel));
            }
        });
    }
}
