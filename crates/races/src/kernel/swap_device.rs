//! A swap device in the lab: a few places, each with a count and a word.

use machine::{Frame, Word64};
use mm::{SwapError, SwapPlace, SwapStore};
use pagetable::{SwapDevice, SwapOffset};

use super::platform::LabFrames;
use crate::checker::CheckedCpu;

/// One page of the device.
pub(super) struct PlaceWords {
    /// How many entries name it, or read from it; 0 = free.
    pub(super) counts: Word64,
    /// What was written to it.
    pub(super) word: Word64,
}

/// Device 0.
pub(super) struct LabSwap<'l> {
    pub(super) places: &'l [PlaceWords],
    pub(super) frames: &'l LabFrames<'l>,
}

impl PlaceWords {
    pub(super) const fn new() -> Self {
        Self { counts: Word64::new(0), word: Word64::new(0) }
    }
}

impl LabSwap<'_> {
    fn words(&self, place: SwapPlace) -> Result<&PlaceWords, SwapError> {
        self.places.get(place.offset.number() as usize).ok_or(SwapError::NotInUse(place))
    }
}

impl<C: CheckedCpu> SwapStore<C> for LabSwap<'_> {
    fn allocate(&self, cpu: &C) -> Result<SwapPlace, SwapError> {
        let free = self.places.iter().position(|place| cpu.compare_exchange(&place.counts, 0, 1).is_ok());
        let place = free
            .and_then(|index| Some(SwapPlace { device: SwapDevice::new(0)?, offset: SwapOffset::new(index as u64)? }));
        place.ok_or(SwapError::Full)
    }

    fn write(&self, cpu: &C, place: SwapPlace, from: Frame) -> Result<(), SwapError> {
        let words = self.words(place)?;
        for word in self.frames.contents(from, 1) {
            let value = cpu.load(word);
            cpu.swap(&words.word, value);
        }
        Ok(())
    }

    fn read(&self, cpu: &C, place: SwapPlace, into: Frame) -> Result<(), SwapError> {
        let words = self.words(place)?;
        for word in self.frames.contents(into, 1) {
            let value = cpu.load(&words.word);
            cpu.owned_store(word, value);
        }
        Ok(())
    }

    fn duplicate(&self, cpu: &C, place: SwapPlace) -> Result<(), SwapError> {
        let words = self.words(place)?;
        let mut counts = cpu.load(&words.counts);
        loop {
            if counts == 0 {
                return Err(SwapError::NotInUse(place));
            }
            match cpu.compare_exchange(&words.counts, counts, counts + 1) {
                Ok(_) => return Ok(()),
                Err(found) => counts = found,
            }
        }
    }

    fn free(&self, cpu: &C, place: SwapPlace) {
        if let Ok(words) = self.words(place) {
            cpu.fetch_add(&words.counts, u64::MAX);
        }
    }
}
