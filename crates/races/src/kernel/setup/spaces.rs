//! Address spaces.

use super::{Setup, SpaceSetup};
use crate::arguments::{Arguments, find, impossible, number, unique};
use crate::error::Error;
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::{Script, Statement, Value};

/// How many address spaces there will be: one if the file names none.
pub(super) fn declared(script: &Script) -> u64 {
    let is_space =
        |statement: &&Statement| matches!(statement, Statement::Declaration { word, .. } if word.node == "space");
    (script.init.iter().filter(is_space).count() as u64).max(1)
}

impl Setup {
    pub(super) fn space(
        &mut self,
        race: &Race,
        script: &Script,
        name: &Spanned<String>,
        mut arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        unique(race, "space", name, self.spaces.iter().map(|space| &space.name))?;
        let most = (script.columns.len() as u64).saturating_sub(1);
        let mut cpus = Vec::new();
        for value in arguments.key("cpus").unwrap_or_default() {
            let cpu = number(race, value, most)?;
            if let Some(other) = self.spaces.iter().find(|space| space.cpus.contains(&cpu)) {
                let why = format!("CPU{cpu} runs in space {} already", other.name);
                return Err(impossible(race, value.span, why, "one space for each CPU"));
            }
            cpus.push(cpu);
        }
        arguments.finish()?;
        self.spaces.push(SpaceSetup { name: name.node.clone(), cpus });
        Ok(())
    }

    /// A file that names no address space has one.
    pub(super) fn finish_spaces(&mut self) {
        if self.spaces.is_empty() {
            self.spaces.push(SpaceSetup { name: String::new(), cpus: Vec::new() });
        }
    }

    /// The space in which a CPU runs: the first, unless another one claims it.
    pub(in crate::kernel) fn space_of(&self, cpu: usize) -> usize {
        self.spaces.iter().position(|space| space.cpus.contains(&(cpu as u64))).unwrap_or(0)
    }

    /// The index of an address space that the file names.
    pub(in crate::kernel) fn space_named(&self, race: &Race, value: &Spanned<Value>) -> Result<usize, Error> {
        find(race, "space", &value.node.to_string(), value.span, self.spaces.iter().map(|space| &space.name))
    }
}
