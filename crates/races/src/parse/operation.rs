//! The init block, the cells and the variants of files of operations. Any name goes: the tables of those who run them know
//! which exist.

use super::cursor::{Cursor, Result};
use crate::error::Problem;
use crate::source::Spanned;
use crate::syntax::{Argument, Expectation, Operation, Statement, Value, Variant};

const VALUE: &str = "a number or a name";

/// Up to and with the `}`.
pub(super) fn init(cursor: &mut Cursor<'_>) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    while !cursor.eat("}")? {
        if cursor.eat(";")? {
            continue;
        }
        statements.push(statement(cursor)?);
        cursor.expect(";", "`;` at the end of the statement")?;
    }
    Ok(statements)
}

fn statement(cursor: &mut Cursor<'_>) -> Result<Statement> {
    if cursor.key_comes()? {
        let key = cursor.word("a key")?;
        cursor.expect("=", "`=`")?;
        return Ok(Statement::Setting(Argument { key: Some(key), values: values(cursor, ",")? }));
    }
    let word = cursor.word("`key=value` or a declaration (`frame A = 0x1234;`), or `}`")?;
    let name = cursor.word("the name of what is declared")?;
    let mut given = Vec::new();
    if cursor.eat("=")? {
        given.push(cursor.value(VALUE)?);
        while cursor.eat(",")? || !(cursor.peek()? == Some(';') || cursor.key_comes()?) {
            given.push(cursor.value("a number, a name or `;`")?);
        }
    }
    let mut arguments = Vec::new();
    while !matches!(cursor.peek()?, Some(';' | '}') | None) {
        arguments.push(argument(cursor, ",")?);
    }
    Ok(Statement::Declaration { word, name, values: given, arguments })
}

fn argument(cursor: &mut Cursor<'_>, between: &str) -> Result<Argument> {
    if cursor.key_comes()? {
        let key = cursor.word("a key")?;
        cursor.expect("=", "`=`")?;
        return Ok(Argument { key: Some(key), values: values(cursor, between)? });
    }
    Ok(Argument { key: None, values: vec![cursor.value("`key=value`, a number, a name or `;`")?] })
}

fn values(cursor: &mut Cursor<'_>, between: &str) -> Result<Vec<Spanned<Value>>> {
    let mut values = vec![cursor.value(VALUE)?];
    while cursor.eat(between)? {
        values.push(cursor.value(VALUE)?);
    }
    Ok(values)
}

/// One cell; `None` if it is empty.
pub(super) fn operation(cursor: &mut Cursor<'_>) -> Result<Option<Operation>> {
    if matches!(cursor.peek()?, Some('|' | ';')) {
        return Ok(None);
    }
    let start = cursor.here()?;
    let mut word = cursor.word("an operation (`gup_fast(x)`), `|` or `;`")?;
    let mut result = None;
    if cursor.eat("=")? {
        result = Some(word);
        word = cursor.word("an operation after `=`")?;
    }
    cursor.expect("(", "`(` and the arguments of the operation")?;
    let mut arguments = Vec::new();
    while !cursor.eat(")")? {
        arguments.push(argument(cursor, "|")?);
        if !cursor.eat(",")? && cursor.peek()? != Some(')') {
            return cursor.unexpected("`,` or `)`");
        }
    }
    Ok(Some(Operation { result, word, arguments, span: cursor.since(start) }))
}

pub(super) fn variants(cursor: &mut Cursor<'_>) -> Result<Vec<Variant>> {
    let mut variants: Vec<Variant> = Vec::new();
    while cursor.peek_word()?.as_deref() == Some("variant") {
        cursor.word("`variant`")?;
        let variant = variant(cursor)?;
        if variants.iter().any(|earlier| earlier.name == variant.name) {
            let problem = Problem::Duplicate { what: "variant", name: variant.name.node };
            return cursor.error(variant.name.span, problem);
        }
        variants.push(variant);
    }
    Ok(variants)
}

fn variant(cursor: &mut Cursor<'_>) -> Result<Variant> {
    let name = cursor.word("the name of the variant")?;
    let mut choices: Vec<Argument> = Vec::new();
    if cursor.eat(":")? {
        while cursor.key_comes()? {
            choices.push(choice(cursor)?);
            if !cursor.eat(",")? {
                break;
            }
        }
    }
    cursor.expect("=>", "`key=value`, or `=>` and what is expected")?;
    let start = cursor.here()?;
    let expectation = expectation(cursor)?;
    let expectation = Spanned::new(expectation, cursor.since(start));
    Ok(Variant { name, choices, expectation, explanation: cursor.try_string()? })
}

/// `key=value[,value...]`: a comma before another `key=` is left where it is.
fn choice(cursor: &mut Cursor<'_>) -> Result<Argument> {
    let key = cursor.word("a key")?;
    cursor.expect("=", "`=`")?;
    let mut values = vec![cursor.value(VALUE)?];
    loop {
        let mut ahead = cursor.clone();
        if !ahead.eat(",")? || ahead.key_comes()? {
            return Ok(Argument { key: Some(key), values });
        }
        *cursor = ahead;
        values.push(cursor.value("another value, or `key=value`")?);
    }
}

fn expectation(cursor: &mut Cursor<'_>) -> Result<Expectation> {
    const EXPECTED: &str = "`safe`, `?` or the name of a rule";
    if cursor.eat("?")? {
        return Ok(Expectation::Undecided);
    }
    let first = cursor.word(EXPECTED)?;
    if first.node == "safe" {
        return Ok(Expectation::Safe);
    }
    let mut rules = vec![first];
    while cursor.eat("|")? {
        rules.push(cursor.word("the name of a rule")?);
    }
    Ok(Expectation::Breaks(rules))
}
