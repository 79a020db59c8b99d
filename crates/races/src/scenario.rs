//! The seam between a file and the lab: whatever its cells hold, a file becomes a [`Scenario`] and a [`Question`].

use lab::{End, Lab};

use crate::elt;
use crate::error::Error;
use crate::kernel;
use crate::question::Question;
use crate::race::Race;
use crate::report::MemoryOrder;
use crate::syntax::{Body, Mode, Variant};
use crate::x86;

/// A machine that a file describes, with code on its CPUs. It can be built as often as needed.
pub(crate) trait Scenario {
    /// How many CPUs it has.
    fn cpus(&self) -> usize;

    /// Builds the machine in its initial state and hands it to `explorer`, once.
    fn build(&self, explorer: &mut dyn Explorer);
}

/// What is done with a machine once it is built.
pub(crate) trait Explorer {
    /// `read` says what the places of the scenario's [`Question`] hold in a final state, in their order.
    fn explore<'a>(&mut self, lab: Lab<'a>, read: Reader<'a>);
}

/// Reads one final state: a word for each place of the [`Question`].
pub(crate) type Reader<'a> = Box<dyn Fn(&End<'_>) -> Vec<u64> + 'a>;

/// What is explored for one variant under one memory order.
pub(crate) struct Prepared {
    /// The machine.
    pub(crate) scenario: Box<dyn Scenario>,
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
