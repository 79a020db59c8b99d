//! The set of final states of random small programs, against a second implementation of x86-TSO: byte by byte, store buffers
//! as lists, every state by breadth-first search. It shares nothing with the lab but the text of the program.

use std::collections::{BTreeSet, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;
use races::{MemoryOrder, Options, Race, Source};

/// Two variables of eight bytes.
const BYTES: usize = 16;
const REGISTERS: [&str; 4] = ["rbx", "rcx", "rdx", "rsi"];
const HALVES: [&str; 4] = ["ebx", "ecx", "edx", "esi"];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Store(u64),
    Load,
    Fence,
    /// `xchg`, `lock xadd`, and `add` of memory without `lock`, with what the register of the step holds.
    Exchange,
    LockedAdd,
    Add,
    /// `lock cmpxchg`: if memory holds what `rax` holds, it gets what the register of the step holds, else `rax` gets it.
    CompareExchange,
}

/// One instruction: what it does at which byte and how wide. Its place in the column says which register it works with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Instruction {
    step: Step,
    at: usize,
    bytes: usize,
}

impl Instruction {
    fn text(self, number: usize) -> String {
        let (suffix, register) = if self.bytes == 8 { ('q', REGISTERS[number]) } else { ('l', HALVES[number]) };
        let variable = if self.at < 8 { "x" } else { "y" };
        let memory = format!("{}({variable})", self.at % 8);
        match self.step {
            Step::Store(value) => format!("mov{suffix} ${value},{memory}"),
            Step::Load => format!("mov{suffix} {memory},%{register}"),
            Step::Fence => "mfence".to_owned(),
            Step::Exchange => format!("xchg{suffix} %{register},{memory}"),
            Step::LockedAdd => format!("lock xadd{suffix} %{register},{memory}"),
            Step::Add => format!("add{suffix} %{register},{memory}"),
            Step::CompareExchange => format!("lock cmpxchg{suffix} %{register},{memory}"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Thread {
    next: usize,
    /// What an `add` without `lock` has loaded and not yet stored.
    loaded: Option<u64>,
    registers: [u64; 4],
    accumulator: u64,
    buffer: Vec<(usize, usize, u64)>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    memory: [u8; BYTES],
    threads: Vec<Thread>,
}

impl State {
    fn load(&self, thread: usize, at: usize, bytes: usize) -> u64 {
        let byte = |place: usize| {
            let buffered = self.threads[thread]
                .buffer
                .iter()
                .rev()
                .find(|(start, length, _)| (*start..start + length).contains(&place));
            buffered.map_or(self.memory[place], |(start, _, value)| value.to_le_bytes()[place - start])
        };
        (0..bytes).fold(0, |sum, offset| sum | u64::from(byte(at + offset)) << (8 * offset))
    }

    fn write(&mut self, at: usize, bytes: usize, value: u64) {
        self.memory[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }

    fn store(&mut self, order: MemoryOrder, thread: usize, at: usize, bytes: usize, value: u64) {
        match order {
            MemoryOrder::Sc => self.write(at, bytes, value),
            MemoryOrder::Tso => self.threads[thread].buffer.push((at, bytes, value)),
        }
    }

    /// Every state one step further on.
    fn successors(&self, order: MemoryOrder, program: &[Vec<Instruction>]) -> Vec<Self> {
        let mut all = Vec::new();
        for (number, thread) in self.threads.iter().enumerate() {
            if let Some((at, bytes, value)) = thread.buffer.first().copied() {
                let mut next = self.clone();
                next.threads[number].buffer.remove(0);
                next.write(at, bytes, value);
                all.push(next);
            }
            if let Some(instruction) = program[number].get(thread.next) {
                all.extend(self.execute(order, number, *instruction));
            }
        }
        all
    }

    fn execute(&self, order: MemoryOrder, number: usize, instruction: Instruction) -> Option<Self> {
        let Instruction { step, at, bytes } = instruction;
        let thread = &self.threads[number];
        let place = thread.next;
        let mut next = self.clone();
        let mask = if bytes == 8 { u64::MAX } else { 0xffff_ffff };
        let register = thread.registers[place] & mask;
        let empty = thread.buffer.is_empty();
        let mut done = true;
        match step {
            Step::Store(value) => next.store(order, number, at, bytes, value),
            Step::Load => next.threads[number].registers[place] = self.load(number, at, bytes),
            Step::Fence | Step::Exchange | Step::LockedAdd | Step::CompareExchange if !empty => return None,
            Step::Fence => {}
            Step::Exchange | Step::LockedAdd => {
                let before = self.load(number, at, bytes);
                let sum = if step == Step::Exchange { register } else { before.wrapping_add(register) };
                next.write(at, bytes, sum);
                next.threads[number].registers[place] = before;
            }
            Step::CompareExchange => match self.load(number, at, bytes) {
                found if found == thread.accumulator & mask => next.write(at, bytes, register),
                found => next.threads[number].accumulator = found,
            },
            Step::Add => match thread.loaded {
                None => {
                    next.threads[number].loaded = Some(self.load(number, at, bytes));
                    done = false;
                }
                Some(before) => {
                    next.threads[number].loaded = None;
                    next.store(order, number, at, bytes, before.wrapping_add(register) & mask);
                }
            },
        }
        if done {
            next.threads[number].next += 1;
        }
        Some(next)
    }
}

/// The registers of all threads and both variables, in every final state.
fn simulate(order: MemoryOrder, program: &[Vec<Instruction>]) -> BTreeSet<Vec<String>> {
    let thread = |number: usize| Thread {
        next: 0,
        loaded: None,
        registers: [initial(number); 4],
        accumulator: 0,
        buffer: Vec::new(),
    };
    let start = State { memory: [0; BYTES], threads: (0..program.len()).map(thread).collect() };
    let mut seen = HashSet::from([start.clone()]);
    let mut work = vec![start];
    let mut finals = BTreeSet::new();
    while let Some(state) = work.pop() {
        let next = state.successors(order, program);
        if next.is_empty() {
            let of_thread = |thread: &Thread| thread.registers.into_iter().chain([thread.accumulator]);
            let registers = state.threads.iter().flat_map(of_thread);
            let word = |at: usize| u64::from_le_bytes(state.memory[at..at + 8].try_into().expect("eight bytes"));
            finals.insert(registers.chain([word(0), word(8)]).map(|value| value.to_string()).collect());
        }
        for state in next {
            if seen.insert(state.clone()) {
                work.push(state);
            }
        }
    }
    finals
}

/// What every register of a thread holds at the start: bits in both halves.
fn initial(thread: usize) -> u64 {
    (thread as u64 + 5) << 32 | (thread as u64 + 3)
}

fn text(program: &[Vec<Instruction>]) -> String {
    let mut text = String::from("X86_64 random\n{ uint64_t x; uint64_t y; ");
    let mut observed = String::new();
    for cpu in 0..program.len() {
        for register in REGISTERS {
            text += &format!("{cpu}:{register}={}; ", initial(cpu));
            observed += &format!("{cpu}:{register}; ");
        }
        observed += &format!("{cpu}:rax; ");
    }
    text += "}\n";
    let rows = program.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |row: usize| {
        let cell = |column: &Vec<Instruction>| column.get(row).map(|one| one.text(row)).unwrap_or_default();
        program.iter().map(cell).collect::<Vec<_>>().join(" | ")
    };
    text += &(0..program.len()).map(|cpu| format!("P{cpu}")).collect::<Vec<_>>().join(" | ");
    text += ";\n";
    for row in 0..rows {
        text += &format!("{};\n", cells(row));
    }
    text + &format!("locations [{observed} x; y;]\n")
}

fn explored(order: MemoryOrder, text: &str) -> BTreeSet<Vec<String>> {
    let race = Race::new(Source::new("random", text)).unwrap_or_else(|error| panic!("{}\n{text}", error.one_line()));
    let mut finals = BTreeSet::new();
    races::decide(&[race], &Options { memory: Some(order), ..Options::default() }, |report| {
        assert!(report.message.is_none(), "{report:?}");
        finals =
            report.finals.iter().map(|state| state.values.iter().map(|(_, value)| value.clone()).collect()).collect();
    });
    finals
}

fn instruction() -> impl Strategy<Value = Instruction> {
    let step = prop_oneof![
        4 => (1_u64..4).prop_map(Step::Store),
        4 => Just(Step::Load),
        1 => Just(Step::Fence),
        1 => Just(Step::Exchange),
        1 => Just(Step::LockedAdd),
        1 => Just(Step::Add),
        1 => Just(Step::CompareExchange),
    ];
    let place = prop_oneof![Just((0, 8)), Just((8, 8)), Just((0, 4)), Just((4, 4)), Just((8, 4)), Just((12, 4))];
    (step, place).prop_map(|(step, (at, bytes))| Instruction { step, at, bytes })
}

fn check(program: &[Vec<Instruction>]) {
    let text = text(program);
    for order in MemoryOrder::ALL {
        assert_eq!(explored(order, &text), simulate(order, program), "under {order:?}\n{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_cpus(program in vec(vec(instruction(), 1..5), 2)) {
        check(&program);
    }

    #[test]
    fn three_cpus(program in vec(vec(instruction(), 1..3), 3)) {
        check(&program);
    }
}
