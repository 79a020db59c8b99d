//! Process-context identifiers: one TLB holds the translations of several address spaces (SDM vol. 3A, 4.10.1).

use core::fmt;

use crate::addr::{PhysAddr, VirtAddr};
use crate::cpu::Cpu;

/// A process-context identifier: bits 11:0 of CR3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Pcid(u16);

impl Pcid {
    /// How many there are.
    pub const COUNT: u16 = 1 << 12;
    /// The one that is current while identifiers are not enabled.
    pub const ZERO: Self = Self(0);

    /// The identifier with this number; `None` from [`Self::COUNT`] on.
    #[inline]
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The number.
    #[inline]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Pcid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCID {}", self.0)
    }
}

/// What becomes of the translations that are cached under the identifier that is loaded: bit 63 of the source of `mov cr3`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Retention {
    /// They are dropped, global ones excepted (bit clear).
    Drop,
    /// They are kept (bit set): whoever uses the identifier again answers for it.
    Keep,
}

/// What `invpcid` invalidates, by its type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ContextInvalidation {
    /// Type 0: what would be used to translate the address under the identifier, in TLBs and paging-structure caches. Global translations stay.
    Address {
        /// The identifier.
        pcid: Pcid,
        /// The address.
        address: VirtAddr,
    },
    /// Type 1: everything under the identifier but global translations.
    Context {
        /// The identifier.
        pcid: Pcid,
    },
    /// Type 2: everything under every identifier, with global translations.
    EverythingAndGlobal,
    /// Type 3: everything under every identifier but global translations.
    Everything,
}

/// A CPU on which process-context identifiers are enabled (CR4.PCIDE).
pub trait ProcessContexts: Cpu {
    /// Makes `root` the page table that this CPU walks, under an identifier. A full barrier.
    ///
    /// [`Cpu::load_root`] is this with [`Pcid::ZERO`] and [`Retention::Drop`].
    #[track_caller]
    fn load_root_as(&self, root: PhysAddr, pcid: Pcid, cached: Retention);

    /// Drops translations of this CPU under identifiers that need not be current. Complete, and a full barrier, on return.
    #[track_caller]
    fn invalidate_context(&self, what: ContextInvalidation);
}
