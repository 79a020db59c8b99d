//! From a file of memory-management operations to the engine in the lab.
//!
//! | module | what |
//! |---|---|
//! | [`setup`], [`operations`], [`arguments`] | what the file says |
//! | [`choose`], [`choices`], [`historic`] | protocols by name; those that turned out wrong |
//! | [`build`] | the machine, before the start |
//! | [`platform`] | where the engine finds tables and records |
//! | [`run`] | operations are calls of the engine |
//! | [`watch`] | the rules that need to know what pages and pins are |
//! | [`names`] | names and words for traces |
//!
//! The engine is [`mm`] and [`pagetable`] as they are: nothing of them is written again here.

mod arguments;
mod build;
mod choices;
mod choose;
mod historic;
mod names;
mod operations;
mod platform;
mod run;
mod setup;
mod watch;

use std::sync::Arc;

use machine::CpuId;

use crate::error::{Error, Problem};
use crate::question::{Names, Question, Show};
use crate::race::Race;
use crate::report::MemoryOrder;
use crate::scenario::Prepared;
use crate::source::Spanned;
use crate::syntax::{Place, Script, Value, Variant};
use build::Kernel;
use choose::choose;
use names::FrameNames;
use operations::Column;
use setup::Setup;

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
    for operations in &script.columns {
        columns.push(Column::new(race, &setup, operations)?);
    }
    let mut names = KernelNames { race, setup: &setup, columns: &columns, observed: Vec::new() };
    let question = Question::new(&race.litmus, &mut names)?;
    let observed = names.observed;
    let mode = race.litmus.mode.node;
    let scenario = Kernel { mode, memory, choices, setup, columns, observed };
    Ok(Prepared { scenario: Box::new(scenario), question })
}

/// Registers are the places of these files; frames their values.
struct KernelNames<'n> {
    race: &'n Race,
    setup: &'n Setup,
    columns: &'n [Column],
    observed: Vec<(CpuId, usize)>,
}

impl Names for KernelNames<'_> {
    fn place(&mut self, place: &Spanned<Place>) -> Result<Show, Error> {
        let Place::Register { cpu, name } = &place.node else {
            let problem = Problem::Unexpected { expected: "a register, such as 0:r0".into(), found: place.to_string() };
            return Err(Error::new(&self.race.source, place.span, problem));
        };
        let known = self.columns.get(*cpu as usize).map(|column| &column.registers[..]).unwrap_or_default();
        let Some(slot) = known.iter().position(|known| known == name) else {
            let problem = Problem::Unknown { what: "register", found: place.to_string(), known: known.to_vec() };
            return Err(Error::new(&self.race.source, place.span, problem));
        };
        self.observed.push((CpuId::new(*cpu), slot));
        let frames = FrameNames::new(self.setup);
        Ok(Arc::new(move |bits| match bits {
            0 => "0".to_owned(),
            number => frames.show(machine::Frame::new(number)),
        }))
    }

    fn value(&self, _: &Spanned<Place>, value: &Spanned<Value>) -> Result<u64, Error> {
        match &value.node {
            Value::Number(_) => arguments::number(self.race, value, u64::MAX),
            _ => self.setup.frame_named(self.race, value).map(|index| self.setup.frames[index].first.number()),
        }
    }
}
