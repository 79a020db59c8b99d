//! Faults of CPUs on objects (Linux: `ttm_bo_vm_fault_reserved`).
//!
//! # Protocol
//!
//! A fault holds the mmap lock, and to reserve an object may take long. So at first the fault only *tries* to reserve. If it cannot, or if an engine has yet to bring the object to where it
//! is, the fault is given up, the mmap lock dropped, and what stood in the way is waited for ([`Device::wait_for_fault`]); then it starts again.
//!
//! The second attempt waits where it is, with the mmap lock held. Waiting takes the reservation, so two faults that only tried could find each other's waits in the way for ever. Nobody who has reserved an
//! object waits for an mmap lock ([`mm::DriverFault`], rule 4), and a fault has reserved nothing else: no circle of waiting can close.
//!
//! Once reserved, the object stays where it is until the entry is there. Whoever moves it reserves it first and revokes afterwards, and so finds that entry.
//!
//! # Which leaf
//!
//! The engine asks for the largest leaf of the file that lies inside the area, and for smaller ones after a refusal. A leaf is inserted if the pages
//! of the object that it would cover are all there, and lie in frames that follow each other and begin where such a leaf must. While writes are tracked, leaves are
//! small: a large one could not say which page was written.

use machine::{Access, VirtAddr};
use mm::{Area, AreaRights, Attempt, DriverAnswer, DriverFaultContext, PfnLeaf, SpaceId};
use pagetable::Level;

use crate::device::{Device, SPAN_SHIFT};
use crate::dirty::Method;
use crate::driver::{CpuOf, Driver};
use crate::error::MmapError;
use crate::object::{Handle, Reserved, SlotState};

impl<'d, D: Driver> Device<'d, D> {
    /// Resolves a fault on the device's file: what the driver's [`mm::DriverFault::fault`] is to call.
    ///
    /// Context: as for [`mm::DriverFault::fault`].
    pub fn fault(&self, context: &DriverFaultContext<'_, '_, D::Platform>) -> DriverAnswer {
        let (cpu, page) = (context.cpu(), context.page());
        let Ok(index) = u16::try_from(page >> SPAN_SHIFT) else { return DriverAnswer::NoPage };
        let Some(object) = self.parts.objects.get(usize::from(index)) else { return DriverAnswer::NoPage };
        let guard = match (object.lock.try_lock(cpu), context.attempt()) {
            (Some(guard), _) => guard,
            (None, Attempt::First) => return DriverAnswer::Retry,
            (None, Attempt::AfterWait) => object.lock.lock_alone(cpu),
        };
        let mut reserved = Reserved { object, index, guard };
        let answer = self.fault_reserved(context, &mut reserved);
        reserved.unlock();
        answer
    }

    /// Waits for what made [`Self::fault`] answer [`DriverAnswer::Retry`] at this page of the file: what the driver's [`mm::DriverFault::wait`] is to call.
    ///
    /// Context: interrupts on, no lock.
    pub fn wait_for_fault(&self, cpu: &CpuOf<D>, page: u64) {
        let Ok(index) = u16::try_from(page >> SPAN_SHIFT) else { return };
        let Some(object) = self.parts.objects.get(usize::from(index)) else { return };
        let reserved = Reserved { object, index, guard: object.lock.lock_alone(cpu) };
        if object.slot(cpu) == SlotState::Live {
            self.wait_for_moves(&reserved);
        }
        reserved.unlock();
    }

    fn fault_reserved(
        &self,
        context: &DriverFaultContext<'_, '_, D::Platform>,
        reserved: &mut Reserved<'_, 'd, CpuOf<D>>,
    ) -> DriverAnswer {
        let (cpu, object) = (reserved.cpu(), reserved.object);
        let start = self.offset(reserved.index);
        let page = context.page() - start;
        if object.slot(cpu) != SlotState::Live || page >= reserved.pages() {
            return DriverAnswer::NoPage;
        }
        match context.attempt() {
            Attempt::First if self.is_moving(reserved) => return DriverAnswer::Retry,
            Attempt::First => {}
            Attempt::AfterWait => self.wait_for_moves(reserved),
        }
        let level = context.level();
        let method = object.method(cpu);
        if method.is_some() && level > Level::Pte {
            return DriverAnswer::Fallback;
        }
        if self.populate(reserved).is_err() {
            // No frames, and nothing to swap out (Linux: VM_FAULT_OOM).
            return DriverAnswer::NoPage;
        }
        let extent = self.extent(object, reserved.pages(), reserved.placed());
        let leaf = context.leaf_page().checked_sub(start).and_then(|first| extent.leaf(cpu, first, level));
        let Some(frame) = leaf else { return DriverAnswer::Fallback };
        let rights = match (method, context.access()) {
            // The first store to the page faults again, and is noted then.
            (Some(Method::WriteFaults), Access::Read) => AreaRights::Read,
            _ => AreaRights::ReadWrite,
        };
        let leaf = PfnLeaf::new(level, frame).with_rights(rights);
        let inserted = context.insert(&leaf);
        if inserted.is_ok() && method.is_some() && context.access() == Access::Write {
            object.note_write(cpu, page);
        }
        inserted.into()
    }

    /// Whether an engine has yet to bring the object to where it is.
    fn is_moving(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) -> bool {
        let cpu = reserved.cpu();
        let mut slots = reserved.object.room.fences.iter().zip(self.parts.timelines);
        slots.any(|(slot, timeline)| !timeline.is_reached(cpu, slot.moving(cpu)))
    }

    /// Maps `pages` pages of an object from its page `first` on at `start`, shared (Linux: `drm_gem_mmap_obj`).
    ///
    /// Context: as for [`mm::Mm::mmap`], and no reservation of the object.
    ///
    /// # Errors
    /// Nothing is mapped.
    pub fn mmap(
        &self,
        cpu: &CpuOf<D>,
        handle: &Handle,
        (first, pages): (u64, u64),
        (space, start): (SpaceId, VirtAddr),
        rights: AreaRights,
    ) -> Result<(), MmapError> {
        let reserved = self.reserve_alone(cpu, handle)?;
        let size = reserved.pages();
        reserved.unlock();
        if first.checked_add(pages).is_none_or(|end| end > size) {
            return Err(MmapError::OutsideObject { first, pages, size });
        }
        let area = Area::shared(start, pages, rights, self.file_id(), self.mmap_offset(handle) + first);
        Ok(self.mm().mmap(cpu, space, area)?)
    }

    /// The page of the device's file at which the object of a handle begins: the offset of the areas that map it (Linux: `drm_vma_node_offset_addr`).
    pub fn mmap_offset(&self, handle: &Handle) -> u64 {
        self.offset(handle.index)
    }
}
