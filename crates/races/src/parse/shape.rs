//! Which operands an instruction takes.

use super::cursor::{Cursor, Result};
use crate::error::Problem;
use crate::source::Span;
use crate::syntax::{Instruction, Lock, Mnemonic, Operand, Width};

/// Whether the instruction takes these operands, of these widths, and `lock`.
pub(super) fn check(cursor: &Cursor<'_>, instruction: &Instruction, span: Span) -> Result<()> {
    let fail = |right: &str| {
        let mnemonic = instruction.mnemonic.to_string();
        cursor.error(span, Problem::Operands { mnemonic, right: right.to_owned() })
    };
    let operands: Vec<&Operand> = instruction.operands.iter().map(|operand| &operand.node).collect();
    if let Err(right) = shape(instruction.mnemonic, &operands) {
        return fail(right);
    }
    let destination_in_memory = matches!(operands.last(), Some(Operand::Memory(_)));
    let exchange_with_memory =
        instruction.mnemonic == Mnemonic::Xchg && operands.iter().any(|operand| matches!(operand, Operand::Memory(_)));
    if instruction.lock == Lock::Locked
        && !(exchange_with_memory || instruction.mnemonic.takes_lock() && destination_in_memory)
    {
        return fail(
            "`lock` stands before read-modify-writes of memory: add, sub, and, or, xor, inc, dec, neg, not, xchg, xadd, cmpxchg, bts, btr, btc",
        );
    }
    if matches!(instruction.mnemonic, Mnemonic::Nop | Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sar) {
        // A `nop` does nothing with what it names, and the count of a shift is always in `cl`.
        return Ok(());
    }
    let Some(width) = instruction.stated_width() else { return Ok(()) };
    for operand in &instruction.operands {
        match operand.node {
            Operand::Register(register) if register.part.width() != width => {
                let problem = Problem::Value {
                    what: format!("an operand of {} bits", width.bits()),
                    found: register.to_string(),
                    right: format!("{} has {} bits", register, register.part.width().bits()),
                };
                return cursor.error(operand.span, problem);
            }
            Operand::Immediate(number) => {
                let (least, most) = (-(1_i128 << (width.bits() - 1)), i128::from(width.mask()));
                if !(least..=most).contains(&number) {
                    return cursor.error(operand.span, Problem::NumberRange { found: number.to_string(), least, most });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the operands, source first, are of the right kinds; if not, what would be right.
fn shape(mnemonic: Mnemonic, operands: &[&Operand]) -> std::result::Result<(), &'static str> {
    use Operand::{Address, Immediate, Memory, Register, Target};
    let right = match mnemonic {
        Mnemonic::Mov
        | Mnemonic::Add
        | Mnemonic::Sub
        | Mnemonic::And
        | Mnemonic::Or
        | Mnemonic::Xor
        | Mnemonic::Cmp
        | Mnemonic::Test => match operands {
            [Register(_) | Immediate(_) | Address(_), Register(_) | Memory(_)] | [Memory(_), Register(_)] => {
                return Ok(());
            }
            _ => "it takes a source and a destination, at most one of them in memory",
        },
        Mnemonic::Lea => match operands {
            [Memory(_), Register(_)] => return Ok(()),
            _ => "it takes an address, as in `4(x)`, and a register",
        },
        Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sar => match operands {
            [Immediate(0..64), Register(_) | Memory(_)] => return Ok(()),
            [Register(count), Register(_) | Memory(_)] if count.to_string() == "cl" => return Ok(()),
            _ => "it takes a count below 64 or `cl`, and a register or memory",
        },
        Mnemonic::Inc | Mnemonic::Dec | Mnemonic::Neg | Mnemonic::Not => match operands {
            [Register(_) | Memory(_)] => return Ok(()),
            _ => "it takes one register or memory",
        },
        Mnemonic::Set(_) => match operands {
            [Register(register)] if register.part.width() == Width::Byte => return Ok(()),
            [Memory(_)] => return Ok(()),
            _ => "it takes a register of 8 bits or memory",
        },
        Mnemonic::Xchg => match operands {
            [Register(_), Register(_) | Memory(_)] | [Memory(_), Register(_)] => return Ok(()),
            _ => "it takes two registers, or a register and memory",
        },
        Mnemonic::Xadd | Mnemonic::Cmpxchg => match operands {
            [Register(_), Register(_) | Memory(_)] => return Ok(()),
            _ => "it takes a register and, as destination, a register or memory",
        },
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => match operands {
            [Immediate(0..64) | Register(_), Register(_) | Memory(_)] => return Ok(()),
            _ => "it takes the number of a bit, and a register or memory",
        },
        Mnemonic::Cmov(_) => match operands {
            [Register(_) | Memory(_), Register(_)] => return Ok(()),
            _ => "it takes a register or memory, and a register",
        },
        Mnemonic::Jump(_) => match operands {
            [Target(_)] => return Ok(()),
            _ => "it takes a label",
        },
        Mnemonic::Fence(_) | Mnemonic::Ret => match operands {
            [] => return Ok(()),
            _ => "it takes no operands",
        },
        Mnemonic::Nop => match operands {
            [] | [Register(_) | Memory(_)] => return Ok(()),
            _ => "it takes at most one register or memory",
        },
    };
    Err(right)
}
