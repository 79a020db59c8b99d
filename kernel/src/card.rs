//! A graphics card without an engine: a stretch of memory that is its own, and a driver that copies by the CPU.

use core::sync::atomic::{AtomicPtr, Ordering};

use machine::Cpu;
use mm::{DriverAnswer, DriverFault, DriverFaultContext, FileId, FrameSource};
use ttm::{Device, Driver, Extent, Kind, ObjectId, Refused, Work, for_each_pair};

use crate::arch::BareCpu;
use crate::data_frames::words;
use crate::system::{Bare, system};

/// The card's memory.
pub(crate) const VRAM: Kind = Kind::new(1);
/// How much of it, in pages: less than two of the largest objects.
pub(crate) const VRAM_PAGES: u64 = 1536;
/// The largest objects, in pages.
pub(crate) const OBJECT_PAGES: u64 = 1024;

/// The driver.
pub(crate) struct Card {
    device: AtomicPtr<Device<'static, Card>>,
}

impl Card {
    pub(crate) const fn new() -> Self {
        Self { device: AtomicPtr::new(core::ptr::null_mut()) }
    }

    pub(crate) fn set_device(&self, device: &'static Device<'static, Self>) {
        self.device.store(core::ptr::from_ref(device).cast_mut(), Ordering::Release);
    }

    /// Its buffer manager.
    pub(crate) fn device(&self) -> &'static Device<'static, Self> {
        // SAFETY: only `set_device` writes it, a reference that lives for ever.
        unsafe { self.device.load(Ordering::Acquire).as_ref() }.expect("the device is there before it is used")
    }
}

impl Driver for Card {
    type Platform = Bare;

    fn evict_to(&self, _: &BareCpu, _: ObjectId, _: Kind) -> Kind {
        Kind::SYSTEM
    }

    fn clear(&self, cpu: &BareCpu, to: &Extent<'_>) -> Result<Work, Refused> {
        to.for_each_run(cpu, |run| (0..run.pages).for_each(|page| cpu.zero(words(run.frame.wrapping_add(page)))));
        Ok(Work::Done)
    }

    fn copy(&self, cpu: &BareCpu, from: &Extent<'_>, to: &Extent<'_>) -> Result<Work, Refused> {
        let data = system().ok_or(Refused::Failed(0))?.data;
        for_each_pair(cpu, from, to, |from, to, pages| data.copy(cpu, from, to, pages));
        Ok(Work::Done)
    }
}

impl DriverFault<Bare> for Card {
    fn fault(&self, context: &DriverFaultContext<'_, '_, Bare>) -> DriverAnswer {
        self.device().fault(context)
    }

    fn wait(&self, cpu: &BareCpu, _: FileId, page: u64) {
        self.device().wait_for_fault(cpu, page);
    }
}
