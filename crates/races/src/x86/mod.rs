//! Running x86 instructions on the CPUs of a checker.
//!
//! What an instruction does to registers and flags is computed here; every access to a variable is an operation of
//! [`machine::Cpu`], so that the checker interleaves it. SDM volumes as of 2023.

mod arithmetic;
mod interpreter;
mod lower;
mod names;
mod registers;
mod variables;

use lab::{Arena, Machine};
use machine::{CpuId, Word64};

use crate::checker::{CheckedCpu, Checker};
use crate::error::Error;
use crate::question::Question;
use crate::race::Race;
use crate::report::MemoryOrder;
use crate::scenario::{Explorer, Prepared, Scenario};
use crate::scope;
use crate::syntax::Program;
use interpreter::Interpreter;
use lower::Op;
use names::{Observed, ProgramNames};
use registers::Registers;
use variables::Variables;

/// Room that an arena has beside the variables, in bytes.
const SPARE_BYTES: usize = 64;

/// Gives meaning to the names and sizes of a program.
pub(crate) fn prepare(race: &Race, program: &Program, memory: MemoryOrder) -> Result<Prepared, Error> {
    let variables = Variables::new(race, program)?;
    let mut threads = Vec::new();
    for column in &program.columns {
        threads.push(Thread { ops: lower::column(race, &variables, column)?, registers: Registers::default() });
    }
    names::initial_registers(race, program, &variables, &mut threads)?;
    let mut names = ProgramNames::new(race, program, &variables, threads.len());
    let question = Question::new(&race.litmus, &mut names)?;
    let observed = names.into_observed();
    let alike = scope::alike(race, program);
    let scenario = Instructions { memory, variables, threads, alike, observed };
    Ok(Prepared { scenario: Scenario::Instructions(scenario), question })
}

/// What one CPU runs.
struct Thread {
    ops: Vec<Op>,
    registers: Registers,
}

/// A file of instructions under one memory order.
pub(crate) struct Instructions {
    memory: MemoryOrder,
    variables: Variables,
    threads: Vec<Thread>,
    /// CPUs that nobody can tell apart.
    alike: Vec<Vec<usize>>,
    observed: Vec<Observed>,
}

impl Instructions {
    pub(crate) fn cpus(&self) -> usize {
        self.threads.len()
    }

    pub(crate) fn tells_cpus_apart(&self) -> bool {
        self.alike.is_empty()
    }

    pub(crate) fn build<E: Explorer>(&self, explorer: &mut E) {
        let initial = self.variables.initial();
        let arena = Arena::with_capacity(initial.len() * size_of::<Word64>() + SPARE_BYTES, Vec::new());
        let words = arena.alloc_slice(initial.len(), |index| Word64::new(initial[index]));
        let mut checker = explorer.machine(&arena, Machine::new(self.memory.into()));
        for (word, name) in words.iter().zip(self.variables.word_names()) {
            checker.name(word, name);
        }
        for (number, thread) in self.threads.iter().enumerate() {
            let interpreter = Interpreter { ops: &thread.ops, variables: &self.variables, words };
            let wanted = self.observed.iter().filter_map(move |place| place.register_of(number));
            let wanted: Vec<u8> = wanted.map(|register| register.number).collect();
            checker.cpu(format!("P{number}"), move |cpu| {
                let registers = interpreter.run(cpu, thread.registers);
                for &number in &wanted {
                    cpu.report(usize::from(number), registers.whole(number));
                }
            });
        }
        for group in &self.alike {
            checker.interchangeable(group);
        }
        let read = move |end: &lab::End<'_>| -> Vec<u64> {
            self.observed
                .iter()
                .map(|place| match place {
                    Observed::Register { cpu, register } => {
                        let mut registers = Registers::default();
                        registers
                            .set_whole(register.number, end.reported(CpuId::new(*cpu), usize::from(register.number)));
                        registers.read(*register)
                    }
                    Observed::Memory { cell } => cell.part_of(end.read(&words[cell.word])),
                })
                .collect()
        };
        explorer.explore(&arena, checker, Box::new(read));
    }
}

impl From<MemoryOrder> for lab::MemoryOrder {
    fn from(order: MemoryOrder) -> Self {
        match order {
            MemoryOrder::Sc => Self::Sc,
            MemoryOrder::Tso => Self::Tso,
        }
    }
}
