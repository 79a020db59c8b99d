//! What a caller of GUP asks for.
//!
//! The flags are Linux's, under their names. Those of the engine itself are refused from outside; with those that the lockless path cannot honour, only the slow path
//! is taken.
//!
//! | flag | whose | lockless path | rule |
//! |---|---|---|---|
//! | GET | caller | yes | take references; excludes PIN |
//! | PIN | caller | yes | take pins; excludes GET |
//! | WRITE | caller | yes | the pages will be written: the entry allows it, which makes copies where a private area needs them |
//! | FAST_ONLY | caller | yes | the lockless path or nothing: no lock, no fault, any context |
//! | LONGTERM | caller | yes | may be held for ever: pages that must stay movable move away first, files whose dirtying is tracked refuse writing; needs PIN |
//! | FORCE | caller | yes | for debuggers: read where the area forbids every access, write where a private area forbids writing, into a copy; never into a shared area, nor past a protection key |
//! | NOFAULT | caller | yes | take what is mapped, fault nothing in |
//! | PCI_P2PDMA | caller | yes | peer-to-peer memory of devices is welcome; excludes LONGTERM, for devices are unplugged |
//! | HONOR_NUMA_FAULT | caller | yes | an entry that is PROT_NONE in an area that allows the access faults first |
//! | DUMP | caller | no | for core dumps: pages that were never touched, and the zero page, are holes |
//! | NOWAIT | caller | no | give up instead of waiting: for a driver, for a page on swap or on its way to other frames |
//! | HWPOISON | caller | no | failed memory is an error of its own |
//! | ANON | caller | no | anonymous areas only |
//! | SPLIT_PMD | caller | no | huge leaves in the range are split first |
//! | INTERRUPTIBLE | caller | no | any signal ends a wait, not only a fatal one |
//! | TOUCH | engine | no | mark the pages used, and written if they will be: what the slow path always does |
//! | REMOTE | engine | no | the address space is another's: protection keys are not asked, see `Mm::gup_remote` |
//! | UNLOCKABLE | engine | no | the mmap lock may be dropped to wait: what every entry point allows, for it takes the lock itself |
//! | TRIED | engine | no | a wait for a driver is over: the address is looked at from the beginning, and the driver is told that it must not be waited for again |
//! | MADV_POPULATE | engine | no | fault in, take no references: see `Mm::populate` |

use core::fmt;
use core::ops::BitOr;

use machine::Access;

use crate::folio::Reference;
use crate::protection_keys::Accessor;

