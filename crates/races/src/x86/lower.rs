//! From the instructions of a column to what the interpreter runs: names are addresses, labels are numbers, widths are known.

use super::variables::{Fault, Variables};
use crate::error::{Error, Problem};
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::{Dialect, Instruction, Line, Lock, Memory, Mnemonic, Operand, Part, Register, Width};

/// Why a store of 8 or 16 bits is not accepted everywhere.
pub(super) const SMALL_STORES: &str = "memory is written 4 or 8 bytes at a time; 1 or 2 bytes are where a variable is declared with just that size, as in `uint8_t x;`";

/// One instruction, ready to run.
pub(super) struct Op {
    pub(super) lock: Lock,
    pub(super) mnemonic: Mnemonic,
    pub(super) width: Width,
    /// What it reads, if it has two operands.
    pub(super) source: Option<Value>,
    /// What it reads and writes.
    pub(super) destination: Option<Target>,
    /// The instruction to which a jump goes.
    pub(super) next: usize,
    /// As it is written.
    pub(super) text: String,
}

/// A source.
pub(super) enum Value {
    Constant(u64),
    Target(Target),
}

/// Something that can be read and written.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Register(Register),
    Memory(Address),
}

/// An address: the sum of its parts, cut to the width of its registers.
#[derive(Clone, Copy)]
pub(super) struct Address {
    pub(super) constant: u64,
    pub(super) base: Option<Register>,
    pub(super) index: Option<(Register, u8)>,
}

pub(super) fn column(race: &Race, variables: &Variables, lines: &[Line]) -> Result<Vec<Op>, Error> {
    let dialect = race.litmus.mode.node.dialect().unwrap_or(Dialect::Att);
    let mut ops = Vec::new();
    for instruction in lines.iter().filter_map(|line| line.instruction.as_ref()) {
        ops.push(op(race, variables, lines, dialect, instruction)?);
    }
    Ok(ops)
}

/// The number of the instruction that comes after a label.
fn label(lines: &[Line], target: &crate::syntax::Label) -> usize {
    let before = lines.iter().take_while(|line| line.labels.iter().all(|label| label.node != *target));
    before.filter(|line| line.instruction.is_some()).count()
}

fn op(
    race: &Race,
    variables: &Variables,
    lines: &[Line],
    dialect: Dialect,
    instruction: &Spanned<Instruction>,
) -> Result<Op, Error> {
    let Instruction { lock, mnemonic, operands, .. } = &instruction.node;
    let fail = |span, why: String, right: &str| {
        Err(Error::new(&race.source, span, Problem::Impossible { why, right: right.to_owned() }))
    };
    let symbol = operands.iter().find_map(|operand| match &operand.node {
        Operand::Memory(memory) => memory.symbol.as_ref(),
        _ => None,
    });
    let width = match mnemonic {
        Mnemonic::Set(_) => Width::Byte,
        // The count of a shift says nothing about the width.
        Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sar => instruction
            .node
            .width
            .or(match operands.last() {
                Some(Spanned { node: Operand::Register(register), .. }) => Some(register.part.width()),
                _ => None,
            })
            .unwrap_or_else(|| variables.implied_width(symbol.map(|name| name.node.as_str()))),
        _ => instruction
            .node
            .stated_width()
            .unwrap_or_else(|| variables.implied_width(symbol.map(|name| name.node.as_str()))),
    };
    if width == Width::Byte && (mnemonic.is_bit_test() || matches!(mnemonic, Mnemonic::Lea | Mnemonic::Cmov(_))) {
        let right = "it has forms of 16, 32 and 64 bits";
        return fail(instruction.span, format!("`{mnemonic}` with operands of 8 bits"), right);
    }
    let mut next = 0;
    let mut values = Vec::new();
    for operand in operands {
        values.push(match &operand.node {
            Operand::Immediate(number) => Value::Constant(*number as u64 & width.mask()),
            Operand::Address(name) => match variables.address(name) {
                Some(address) => Value::Constant(address & width.mask()),
                None => unreachable!("every name of an instruction is a variable"),
            },
            Operand::Target(target) => {
                next = label(lines, target);
                continue;
            }
            Operand::Register(register) => {
                if dialect == Dialect::Intel && (register.part == Part::Quad || register.number >= 8) {
                    return fail(
                        operand.span,
                        format!("{register} on a 32-bit machine"),
                        "use `X86_64` for 64-bit registers",
                    );
                }
                Value::Target(Target::Register(*register))
            }
            Operand::Memory(memory) => Value::Target(Target::Memory(address(variables, memory))),
        });
    }
    if dialect == Dialect::Intel && width == Width::Quad {
        let right = "use `X86_64` for 64-bit accesses";
        return fail(instruction.span, "64 bits on a 32-bit machine".to_owned(), right);
    }
    let destination = match values.pop() {
        Some(Value::Target(target)) => Some(target),
        _ => None,
    };
    let op = Op {
        lock: *lock,
        mnemonic: *mnemonic,
        width,
        source: values.pop(),
        destination,
        next,
        text: instruction.node.to_text(dialect),
    };
    check_fixed(variables, &op).map_or(Ok(op), |why| fail(instruction.span, why, ""))
}

fn address(variables: &Variables, memory: &Memory) -> Address {
    let start = memory.symbol.as_ref().and_then(|symbol| variables.address(&symbol.node)).unwrap_or(0);
    let constant = start.wrapping_add_signed(memory.displacement);
    Address { constant, base: memory.base, index: memory.index }
}

/// What is wrong with the addresses that are known before anything runs; `None` if nothing is.
fn check_fixed(variables: &Variables, op: &Op) -> Option<String> {
    if matches!(op.mnemonic, Mnemonic::Lea | Mnemonic::Nop) {
        return None;
    }
    let source = match op.source {
        Some(Value::Target(target)) => Some(target),
        _ => None,
    };
    let fixed = source.into_iter().chain(op.destination).find_map(|target| match target {
        Target::Memory(Address { constant, base: None, index: None }) => Some(constant),
        _ => None,
    })?;
    let fault = match variables.cell(fixed, op.width) {
        Ok(cell) => {
            let plain_store = matches!(op.destination, Some(Target::Memory(_)))
                && !op.mnemonic.only_tests()
                && op.lock == Lock::Plain
                && op.mnemonic != Mnemonic::Xchg;
            let part = cell.width < Width::Long && !variables.is_whole_variable(cell);
            return (plain_store && part).then(|| format!("`{}` stores part of a word: {SMALL_STORES}", op.text));
        }
        Err(fault) => fault,
    };
    let place = variables.describe(fixed).unwrap_or_else(|| format!("{fixed:#x}"));
    Some(match fault {
        Fault::Nothing => format!("`{}` accesses {fixed:#x}, where no variable is", op.text),
        Fault::Past { .. } | Fault::Misaligned { .. } => {
            format!("`{}` accesses {} bytes at {place}, but {fault}", op.text, op.width.bytes())
        }
    })
}
