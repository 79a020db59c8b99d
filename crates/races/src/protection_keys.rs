//! Protection keys in files: `key=1` of what has one, `wrpkru(key=1, rights=none)` of a thread.

use machine::{KeyRights, ProtectionKey};

use crate::arguments::{Arguments, impossible};
use crate::checker::CheckedCpu;
use crate::error::{Error, Problem};
use crate::machine_options::MachineOptions;
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::Mode;

/// Whether entries of this mode have keys at all.
pub(crate) const fn has_keys(mode: Mode) -> bool {
    !matches!(mode, Mode::MmPae | Mode::EltPae)
}

/// Takes `key=1`, if it is there.
///
/// # Errors
/// There is no such key, or the file is about a mode without any.
pub(crate) fn take_key(race: &Race, arguments: &mut Arguments<'_>) -> Result<Option<ProtectionKey>, Error> {
    let Some(value) = arguments.one("key")? else { return Ok(None) };
    if !has_keys(race.litmus.mode.node) {
        return Err(impossible(race, value.span, "entries of PAE have no protection key".to_owned(), "4 or 5 levels"));
    }
    let number = arguments.in_range(value, u64::from(ProtectionKey::COUNT) - 1)?;
    Ok(ProtectionKey::new(number as u8))
}

/// What a thread says of a key from then on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WritePkru {
    key: ProtectionKey,
    rights: KeyRights,
}

impl WritePkru {
    /// Reads the arguments of `wrpkru(key=1, rights=none)`.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub(crate) fn read(race: &Race, word: &Spanned<String>, arguments: &mut Arguments<'_>) -> Result<Self, Error> {
        let words = [("none", KeyRights::None), ("r", KeyRights::Load), ("rw", KeyRights::All)];
        let rights = arguments.named("rights", &words, KeyRights::None)?;
        let key = take_key(race, arguments)?.ok_or_else(|| {
            let problem =
                Problem::Missing { what: "the key".to_owned(), right: "wrpkru(key=1, rights=none)".to_owned() };
            Error::new(&race.source, word.span, problem)
        })?;
        Ok(Self { key, rights })
    }

    /// The thread does it; where the machine has no keys, a kernel offers none, and nobody does.
    pub(crate) fn run<C: CheckedCpu>(self, cpu: &C, options: MachineOptions) {
        if options.has_protection_keys() {
            cpu.set_pkru(cpu.pkru().with(self.key, self.rights));
        }
    }
}
