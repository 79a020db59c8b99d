//! The cells of files of instructions.

use std::collections::BTreeSet;

use super::cursor::{Cursor, Result};
use super::operand::operand;
use super::shape::check;
use crate::error::{Problem, closest};
use crate::source::Spanned;
use crate::syntax::{Dialect, Instruction, Jump, Label, Line, Lock, Mnemonic, Operand, Test, Width};

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
