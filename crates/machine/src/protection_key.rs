//! Protection keys of user pages (SDM vol. 3A, 4.6.2).
//!
//! A leaf entry gives its pages a key, 0 to 15. A register of the CPU, PKRU, says for each key what user code may not do: it belongs to the thread, which changes it without asking the
//! kernel, and without a flush. A key takes rights away from loads and stores; it never gives one, and it does not apply to instruction fetches, nor to pages that are not user code's.

use core::fmt;

use crate::cpu::Cpu;
use crate::user::Access;

/// The key of a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct ProtectionKey(u8);

impl ProtectionKey {
    /// How many there are.
    pub const COUNT: u8 = 16;
    /// The key of every page that was given no other.
    pub const DEFAULT: Self = Self(0);

    /// The key with this number; `None` from [`Self::COUNT`] on.
    #[inline]
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The key in the lowest four bits; the others are ignored.
    #[inline(always)]
    pub const fn from_low_bits(bits: u64) -> Self {
        Self(bits as u8 & (Self::COUNT - 1))
    }

    /// The number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All keys, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

impl fmt::Debug for ProtectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ProtectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.0)
    }
}

/// What a thread may do by pages of one key, as far as the key decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyRights {
    /// Load and store: whatever the entries allow.
    All,
    /// Load only (WD; Linux: PKEY_DISABLE_WRITE).
    Load,
    /// Neither (AD; Linux: PKEY_DISABLE_ACCESS).
    None,
}

/// What PKRU holds: two bits a key, AD below WD.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Pkru(u32);

impl Pkru {
    /// Every key allows everything: what a CPU begins with, and what one without keys amounts to.
    pub const ALLOW_ALL: Self = Self(0);

    /// The value with these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// As `wrpkru` wants it.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What it says of a key.
    #[inline]
    pub const fn rights(self, key: ProtectionKey) -> KeyRights {
        match self.0 >> (2 * key.0) & 0b11 {
            0b00 => KeyRights::All,
            0b10 => KeyRights::Load,
            _ => KeyRights::None,
        }
    }

    /// The same, but for a key.
    #[inline]
    #[must_use]
    pub const fn with(self, key: ProtectionKey, rights: KeyRights) -> Self {
        let bits = match rights {
            KeyRights::All => 0b00,
            KeyRights::Load => 0b10,
            KeyRights::None => 0b01,
        };
        let shift = 2 * key.0;
        Self(self.0 & !(0b11 << shift) | bits << shift)
    }

    /// Whether user code may access pages with this key, if their entries allow it.
    #[inline(always)]
    pub const fn allows(self, key: ProtectionKey, access: Access) -> bool {
        let forbidding = match access {
            Access::Read => 0b01,
            Access::Write => 0b11,
        };
        self.0 >> (2 * key.0) & forbidding == 0
    }
}

impl fmt::Debug for Pkru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkru({:#x})", self.0)
    }
}

/// A CPU that obeys protection keys (CR4.PKE).
pub trait ProtectionKeys: Cpu {
    /// Says what user code may do by each key from now on: `wrpkru`. Takes effect at once, whatever the TLB holds. Orders no memory access.
    ///
    /// The register is the running thread's: whoever switches threads saves and restores it.
    #[track_caller]
    fn set_pkru(&self, pkru: Pkru);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_takes_from_its_own_pages_only_what_its_two_bits_say() {
        for key in ProtectionKey::all() {
            for rights in [KeyRights::All, KeyRights::Load, KeyRights::None] {
                let pkru = Pkru::ALLOW_ALL.with(key, rights);
                assert_eq!(pkru.rights(key), rights);
                for other in ProtectionKey::all() {
                    let rights = if other == key { rights } else { KeyRights::All };
                    assert_eq!(pkru.allows(other, Access::Read), rights != KeyRights::None, "{pkru:?} {other}");
                    assert_eq!(pkru.allows(other, Access::Write), rights == KeyRights::All, "{pkru:?} {other}");
                }
                assert_eq!(pkru.with(key, KeyRights::All), Pkru::ALLOW_ALL);
            }
        }
    }

    #[test]
    fn the_bits_are_those_of_the_manual() {
        let key = ProtectionKey::new(3).expect("below 16");
        assert_eq!(Pkru::ALLOW_ALL.with(key, KeyRights::None).bits(), 1 << 6);
        assert_eq!(Pkru::ALLOW_ALL.with(key, KeyRights::Load).bits(), 1 << 7);
        // Both bits: a load is forbidden as well.
        assert_eq!(Pkru::from_bits(0b11 << 6).rights(key), KeyRights::None);
        assert!(!Pkru::from_bits(0b11 << 6).allows(key, Access::Read));
        assert_eq!(ProtectionKey::new(16), None);
        assert_eq!(ProtectionKey::from_low_bits(0xf5), ProtectionKey::new(5).expect("below 16"));
    }
}
