//! Memory of a device with page records, that can be taken away again.
//!
//! Records of ordinary memory stay for ever. Those of a device go when the device does, and a lockless walker that has just read an entry may still be on its way to the
//! record: it looks at it *before* it looks at the entry again. Fast GUP without a thought of that took references on records of a device that was being torn down
//! (Linux 6dd29b3df975).
//!
//! # Protocol
//!
//! 1. The folios are marked truncated: GUP gives new references back, and no mixed file maps them any more.
//! 2. Entries are taken away and flushed.
//! 3. The device's own reference to each folio is dropped; whoever has others gives them back sooner or later. A count that came to zero never rises again.
//! 4. When all are zero, lockless walkers from before step 2 are waited for, as before a page table is freed.
//! 5. The records are nobody's.

use core::fmt;
use core::ops::Range;

use machine::addr::Frame;
use machine::{Cpu, CpuSet, Word32};

use crate::error::ZapError;
use crate::file::File;
use crate::folio::{Folio, FolioFlags, Page, Reference};
use crate::guard::Guards;
use crate::mm::Mm;
use crate::platform::Platform;

/// The records of a device's frames.
///
/// The platform's [`MemoryMap::page`](crate::MemoryMap::page) asks [`Self::page`] for frames of [`Self::frames`]. Each folio begins with one reference, the device's.
pub struct DevicePages<'a> {
    first: Frame,
    pages: &'a [Page],
    state: Word32,
}

/// Where a device's records are in their life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceState {
    /// In use.
    Live,
    /// No new references; those that there are, are waited for.
    Dying,
    /// The records may be used for something else.
    Gone,
}

impl DeviceState {
    const fn pack(self) -> u32 {
        self as u32
    }

    const fn unpack(word: u32) -> Self {
        match word {
            0 => Self::Live,
            1 => Self::Dying,
            _ => Self::Gone,
        }
    }
}

impl<'a> DevicePages<'a> {
    /// Records of the frames from `first` on.
    pub const fn new(first: Frame, pages: &'a [Page]) -> Self {
        Self { first, pages, state: Word32::new(DeviceState::Live.pack()) }
    }

    /// The frames.
    pub const fn frames(&self) -> Range<Frame> {
        self.first..self.first.wrapping_add(self.pages.len() as u64)
    }

    /// The record of a frame, while there are records.
    #[inline]
    pub fn page<C: Cpu>(&self, cpu: &C, frame: Frame) -> Option<&'a Page> {
        let index = frame.number().checked_sub(self.first.number())?;
        let page = self.pages.get(usize::try_from(index).ok()?)?;
        (self.state(cpu) != DeviceState::Gone).then_some(page)
    }

    /// Where they are in their life.
    #[inline]
    pub fn state<C: Cpu>(&self, cpu: &C) -> DeviceState {
        DeviceState::unpack(cpu.load(&self.state))
    }

    /// The word of the state, so that a trace can name it.
    pub const fn state_word(&self) -> &Word32 {
        &self.state
    }

    /// The folios, each once.
    fn folios<'s, C: Cpu>(&'s self, cpu: &'s C) -> impl Iterator<Item = Frame> {
        let frames = self.pages.iter().enumerate();
        frames.filter_map(|(index, page)| {
            let frame = self.first.wrapping_add(index as u64);
            (page.membership(cpu).head == frame).then_some(frame)
        })
    }
}

/// Why a device's records are still there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KillError {
    /// Somebody else is at it, or was.
    NotLive(DeviceState),
    /// Not all entries could be taken away. The records are live, the folios truncated; it may be tried again.
    Zap(ZapError),
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes a device's frames out of all address spaces that map them by `file`, waits until nobody has a reference, and until nobody looks at the
    /// records. They may be used for something else then (Linux: `memunmap_pages`).
    ///
    /// The driver maps none of the frames from here on.
    ///
    /// The platform hears of each folio by [`MemoryMap::release`](crate::MemoryMap::release) when its last reference goes.
    ///
    /// Context: interrupts on, no lock; the caller holds no reference to the frames. May wait very long: as long as the longest pin.
    ///
    /// # Errors
    /// The records are still there.
    pub fn kill_device_pages(&self, cpu: &P::Cpu, device: &DevicePages<'_>, file: &File<'m>) -> Result<(), KillError> {
        let claimed = cpu.compare_exchange(&device.state, DeviceState::Live.pack(), DeviceState::Dying.pack());
        claimed.map_err(|found| KillError::NotLive(DeviceState::unpack(found)))?;
        for frame in device.folios(cpu) {
            if let Some(folio) = Folio::held(self.map(), cpu, frame) {
                folio.mark(cpu, FolioFlags::TRUNCATED);
            }
        }
        if let Err(error) = self.unmap_mapping(cpu, file, 0, u64::MAX) {
            cpu.store(&device.state, DeviceState::Live.pack());
            return Err(KillError::Zap(error));
        }
        for frame in device.folios(cpu) {
            if let Some(folio) = Folio::held(self.map(), cpu, frame) {
                // A folio without the device's reference never began, or is gone already.
                let _ = folio.put(cpu, self.map(), 1, Reference::Get);
            }
        }
        for frame in device.folios(cpu) {
            if let Some(page) = device.page(cpu, frame) {
                cpu.await_value(page.refcount_word(), |count| count == 0);
            }
        }
        self.protocols().guards.walkers_left(cpu, &self.protocols().lifetime, self.shootdown(), self.all_active(cpu));
        cpu.store(&device.state, DeviceState::Gone.pack());
        Ok(())
    }

    /// The CPUs that may walk any address space.
    fn all_active(&self, cpu: &P::Cpu) -> CpuSet {
        let bits = self.spaces().iter().fold(0, |bits, space| bits | space.active(cpu).bits());
        CpuSet::from_bits(bits)
    }
}

impl fmt::Display for KillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLive(DeviceState::Gone) => f.write_str("the device's records are gone"),
            Self::NotLive(_) => f.write_str("the device's records are being taken away"),
            Self::Zap(_) => f.write_str("not all entries that map the device's frames could be taken away"),
        }
    }
}

impl core::error::Error for KillError {}
