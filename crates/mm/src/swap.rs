//! Where pages go that are taken out of memory.

use core::fmt;

use machine::Cpu;
use machine::addr::Frame;
use pagetable::{SwapDevice, SwapOffset};

/// The place of one page on swap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SwapPlace {
    /// Which device.
    pub device: SwapDevice,
    /// Which page of it.
    pub offset: SwapOffset,
}

/// Swap devices. A place counts how many entries name it.
pub trait SwapStore<C: Cpu> {
    /// A free place, with a count of 1, the caller's.
    ///
    /// # Errors
    /// There is none.
    fn allocate(&self, cpu: &C) -> Result<SwapPlace, SwapError>;

    /// Writes the page out.
    ///
    /// # Errors
    /// The device failed: the place still has its count.
    fn write(&self, cpu: &C, place: SwapPlace, from: Frame) -> Result<(), SwapError>;

    /// Reads the page in.
    ///
    /// # Errors
    /// The device failed, or the place is not in use.
    fn read(&self, cpu: &C, place: SwapPlace, into: Frame) -> Result<(), SwapError>;

    /// One more entry names the place.
    ///
    /// # Errors
    /// The count is full, or the place is not in use.
    fn duplicate(&self, cpu: &C, place: SwapPlace) -> Result<(), SwapError>;

    /// One entry fewer names the place: free with the last.
    fn free(&self, cpu: &C, place: SwapPlace);
}

/// Why swap did not do what it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwapError {
    /// All places are in use, or there is no device.
    Full,
    /// The place is not in use, or does not exist.
    NotInUse(SwapPlace),
    /// Too many entries name the place.
    CountLimit(SwapPlace),
    /// The device failed.
    Device(SwapPlace),
}

impl fmt::Display for SwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, place) = match self {
            Self::Full => return f.write_str("no place on swap is free"),
            Self::NotInUse(place) => ("is not in use", place),
            Self::CountLimit(place) => ("is named by too many entries", place),
            Self::Device(place) => ("could not be read or written", place),
        };
        write!(f, "page {} of swap device {} {what}", place.offset.number(), place.device.number())
    }
}

impl core::error::Error for SwapError {}

/// No swap: pages stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSwap;

impl<C: Cpu> SwapStore<C> for NoSwap {
    fn allocate(&self, _: &C) -> Result<SwapPlace, SwapError> {
        Err(SwapError::Full)
    }

    fn write(&self, _: &C, place: SwapPlace, _: Frame) -> Result<(), SwapError> {
        Err(SwapError::NotInUse(place))
    }

    fn read(&self, _: &C, place: SwapPlace, _: Frame) -> Result<(), SwapError> {
        Err(SwapError::NotInUse(place))
    }

    fn duplicate(&self, _: &C, place: SwapPlace) -> Result<(), SwapError> {
        Err(SwapError::NotInUse(place))
    }

    fn free(&self, _: &C, _: SwapPlace) {}
}
