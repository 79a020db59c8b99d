//! `aarch64-paging`, which builds tables for AArch64 on any host.

use std::ptr::NonNull;

use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{El1Attributes, PhysicalAddress};
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion, PageTable, Translation, VaRange};

use super::{Contestant, Ranges};
use crate::page_tables::frames;

/// Marked as not in use: no checks of break-before-make.
pub(crate) struct Inactive(Mapping<Frames, El1And0>);

/// Marked as in use: changes are checked and made so that a hardware walker may be at work.
pub(crate) struct LivePaging(Mapping<Frames, El1And0>);

struct Frames;

impl Translation<El1Attributes> for Frames {
    fn allocate_table(&mut self) -> (NonNull<PageTable<El1Attributes>>, PhysicalAddress) {
        let phys = frames::allocate();
        let table = self.physical_to_virtual(PhysicalAddress(phys as usize));
        // SAFETY: a frame of the arena, 4096 bytes, that is ours alone.
        unsafe { table.write_bytes(0, 1) };
        (table, PhysicalAddress(phys as usize))
    }

    unsafe fn deallocate_table(&mut self, table: NonNull<PageTable<El1Attributes>>) {
        frames::free(table.as_ptr().addr().wrapping_sub(frames::direct_map()) as u64);
    }

    #[inline]
    fn physical_to_virtual(&self, phys: PhysicalAddress) -> NonNull<PageTable<El1Attributes>> {
        NonNull::new(frames::at(phys.0 as u64)).expect("the arena is not at address 0")
    }
}

const ROOT_LEVEL: usize = 0;
const FLAGS: El1Attributes = El1Attributes::VALID
    .union(El1Attributes::ACCESSED)
    .union(El1Attributes::USER)
    .union(El1Attributes::NON_GLOBAL)
    .union(El1Attributes::UXN);

fn mapping() -> Mapping<Frames, El1And0> {
    Mapping::with_asid_and_va_range(Frames, 1, ROOT_LEVEL, El1And0, VaRange::Lower)
}

#[inline(always)]
fn region(virt: u64, pages: u64) -> MemoryRegion {
    MemoryRegion::new(virt as usize, (virt + (pages << 12)) as usize)
}

fn map(tables: &mut Mapping<Frames, El1And0>, virt: u64, pages: u64, phys: u64) {
    tables
        .map_range(&region(virt, pages), PhysicalAddress(phys as usize), FLAGS, Constraints::NO_BLOCK_MAPPINGS)
        .expect("the range is free");
}

fn translate(tables: &Mapping<Frames, El1And0>, virt: u64) -> Option<u64> {
    let mut found = None;
    tables
        .walk_range(&region(virt, 1), &mut |_, descriptor, _| {
            if descriptor.is_valid() {
                found = Some(descriptor.output_address().0 as u64 | virt & 0xfff);
            }
            Ok(())
        })
        .ok()?;
    found
}

fn unmap(tables: &mut Mapping<Frames, El1And0>, virt: u64, pages: u64) {
    tables
        .map_range(&region(virt, pages), PhysicalAddress(0), El1Attributes::empty(), Constraints::empty())
        .expect("the range is mapped");
}

macro_rules! contestant {
    ($name:literal, $type:ident, $begin:expr, $end:expr) => {
        impl Contestant for $type {
            const NAME: &'static str = $name;

            fn new() -> Self {
                frames::arena();
                let tables = mapping();
                ($begin)(&tables);
                Self(tables)
            }
            fn map(&mut self, virt: u64, phys: u64) {
                map(&mut self.0, virt, 1, phys);
            }
            fn translate(&self, virt: u64) -> Option<u64> {
                translate(&self.0, virt)
            }
            /// Does not say what was mapped: that would be a second walk.
            fn unmap(&mut self, virt: u64) -> Option<u64> {
                unmap(&mut self.0, virt, 1);
                None
            }
            fn free(self) {
                ($end)(&self.0);
            }
        }
    };
}

contestant!("aarch64-paging 0.12", Inactive, |_: &Mapping<_, _>| (), |_: &Mapping<_, _>| ());
contestant!("aarch64-paging 0.12, live", LivePaging, Mapping::mark_active, Mapping::mark_inactive);

impl Ranges for Inactive {
    fn map_range(&mut self, virt: u64, pages: u64, phys: u64) {
        map(&mut self.0, virt, pages, phys);
    }

    fn protect_range(&mut self, virt: u64, pages: u64) {
        self.0
            .modify_range(&region(virt, pages), &|_, descriptor| {
                descriptor.modify_flags(El1Attributes::READ_ONLY, El1Attributes::empty())
            })
            .expect("the range is mapped");
    }

    fn unmap_range(&mut self, virt: u64, pages: u64) {
        unmap(&mut self.0, virt, pages);
    }
}