/// FOLL_ flags: see the table of the module `gup::flags`.
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
    /// The pins may be held for ever: folios that must stay movable move first, and files whose dirtying is tracked refuse writing.
    /// Needs [`Self::PIN`].
    pub const LONGTERM: Self = Self(1 << 4);
    /// Read where the area forbids every access, write where a private area forbids writing. What a debugger does.
    ///
    /// A write goes into a copy that belongs to the address space, never into a page of a file. Of an area that forbids every access, only pages that are there already
    /// can be had: the engine makes no new entries that the area forbids.
    pub const FORCE: Self = Self(1 << 5);
    /// Fault nothing in: [`crate::GupError::NotMapped`] instead.
    pub const NOFAULT: Self = Self(1 << 6);
    /// Peer-to-peer memory of devices is welcome. Excludes [`Self::LONGTERM`]: devices are unplugged.
    pub const PCI_P2PDMA: Self = Self(1 << 7);
    /// A PROT_NONE entry in an area that allows the access is a hint that wants a fault (Linux: NUMA balancing); without this flag it is followed.
    pub const HONOR_NUMA_FAULT: Self = Self(1 << 8);
    /// Pages of anonymous memory that were never touched are [holes](crate::GupError::Hole), and so is the zero page: nothing is allocated to dump zeros.
    pub const DUMP: Self = Self(1 << 9);
    /// [`crate::GupError::WouldBlock`] instead of a wait for a driver, for swap, or for a page that is being moved. Locks are waited for.
    pub const NOWAIT: Self = Self(1 << 10);
    /// Failed memory is [`crate::GupError::Poisoned`]; without this flag it is not allowed like other pages.
    pub const HWPOISON: Self = Self(1 << 11);
    /// Areas of files are [refused](crate::GupError::NotAnonymous).
    pub const ANON: Self = Self(1 << 12);
    /// Split huge leaves first, so that each page has an entry of its own.
    pub const SPLIT_PMD: Self = Self(1 << 13);
    /// Any signal ends a wait; without this flag only a fatal one does ([`Signal`]).
    pub const INTERRUPTIBLE: Self = Self(1 << 14);
    /// The engine's own.
    pub const TOUCH: Self = Self(1 << 15);
    /// The engine's own: [`crate::Mm::gup_remote`].
    pub const REMOTE: Self = Self(1 << 16);
    /// The engine's own.
    pub const UNLOCKABLE: Self = Self(1 << 17);
    /// The engine's own: [`crate::Attempt::AfterWait`].
    pub const TRIED: Self = Self(1 << 18);
    /// The engine's own: [`crate::Mm::populate`].
    pub const MADV_POPULATE: Self = Self(1 << 19);

    /// Every flag with its name.
    pub const ALL: [(Self, &'static str); 20] = [
        (Self::GET, "GET"),
        (Self::PIN, "PIN"),
        (Self::WRITE, "WRITE"),
        (Self::FAST_ONLY, "FAST_ONLY"),
        (Self::LONGTERM, "LONGTERM"),
        (Self::FORCE, "FORCE"),
        (Self::NOFAULT, "NOFAULT"),
        (Self::PCI_P2PDMA, "PCI_P2PDMA"),
        (Self::HONOR_NUMA_FAULT, "HONOR_NUMA_FAULT"),
        (Self::DUMP, "DUMP"),
        (Self::NOWAIT, "NOWAIT"),
        (Self::HWPOISON, "HWPOISON"),
        (Self::ANON, "ANON"),
        (Self::SPLIT_PMD, "SPLIT_PMD"),
        (Self::INTERRUPTIBLE, "INTERRUPTIBLE"),
        (Self::TOUCH, "TOUCH"),
        (Self::REMOTE, "REMOTE"),
        (Self::UNLOCKABLE, "UNLOCKABLE"),
        (Self::TRIED, "TRIED"),
        (Self::MADV_POPULATE, "MADV_POPULATE"),
    ];

    /// Those that only the engine sets.
    pub const INTERNAL: Self =
        Self(Self::TOUCH.0 | Self::REMOTE.0 | Self::UNLOCKABLE.0 | Self::TRIED.0 | Self::MADV_POPULATE.0);

    /// Those that the lockless path honours. With any other, only the slow path is taken.
    pub const LOCKLESS: Self = Self(
        Self::GET.0
            | Self::PIN.0
            | Self::WRITE.0
            | Self::FAST_ONLY.0
            | Self::LONGTERM.0
            | Self::FORCE.0
            | Self::NOFAULT.0
            | Self::PCI_P2PDMA.0
            | Self::HONOR_NUMA_FAULT.0,
    );

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that are not in `other`.
    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Checks the combination and turns it into types.
    ///
    /// # Errors
    /// Names the rule that the combination breaks.
    #[inline]
    pub const fn validate(self) -> Result<Request, InvalidFlags> {
        if self.0 & Self::INTERNAL.0 != 0 {
            return Err(InvalidFlags::Internal(Self(self.0 & Self::INTERNAL.0)));
        }
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
        if self.contains(Self::LONGTERM) && self.contains(Self::PCI_P2PDMA) {
            return Err(InvalidFlags::LongTermPeerToPeer);
        }
        let slow_only = self.without(Self::LOCKLESS);
        let fallback = match (self.contains(Self::FAST_ONLY), slow_only.0 == 0) {
            (true, false) => return Err(InvalidFlags::SlowOnly(slow_only)),
            (true, true) => Fallback::None,
            (false, _) => Fallback::Slow,
        };
        let access = if self.contains(Self::WRITE) { Access::Write } else { Access::Read };
        Ok(Request { reference, access, term, fallback, flags: self })
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
        for (flag, name) in Self::ALL {
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

/// Whether whoever called GUP was told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// No.
    None,
    /// By a signal that it may handle: ends a wait of [`Foll::INTERRUPTIBLE`].
    Pending,
    /// By a signal that kills it: ends GUP at the next page.
    Fatal,
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
    flags: Foll,
}

impl Request {
    /// Whether this flag was given.
    #[inline(always)]
    pub const fn has(&self, flag: Foll) -> bool {
        self.flags.contains(flag)
    }

    /// Whether the lockless path honours all that is asked for.
    #[inline(always)]
    pub(super) const fn is_lockless(&self) -> bool {
        self.flags.without(Foll::LOCKLESS).0 == 0
    }

    /// Who accesses the pages.
    pub(super) const fn accessor(&self) -> Accessor {
        if self.has(Foll::REMOTE) { Accessor::Remote } else { Accessor::ThisThread }
    }

    /// The same for another's address space.
    pub(super) fn remote(self) -> Self {
        Self { flags: self.flags | Foll::REMOTE, ..self }
    }

    /// The same on the slow path.
    pub(super) fn slow(self) -> Self {
        Self { flags: self.flags | Foll::TOUCH | Foll::UNLOCKABLE, ..self }
    }

    /// The same after a wait.
    pub(super) fn tried(self) -> Self {
        Self { flags: self.flags | Foll::TRIED, ..self }
    }
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
    /// FOLL_LONGTERM and FOLL_PCI_P2PDMA exclude each other.
    LongTermPeerToPeer,
    /// FOLL_FAST_ONLY excludes these, which the lockless path does not honour.
    SlowOnly(Foll),
    /// Only the engine sets these.
    Internal(Foll),
}

impl fmt::Display for InvalidFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GetWithPin => f.write_str("FOLL_GET and FOLL_PIN exclude each other"),
            Self::NeitherGetNorPin => f.write_str("one of FOLL_GET and FOLL_PIN is needed"),
            Self::LongTermWithoutPin => f.write_str("FOLL_LONGTERM needs FOLL_PIN"),
            Self::LongTermPeerToPeer => f.write_str("FOLL_LONGTERM and FOLL_PCI_P2PDMA exclude each other"),
            Self::SlowOnly(flags) => write!(f, "{flags:?} cannot be had with FOLL_FAST_ONLY"),
            Self::Internal(flags) => write!(f, "only the engine sets {flags:?}"),
        }
    }
}
