//! What can go wrong with userfaultfd.

use core::fmt;

use machine::addr::VirtAddr;
use pagetable::MapError as MapTableError;

use crate::area::Area;
use crate::error::{AreaError, FaultError, RangeError, SplitError, ZapError};
use crate::uffd::UffdModes;

/// Why areas were not registered, or the registration not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UffdRegisterError {
    /// The range, or what an area would be cut into.
    Area(AreaError),
    /// The platform has no userfaultfd, or the paging mode no bit for write protection (-EINVAL).
    Unsupported {
        /// What was asked for.
        modes: UffdModes,
    },
    /// Faults of this area cannot be handed over so: it is a driver's, or a file's whose faults are (-EINVAL).
    Unsuitable {
        /// The area.
        area: Area,
    },
}

/// Why a fault was not resolved, or protection not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UffdError {
    /// The range cannot be meant.
    Range(RangeError),
    /// No area that is registered for this holds the address; perhaps not any more (-ENOENT).
    NotRegistered {
        /// The address.
        address: VirtAddr,
    },
    /// Pages of the area are its file's to give (-EINVAL).
    Unsuitable {
        /// The area.
        area: Area,
    },
    /// Something is there already (-EEXIST).
    Exists {
        /// The address.
        address: VirtAddr,
    },
    /// No frame for a page or a page table (-ENOMEM).
    OutOfFrames,
    /// A page table holds what it must not.
    Malformed(MapTableError),
}

/// Why not all pages were filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UffdFillError {
    /// How many pages before were.
    pub pages: u64,
    /// What is wrong with the next one.
    pub error: UffdError,
}

impl From<AreaError> for UffdRegisterError {
    fn from(error: AreaError) -> Self {
        Self::Area(error)
    }
}

impl From<RangeError> for UffdError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<MapTableError> for UffdError {
    fn from(error: MapTableError) -> Self {
        match error {
            MapTableError::OutOfFrames { .. } => Self::OutOfFrames,
            error => Self::Malformed(error),
        }
    }
}

impl From<ZapError> for UffdError {
    fn from(error: ZapError) -> Self {
        match error {
            ZapError::Range(error) => Self::Range(error),
            // A walk over tables neither looks into files nor makes tables.
            ZapError::OutOfFrames | ZapError::NoPage { .. } => Self::OutOfFrames,
            ZapError::Malformed(error) => Self::Malformed(MapTableError::Walk(error)),
        }
    }
}

impl From<SplitError> for UffdError {
    fn from(error: SplitError) -> Self {
        ZapError::from(error).into()
    }
}

impl From<FaultError> for UffdError {
    fn from(error: FaultError) -> Self {
        match error {
            FaultError::Malformed(error) => error.into(),
            // All else that can be wrong with a page of anonymous memory was looked for before.
            _ => Self::OutOfFrames,
        }
    }
}

impl fmt::Display for UffdRegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Area(error) => write!(f, "{error:?}"),
            Self::Unsupported { modes } => write!(f, "{modes:?} cannot be had on this machine"),
            Self::Unsuitable { area } => write!(f, "faults of the area at {} cannot be handed over so", area.start),
        }
    }
}

impl core::error::Error for UffdRegisterError {}

impl fmt::Display for UffdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => write!(f, "{error:?}"),
            Self::NotRegistered { address } => write!(f, "no area that is registered for this holds {address}"),
            Self::Unsuitable { area } => write!(f, "pages of the area at {} are its file's to give", area.start),
            Self::Exists { address } => write!(f, "something is mapped at {address} already"),
            Self::OutOfFrames => f.write_str("no frame for a page or a page table"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for UffdError {}

impl fmt::Display for UffdFillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} pages: {}", self.pages, self.error)
    }
}

impl core::error::Error for UffdFillError {}
