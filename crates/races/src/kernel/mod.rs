//! From a file of memory-management operations to the engine in a checker.
//!
//! | module | what |
//! |---|---|
//! | [`setup`], [`operations`] | what the file says |
//! | [`mod@choose`], [`choices`], [`guards`], [`historic`] | protocols by name; those that turned out wrong |
//! | [`build`], [`shared`] | the machine, before the start |
//! | [`drivers`] | what drivers do when their areas fault |
//! | [`platform`], [`swap_device`] | where the engine finds tables, records and swap |
//! | [`table_check`] | page_table_check, where a file asks for it |
//! | [`mirror`] | a device with a page table of its own |
//! | [`uffd`] | who resolves faults that are handed over |
//! | [`run`] | operations are calls of the engine |
//! | [`watch`] | the rules that need to know what pages and pins are |
//! | [`names`] | names and words for traces |
//!
//! The engine is [`mm`] and [`pagetable`] as they are: nothing of them is written again here.

pub(crate) mod build;
mod choices;
mod choose;
mod drivers;
mod guards;
mod historic;
mod mirror;
mod names;
mod operations;
mod platform;
mod run;
mod setup;
mod shared;
mod swap_device;
mod table_check;
mod uffd;
mod watch;

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
use build::{Kernel, Observed};
use choose::choose;
use names::FrameNames;
use operations::Column;
use run::FAULT;
use setup::{Contents, Setup};

/// What a register holds whose load or store ended in a signal, as conditions call it.
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
    let choices = choose(race, variant.map_or(&[][..], |variant| &variant.choices), &mut setup)?;
    let mut columns = Vec::new();
    for (cpu, operations) in script.columns.iter().enumerate() {
        columns.push(Column::new(race, &setup, cpu, operations, variant)?);
    }
    if let Some(operation) = script.ipi.first() {
        let why = "the engine's own handler takes IPIs".to_owned();
        let problem = Problem::Impossible { why, right: "no column `IPI`".to_owned() };
        return Err(Error::new(&race.source, operation.span, problem));
    }
    let mut nmis = Vec::new();
    for &cpu in &setup.nmis {
        let handler = Column::handler(race, &setup, cpu, &script.nmi, (variant, &columns[cpu]))?;
        columns[cpu].registers.clone_from(&handler.registers);
        nmis.push((cpu, handler));
    }
    let mut names = KernelNames { race, setup: &setup, columns: &columns, observed: Vec::new() };
    let question = Question::new(&race.litmus, &mut names)?;
    let observed = names.observed;
    let handlers = nmis.iter().map(|(_, handler)| handler);
    if columns.iter().chain(handlers).any(Column::moves_words)
        || observed.iter().any(|place| matches!(place, Observed::Contents(_)))
    {
        setup.contents = Contents::Words;
    }
    let mode = race.litmus.mode.node;
    let scenario = Kernel { mode, memory, choices, setup, columns, nmis, observed };
    scenario.check_page_count(race)?;
    Ok(Prepared { scenario: Scenario::Kernel(scenario), question })
}

/// Registers are the places of these files; frames their values.
struct KernelNames<'n> {
    race: &'n Race,
    setup: &'n Setup,
    columns: &'n [Column],
    observed: Vec<Observed>,
}

impl Names for KernelNames<'_> {
    fn place(&mut self, place: &Spanned<Place>) -> Result<Show, Error> {
        let (cpu, name) = match &place.node {
            Place::Register { cpu, name } => (*cpu, name),
            Place::Location(name) => {
                let name = Spanned { node: Value::Name(name.clone()), span: place.span };
                let frame = self.setup.frame_named(self.race, &name)?;
                self.observed.push(Observed::Contents(frame));
                return Ok(Arc::new(|word| word.to_string()));
            }
            Place::Element(..) => {
                let expected = "a register, such as 0:r0, or a frame".into();
                let problem = Problem::Unexpected { expected, found: place.to_string() };
                return Err(Error::new(&self.race.source, place.span, problem));
            }
        };
        let known = self.columns.get(cpu as usize).map(|column| &column.registers[..]).unwrap_or_default();
        let Some(slot) = known.iter().position(|known| known == name) else {
            let problem = Problem::Unknown { what: "register", found: place.to_string(), known: known.to_vec() };
            return Err(Error::new(&self.race.source, place.span, problem));
        };
        self.observed.push(Observed::Register(CpuId::new(cpu), slot));
        let frames = FrameNames::new(self.setup);
        Ok(Arc::new(move |bits| match bits {
            FAULT => FAULT_NAME.to_owned(),
            number => frames.show_result(number),
        }))
    }

    fn value(&self, _: &Spanned<Place>, value: &Spanned<Value>) -> Result<u64, Error> {
        match &value.node {
            Value::Number(_) => arguments::number(self.race, value, u64::MAX),
            Value::Name(name) if name == FAULT_NAME => Ok(FAULT),
            _ => self.setup.frame_named(self.race, value).map(|index| self.setup.frames[index].first.number()),
        }
    }
}
