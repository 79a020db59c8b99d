//! Whether it is needed: places in the code where something is done to keep an order, and what becomes of a run if it is not.
//!
//! Every such place is known by its line of source. The first exploration notes which there are ([`crate::Lab::labels`]); another leaves one of
//! them out ([`crate::Lab::weaken`]), and either finds a run that breaks a rule, or none within its bound.

use std::collections::BTreeSet;
use std::panic::Location;

/// What is done at a place, and how it is left out or weakened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Weakening {
    /// A full barrier: left out.
    Fence,
    /// An invalidation of TLBs, here or elsewhere, or the wait for those that were broadcast: left out.
    Flush,
    /// An interrupt for other CPUs: not sent.
    Ipi,
    /// Interrupts are turned off: they stay as they are.
    InterruptsOff,
    /// A read-side section: not entered.
    ReadSection,
    /// A wait for read-side sections: left out.
    GracePeriod,
    /// A lock: not taken, nor waited for. Its release by the same CPU is left out, too.
    Lock,
    /// A wait for a word: left out.
    Wait,
    /// A locked instruction: a load and a store with barriers around and between them, so that others may come in between.
    Atomicity,
    /// A locked instruction: still one step, but stores before it may reach memory after it. Under TSO only.
    Order,
    /// A locked instruction: a plain load and a plain store, no barrier at all. Under TSO only. Where this is needed and [`Self::Atomicity`] is not, it is the barrier.
    LockPrefix,
    /// A comparison of a word with what it held before: left out, as if it were unchanged.
    Recheck,
    /// A section in which the thread stays on its CPU: it may be moved. Where threads move only.
    PreemptOff,
}

impl Weakening {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Fence,
        Self::Flush,
        Self::Ipi,
        Self::InterruptsOff,
        Self::ReadSection,
        Self::GracePeriod,
        Self::Lock,
        Self::Wait,
        Self::Atomicity,
        Self::Order,
        Self::LockPrefix,
        Self::Recheck,
        Self::PreemptOff,
    ];

    /// What is left out, in a word or two.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Flush => "flush",
            Self::Ipi => "IPI",
            Self::InterruptsOff => "interrupts off",
            Self::ReadSection => "RCU section",
            Self::GracePeriod => "grace period",
            Self::Lock => "lock",
            Self::Wait => "wait",
            Self::Atomicity => "atomicity",
            Self::Order => "order",
            Self::LockPrefix => "lock prefix",
            Self::Recheck => "re-check",
            Self::PreemptOff => "preempt off",
        }
    }
}

impl std::fmt::Display for Weakening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// One place, and what can be left out there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label {
    /// The file, as the compiler was given it.
    pub file: &'static str,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
    /// What can be left out.
    pub weakening: Weakening,
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{} {}", self.file, self.line, self.column, self.weakening)
    }
}

/// The places of a lab, and those that are weakened.
#[derive(Default)]
pub(crate) struct Labels {
    met: BTreeSet<Label>,
    weakened: Vec<Label>,
}

impl Labels {
    pub(crate) fn weakening(weakened: &[Label]) -> Self {
        Self { met: BTreeSet::new(), weakened: weakened.to_vec() }
    }

    pub(crate) fn met(&self) -> impl Iterator<Item = Label> {
        self.met.iter().copied()
    }

    /// Code comes to a place. Returns whether it is weakened.
    pub(crate) fn meet(&mut self, weakening: Weakening, location: &'static Location<'static>) -> bool {
        let label = Label { file: location.file(), line: location.line(), column: location.column(), weakening };
        if self.weakened.is_empty() {
            self.met.insert(label);
        }
        self.weakened.contains(&label)
    }

    /// Whether read-side sections may end that were not entered.
    pub(crate) fn has(&self, weakening: Weakening) -> bool {
        self.weakened.iter().any(|label| label.weakening == weakening)
    }
}
