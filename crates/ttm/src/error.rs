//! What can go wrong, with what a caller needs to mend it.

use core::fmt;

use mm::swap::SwapError;
use mm::{MapError, ReleaseError, ZapError};

use crate::fence::Fence;
use crate::object::ObjectId;
use crate::place::{Kind, Place};
use crate::range::NoRoom;
use crate::ww::LockError;

/// Why a device cannot be made of these parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetupError {
    /// There is no such file, or it is not PFN-mapped by a driver's fault handler.
    File,
    /// The first kind, and only the first, is system memory.
    SystemFirst {
        /// The kind that is wrong.
        kind: Kind,
    },
    /// A kind has no pages, or frames that no entry can name.
    Frames {
        /// The kind.
        kind: Kind,
    },
    /// There are more objects, kinds or timelines than numbers for them.
    TooMany,
    /// The object has not one fence slot for each timeline.
    FenceSlots {
        /// Its index.
        object: usize,
    },
}

/// Why an object was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateError {
    /// It would have no pages, or more than any free slot has room for.
    Size {
        /// How many were asked for.
        pages: u64,
    },
    /// All object slots are in use.
    NoSlot,
}

/// There is no such object: it is gone, or of another device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoObject(pub ObjectId);

/// Why an object was not reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReserveError {
    /// See there.
    NoObject(NoObject),
    /// See there.
    Lock(LockError),
}

/// Why an object was not moved. It is where it was, with its contents, and nothing is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MoveError {
    /// No place was given.
    NoPlace,
    /// A place names a kind that does not exist, an alignment that is no power of two, or a window that is too small.
    BadPlace(Place),
    /// There is no room in the kind, and nothing that could be evicted: all is pinned or in use by others.
    NoRoom {
        /// The kind that was tried last.
        kind: Kind,
        /// What there is none of.
        why: NoRoom,
    },
    /// There are no frames of the system, and nothing to swap out.
    OutOfFrames,
    /// It is pinned elsewhere.
    Pinned,
    /// Swap failed.
    Swap(SwapError),
    /// The driver evicts from a kind to one that is not smaller.
    EvictsUpwards {
        /// From here.
        from: Kind,
        /// To here.
        to: Kind,
    },
    /// The engine refused.
    Refused(Refused),
    /// The driver gave a fence that says nothing. Nobody knows when its engine is done, so what it reads and what it writes stays the object's
    /// until the card was reset: see [`Self::Quarantined`].
    BadFence(FenceError),
    /// An engine may be at work on the object, and nobody knows for how long: an earlier move ended with [`Self::BadFence`]. It can be used where it is;
    /// it can move again after [`crate::Device::after_reset`].
    Quarantined,
    /// It cannot be unmapped: a page table holds what it must not.
    Unmap(ZapError),
    /// While it waited for an object that another has reserved. Back off.
    Lock(LockError),
    /// A frame that was to be given back was not the device's any more.
    Release(ReleaseError),
}

/// Why a fence says nothing of when some work is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FenceError {
    /// The device has no such timeline.
    NoTimeline(Fence),
    /// The timeline has not given out the point yet ([`crate::Device::fence`]): it is a fence of another device, and whoever waited for it here might wait for ever.
    NeverGiven {
        /// The fence.
        fence: Fence,
        /// The latest point that was given out.
        latest: u64,
    },
}

/// Why an engine does not copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Not in one go: only by way of this kind (Linux: -EMULTIHOP).
    Hop(Kind),
    /// It cannot at all; the number is the driver's own.
    Failed(u32),
}

/// Why an object was not pinned or unpinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinError {
    /// It could not be moved to where it was to be pinned.
    Move(MoveError),
    /// It is not pinned: unpinned twice?
    NotPinned,
    /// It is pinned too often.
    TooManyPins,
}

/// Why an object was not mapped into an address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmapError {
    /// See there.
    NoObject(NoObject),
    /// The object has not that many pages.
    OutsideObject {
        /// The first page asked for.
        first: u64,
        /// How many.
        pages: u64,
        /// How many it has.
        size: u64,
    },
    /// The engine does not map it there.
    Map(MapError),
}

/// Why writes to an object are not tracked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrackError {
    /// Its slot has not a bit for every page.
    NoBits {
        /// How many pages it has.
        pages: u64,
        /// How many bits there are.
        bits: u64,
    },
    /// Nobody has asked to track it.
    NotTracked,
    /// A page table holds what it must not.
    Tables(ZapError),
}

/// Why an object was not exported or imported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShareError {
    /// See there.
    NoObject(NoObject),
    /// All attachment slots are in use.
    NoSlot,
    /// It could not be pinned for an importer that cannot follow moves.
    Pin(PinError),
    /// The object that was given is not the one that is attached.
    OtherObject,
    /// Its pages cannot be had now.
    Pages(MoveError),
}

macro_rules! from {
    ($($error:ty: $($cause:ty => $variant:ident),+;)+) => {$($(
        impl From<$cause> for $error {
            fn from(cause: $cause) -> Self {
                Self::$variant(cause)
            }
        }
    )+)+};
}

from! {
    ReserveError: NoObject => NoObject, LockError => Lock;
    MoveError: FenceError => BadFence, SwapError => Swap, ZapError => Unmap, LockError => Lock, ReleaseError => Release;
    PinError: MoveError => Move;
    MmapError: NoObject => NoObject, MapError => Map;
    TrackError: ZapError => Tables;
    ShareError: NoObject => NoObject, PinError => Pin, MoveError => Pages;
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPlace => f.write_str("no place was given"),
            Self::BadPlace(place) => write!(f, "nothing can be placed like this: {place:?}"),
            Self::NoRoom { kind, why } => write!(f, "kind {} has no room: {why}", kind.number()),
            Self::OutOfFrames => f.write_str("no frame of the system is free, and nothing can be swapped out"),
            Self::Pinned => f.write_str("the object is pinned elsewhere"),
            Self::Swap(error) => error.fmt(f),
            Self::EvictsUpwards { from, to } => {
                write!(f, "the driver evicts from kind {} to kind {}, which is not smaller", from.number(), to.number())
            }
            Self::Refused(Refused::Hop(kind)) => write!(f, "the engine copies by way of kind {} only", kind.number()),
            Self::Refused(Refused::Failed(number)) => write!(f, "the engine refused: {number}"),
            Self::BadFence(error) => write!(f, "nobody knows when the engine is done: {error}"),
            Self::Quarantined => f.write_str("an engine may be at work on the object until the card is reset"),
            Self::Unmap(error) => write!(f, "the object cannot be unmapped: {error:?}"),
            Self::Lock(error) => error.fmt(f),
            Self::Release(error) => write!(f, "a frame cannot be given back: {error:?}"),
        }
    }
}

impl core::error::Error for MoveError {}

impl fmt::Display for FenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTimeline(fence) => write!(f, "there is no timeline {}", fence.timeline().number()),
            Self::NeverGiven { fence, latest } => {
                let (timeline, point) = (fence.timeline().number(), fence.point());
                write!(f, "timeline {timeline} has not given out point {point}: the latest is {latest}")
            }
        }
    }
}

impl core::error::Error for FenceError {}
