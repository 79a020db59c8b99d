//! Which pages of an object CPUs have written (Linux: vmwgfx's `vmw_bo_dirty`), for drivers that keep a copy of it elsewhere.
//!
//! Two ways, which differ in who pays:
//!
//! * [`Method::DirtyBits`]: page tables say it. Collecting walks them all; writing costs nothing.
//! * [`Method::WriteFaults`]: the first write to each page after a collection faults. Collecting looks at what was written only.
//!
//! While an object is tracked, its faults map pages of 4 KiB only. What engines write is the driver's to know.

use machine::Cpu;
use mm::ZapError;

use crate::device::Device;
use crate::driver::{CpuOf, Driver};
use crate::error::TrackError;
use crate::object::{Object, Reserved};

/// How writes are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// By the dirty bits of page-table entries.
    DirtyBits,
    /// By the faults that write-protected entries raise.
    WriteFaults,
}

const BITS: u64 = u64::BITS as u64;

impl Object<'_> {
    pub(crate) fn method<C: Cpu>(&self, cpu: &C) -> Option<Method> {
        match cpu.owned_load(&self.dirty_method) {
            0 => None,
            1 => Some(Method::DirtyBits),
            _ => Some(Method::WriteFaults),
        }
    }

    fn set_method<C: Cpu>(&self, cpu: &C, method: Option<Method>) {
        let number = match method {
            None => 0,
            Some(Method::DirtyBits) => 1,
            Some(Method::WriteFaults) => 2,
        };
        cpu.owned_store(&self.dirty_method, number);
    }

    /// Notes that a page was written, or is going to be.
    pub(crate) fn note_write<C: Cpu>(&self, cpu: &C, page: u64) {
        if let Some(word) = self.room.dirty.get((page / BITS) as usize) {
            cpu.owned_store(word, cpu.owned_load(word) | 1 << (page % BITS));
        }
    }
}

impl<'d, D: Driver> Device<'d, D> {
    /// Begins to find out which pages CPUs write. From now on: what was written before is not among them.
    ///
    /// Context: interrupts on, no spin lock, no rmap lock.
    ///
    /// # Errors
    /// There is not a bit for each page, or the object cannot be unmapped. Nothing has changed.
    pub fn track_writes(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>, method: Method) -> Result<(), TrackError> {
        let (cpu, object, pages) = (reserved.cpu(), reserved.object, reserved.pages());
        let bits = object.room.dirty.len() as u64 * BITS;
        if bits < pages {
            return Err(TrackError::NoBits { pages, bits });
        }
        // Faults come back with entries that tell: small ones, clean, or without the right to write.
        self.mm().unmap_mapping(cpu, self.file, self.offset(reserved.index), pages)?;
        for word in object.room.dirty {
            cpu.owned_store(word, 0);
        }
        object.set_method(cpu, Some(method));
        Ok(())
    }

    /// Finds out no more.
    pub fn stop_tracking(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>) {
        reserved.object.set_method(reserved.cpu(), None);
    }

    /// Calls `each` with the first page and the number of pages of every run of pages that CPUs have written since the last collection, lowest
    /// first. Every write that was over before the call is among them, and every later one will be found by the next. Returns how many pages.
    ///
    /// Context: interrupts on, no spin lock, no rmap lock.
    ///
    /// # Errors
    /// The object is not tracked, or page tables hold what they must not: then nothing was collected.
    pub fn collect_writes(
        &self,
        reserved: &mut Reserved<'_, 'd, CpuOf<D>>,
        mut each: impl FnMut(u64, u64),
    ) -> Result<u64, TrackError> {
        let (cpu, object, pages) = (reserved.cpu(), reserved.object, reserved.pages());
        let method = object.method(cpu).ok_or(TrackError::NotTracked)?;
        let first = self.offset(reserved.index);
        match method {
            Method::DirtyBits => self.take_dirty_bits(reserved)?,
            Method::WriteFaults => {
                for (start, count) in runs(cpu, object, pages) {
                    self.mm().write_protect_mapping(cpu, self.file, first + start, count)?;
                }
            }
        }
        let mut collected = 0;
        for (start, count) in runs(cpu, object, pages) {
            each(start, count);
            collected += count;
        }
        for word in object.room.dirty {
            cpu.owned_store(word, 0);
        }
        Ok(collected)
    }

    /// Moves what page tables say into the object's own bits.
    fn take_dirty_bits(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) -> Result<(), ZapError> {
        let (cpu, object, pages) = (reserved.cpu(), reserved.object, reserved.pages());
        let offset = self.offset(reserved.index);
        self.mm().clean_mapping(cpu, self.file, offset, pages, |page, count| {
            let start = page.saturating_sub(offset);
            (start..(start + count).min(pages)).for_each(|page| object.note_write(cpu, page));
        })?;
        Ok(())
    }

    /// The object is going to be unmapped: notes what entries say while they are there. First no CPU may write any more, or
    /// something is written between the look and the end (Linux: `vmw_bo_dirty_pre_unmap`).
    pub(crate) fn note_writes(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) -> Result<(), ZapError> {
        let (cpu, pages) = (reserved.cpu(), reserved.pages());
        if reserved.object.method(cpu) != Some(Method::DirtyBits) {
            return Ok(());
        }
        self.mm().write_protect_mapping(cpu, self.file, self.offset(reserved.index), pages)?;
        self.take_dirty_bits(reserved)
    }
}

/// The runs of pages whose bits are set.
fn runs<'o, C: Cpu>(cpu: &'o C, object: &'o Object<'_>, pages: u64) -> impl Iterator<Item = (u64, u64)> + use<'o, C> {
    let words = object.room.dirty;
    let is_set = move |page: u64| {
        let word = words.get((page / BITS) as usize);
        word.is_some_and(|word| cpu.owned_load(word) >> (page % BITS) & 1 != 0)
    };
    let mut page = 0;
    core::iter::from_fn(move || {
        let start = (page..pages).find(|&page| is_set(page))?;
        let end = (start..pages).find(|&page| !is_set(page)).unwrap_or(pages);
        page = end;
        Some((start, end - start))
    })
}
