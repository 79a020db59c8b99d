//! Operands of x86 instructions, in both ways of writing them.

use super::cursor::{Cursor, LEAST, MOST, Result};
use crate::error::Problem;
use crate::source::Spanned;
use crate::syntax::{Dialect, Label, Memory, Mnemonic, Operand, Part, Register};

pub(super) fn operand(cursor: &mut Cursor<'_>, dialect: Dialect, mnemonic: Mnemonic) -> Result<Spanned<Operand>> {
    const EXPECTED: &str = "an operand (a register, `$1`, memory as in `(x)`)";
    let start = cursor.here()?;
    let operand = match cursor.peek()? {
        Some('%') => {
            cursor.expect("%", "`%`")?;
            Operand::Register(register(cursor)?)
        }
        Some('$') => {
            cursor.expect("$", "`$`")?;
            if cursor.at_number()? {
                Operand::Immediate(cursor.number(LEAST, MOST, "a number")?.node)
            } else {
                Operand::Address(cursor.word("a number or a variable after `$`")?.node)
            }
        }
        Some('[') if dialect == Dialect::Intel => Operand::Memory(intel_memory(cursor)?),
        Some('[' | '(') => Operand::Memory(att_memory(cursor)?),
        _ if cursor.at_number()? => {
            let number = cursor.number(LEAST, MOST, EXPECTED)?;
            match cursor.peek()? {
                Some('(' | '[') => {
                    let mut memory = att_memory(cursor)?;
                    memory.displacement = displacement(cursor, memory.displacement, &number)?;
                    Operand::Memory(memory)
                }
                _ => Operand::Immediate(number.node),
            }
        }
        _ => {
            let word = cursor.word(EXPECTED)?;
            match (mnemonic, dialect, Register::named(&word.node)) {
                (Mnemonic::Jump(_), ..) => Operand::Target(Label(word.node)),
                (_, Dialect::Intel, Some(register)) => Operand::Register(register),
                _ => Operand::Memory(symbol(cursor, word)?),
            }
        }
    };
    Ok(Spanned::new(operand, cursor.since(start)))
}

fn register(cursor: &mut Cursor<'_>) -> Result<Register> {
    let word = cursor.word("a register")?;
    match Register::named(&word.node) {
        Some(register) => Ok(register),
        None => {
            cursor.error(word.span, Problem::Unknown { what: "register", found: word.node, known: Register::names() })
        }
    }
}

/// `sum + number`, if it fits.
fn displacement(cursor: &Cursor<'_>, sum: i64, number: &Spanned<i128>) -> Result<i64> {
    let (least, most) = (i128::from(i32::MIN), i128::from(i32::MAX));
    let total = i128::from(sum) + number.node;
    match i32::try_from(total) {
        Ok(total) => Ok(i64::from(total)),
        Err(_) => cursor.error(number.span, Problem::NumberRange { found: total.to_string(), least, most }),
    }
}

/// `+4` or `-4`, if one comes next.
fn signed_offset(cursor: &mut Cursor<'_>, sum: i64) -> Result<Option<i64>> {
    if cursor.eat("+")? {
        let number = cursor.number(LEAST, MOST, "a number of bytes")?;
        return displacement(cursor, sum, &number).map(Some);
    }
    if cursor.peek()? == Some('-') {
        let number = cursor.number(LEAST, MOST, "a number of bytes")?;
        return displacement(cursor, sum, &number).map(Some);
    }
    Ok(None)
}

/// What follows a bare variable: `x`, `x+4`, `x(%rip)`, `x+4(%rax)`.
fn symbol(cursor: &mut Cursor<'_>, name: Spanned<String>) -> Result<Memory> {
    let mut memory = Memory::default();
    while let Some(sum) = signed_offset(cursor, memory.displacement)? {
        memory.displacement = sum;
    }
    if cursor.eat("(")? {
        // `x(%rip)` is how position-independent code writes `x`.
        let mut ahead = cursor.clone();
        if ahead.eat("%")? && ahead.try_word()?.is_some_and(|word| word.node.eq_ignore_ascii_case("rip")) {
            *cursor = ahead;
            cursor.expect(")", "`)`")?;
        } else {
            registers(cursor, &mut memory, ")")?;
        }
    }
    memory.symbol = Some(name);
    Ok(memory)
}

