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
    let heads = columns(cursor, Handlers::None)?;
    let columns = by_cpu(&heads, rows(cursor, heads.len(), |cursor| instruction::line(cursor, dialect))?);
    instruction::check_labels(cursor, &columns)?;
    Ok(Body::Instructions(Program { init, columns }))
}

fn operations(cursor: &mut Cursor<'_>) -> Result<Body> {
    cursor.expect("{", "the init block `{ ... }`")?;
    let init = operation::init(cursor)?;
    let heads = columns(cursor, Handlers::Allowed)?;
    let mut cells = rows(cursor, heads.len(), operation::operation)?;
    let mut handler =
        |head| heads.iter().position(|found| *found == head).map(|place| std::mem::take(&mut cells[place]));
    let ipi = handler(Head::Ipi).unwrap_or_default();
    let nmi = handler(Head::Nmi).unwrap_or_default();
    Ok(Body::Operations(Script { init, columns: by_cpu(&heads, cells), ipi, nmi }))
}

/// What a column says: what a CPU does, or what all of them do when they are interrupted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    Cpu(usize),
    Ipi,
    Nmi,
}

/// Whether the table may have columns of handlers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handlers {
    None,
    Allowed,
}

/// The columns of CPUs, in the order of their numbers.
fn by_cpu<Cell>(heads: &[Head], cells: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    let numbered = heads.iter().zip(cells).filter_map(|(head, cells)| match head {
        Head::Cpu(number) => Some((*number, cells)),
        Head::Ipi | Head::Nmi => None,
    });
    let mut numbered: Vec<(usize, Vec<Cell>)> = numbered.collect();
    numbered.sort_by_key(|(number, _)| *number);
    numbered.into_iter().map(|(_, cells)| cells).collect()
}

/// The heading of the table, from left to right.
fn columns(cursor: &mut Cursor<'_>, handlers: Handlers) -> Result<Vec<Head>> {
    let mut heads: Vec<Spanned<Head>> = Vec::new();
    cursor.eat(";")?;
    loop {
        let Some(word) = cursor.try_word()? else {
            return cursor.unexpected("the heading of a column (`P0`, `P1`, ...)");
        };
        let number = word.node.strip_prefix("CPU").or_else(|| word.node.strip_prefix('P'));
        let cpu = number.and_then(|number| number.parse::<usize>().ok()).map(Head::Cpu);
        let handler = match word.node.as_str() {
            "IPI" => Some(Head::Ipi),
            "NMI" => Some(Head::Nmi),
            _ => None,
        };
        let Some(head) = cpu.or(handler.filter(|_| handlers == Handlers::Allowed)) else {
            let problem = Problem::Unexpected {
                expected: "the heading of a column (`P0`, `P1`, ...)".to_owned(),
                found: format!("`{}`", word.node),
            };
            return cursor.error(word.span, problem);
        };
        if heads.iter().any(|known| known.node == head) {
            return cursor.error(word.span, Problem::Duplicate { what: "column", name: word.node });
        }
        heads.push(Spanned::new(head, word.span));
        if heads.len() > MAX_COLUMNS {
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
    let cpus = heads.iter().filter(|head| matches!(head.node, Head::Cpu(_))).count();
    for head in &heads {
        if let Head::Cpu(number) = head.node
            && number >= cpus
        {
            let problem = Problem::Impossible {
                why: format!("CPU {number} in a table of {cpus} columns"),
                right: "number the CPUs from 0, without gaps".to_owned(),
            };
            return cursor.error(head.span, problem);
        }
    }
    if let Some(first) = heads.first().filter(|_| cpus == 0) {
        let problem = Problem::Missing { what: "the column of a CPU".to_owned(), right: "`P0`".to_owned() };
        return cursor.error(first.span, problem);
    }
    Ok(heads.into_iter().map(|head| head.node).collect())
}

/// The rows of the table. Cells that are empty leave nothing.
fn rows<'s, Cell>(
    cursor: &mut Cursor<'s>,
    width: usize,
    mut cell: impl FnMut(&mut Cursor<'s>) -> Result<Option<Cell>>,
) -> Result<Vec<Vec<Cell>>> {
    let mut columns: Vec<Vec<Cell>> = (0..width).map(|_| Vec::new()).collect();
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
            if let (Some(column), Some(content)) = (columns.get_mut(found), content) {
                column.push(content);
            }
            found += 1;
            if !cursor.eat("|")? {
                break;
            }
        }
        let row: Span = cursor.since(start);
        cursor.expect(";", "`|` or `;`")?;
        if found != width {
            return cursor.error(row, Problem::RaggedRow { found, expected: width });
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
