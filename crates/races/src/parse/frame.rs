//! What all litmus files share: heading, quoted lines, info lines, the table of columns, variants, the final condition.

use super::cursor::{Cursor, Result, Words};
use super::{condition, initial, instruction, operation};
use crate::error::Problem;
use crate::source::{Span, Spanned};
use crate::syntax::{Body, Dialect, Litmus, Mode, Program, Script};

/// How many CPUs a file may name: as many as fit in one word.
const MAX_COLUMNS: usize = machine::CpuSet::CAPACITY as usize;
/// How many rows a table may have: far more than can be explored, few enough for every check to be quick.
const MAX_ROWS: usize = 1000;

pub(super) fn litmus(cursor: &mut Cursor<'_>) -> Result<Litmus> {
    let (mode, name) = heading(cursor)?;
    if mode.node.dialect().is_none() {
        cursor.read_words_as(Words::Dashed);
    }
    let mut quotes = Vec::new();
    let mut info = Vec::new();
    while cursor.peek()? != Some('{') {
        if let Some(quote) = cursor.try_string()? {
            quotes.push(quote);
        } else if cursor.word_then("=")? {
            let key = cursor.word("a key")?;
            cursor.expect("=", "`=`")?;
            info.push((key, cursor.rest_of_line()));
        } else {
            return cursor.unexpected("a quoted line, `Key=value`, or the init block `{ ... }`");
        }
    }
    let body = match mode.node.dialect() {
        Some(dialect) => instructions(cursor, dialect)?,
        None => operations(cursor)?,
    };
    let variants = match &body {
        Body::Instructions(_) => Vec::new(),
        Body::Operations(_) => operation::variants(cursor)?,
    };
    let locations = condition::locations(cursor)?;
    let filter = condition::filter(cursor)?;
    let condition = condition::condition(cursor)?;
    cursor.eat(";")?;
    if cursor.peek()?.is_some() {
        return cursor.unexpected("a condition or the end of the file");
    }
    Ok(Litmus { mode, name, quotes, info, body, variants, locations, filter, condition })
}

/// `MODE name`, as herd also `MODE name (name for print);`.
fn heading(cursor: &mut Cursor<'_>) -> Result<(Spanned<Mode>, Spanned<String>)> {
    cursor.here()?;
    let Some(word) = cursor.chunk(&['"', '{']) else {
        return cursor.unexpected("`MODE name` (as in `X86_64 SB`)");
    };
    let Some(mode) = Mode::ALL.into_iter().find(|mode| mode.name() == word.node) else {
        let known = Mode::ALL.map(|mode| mode.name().to_owned()).to_vec();
        return cursor.error(word.span, Problem::Unknown { what: "mode", found: word.node, known });
    };
    let Some(name) = cursor.chunk(&['"', '{', ';']) else {
        let right = format!("the first line is `{mode} name`");
        return cursor.error(word.span, Problem::Missing { what: "the name of the test".to_owned(), right });
    };
    if cursor.eat("(")? {
        cursor.word("the name for print")?;
        cursor.expect(")", "`)`")?;
    }
    cursor.eat(";")?;
    Ok((Spanned::new(mode, word.span), name))
}

fn instructions(cursor: &mut Cursor<'_>, dialect: Dialect) -> Result<Body> {
    cursor.expect("{", "the init block `{ ... }`")?;
    let init = initial::init(cursor)?;
    let cpus = columns(cursor)?;
    let columns = rows(cursor, &cpus, |cursor| instruction::line(cursor, dialect))?;
    instruction::check_labels(cursor, &columns)?;
    Ok(Body::Instructions(Program { init, columns }))
}

fn operations(cursor: &mut Cursor<'_>) -> Result<Body> {
    cursor.expect("{", "the init block `{ ... }`")?;
    let init = operation::init(cursor)?;
    let cpus = columns(cursor)?;
    let columns = rows(cursor, &cpus, operation::operation)?;
    Ok(Body::Operations(Script { init, columns }))
}

/// The heading of the table. For each column from left to right the number of its CPU.
fn columns(cursor: &mut Cursor<'_>) -> Result<Vec<usize>> {
    let mut cpus: Vec<Spanned<usize>> = Vec::new();
    cursor.eat(";")?;
    loop {
        let Some(word) = cursor.try_word()? else {
            return cursor.unexpected("the heading of a column (`P0`, `P1`, ...)");
        };
        let number = word.node.strip_prefix("CPU").or_else(|| word.node.strip_prefix('P'));
        let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else {
            let problem = Problem::Unexpected {
                expected: "the heading of a column (`P0`, `P1`, ...)".to_owned(),
                found: format!("`{}`", word.node),
            };
            return cursor.error(word.span, problem);
        };
        if cpus.iter().any(|cpu| cpu.node == number) {
            return cursor.error(word.span, Problem::Duplicate { what: "column", name: word.node });
        }
        cpus.push(Spanned::new(number, word.span));
        if cpus.len() > MAX_COLUMNS {
            let problem = Problem::Impossible {
                why: format!("more than {MAX_COLUMNS} columns"),
                right: format!("a machine has at most {MAX_COLUMNS} CPUs"),
            };
            return cursor.error(word.span, problem);
        }
        if !cursor.eat("|")? {
            break;
        }
    }
    cursor.expect(";", "`|` or `;` after the heading of a column")?;
    if let Some(gap) = cpus.iter().find(|cpu| cpu.node >= cpus.len()) {
        let problem = Problem::Impossible {
            why: format!("CPU {} in a table of {} columns", gap.node, cpus.len()),
            right: "number the CPUs from 0, without gaps".to_owned(),
        };
        return cursor.error(gap.span, problem);
    }
    Ok(cpus.into_iter().map(|cpu| cpu.node).collect())
}

/// The rows of the table. Cells that are empty leave nothing.
fn rows<'s, Cell>(
    cursor: &mut Cursor<'s>,
    cpus: &[usize],
    mut cell: impl FnMut(&mut Cursor<'s>) -> Result<Option<Cell>>,
) -> Result<Vec<Vec<Cell>>> {
    let mut columns: Vec<Vec<Cell>> = cpus.iter().map(|_| Vec::new()).collect();
    let mut count = 0;
    while !at_end_of_table(cursor)? {
        let start = cursor.here()?;
        count += 1;
        if count > MAX_ROWS {
            let problem = Problem::Impossible {
                why: format!("more than {MAX_ROWS} rows"),
                right: "a litmus test is small: the time to explore it grows exponentially with its length".to_owned(),
            };
            return cursor.error(cursor.since(start), problem);
        }
        let mut found = 0;
        loop {
            let content = cell(cursor)?;
            if let (Some(cpu), Some(content)) = (cpus.get(found), content) {
                columns[*cpu].push(content);
            }
            found += 1;
            if !cursor.eat("|")? {
                break;
            }
        }
        let row: Span = cursor.since(start);
        cursor.expect(";", "`|` or `;`")?;
        if found != cpus.len() {
            return cursor.error(row, Problem::RaggedRow { found, expected: cpus.len() });
        }
    }
    Ok(columns)
}

fn at_end_of_table(cursor: &mut Cursor<'_>) -> Result<bool> {
    Ok(match cursor.peek()? {
        None | Some('~') => true,
        Some(_) => {
            matches!(cursor.peek_word()?.as_deref(), Some("exists" | "forall" | "locations" | "filter" | "variant"))
        }
    })
}
