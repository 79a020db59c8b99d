//! The memory of the simulated machine: somebody else's words, and what they held before the first step.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A piece of memory that the simulated CPUs share.
///
/// # Safety
/// [`Self::base`] points to [`Self::bytes`] initialised bytes, 8-byte aligned, which stay where they are as long as `self` lives. As long as a
/// [`crate::Simulator`] has it, they are accessed as atomics only.
pub unsafe trait Memory {
    /// The first byte.
    fn base(&self) -> NonNull<u8>;
    /// How many there are. Less than 1 GiB.
    fn bytes(&self) -> usize;
}

/// A word inside the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) offset: usize,
    /// 4 or 8.
    pub(crate) bytes: usize,
}

impl Place {
    pub(crate) const fn whole(offset: usize) -> Self {
        Self { offset, bytes: 8 }
    }

    pub(crate) const fn overlaps(self, other: Self) -> bool {
        self.offset < other.offset + other.bytes && other.offset < self.offset + self.bytes
    }

    /// The 4-byte units that it is made of.
    pub(crate) fn units(self) -> std::ops::Range<u32> {
        (self.offset / 4) as u32..((self.offset + self.bytes) / 4) as u32
    }
}

/// The words, and how to make them what they were at the start.
pub(crate) struct Words<'a> {
    memory: Box<dyn Memory + 'a>,
    /// What was overwritten, in order.
    overwritten: Vec<(Place, u64)>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(memory: Box<dyn Memory + 'a>) -> Self {
        assert!(memory.base().addr().get().is_multiple_of(8) && memory.bytes() < 1 << 30, "memory of the simulator");
        Self { memory, overwritten: Vec::new() }
    }

    /// Where in the memory an address is.
    pub(crate) fn locate(&self, address: usize, bytes: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.memory.base().addr().get());
        (offset.checked_add(bytes)? <= self.memory.bytes()).then_some(offset)
    }

    pub(crate) fn address(&self, offset: usize) -> usize {
        self.memory.base().addr().get() + offset
    }

    pub(crate) fn read(&self, place: Place) -> u64 {
        assert!(place.offset + place.bytes <= self.memory.bytes() && place.offset.is_multiple_of(place.bytes));
        let at = self.memory.base().as_ptr().wrapping_add(place.offset);
        if place.bytes == 8 {
            // SAFETY: aligned and inside the memory, as was just checked; `Memory` promises that it is valid and accessed as atomics.
            unsafe { AtomicU64::from_ptr(at.cast()) }.load(Ordering::Relaxed)
        } else {
            // SAFETY: as above.
            u64::from(unsafe { AtomicU32::from_ptr(at.cast()) }.load(Ordering::Relaxed))
        }
    }

    fn put(&self, place: Place, value: u64) {
        assert!(place.offset + place.bytes <= self.memory.bytes() && place.offset.is_multiple_of(place.bytes));
        let at = self.memory.base().as_ptr().wrapping_add(place.offset);
        if place.bytes == 8 {
            // SAFETY: as in `read`.
            unsafe { AtomicU64::from_ptr(at.cast()) }.store(value, Ordering::Relaxed);
        } else {
            // SAFETY: as in `read`.
            unsafe { AtomicU32::from_ptr(at.cast()) }.store(value as u32, Ordering::Relaxed);
        }
    }

    /// Writes, and remembers what was there for [`Self::reset`]. Returns it.
    pub(crate) fn write(&mut self, place: Place, value: u64) -> u64 {
        let old = self.read(place);
        if old != value {
            self.overwritten.push((place, old));
            self.put(place, value);
        }
        old
    }

    /// Everything is as it was at the start.
    pub(crate) fn reset(&mut self) {
        while let Some((place, old)) = self.overwritten.pop() {
            self.put(place, old);
        }
    }

    /// What is there now is the start.
    pub(crate) fn settle(&mut self) {
        self.overwritten.clear();
    }
}
