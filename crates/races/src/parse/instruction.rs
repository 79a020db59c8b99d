//! x86 instructions in both ways of writing them, and the init block of files that hold them.

use std::collections::BTreeSet;

use super::condition::place;
use super::cursor::{Cursor, LEAST, MOST, Result};
use crate::error::{Problem, closest};
use crate::source::{Span, Spanned};
use crate::syntax::{
    Dialect, Initial, InitialValue, Instruction, Jump, Label, Line, Lock, Memory, Mnemonic, Operand, Part, Register,
    Scalar, Test, Type, Width,
};

const VALUE: &str = "a number or the name of a variable";

/// Up to and with the `}`. The last statement needs no `;`.
pub(super) fn init(cursor: &mut Cursor<'_>) -> Result<Vec<Initial>> {
    let mut statements = Vec::new();
    while !cursor.eat("}")? {
        if cursor.eat(";")? {
            continue;
        }
        statements.push(initial(cursor)?);
        if !cursor.eat(";")? && cursor.peek()? != Some('}') {
            return cursor.unexpected("`;` or `}`");
        }
    }
    Ok(statements)
}

fn initial(cursor: &mut Cursor<'_>) -> Result<Initial> {
    let ty = declared_type(cursor)?;
    let place = place(cursor)?;
    let value = if !cursor.eat("=")? {
        InitialValue::Zero
    } else if cursor.eat("{")? {
        let mut values = vec![cursor.value(VALUE)?];
        while cursor.eat(",")? {
            values.push(cursor.value(VALUE)?);
        }
        cursor.expect("}", "`,` or `}`")?;
        InitialValue::Many(values)
    } else {
        cursor.eat("&")?;
        InitialValue::One(cursor.value(VALUE)?)
    };
    Ok(Initial { ty, place, value })
}

/// A type, if one comes next: a word that is followed by another word, a number, `*` or `[`-less place.
fn declared_type(cursor: &mut Cursor<'_>) -> Result<Option<Spanned<Type>>> {
    let mut ahead = cursor.clone();
    let Some(word) = ahead.try_word()? else { return Ok(None) };
    let scalar = Scalar::NAMES.iter().find(|(name, _)| *name == word.node).map(|(_, scalar)| *scalar);
    let another = ahead.peek()?.is_some_and(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | '*'));
    match (scalar, another || ahead.peek()? == Some('[')) {
        (Some(scalar), true) => {
            *cursor = ahead;
            let ty = if cursor.eat("*")? { Type::Pointer(scalar) } else { Type::Scalar(scalar) };
            Ok(Some(Spanned::new(ty, word.span)))
        }
        (None, _) if another => {
            let known = Scalar::NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
            cursor.error(word.span, Problem::Unknown { what: "type", found: word.node, known })
        }
        _ => Ok(None),
    }
}

/// One cell; `None` if it is empty.
pub(super) fn line(cursor: &mut Cursor<'_>, dialect: Dialect) -> Result<Option<Line>> {
    let mut labels = Vec::new();
    while cursor.word_then(":")? {
        labels.push(cursor.word("a label")?.map(Label));
        cursor.expect(":", "`:`")?;
    }
    let instruction = match cursor.peek()? {
        Some('|' | ';') => None,
        _ => Some(instruction(cursor, dialect)?),
    };
    Ok((!labels.is_empty() || instruction.is_some()).then_some(Line { labels, instruction }))
}

