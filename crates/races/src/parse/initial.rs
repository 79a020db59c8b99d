//! The init block of files of instructions.

use super::condition::place;
use super::cursor::{Cursor, Result};
use crate::error::Problem;
use crate::source::Spanned;
use crate::syntax::{Initial, InitialValue, Scalar, Type};

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
