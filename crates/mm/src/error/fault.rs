//! Of faults.

use core::fmt;

use machine::addr::Frame;
use machine::addr::VirtAddr;
use machine::{Access, ProtectionKey};
use pagetable::Level;
use pagetable::MapError as MapTableError;
use pagetable::WalkError;

use crate::area::Area;
use crate::error::ZapError;
use crate::file::FileId;
use crate::special::InsertError;
use crate::stack::GrowthError;
use crate::swap::SwapError;
use crate::uffd::UffdFault;

/// Why an access at an address cannot be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// No area holds the address (SIGSEGV).
    NoArea {
        /// The address.
        address: VirtAddr,
    },
    /// The area forbids the access (SIGSEGV).
    Forbidden {
        /// The address.
        address: VirtAddr,
        /// The access.
        access: Access,
        /// The area.
        area: Area,
    },
    /// The thread's PKRU forbids the access to pages with the area's protection key (SIGSEGV, SEGV_PKUERR).
    KeyForbids {
        /// The address.
        address: VirtAddr,
        /// The access.
        access: Access,
        /// The key.
        key: ProtectionKey,
    },
    /// A stack lies above the address, and may not grow so far (SIGSEGV).
    NotGrown {
        /// The address.
        address: VirtAddr,
        /// Why.
        error: GrowthError,
    },
    /// The file has no page there (SIGBUS).
    NoPage {
        /// The file.
        file: FileId,
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// The file's frame cannot be mapped: it is not aligned to the file's leaf size, or the folio is not big enough or gone.
    BadFrame {
        /// The file.
        file: FileId,
        /// The frame that it holds.
        frame: Frame,
        /// The level of the leaf that was to map it.
        level: Level,
    },
    /// Another frame is mapped there already, or tables are where the leaf should go.
    Occupied {
        /// The address.
        address: VirtAddr,
        /// The level of the leaf that was to be inserted.
        level: Level,
    },
    /// No frame for a page table, or for the page.
    OutOfFrames,
    /// The page's contents are lost (SIGBUS).
    Poisoned {
        /// The address.
        address: VirtAddr,
    },
    /// Nobody may map anything there (SIGSEGV).
    Guarded {
        /// The address.
        address: VirtAddr,
    },
    /// The page is on swap and could not be brought back (SIGBUS).
    Swap {
        /// The address.
        address: VirtAddr,
        /// Why.
        error: SwapError,
    },
    /// The page has too many references already to be copied.
    CountLimit {
        /// The address.
        address: VirtAddr,
    },
    /// The driver wants to be waited for, without locks, before it is asked again ([`crate::special::DriverFault::wait`]). Faults wait by themselves; GUP returns this only where it must
    /// not wait.
    DriverBusy {
        /// The file.
        file: FileId,
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// Somebody else resolves it, and wants to be waited for without locks ([`crate::uffd::UffdHandler::wait`]). Faults wait by themselves; GUP returns this only where it must not wait.
    HandedOver(UffdFault),
    /// What the driver wanted to map was refused (SIGBUS).
    Driver(InsertError),
    /// A page table holds what it must not.
    Malformed(MapTableError),
}

impl From<MapTableError> for FaultError {
    fn from(error: MapTableError) -> Self {
        match error {
            MapTableError::OutOfFrames { .. } => Self::OutOfFrames,
            error => Self::Malformed(error),
        }
    }
}

impl From<ZapError> for FaultError {
    fn from(error: ZapError) -> Self {
        match error {
            ZapError::Malformed(error) => error.into(),
            // The engine's own ranges can be meant, and pages that it looks up are there.
            ZapError::Range(_) | ZapError::NoPage { .. } | ZapError::OutOfFrames => Self::OutOfFrames,
        }
    }
}

impl From<WalkError> for FaultError {
    fn from(error: WalkError) -> Self {
        Self::Malformed(error.into())
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoArea { address } => write!(f, "no area holds {address}"),
            Self::NotGrown { address, error } => write!(f, "the stack does not grow down to {address}: {error}"),
            Self::Forbidden { address, access, area } => {
                write!(f, "the area from {} to {} does not allow a {access:?} at {address}", area.start, area.end())
            }
            Self::KeyForbids { address, access, key } => {
                write!(f, "protection {key} does not allow the thread a {access:?} at {address}")
            }
            Self::NoPage { file, page } => write!(f, "file {} has no page {page}", file.number()),
            Self::BadFrame { file, frame, level } => {
                write!(f, "frame {frame} of file {} cannot be mapped by a {level} leaf", file.number())
            }
            Self::Occupied { address, level } => {
                write!(f, "something else is mapped where the {level} leaf for {address} should go")
            }
            Self::OutOfFrames => f.write_str("no frame for a page table or a page"),
            Self::Poisoned { address } => write!(f, "the contents of the page at {address} are lost"),
            Self::Guarded { address } => write!(f, "{address} is guarded: nothing may be mapped there"),
            Self::Swap { address, error } => write!(f, "the page at {address} does not come back from swap: {error}"),
            Self::CountLimit { address } => write!(f, "the page at {address} has too many references"),
            Self::DriverBusy { file, page } => {
                write!(f, "the driver of file {} cannot map page {page} before something else is over", file.number())
            }
            Self::HandedOver(fault) => {
                write!(f, "userfaultfd resolves the fault at {}: {:?}", fault.address, fault.reason)
            }
            Self::Driver(error) => write!(f, "what the driver wanted to map was refused: {error}"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FaultError {}
