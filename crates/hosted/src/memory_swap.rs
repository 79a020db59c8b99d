//! A swap device that keeps pages in memory, and fails where a test wants it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machine::{Frame, Word};
use mm::{SwapError, SwapPlace, SwapStore};
use pagetable::{SwapDevice, SwapOffset};

use crate::data_frames::DataFrames;
use crate::failures::Failures;
use crate::thread_cpu::ThreadCpu;

/// Device 0, with room for some pages.
pub struct MemorySwap<'d> {
    data: &'d DataFrames,
    places: Mutex<Vec<Place>>,
    failures: Arc<Failures>,
}

#[derive(Default)]
struct Place {
    counts: u32,
    page: Option<Vec<u64>>,
}

impl<'d> MemorySwap<'d> {
    /// A device with room for `pages` pages of `data`. Allocations, new counts, writes and reads all ask `failures`.
    pub fn new(data: &'d DataFrames, pages: usize, failures: Arc<Failures>) -> Self {
        Self { data, places: Mutex::new((0..pages).map(|_| Place::default()).collect()), failures }
    }

    /// How many places are in use.
    pub fn in_use(&self) -> usize {
        self.lock().iter().filter(|place| place.counts > 0).count()
    }

    /// How many counts all places have together.
    pub fn counts(&self) -> u64 {
        self.lock().iter().map(|place| u64::from(place.counts)).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        // What is behind the lock is whole between any two statements.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `use_place` have a place that is in use.
    fn with<R>(&self, place: SwapPlace, use_place: impl FnOnce(&mut Place) -> R) -> Result<R, SwapError> {
        let mut places = self.lock();
        let found = places.get_mut(place.offset.number() as usize).filter(|found| found.counts > 0);
        match found {
            Some(found) if place.device.number() == 0 => Ok(use_place(found)),
            _ => Err(SwapError::NotInUse(place)),
        }
    }
}

impl SwapStore<ThreadCpu> for MemorySwap<'_> {
    fn allocate(&self, _: &ThreadCpu) -> Result<SwapPlace, SwapError> {
        self.failures.ask().map_err(|_| SwapError::Full)?;
        let mut places = self.lock();
        let free = places.iter().position(|place| place.counts == 0).ok_or(SwapError::Full)?;
        let (Some(device), Some(offset)) = (SwapDevice::new(0), SwapOffset::new(free as u64)) else {
            return Err(SwapError::Full);
        };
        places[free] = Place { counts: 1, page: None };
        Ok(SwapPlace { device, offset })
    }

    /// # Panics
    /// The frame holds no data.
    fn write(&self, _: &ThreadCpu, place: SwapPlace, from: Frame) -> Result<(), SwapError> {
        self.failures.ask().map_err(|_| SwapError::Device(place))?;
        let words = self.data.words(from).unwrap_or_else(|| panic!("frame {from} holds no data"));
        let page = words.iter().map(|word| word.atomic_load(std::sync::atomic::Ordering::Relaxed)).collect();
        self.with(place, |found| found.page = Some(page))
    }

    /// # Panics
    /// The place was never written, or the frame holds no data.
    fn read(&self, _: &ThreadCpu, place: SwapPlace, into: Frame) -> Result<(), SwapError> {
        self.failures.ask().map_err(|_| SwapError::Device(place))?;
        let page = self.with(place, |found| found.page.clone())?;
        let page = page.unwrap_or_else(|| panic!("{place:?} is read and was never written"));
        let words = self.data.words(into).unwrap_or_else(|| panic!("frame {into} holds no data"));
        for (word, value) in words.iter().zip(page) {
            word.atomic_store(value, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    fn duplicate(&self, _: &ThreadCpu, place: SwapPlace) -> Result<(), SwapError> {
        self.failures.ask().map_err(|_| SwapError::CountLimit(place))?;
        self.with(place, |found| found.counts += 1)
    }

    /// # Panics
    /// The place is not in use: it was freed twice.
    fn free(&self, _: &ThreadCpu, place: SwapPlace) {
        let freed = self.with(place, |found| found.counts -= 1);
        assert_eq!(freed, Ok(()), "a count too many was given back");
    }
}

impl std::fmt::Debug for MemorySwap<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemorySwap").field("in_use", &self.in_use()).finish_non_exhaustive()
    }
}
