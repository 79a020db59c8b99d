//! Of folios that are to leave their frames.

use core::fmt;

use machine::addr::Frame;

use crate::error::ZapError;
use crate::swap::SwapError;

/// Why a folio was not taken from where it is: not migrated, not swapped out, not dropped. It is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReclaimError {
    /// The frame has no record, or is free.
    NoFolio {
        /// The frame.
        frame: Frame,
    },
    /// The file has no page there.
    NoPage {
        /// The 4 KiB page of the file.
        page: u64,
    },
    /// The folio is of a kind that stays where it is, or belongs nowhere (a driver's, the zero page, a merged one).
    Unmovable {
        /// Its first frame.
        frame: Frame,
    },
    /// The folio is large: split it first.
    Large {
        /// It has `1 << order` frames.
        order: u8,
    },
    /// Somebody else is taking the folio apart.
    Locked,
    /// It may be pinned.
    Pinned,
    /// Somebody has references to it.
    Referenced {
        /// How many it would have if nobody used it.
        expected: u32,
        /// How many it had.
        references: u32,
    },
    /// It has too many references to take another.
    CountLimit {
        /// The frame.
        frame: Frame,
    },
    /// It was written since it was last cleaned.
    Dirty,
    /// No frames for the new folio.
    OutOfFrames,
    /// The page could not be written to swap.
    Swap(SwapError),
    /// A page table holds what it must not.
    Table(ZapError),
}

impl fmt::Display for ReclaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFolio { frame } => write!(f, "frame {frame} is no folio's"),
            Self::NoPage { page } => write!(f, "the file has no page {page}"),
            Self::Unmovable { frame } => write!(f, "the folio at frame {frame} stays where it is"),
            Self::Large { order } => write!(f, "the folio has {} frames: split it first", 1_u64 << order),
            Self::Locked => f.write_str("somebody else is taking the folio apart"),
            Self::Pinned => f.write_str("the folio may be pinned"),
            Self::Referenced { expected, references } => {
                write!(f, "the folio has {references} references, {expected} of which are accounted for")
            }
            Self::CountLimit { frame } => write!(f, "the folio of frame {frame} has too many references"),
            Self::Dirty => f.write_str("the folio is dirty"),
            Self::OutOfFrames => f.write_str("no frames for the new folio"),
            Self::Swap(error) => error.fmt(f),
            Self::Table(_) => f.write_str("a page table holds what it must not"),
        }
    }
}

impl core::error::Error for ReclaimError {}