fn instruction(cursor: &mut Cursor<'_>, dialect: Dialect) -> Result<Spanned<Instruction>> {
    const EXPECTED: &str = "an instruction, `|` or `;`";
    let start = cursor.here()?;
    let mut word = cursor.word(EXPECTED)?;
    let mut lock = Lock::Plain;
    if word.node.eq_ignore_ascii_case("lock") {
        lock = Lock::Locked;
        // Herd also writes `lock; add ...`.
        cursor.eat(";")?;
        word = cursor.word("an instruction after `lock`")?;
    }
    let Some((mnemonic, width)) = mnemonic(&word.node) else {
        let known = known_instructions(&word.node);
        return cursor.error(word.span, Problem::Unknown { what: "instruction", found: word.node, known });
    };
    let mut operands = Vec::new();
    let alone = matches!(mnemonic, Mnemonic::Fence(_) | Mnemonic::Ret);
    if !alone && !matches!(cursor.peek()?, Some('|' | ';') | None) {
        operands.push(operand(cursor, dialect, mnemonic)?);
        while cursor.eat(",")? {
            operands.push(operand(cursor, dialect, mnemonic)?);
        }
        if !matches!(cursor.peek()?, Some('|' | ';') | None) {
            return cursor.unexpected("`,`, `|` or `;`");
        }
    }
    let in_memory = |operand: &Spanned<Operand>| matches!(operand.node, Operand::Memory(_));
    // Herd's X86_64 writes the destination of `cmpxchg` first, the assembler last. Only the destination can be in memory.
    let herd_order = mnemonic == Mnemonic::Cmpxchg && operands.first().is_some_and(in_memory);
    if dialect == Dialect::Intel || herd_order {
        operands.reverse();
    }
    let span = cursor.since(start);
    let instruction = Instruction { lock, mnemonic, width, operands };
    check(cursor, &instruction, span)?;
    Ok(Spanned::new(instruction, span))
}

/// The names to propose for one that does not exist: all spellings if one of them is near, else the plain names.
fn known_instructions(found: &str) -> Vec<String> {
    let plain = || Mnemonic::NAMES.iter().map(|(name, _)| (*name).to_owned());
    let suffixed = Mnemonic::NAMES
        .iter()
        .filter(|(_, mnemonic)| mnemonic.takes_suffix())
        .flat_map(|(name, _)| ["b", "w", "l", "q"].map(|suffix| format!("{name}{suffix}")));
    let jumps = Test::NAMES.iter().map(|(name, _)| format!("j{name}"));
    let all: Vec<String> = plain().chain(suffixed).chain(jumps).collect();
    if closest(found, &all).is_some() { all } else { plain().collect() }
}

fn mnemonic(word: &str) -> Option<(Mnemonic, Option<Width>)> {
    let word = word.to_ascii_lowercase();
    if let Some(exact) = whole_mnemonic(&word) {
        return Some((exact, None));
    }
    let letter = word.chars().next_back()?;
    let width = Width::from_suffix(letter)?;
    let mnemonic = whole_mnemonic(&word[..word.len() - 1])?;
    mnemonic.takes_suffix().then_some((mnemonic, Some(width)))
}

fn whole_mnemonic(word: &str) -> Option<Mnemonic> {
    let fixed = Mnemonic::NAMES.iter().find(|(name, _)| *name == word).map(|(_, mnemonic)| *mnemonic);
    let test = |prefix: &str| {
        let letters = word.strip_prefix(prefix)?;
        Test::NAMES.iter().find(|(name, _)| *name == letters).map(|(_, test)| *test)
    };
    fixed
        .or_else(|| test("cmov").map(Mnemonic::Cmov))
        .or_else(|| test("set").map(Mnemonic::Set))
        .or_else(|| test("j").map(|test| Mnemonic::Jump(Jump::If(test))))
}

fn operand(cursor: &mut Cursor<'_>, dialect: Dialect, mnemonic: Mnemonic) -> Result<Spanned<Operand>> {
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

/// Whether the instruction takes these operands, of these widths, and `lock`.
fn check(cursor: &Cursor<'_>, instruction: &Instruction, span: Span) -> Result<()> {
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

/// Labels are unique, and jumps go to labels of their own column.
pub(super) fn check_labels(cursor: &Cursor<'_>, columns: &[Vec<Line>]) -> Result<()> {
    for column in columns {
        let mut labels = BTreeSet::new();
        for label in column.iter().flat_map(|line| &line.labels) {
            if !labels.insert(&label.node.0) {
                return cursor.error(label.span, Problem::Duplicate { what: "label", name: label.node.0.clone() });
            }
        }
        let operands = column.iter().filter_map(|line| line.instruction.as_ref()).flat_map(|one| &one.node.operands);
        for operand in operands {
            if let Operand::Target(target) = &operand.node
                && !labels.contains(&target.0)
            {
                let known = labels.into_iter().cloned().collect();
                let problem = Problem::Unknown { what: "label of this CPU", found: target.0.clone(), known };
                return cursor.error(operand.span, problem);
            }
        }
    }
    Ok(())
}
