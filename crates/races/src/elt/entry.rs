//! Page-table entries by words: `clean`, `ro`, `global`. Bits as the SDM has them (vol. 3A, 4.4 and 4.5).

use lab::Paging;
use machine::Frame;

use crate::arguments::Arguments;
use crate::error::Error;
use crate::protection_keys::take_key;
use crate::race::Race;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const GLOBAL: u64 = 1 << 8;
const PROTECTION_KEY_SHIFT: u32 = 59;
const PROTECTION_KEY: u64 = 0xf << PROTECTION_KEY_SHIFT;
const EXECUTE_DISABLE: u64 = 1 << 63;

/// The words that may stand behind what an entry points to, and the bits that they set or clear.
pub(super) const WORDS: [(&str, u64, u64); 6] = [
    ("ro", 0, WRITABLE),
    ("kernel", 0, USER),
    ("clean", 0, DIRTY),
    ("idle", 0, ACCESSED | DIRTY),
    ("global", GLOBAL, 0),
    ("nx", EXECUTE_DISABLE, 0),
];

/// The flags of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flags(u64);

impl Flags {
    /// Present, writable, for user code, accessed and dirty, with key 0, but for what the words and `key=` say.
    ///
    /// # Errors
    /// There is no such key.
    pub(super) fn read(race: &Race, arguments: &mut Arguments<'_>) -> Result<Self, Error> {
        let mut bits = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;
        for (word, set, clear) in WORDS {
            if arguments.flag(word).is_some() {
                bits = bits & !clear | set;
            }
        }
        let key = take_key(race, arguments)?.unwrap_or_default();
        Ok(Self(bits | u64::from(key.number()) << PROTECTION_KEY_SHIFT))
    }

    /// An entry of `level` with these flags.
    pub(super) const fn entry(self, paging: Paging, level: u8, frame: Frame) -> u64 {
        let allowed = if level == 1 {
            u64::MAX
        } else if paging.has_registers() && level == paging.levels() {
            // Everything else is reserved or ignored in a PDPTE of PAE.
            PRESENT
        } else {
            !(DIRTY | GLOBAL | PROTECTION_KEY)
        };
        frame.start().as_u64() | self.0 & allowed
    }

    /// What the entries have that lead to pages.
    pub(super) const LINK: Self = Self(PRESENT | WRITABLE | USER | ACCESSED);
}

/// What a load of an entry tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// The frame, 0 if the entry is not present.
    Frame,
    Accessed,
    Dirty,
    /// All 64 bits.
    Whole,
}

impl Part {
    pub(super) const WORDS: [(&str, Self); 3] =
        [("accessed", Self::Accessed), ("dirty", Self::Dirty), ("whole", Self::Whole)];

    pub(super) const fn of(self, entry: u64) -> u64 {
        match self {
            Self::Frame if entry & PRESENT == 0 => 0,
            Self::Frame => (entry & 0x000f_ffff_ffff_f000) >> machine::addr::PAGE_SHIFT,
            Self::Accessed => (entry & ACCESSED != 0) as u64,
            Self::Dirty => (entry & DIRTY != 0) as u64,
            Self::Whole => entry,
        }
    }
}
