//! From a file of the machine's own operations to the lab: accesses of user code through the TLB, stores to page-table entries, invalidations, interrupts. No
//! memory manager takes part. Such files are called *enhanced litmus tests* (Lustig, Sethi, Martonosi, Bhattacharjee: COATCheck, ASPLOS 2016).
//!
//! | module | what |
//! |---|---|
//! | [`setup`] | what the file declares |
//! | [`layout`] | where the page tables lie, and what is in them at the start |
//! | [`entry`] | page-table entries by words |
//! | [`operations`] | what cells may hold |
//! | [`build`] | the machine, before the start |
//! | [`run`] | what a CPU does |

pub(crate) mod build;
mod entry;
mod layout;
mod operations;
mod run;
mod setup;

use std::sync::Arc;

use machine::CpuId;

use crate::arguments;
use crate::error::{Error, Problem};
use crate::question::{Names, Question, Show};
use crate::race::Race;
use crate::report::MemoryOrder;
use crate::scenario::{Prepared, Scenario};
use crate::source::Spanned;
use crate::syntax::{Place, Script, Value, Variant};
use build::{Enhanced, Observed};
use operations::{Column, Registers};
use run::FAULT;
use setup::Setup;

/// What a register holds whose access ended in a page fault, as conditions call it.
const FAULT_NAME: &str = "fault";

/// Gives meaning to a script under one of its variants.
///
/// # Errors
/// The first name, value or size that has none.
pub(crate) fn prepare(
    race: &Race,
    script: &Script,
    variant: Option<&Variant>,
    memory: MemoryOrder,
) -> Result<Prepared, Error> {
    let mut setup = Setup::new(race, script)?;
    setup.choose(race, variant.map_or(&[][..], |variant| &variant.choices))?;
    // Handlers have registers of their own, which every CPU has beside those of its program.
    let mut of_handlers = Registers::default();
    let ipi = Column::new(race, &setup, &script.ipi, variant, &mut of_handlers)?;
    let nmi = Column::new(race, &setup, &script.nmi, variant, &mut of_handlers)?;
    let (mut columns, mut registers) = (Vec::new(), Vec::new());
    for operations in &script.columns {
        let mut own = of_handlers.clone();
        columns.push(Column::new(race, &setup, operations, variant, &mut own)?);
        registers.push(own);
    }
    let mut names = EltNames { race, setup: &setup, registers: &registers, observed: Vec::new() };
    let question = Question::new(&race.litmus, &mut names)?;
    let observed = names.observed;
    let scenario = Enhanced { memory, setup, columns, ipi, nmi, observed };
    Ok(Prepared { scenario: Scenario::Enhanced(scenario), question })
}

/// Places are registers, what frames and words hold, and leaf entries.
struct EltNames<'n> {
    race: &'n Race,
    setup: &'n Setup,
    registers: &'n [Registers],
    observed: Vec<Observed>,
}

impl EltNames<'_> {
    fn unknown(&self, place: &Spanned<Place>, what: &'static str, known: Vec<String>) -> Error {
        let problem = Problem::Unknown { what, found: place.to_string(), known };
        Error::new(&self.race.source, place.span, problem)
    }

    fn named(&self, place: &Spanned<Place>, name: &str) -> Result<Observed, Error> {
        let setup = self.setup;
        if let Some(frame) = setup.frames.iter().position(|frame| frame.name == name) {
            return Ok(Observed::Contents(frame));
        }
        if let Some(word) = setup.words.iter().position(|word| word.name == name) {
            return Ok(Observed::Word(word, 0));
        }
        if let Some(page) = setup.pages.iter().position(|page| page.name == name) {
            return Ok(Observed::Mapped(page));
        }
        Err(self.unknown(place, "frame, word or page", setup.names()))
    }
}

impl Names for EltNames<'_> {
    fn place(&mut self, place: &Spanned<Place>) -> Result<Show, Error> {
        let observed = match &place.node {
            Place::Register { cpu, name } => {
                let known = self.registers.get(*cpu as usize).map(Registers::names).unwrap_or_default();
                match known.iter().position(|known| known == name) {
                    Some(slot) => Observed::Register(CpuId::new(*cpu), slot),
                    None => return Err(self.unknown(place, "register", known.to_vec())),
                }
            }
            Place::Location(name) => self.named(place, name)?,
            Place::Element(name, index) => match self.named(place, name)? {
                Observed::Word(word, _) if (*index as usize) < self.setup.words[word].initial.len() => {
                    Observed::Word(word, *index as usize)
                }
                Observed::Mapped(page) if *index < 64 => Observed::Bit(page, *index as u32),
                _ => {
                    let expected = "an element of a word that has so many, or a bit of a page's entry".to_owned();
                    let problem = Problem::Unexpected { expected, found: place.to_string() };
                    return Err(Error::new(&self.race.source, place.span, problem));
                }
            },
        };
        self.observed.push(observed);
        let names = self.setup.frame_names();
        Ok(Arc::new(move |bits| match names.iter().find(|(_, number)| *number == bits) {
            Some((name, _)) => name.clone(),
            None if bits == FAULT => FAULT_NAME.to_owned(),
            None => bits.to_string(),
        }))
    }

    fn value(&self, _: &Spanned<Place>, value: &Spanned<Value>) -> Result<u64, Error> {
        match &value.node {
            Value::Number(_) => arguments::number(self.race, value, u64::MAX),
            Value::Name(name) if name == FAULT_NAME => Ok(FAULT),
            Value::Name(name) if name == setup::NONE => Ok(0),
            _ => self.setup.target(self.race, value).map(|frame| frame.number()),
        }
    }
}
