//! What a file can ask of the simulated machine beyond what it always is: `machine=pcids,global-pages`.

use lab::{
    Caching, ExecuteDisable, FreedWalks, GlobalPages, Machine, Pcids, Pdptes, ProtectionKeys, ShadowStacks,
    Speculation, Threads, WalkerUpdates,
};

use crate::arguments;
use crate::error::Error;
use crate::protection_keys::has_keys;
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::Value;

/// The key of the init block and of variants.
pub(crate) const KEY: &str = "machine";

/// How one option changes a machine.
type Change = fn(&mut Machine);

const OPTIONS: [(&str, Change); 14] = [
    ("pcids", |machine| machine.pcids = Pcids::Enabled),
    ("global-pages", |machine| machine.global_pages = GlobalPages::Enabled),
    ("execute-disable", |machine| machine.execute_disable = ExecuteDisable::Enabled),
    ("unasked-walks", |machine| machine.freed_walks = FreedWalks::Unasked),
    ("unasked-flags", |machine| machine.speculation = Speculation::SetsAccessed),
    ("stray-flags", |machine| machine.walker_updates = WalkerUpdates::Stray),
    ("plain-flags", |machine| machine.walker_updates = WalkerUpdates::Plain),
    ("fills-on-access", |machine| machine.caching = Caching::OnAccess),
    ("tlb-only", |machine| machine.caching = Caching::TlbOnly),
    ("no-tlb", |machine| machine.caching = Caching::Nothing),
    ("pdptes-in-memory", |machine| machine.pdptes = Pdptes::Memory),
    ("threads-move", |machine| machine.threads = Threads::Move),
    ("protection-keys", |machine| machine.protection_keys = ProtectionKeys::Enabled),
    ("shadow-stacks", |machine| machine.shadow_stacks = ShadowStacks::Enabled),
];

/// The word for a machine without options: for a variant of a file that has some.
const PLAIN: &str = "plain";

/// Some of the options.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct MachineOptions(u32);

impl MachineOptions {
    /// No options.
    pub(crate) const NONE: Self = Self(0);

    /// Those that a setting or a choice names.
    ///
    /// # Errors
    /// There is no such option.
    pub(crate) fn read(race: &Race, values: &[Spanned<Value>]) -> Result<Self, Error> {
        let mut options = Self::NONE;
        for value in values {
            options = options.and(Self::named(race, value)?);
        }
        Ok(options)
    }

    /// The one that a value names.
    ///
    /// # Errors
    /// There is no such option, or the file's paging mode does not have it.
    pub(crate) fn named(race: &Race, value: &Spanned<Value>) -> Result<Self, Error> {
        let bits = OPTIONS.iter().enumerate().map(|(bit, (name, _))| (*name, Self(1 << bit)));
        let names: Vec<(&str, Self)> = bits.chain([(PLAIN, Self::NONE)]).collect();
        let option = arguments::named(race, "machine option", value, &names)?;
        if option.has_protection_keys() && !has_keys(race.litmus.mode.node) {
            let why = "entries of PAE have no protection key".to_owned();
            return Err(arguments::impossible(race, value.span, why, "4 or 5 levels"));
        }
        Ok(option)
    }

    /// These and those.
    pub(crate) const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether the machine has process-context identifiers.
    pub(crate) fn has_pcids(self) -> bool {
        let mut machine = Machine::default();
        self.apply(&mut machine);
        machine.pcids == Pcids::Enabled
    }

    /// Whether the machine obeys protection keys.
    pub(crate) fn has_protection_keys(self) -> bool {
        let mut machine = Machine::default();
        self.apply(&mut machine);
        machine.protection_keys == ProtectionKeys::Enabled
    }

    /// Changes the machine as the options say.
    pub(crate) fn apply(self, machine: &mut Machine) {
        for (bit, (_, change)) in OPTIONS.iter().enumerate() {
            if self.0 >> bit & 1 != 0 {
                change(machine);
            }
        }
    }
}
