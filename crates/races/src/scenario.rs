//! The seam between a file and its checkers: whatever its cells hold, a file becomes a [`Scenario`] and a [`Question`].

use lab::{Arena, End, Machine};

use crate::checker::Checker;
use crate::elt;
use crate::error::Error;
use crate::kernel;
use crate::question::Question;
use crate::race::Race;
use crate::report::MemoryOrder;
use crate::syntax::{Body, Mode, Variant};
use crate::x86;

/// A machine that a file describes, with code on its CPUs. It can be built as often as needed.
pub(crate) enum Scenario {
    Instructions(x86::Instructions),
    Enhanced(elt::build::Enhanced),
    Kernel(kernel::build::Kernel),
}

impl Scenario {
    /// How many CPUs it has.
    pub(crate) fn cpus(&self) -> usize {
        match self {
            Self::Instructions(scenario) => scenario.cpus(),
            Self::Enhanced(scenario) => scenario.cpus(),
            Self::Kernel(scenario) => scenario.cpus(),
        }
    }

    /// Whether final states that differ in which CPU did what are several to the lab: it takes CPUs with the same instructions for each other.
    pub(crate) fn tells_cpus_apart(&self) -> bool {
        match self {
            Self::Instructions(scenario) => scenario.tells_cpus_apart(),
            Self::Enhanced(_) | Self::Kernel(_) => true,
        }
    }

    /// Builds the machine in its initial state and hands it to `explorer`, once.
    pub(crate) fn build<E: Explorer>(&self, explorer: &mut E) {
        match self {
            Self::Instructions(scenario) => scenario.build(explorer),
            Self::Enhanced(scenario) => scenario.build(explorer),
            Self::Kernel(scenario) => scenario.build(explorer),
        }
    }
}

/// Where a machine is built, and what is done with it then.
pub(crate) trait Explorer {
    /// The machine that is built.
    type Checker<'a>: Checker<'a>;

    /// A machine without CPUs, whose memory is `arena`.
    fn machine<'a>(&self, arena: &'a Arena, machine: Machine) -> Self::Checker<'a>;

    /// `read` says what the places of the scenario's [`Question`] hold in a final state, in their order.
    fn explore<'a>(&mut self, arena: &'a Arena, checker: Self::Checker<'a>, read: Reader<'a>);
}

/// Reads one final state: a word for each place of the [`Question`].
pub(crate) type Reader<'a> = Box<dyn Fn(&End<'_>) -> Vec<u64> + 'a>;

/// What is explored for one variant under one memory order.
pub(crate) struct Prepared {
    /// The machine.
    pub(crate) scenario: Scenario,
    /// What is asked about its final states.
    pub(crate) question: Question,
}

/// Gives meaning to everything that `race` says about this variant.
///
/// # Errors
/// The first name, value or size that has none.
pub(crate) fn prepare(race: &Race, variant: Option<&Variant>, memory: MemoryOrder) -> Result<Prepared, Error> {
    match &race.litmus.body {
        Body::Instructions(program) => x86::prepare(race, program, memory),
        Body::Operations(script) => match race.litmus.mode.node {
            Mode::EltPae | Mode::EltX86_64 => elt::prepare(race, script, variant, memory),
            _ => kernel::prepare(race, script, variant, memory),
        },
    }
}
