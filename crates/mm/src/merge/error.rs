//! Why pages were not merged, or not given back to those who had them.

use core::fmt;

use machine::addr::VirtAddr;
use pagetable::WalkError;

use crate::error::{FaultError, RangeError};
use crate::space::SpaceId;

/// Why two pages were not merged, and of which place that is to be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeError {
    /// Of the place whose page was to stay.
    Into(Unmergeable),
    /// Of the place whose page was to go. What is [`Unmergeable::Locked`] or [`Unmergeable::Unsuitable`] may be the other page meanwhile.
    From(Unmergeable),
}

/// What keeps a page from being merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmergeable {
    /// There is no such address space.
    NoSpace(SpaceId),
    /// No page begins at the address.
    Range(RangeError),
    /// No page is mapped there: there is none, or it is on swap or on its way elsewhere.
    NotMapped,
    /// The page is a file's.
    NotAnonymous,
    /// The page is a driver's, or the zero page.
    Special,
    /// There is no zero page.
    NoZeroPage,
    /// The page is part of a large folio: split it first.
    Large,
    /// The page's memory has failed, or its contents are not for everybody.
    Unsuitable,
    /// Userfaultfd protects the page there: whoever did that is to be told of the next store, not this.
    WriteProtected,
    /// The page is in a region that must stay movable, and merged pages do not move.
    Movable,
    /// Somebody else is merging the page, or taking it apart.
    Locked,
    /// The page may be pinned: a device may write to it.
    Pinned,
    /// Somebody has references to it.
    Referenced {
        /// How many it would have if only those who map it used it.
        expected: u32,
        /// How many it had.
        references: u32,
    },
    /// It has too many references to take another.
    CountLimit,
    /// Both places map the same page already.
    Same,
    /// The pages are not equal.
    Different,
    /// A page table holds what it must not.
    Malformed(WalkError),
}

/// Why pages of a range were not given an address space of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnmergeError {
    /// The range cannot be meant.
    Range(RangeError),
    /// The page could not be copied.
    Fault {
        /// Its address.
        address: VirtAddr,
        /// Why.
        error: FaultError,
    },
    /// A page table holds what it must not.
    Malformed(WalkError),
}

impl From<RangeError> for Unmergeable {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<RangeError> for UnmergeError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Into(why) => write!(f, "the page that was to stay: {why}"),
            Self::From(why) => write!(f, "the page that was to go: {why}"),
        }
    }
}

impl fmt::Display for Unmergeable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::NoSpace(id) => return write!(f, "there is no address space {}", id.number()),
            Self::Range(error) => return write!(f, "{error:?}"),
            Self::Referenced { expected, references } => {
                return write!(f, "it has {references} references, {expected} of which are accounted for");
            }
            Self::Malformed(error) => return error.fmt(f),
            Self::NotMapped => "no page is mapped there",
            Self::NotAnonymous => "it is a file's",
            Self::Special => "it is a driver's, or the zero page",
            Self::NoZeroPage => "there is no zero page",
            Self::Large => "it is part of a large folio",
            Self::Unsuitable => "its memory has failed, or it is not for everybody",
            Self::WriteProtected => "userfaultfd protects it",
            Self::Movable => "it must stay movable",
            Self::Locked => "somebody else is at it",
            Self::Pinned => "it may be pinned",
            Self::CountLimit => "it has too many references",
            Self::Same => "it is the same already",
            Self::Different => "it is not equal to the other",
        };
        f.write_str(what)
    }
}

impl core::error::Error for MergeError {}

impl fmt::Display for UnmergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => write!(f, "{error:?}"),
            Self::Fault { address, error } => write!(f, "the page at {address}: {error}"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for UnmergeError {}
