//! What a caller of GUP asks for.

use core::fmt;
use core::ops::BitOr;

use machine::Access;

use crate::folio::Reference;

/// The FOLL_ flags that this engine knows, under their Linux names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Foll(u32);

impl Foll {
    /// Nothing: not valid by itself.
    pub const NONE: Self = Self(0);
    /// Take references ([`Reference::Get`]). Excludes [`Self::PIN`].
    pub const GET: Self = Self(1 << 0);
    /// Take pins ([`Reference::Pin`]). Excludes [`Self::GET`].
    pub const PIN: Self = Self(1 << 1);
    /// The pages will be written.
    pub const WRITE: Self = Self(1 << 2);
    /// Never fall back to the slow path: no lock, no fault, any context.
    pub const FAST_ONLY: Self = Self(1 << 3);
    /// The pins may be held for ever: refuse folios that must stay movable, and files whose dirtying is tracked.
    /// Needs [`Self::PIN`].
    pub const LONGTERM: Self = Self(1 << 4);

    const NAMES: [(Self, &'static str); 5] = [
        (Self::GET, "GET"),
        (Self::PIN, "PIN"),
        (Self::WRITE, "WRITE"),
        (Self::FAST_ONLY, "FAST_ONLY"),
        (Self::LONGTERM, "LONGTERM"),
    ];

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Checks the combination and turns it into types.
    ///
    /// # Errors
    /// Names the rule that the combination breaks.
    pub const fn validate(self) -> Result<Request, InvalidFlags> {
        let reference = match (self.contains(Self::GET), self.contains(Self::PIN)) {
            (true, true) => return Err(InvalidFlags::GetWithPin),
            (false, false) => return Err(InvalidFlags::NeitherGetNorPin),
            (true, false) => Reference::Get,
            (false, true) => Reference::Pin,
        };
        let term = match (self.contains(Self::LONGTERM), reference) {
            (true, Reference::Get) => return Err(InvalidFlags::LongTermWithoutPin),
            (true, Reference::Pin) => Term::Long,
            (false, _) => Term::Short,
        };
        let access = if self.contains(Self::WRITE) { Access::Write } else { Access::Read };
        let fallback = if self.contains(Self::FAST_ONLY) { Fallback::None } else { Fallback::Slow };
        Ok(Request { reference, access, term, fallback })
    }
}

impl BitOr for Foll {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Foll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "FOLL_";
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = " | FOLL_";
            }
        }
        Ok(())
    }
}

/// How long the references will be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Term {
    /// For one I/O.
    Short,
    /// Perhaps for ever (FOLL_LONGTERM).
    Long,
}

/// What to do where the fast path stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// Return what there is (FOLL_FAST_ONLY).
    None,
    /// Take the mmap lock and fault the rest in.
    Slow,
}

/// Validated [`Foll`] flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which kind of reference.
    pub reference: Reference,
    /// What will be done to the pages.
    pub access: Access,
    /// For how long.
    pub term: Term,
    /// What to do where the fast path stops.
    pub fallback: Fallback,
}

/// Why a combination of [`Foll`] flags was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidFlags {
    /// FOLL_GET and FOLL_PIN exclude each other.
    GetWithPin,
    /// One of FOLL_GET and FOLL_PIN is needed.
    NeitherGetNorPin,
    /// FOLL_LONGTERM is about pins.
    LongTermWithoutPin,
}

impl fmt::Display for InvalidFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GetWithPin => "FOLL_GET and FOLL_PIN exclude each other",
            Self::NeitherGetNorPin => "one of FOLL_GET and FOLL_PIN is needed",
            Self::LongTermWithoutPin => "FOLL_LONGTERM needs FOLL_PIN",
        })
    }
}