/// `(x)`, `(x+4)`, `(%rax)`, `(%rax,%rbx,8)`; `[` and `]` do as well.
fn att_memory(cursor: &mut Cursor<'_>) -> Result<Memory> {
    let mut memory = Memory::default();
    let close = if cursor.eat("[")? { "]" } else { ")" };
    if close == ")" {
        cursor.expect("(", "`(`")?;
    }
    if matches!(cursor.peek()?, Some('%' | ',')) {
        registers(cursor, &mut memory, close)?;
        return Ok(memory);
    }
    memory.symbol = Some(cursor.word("a variable or a register")?);
    while let Some(sum) = signed_offset(cursor, memory.displacement)? {
        memory.displacement = sum;
    }
    cursor.expect(close, if close == ")" { "`)`" } else { "`]`" })?;
    Ok(memory)
}

/// `%rax,%rbx,8` and what closes it.
fn registers(cursor: &mut Cursor<'_>, memory: &mut Memory, close: &str) -> Result<()> {
    if cursor.eat("%")? {
        memory.base = Some(address_register(cursor)?);
    }
    if cursor.eat(",")? {
        cursor.expect("%", "a register")?;
        let index = address_register(cursor)?;
        let mut factor = 1;
        if cursor.eat(",")? {
            factor = scale(cursor)?;
        }
        memory.index = Some((index, factor));
    }
    cursor.expect(close, if close == ")" { "`)`" } else { "`]`" })
}

fn address_register(cursor: &mut Cursor<'_>) -> Result<Register> {
    let start = cursor.here()?;
    let register = register(cursor)?;
    if matches!(register.part, Part::Quad | Part::Long) {
        return Ok(register);
    }
    let right = "addresses are in registers of 32 or 64 bits".to_owned();
    cursor.error(
        cursor.since(start),
        Problem::Value { what: "an address".to_owned(), found: register.to_string(), right },
    )
}

fn scale(cursor: &mut Cursor<'_>) -> Result<u8> {
    let number = cursor.number(LEAST, MOST, "1, 2, 4 or 8")?;
    match number.node {
        scale @ (1 | 2 | 4 | 8) => Ok(scale as u8),
        other => {
            let problem = Problem::Value {
                what: "the factor of an index".to_owned(),
                found: other.to_string(),
                right: "1, 2, 4 or 8".to_owned(),
            };
            cursor.error(number.span, problem)
        }
    }
}

/// `[x]`, `[x+4]`, `[eax]`, `[eax+ebx*4+8]`.
fn intel_memory(cursor: &mut Cursor<'_>) -> Result<Memory> {
    let mut memory = Memory::default();
    cursor.expect("[", "`[`")?;
    loop {
        let word = cursor.word("a variable or a register")?;
        match Register::named(&word.node) {
            Some(_) if cursor.eat("*")? => {
                let factor = scale(cursor)?;
                take_once(
                    cursor,
                    &mut memory.index,
                    index_register(cursor, &word)?.map(|index| (index, factor)),
                    &word,
                )?;
            }
            Some(register) if memory.base.is_some() => {
                take_once(cursor, &mut memory.index, Some((register, 1)), &word)?;
            }
            Some(_) => memory.base = index_register(cursor, &word)?,
            None => take_once(cursor, &mut memory.symbol, Some(word.clone()), &word)?,
        }
        loop {
            let mut ahead = cursor.clone();
            if ahead.eat("+")? && !ahead.at_number()? {
                break;
            }
            match signed_offset(cursor, memory.displacement)? {
                Some(sum) => memory.displacement = sum,
                None => break,
            }
        }
        if !cursor.eat("+")? {
            break;
        }
    }
    cursor.expect("]", "`+` or `]`")?;
    Ok(memory)
}

fn index_register(cursor: &Cursor<'_>, word: &Spanned<String>) -> Result<Option<Register>> {
    match Register::named(&word.node) {
        Some(register) if matches!(register.part, Part::Quad | Part::Long) => Ok(Some(register)),
        _ => {
            let right = "addresses are in registers of 32 or 64 bits".to_owned();
            let problem = Problem::Value { what: "an address".to_owned(), found: word.node.clone(), right };
            cursor.error(word.span, problem)
        }
    }
}

fn take_once<T>(cursor: &Cursor<'_>, place: &mut Option<T>, value: Option<T>, word: &Spanned<String>) -> Result<()> {
    if place.is_some() {
        let what = "part of an address";
        return cursor.error(word.span, Problem::Duplicate { what, name: word.node.clone() });
    }
    *place = value;
    Ok(())
}
