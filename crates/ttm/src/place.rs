//! Where an object may be.

use machine::addr::Frame;

use crate::range::Fit;

/// A kind of memory: the index of its resource in the slice that the device was given.
///
/// Kinds are ordered by how much a driver wants them: eviction goes from a kind to a smaller one. The smallest is system memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind(u8);

impl Kind {
    /// Pages of the system, which no engine of the device reaches (Linux: TTM_PL_SYSTEM).
    pub const SYSTEM: Self = Self(0);

    /// The kind with this number.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a kind of memory is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Pages of the system. Only [`Kind::SYSTEM`].
    System,
    /// Pages of the system that an engine reaches through an aperture of this many pages (Linux: TTM_PL_TT; a GART). To move between this and system memory
    /// is to bind pages: nothing is copied.
    Aperture {
        /// The size of the aperture.
        pages: u64,
    },
    /// Memory of the device: VRAM, or memory that firmware stole from the system.
    Device {
        /// Its first frame.
        first: Frame,
        /// How many frames.
        pages: u64,
    },
}

impl Backing {
    /// Whether an object of this kind lies in pages of the system.
    pub const fn is_pages(self) -> bool {
        matches!(self, Self::System | Self::Aperture { .. })
    }

    /// How many pages the kind has; system memory has no limit of its own.
    pub const fn pages(self) -> u64 {
        match self {
            Self::System => 0,
            Self::Aperture { pages } | Self::Device { pages, .. } => pages,
        }
    }

    pub(crate) const fn first_frame(self) -> u64 {
        match self {
            Self::System | Self::Aperture { .. } => 0,
            Self::Device { first, .. } => first.number(),
        }
    }
}

/// Whether others may be evicted to make room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pressure {
    /// Take what is free (Linux: TTM_PL_FLAG_DESIRED).
    OnlyFree,
    /// Evict what was used longest ago.
    Evict,
}

/// One place where an object may be, of several in the order of preference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The kind of memory.
    pub kind: Kind,
    /// The first page of the kind in which the object may lie.
    pub first: u64,
    /// The first page behind those.
    pub end: u64,
    /// In pages, a power of two.
    pub alignment: u64,
    /// Which hole to take.
    pub fit: Fit,
    /// Whether to evict others.
    pub pressure: Pressure,
}

impl Place {
    /// Anywhere in this kind, evicting others if need be.
    pub const fn anywhere(kind: Kind) -> Self {
        Self { kind, first: 0, end: u64::MAX, alignment: 1, fit: Fit::Best, pressure: Pressure::Evict }
    }

    /// The same, if there is room without evicting anybody.
    #[must_use]
    pub const fn if_free(self) -> Self {
        Self { pressure: Pressure::OnlyFree, ..self }
    }
}

/// Where an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The kind of memory.
    pub kind: Kind,
    /// The first page of the kind; 0 in system memory.
    pub start: u64,
}

impl Placed {
    pub(crate) const SYSTEM: Self = Self { kind: Kind::SYSTEM, start: 0 };

    /// Whether an object of `pages` pages that is here is where `place` wants it.
    pub(crate) fn suits(self, place: &Place, pages: u64) -> bool {
        self.kind == place.kind
            && (self.kind == Kind::SYSTEM || place.first <= self.start && self.start + pages <= place.end)
    }
}
