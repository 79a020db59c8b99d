//! Runs the instructions of one CPU, one access at a time.
//!
//! The state of a CPU is its registers, its flags and which instruction comes next, all of it in locals of [`Interpreter::run`]. After
//! every instruction the CPU says so ([`CheckedCpu::op_boundary`]): a checker then need not remember how it got there.

use machine::{Word32, Word64};

use super::arithmetic::{Outcome, compute, subtract};
use super::lower::{Address, Op, Target, Value};
use super::registers::Registers;
use super::variables::{Cell, Variables};
use crate::checker::CheckedCpu;
use crate::rule;
use crate::syntax::{Fence, Jump, Lock, Mnemonic, Part, Register, Width};

/// After so many instructions without an access to memory a CPU is taken to loop for ever.
const MAX_SILENT: u32 = 100_000;

/// What one CPU runs, and on which memory.
#[derive(Clone, Copy)]
pub(super) struct Interpreter<'m> {
    pub(super) ops: &'m [Op],
    pub(super) variables: &'m Variables,
    pub(super) words: &'m [Word64],
}

/// A part of memory, as the machine accesses it.
#[derive(Clone, Copy)]
enum Access<'m> {
    Quad(&'m Word64),
    Long(&'m Word32),
    /// 8 or 16 bits. The machine knows words of 32 and 64 bits: loads and locked updates act on the word around the part, which
    /// no one can tell from acting on the part. Plain stores cannot do that.
    Small(&'m Word32, Cell),
    /// 8 or 16 bits that are a whole variable: the rest of its word is nobody's.
    Lone(&'m Word32, Width),
}

impl<'m> Interpreter<'m> {
    /// Runs to the end of the column, and returns what is then in the registers.
    pub(super) fn run<C: CheckedCpu>(&self, cpu: &C, start: Registers) -> Registers {
        let mut registers = start;
        let mut next = 0;
        let mut silent = 0;
        while let Some(op) = self.ops.get(next) {
            next = self.step(cpu, op, &mut registers, next, &mut silent);
            if silent > MAX_SILENT {
                cpu.violate(rule::USER, format_args!("the loop around `{}` accesses no memory", op.text));
            }
            cpu.op_boundary(registers.digest(next));
        }
        registers
    }

    /// One instruction; returns the number of the one after it.
    fn step<C: CheckedCpu>(&self, cpu: &C, op: &Op, registers: &mut Registers, now: usize, silent: &mut u32) -> usize {
        *silent += 1;
        match op.mnemonic {
            Mnemonic::Nop => return now + 1,
            Mnemonic::Ret => return self.ops.len(),
            Mnemonic::Jump(Jump::Always) => return op.next,
            Mnemonic::Jump(Jump::If(test)) => return if registers.flags.meet(test) { op.next } else { now + 1 },
            Mnemonic::Fence(Fence::Mfence) => {
                cpu.mark(&op.text);
                *silent = 0;
                cpu.fence();
                return now + 1;
            }
            // Under TSO loads are in order and stores are in order: these two order nothing more (SDM vol. 3A, 9.2.5).
            Mnemonic::Fence(Fence::Lfence | Fence::Sfence) => return now + 1,
            _ => {}
        }
        let Some(destination) = op.destination else { return now + 1 };
        if let (Mnemonic::Lea, Some(Value::Target(Target::Memory(address)))) = (op.mnemonic, &op.source) {
            self.write_register(registers, destination, address.of(registers));
            return now + 1;
        }
        if self.touches_memory(op) {
            cpu.mark(&op.text);
            *silent = 0;
        }
        if op.mnemonic == Mnemonic::Xchg {
            self.exchange(cpu, op, registers, destination);
            return now + 1;
        }
        let source = match &op.source {
            None => 0,
            Some(Value::Constant(number)) => *number,
            Some(Value::Target(Target::Register(register))) => registers.read(*register),
            Some(Value::Target(Target::Memory(address))) => self.load(cpu, self.access(cpu, op, address.of(registers))),
        };
        match (op.mnemonic, destination) {
            (Mnemonic::Cmpxchg, _) => self.compare_exchange(cpu, op, registers, source, destination),
            (Mnemonic::Cmov(test), Target::Register(register)) => {
                // With a false condition 32 bits still clear those above (SDM vol. 2A, CMOVcc).
                let value = if registers.flags.meet(test) { source } else { registers.read(register) };
                registers.write(register, value);
            }
            (_, Target::Register(register)) => {
                let before = registers.read(register);
                let outcome = self.outcome(op, registers, before, source);
                if !op.mnemonic.only_tests() {
                    registers.write(register, outcome.result);
                }
                self.finish(op, registers, outcome, before);
            }
            (_, Target::Memory(address)) => {
                let place = self.bit_address(op, registers, address.of(registers));
                let access = self.access(cpu, op, place);
                self.on_memory(cpu, op, registers, source, access);
            }
        }
        now + 1
    }

    fn touches_memory(&self, op: &Op) -> bool {
        let source = matches!(op.source, Some(Value::Target(Target::Memory(_))));
        source || matches!(op.destination, Some(Target::Memory(_)))
    }

    fn write_register(&self, registers: &mut Registers, target: Target, value: u64) {
        if let Target::Register(register) = target {
            registers.write(register, value);
        }
    }

    /// A bit number in a register may lie outside the operand: the bits of memory are one string (SDM vol. 2A, 3.1.1.9).
    fn bit_address(&self, op: &Op, registers: &Registers, address: u64) -> u64 {
        match (&op.source, op.mnemonic.is_bit_test()) {
            (Some(Value::Target(Target::Register(register))), true) => {
                let unused = 64 - op.width.bits();
                let bit = (registers.read(*register) << unused) as i64 >> unused;
                let operands = bit.div_euclid(i64::from(op.width.bits()));
                address.wrapping_add_signed(operands * op.width.bytes() as i64)
            }
            _ => address,
        }
    }

    fn outcome(&self, op: &Op, registers: &Registers, before: u64, source: u64) -> Outcome {
        match op.mnemonic {
            Mnemonic::Set(test) => Outcome { result: registers.flags.meet(test).into(), flags: registers.flags },
            mnemonic => compute(mnemonic, op.width, before, source, registers.flags),
        }
    }

    /// What is left to do once the destination is written.
    fn finish(&self, op: &Op, registers: &mut Registers, outcome: Outcome, before: u64) {
        registers.flags = outcome.flags;
        if let (Mnemonic::Xadd, Some(Value::Target(Target::Register(register)))) = (op.mnemonic, &op.source) {
            // `xadd %eax,%eax` leaves the sum: the destination is written last (SDM vol. 2D, XADD).
            if !matches!(op.destination, Some(Target::Register(destination)) if destination == *register) {
                registers.write(*register, before);
            }
        }
    }

    fn on_memory<C: CheckedCpu>(&self, cpu: &C, op: &Op, registers: &mut Registers, source: u64, access: Access<'m>) {
        let before = match (op.mnemonic, op.lock) {
            (Mnemonic::Mov | Mnemonic::Set(_), _) => {
                let outcome = self.outcome(op, registers, 0, source);
                self.store(cpu, op, access, outcome.result);
                return;
            }
            (mnemonic, _) if mnemonic.only_tests() => self.load(cpu, access),
            (_, Lock::Plain) => {
                let before = self.load(cpu, access);
                let outcome = self.outcome(op, registers, before, source);
                self.store(cpu, op, access, outcome.result);
                before
            }
            (_, Lock::Locked) => self.update(cpu, op, registers, source, access),
        };
        let outcome = self.outcome(op, registers, before, source);
        self.finish(op, registers, outcome, before);
    }

    /// A locked read-modify-write; returns what memory held before.
    fn update<C: CheckedCpu>(&self, cpu: &C, op: &Op, registers: &Registers, source: u64, access: Access<'m>) -> u64 {
        let addend = match op.mnemonic {
            Mnemonic::Add | Mnemonic::Xadd => Some(source),
            Mnemonic::Sub => Some(source.wrapping_neg()),
            Mnemonic::Inc => Some(1),
            Mnemonic::Dec => Some(u64::MAX),
            _ => None,
        };
        let bit = 1_u64 << (source & u64::from(op.width.bits() - 1));
        match (access, addend, op.mnemonic) {
            (Access::Quad(word), Some(addend), _) => cpu.fetch_add(word, addend),
            (Access::Long(word), Some(addend), _) => cpu.fetch_add(word, addend as u32).into(),
            (Access::Quad(word), _, Mnemonic::And) => cpu.fetch_and(word, source),
            (Access::Long(word), _, Mnemonic::And) => cpu.fetch_and(word, source as u32).into(),
            (Access::Quad(word), _, Mnemonic::Or) => cpu.fetch_or(word, source),
            (Access::Long(word), _, Mnemonic::Or) => cpu.fetch_or(word, source as u32).into(),
            (Access::Quad(word), _, Mnemonic::Bts) => cpu.fetch_or(word, bit),
            (Access::Long(word), _, Mnemonic::Bts) => cpu.fetch_or(word, bit as u32).into(),
            (Access::Quad(word), _, Mnemonic::Btr) => cpu.fetch_and(word, !bit),
            (Access::Long(word), _, Mnemonic::Btr) => cpu.fetch_and(word, !bit as u32).into(),
            _ => self.update_by(cpu, access, |before| self.outcome(op, registers, before, source).result),
        }
    }

    /// Replaces what memory holds by a function of it, at once.
    fn update_by<C: CheckedCpu>(&self, cpu: &C, access: Access<'m>, new: impl Fn(u64) -> u64) -> u64 {
        match access {
            Access::Quad(word) => cpu.await_update(word, |before| Some(new(before))),
            Access::Long(word) => cpu.await_update(word, |before| Some(new(before.into()) as u32)).into(),
            Access::Lone(word, width) => {
                u64::from(cpu.await_update(word, |before| Some((new(before.into()) & width.mask()) as u32)))
            }
            Access::Small(word, cell) => {
                let change = |before: u32| {
                    let before = u64::from(before);
                    Some(cell.with_part(before, new(cell.part_of(before))) as u32)
                };
                cell.part_of(cpu.await_update(word, change).into())
            }
        }
    }

    fn exchange<C: CheckedCpu>(&self, cpu: &C, op: &Op, registers: &mut Registers, destination: Target) {
        let Some(Value::Target(source)) = op.source else { return };
        match (source, destination) {
            (Target::Register(one), Target::Register(other)) => {
                let (first, second) = (registers.read(one), registers.read(other));
                registers.write(one, second);
                registers.write(other, first);
            }
            (Target::Register(register), Target::Memory(address))
            | (Target::Memory(address), Target::Register(register)) => {
                let value = registers.read(register);
                let before = match self.access(cpu, op, address.of(registers)) {
                    Access::Quad(word) => cpu.swap(word, value),
                    Access::Long(word) => cpu.swap(word, value as u32).into(),
                    small => self.update_by(cpu, small, |_| value),
                };
                registers.write(register, before);
            }
            (Target::Memory(_), Target::Memory(_)) => {}
        }
    }

    fn compare_exchange<C: CheckedCpu>(
        &self,
        cpu: &C,
        op: &Op,
        registers: &mut Registers,
        new: u64,
        destination: Target,
    ) {
        let part = match op.width {
            Width::Byte => Part::Low,
            Width::Word => Part::Word,
            Width::Long => Part::Long,
            Width::Quad => Part::Quad,
        };
        let accumulator = Register { number: 0, part };
        let expected = registers.read(accumulator);
        let choose = |before: u64| if before == expected { new } else { before };
        let before = match destination {
            Target::Register(register) => {
                let before = registers.read(register);
                registers.write(register, choose(before));
                before
            }
            Target::Memory(address) => match (self.access(cpu, op, address.of(registers)), op.lock) {
                (Access::Quad(word), Lock::Locked) => {
                    cpu.compare_exchange(word, expected, new).unwrap_or_else(|found| found)
                }
                (Access::Long(word), Lock::Locked) => {
                    cpu.compare_exchange(word, expected as u32, new as u32).unwrap_or_else(|found| found).into()
                }
                (small, Lock::Locked) => self.update_by(cpu, small, choose),
                // It writes even if the comparison fails: what it read (SDM vol. 2A, CMPXCHG).
                (access, Lock::Plain) => {
                    let before = self.load(cpu, access);
                    self.store(cpu, op, access, choose(before));
                    before
                }
            },
        };
        registers.flags = subtract(op.width, expected, before).flags;
        if before != expected {
            registers.write(accumulator, before);
        }
    }

    fn access<C: CheckedCpu>(&self, cpu: &C, op: &Op, address: u64) -> Access<'m> {
        let cell = match self.variables.cell(address, op.width) {
            Ok(cell) => cell,
            Err(fault) => {
                let sentence = format_args!("`{}` accesses {address:#x}: {fault}", op.text);
                cpu.violate(rule::USER, sentence)
            }
        };
        let word = &self.words[cell.word];
        let half = if cell.offset < 4 { word.low() } else { word.high() };
        match cell.width {
            Width::Quad => Access::Quad(word),
            Width::Long => Access::Long(half),
            width if self.variables.is_whole_variable(cell) => Access::Lone(half, width),
            _ => Access::Small(half, Cell { offset: cell.offset % 4, ..cell }),
        }
    }

    fn load<C: CheckedCpu>(&self, cpu: &C, access: Access<'m>) -> u64 {
        match access {
            Access::Quad(word) => cpu.load(word),
            Access::Long(word) | Access::Lone(word, _) => cpu.load(word).into(),
            Access::Small(word, cell) => cell.part_of(cpu.load(word).into()),
        }
    }

    fn store<C: CheckedCpu>(&self, cpu: &C, op: &Op, access: Access<'m>, value: u64) {
        match access {
            Access::Quad(word) => cpu.store(word, value),
            Access::Long(word) => cpu.store(word, value as u32),
            Access::Lone(word, width) => cpu.store(word, (value & width.mask()) as u32),
            Access::Small(..) => {
                let sentence = format_args!("`{}` stores part of a word: {}", op.text, super::lower::SMALL_STORES);
                cpu.violate(rule::USER, sentence)
            }
        }
    }
}

impl Address {
    fn of(&self, registers: &Registers) -> u64 {
        let base = self.base.map_or(0, |register| registers.read(register));
        let index = self.index.map_or(0, |(register, scale)| registers.read(register).wrapping_mul(scale.into()));
        self.constant.wrapping_add(base).wrapping_add(index)
    }
}
