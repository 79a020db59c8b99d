//! What the names in init blocks and conditions mean: registers and variables.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Thread;
use super::variables::{Cell, Variables};
use crate::error::{Error, Problem};
use crate::question::{Names, Show};
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::{Dialect, InitialValue, Part, Place, Program, Register, Scalar, Type, Value, Width};

/// A place of a final state.
#[derive(Clone, Copy)]
pub(super) enum Observed {
    Register { cpu: u32, register: Register },
    Memory { cell: Cell },
}

impl Observed {
    /// The register, if it is one of this CPU.
    pub(super) fn register_of(&self, number: usize) -> Option<Register> {
        match self {
            Self::Register { cpu, register } if *cpu as usize == number => Some(*register),
            _ => None,
        }
    }
}

/// Puts what the init block says into the registers.
pub(super) fn initial_registers(
    race: &Race,
    program: &Program,
    variables: &Variables,
    threads: &mut [Thread],
) -> Result<(), Error> {
    for initial in &program.init {
        let Place::Register { cpu, name } = &initial.place.node else { continue };
        let register = register(race, &initial.place, *cpu, name, threads.len())?;
        let value = match &initial.value {
            InitialValue::Zero => continue,
            InitialValue::One(value) => value,
            InitialValue::Many(_) => {
                let right = "a register holds one value".to_owned();
                let problem = Problem::Value { what: name.clone(), found: "a list".to_owned(), right };
                return Err(Error::new(&race.source, initial.place.span, problem));
            }
        };
        let bits = variables.bits(race, register.part.width(), value)?;
        threads[*cpu as usize].registers.write(register, bits);
    }
    Ok(())
}

fn register(race: &Race, place: &Spanned<Place>, cpu: u32, name: &str, cpus: usize) -> Result<Register, Error> {
    let fail = |problem| Err(Error::new(&race.source, place.span, problem));
    if cpu as usize >= cpus {
        let known = (0..cpus).map(|cpu| cpu.to_string()).collect();
        return fail(Problem::Unknown { what: "CPU", found: cpu.to_string(), known });
    }
    let register = Register::named(name);
    match (register, race.litmus.mode.node.dialect()) {
        (Some(register), Some(Dialect::Intel)) if register.part == Part::Quad || register.number >= 8 => {
            fail(Problem::Impossible {
                why: format!("{register} on a 32-bit machine"),
                right: "use `X86_64` for 64-bit registers".to_owned(),
            })
        }
        (Some(register), _) => Ok(register),
        (None, _) => fail(Problem::Unknown { what: "register", found: name.to_owned(), known: Register::names() }),
    }
}

/// Resolves the names of conditions.
pub(super) struct ProgramNames<'p> {
    race: &'p Race,
    variables: &'p Variables,
    cpus: usize,
    /// The types of registers that the init block declares.
    types: BTreeMap<(u32, u8), Scalar>,
    observed: Vec<Observed>,
}

impl<'p> ProgramNames<'p> {
    pub(super) fn new(race: &'p Race, program: &Program, variables: &'p Variables, cpus: usize) -> Self {
        let mut types = BTreeMap::new();
        for initial in &program.init {
            if let (Place::Register { cpu, name }, Some(Type::Scalar(scalar))) =
                (&initial.place.node, initial.ty.as_ref().map(|ty| ty.node))
                && let Some(register) = Register::named(name)
            {
                types.insert((*cpu, register.number), scalar);
            }
        }
        Self { race, variables, cpus, types, observed: Vec::new() }
    }

    pub(super) fn into_observed(self) -> Vec<Observed> {
        self.observed
    }

    /// Where the place is, and its type if it has one. A register that was declared narrower is looked at as narrow as that.
    fn resolve(&self, place: &Spanned<Place>) -> Result<(Observed, Option<Scalar>), Error> {
        let (name, element) = match &place.node {
            Place::Register { cpu, name } => {
                let mut register = register(self.race, place, *cpu, name, self.cpus)?;
                let scalar = self.types.get(&(*cpu, register.number)).copied();
                if let (Part::Quad | Part::Long, Some(scalar)) = (register.part, scalar)
                    && scalar.width() < register.part.width()
                {
                    register.part = match scalar.width() {
                        Width::Byte => Part::Low,
                        Width::Word => Part::Word,
                        Width::Long => Part::Long,
                        Width::Quad => Part::Quad,
                    };
                }
                return Ok((Observed::Register { cpu: *cpu, register }, scalar));
            }
            Place::Location(name) => (name, None),
            Place::Element(name, element) => (name, Some(*element)),
        };
        match self.variables.place(name, element) {
            Some((cell, scalar)) => Ok((Observed::Memory { cell }, scalar)),
            None => {
                let found = place.to_string();
                let problem = Problem::Unknown { what: "variable", found, known: self.variables.names() };
                Err(Error::new(&self.race.source, place.span, problem))
            }
        }
    }

    fn width(observed: Observed) -> Width {
        match observed {
            Observed::Register { register, .. } => register.part.width(),
            Observed::Memory { cell } => cell.width,
        }
    }
}

impl Names for ProgramNames<'_> {
    fn place(&mut self, place: &Spanned<Place>) -> Result<Show, Error> {
        let (observed, scalar) = self.resolve(place)?;
        let width = Self::width(observed);
        self.observed.push(observed);
        let signed = scalar.is_some_and(Scalar::is_signed);
        let addresses: Vec<(u64, String)> = self
            .variables
            .names()
            .into_iter()
            .filter_map(|name| Some((self.variables.address(&name)?, name)))
            .collect();
        Ok(Arc::new(move |bits| {
            if let Some((_, name)) = addresses.iter().find(|(address, _)| *address == bits) {
                return name.clone();
            }
            let unused = 64 - width.bits();
            if signed { ((bits << unused) as i64 >> unused).to_string() } else { bits.to_string() }
        }))
    }

    fn value(&self, place: &Spanned<Place>, value: &Spanned<Value>) -> Result<u64, Error> {
        let (observed, _) = self.resolve(place)?;
        self.variables.bits(self.race, Self::width(observed), value)
    }
}
