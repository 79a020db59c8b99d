//! What is known of one page of an object that lies in pages of the system.

use machine::addr::Frame;
use machine::{Cpu, Word64};
use mm::swap::SwapPlace;
use pagetable::{SwapDevice, SwapOffset};

/// One page: a frame and the order of the folio that it was allocated in, or a place on swap, or nothing.
///
/// Frames take 40 bits (52 bits of physical address), offsets on swap less than 50, devices 5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageWord(u64);

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const ORDER_SHIFT: u32 = 52;
const DEVICE_SHIFT: u32 = 50;
const LOW: u64 = (1 << DEVICE_SHIFT) - 1;

impl PageWord {
    pub(crate) const NOTHING: Self = Self(0);

    pub(crate) const fn in_folio(frame: Frame, order: u8) -> Self {
        Self(PRESENT | (order as u64) << ORDER_SHIFT | frame.number())
    }

    pub(crate) const fn swapped(place: SwapPlace) -> Self {
        Self(SWAPPED | (place.device.number() as u64) << DEVICE_SHIFT | place.offset.number())
    }

    pub(crate) fn load<C: Cpu>(cpu: &C, word: &Word64) -> Self {
        Self(cpu.owned_load(word))
    }

    pub(crate) fn store<C: Cpu>(self, cpu: &C, word: &Word64) {
        cpu.owned_store(word, self.0);
    }

    pub(crate) const fn frame(self) -> Option<(Frame, u8)> {
        if self.0 & PRESENT == 0 {
            return None;
        }
        Some((Frame::new(self.0 & ((1 << ORDER_SHIFT) - 1)), (self.0 >> ORDER_SHIFT) as u8 & 0x3f))
    }

    pub(crate) const fn swap_place(self) -> Option<SwapPlace> {
        if self.0 & SWAPPED == 0 {
            return None;
        }
        let device = SwapDevice::new((self.0 >> DEVICE_SHIFT) as u8 & 0x1f);
        match (device, SwapOffset::new(self.0 & LOW)) {
            (Some(device), Some(offset)) => Some(SwapPlace { device, offset }),
            _ => None,
        }
    }
}
