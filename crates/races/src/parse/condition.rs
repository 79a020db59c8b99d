//! Final conditions. As in herd, `~` binds tightest, then `=>`, then `/\`, then `\/`.

use super::cursor::{Cursor, Result};
use crate::source::Spanned;
use crate::syntax::{Condition, Place, Proposition, Quantifier, Relation};

/// `exists p`, `~exists p` or `forall p`, if one of them comes next.
pub(super) fn condition(cursor: &mut Cursor<'_>) -> Result<Option<Condition>> {
    let start = cursor.here()?;
    let quantifier = match cursor.peek()? {
        Some('~') => {
            cursor.expect("~", "`~`")?;
            match cursor.peek_word()?.as_deref() {
                Some("exists") => cursor.word("`exists`")?,
                _ => return cursor.unexpected("`exists`"),
            };
            Quantifier::NotExists
        }
        _ => match cursor.peek_word()?.as_deref() {
            Some("exists") => {
                cursor.word("`exists`")?;
                Quantifier::Exists
            }
            Some("forall") => {
                cursor.word("`forall`")?;
                Quantifier::Forall
            }
            _ => return Ok(None),
        },
    };
    let quantifier = Spanned::new(quantifier, cursor.since(start));
    Ok(Some(Condition { quantifier, proposition: proposition(cursor)? }))
}

/// `locations [place; ...]`, if it comes next. A type after a place is read and means nothing.
pub(super) fn locations(cursor: &mut Cursor<'_>) -> Result<Vec<Spanned<Place>>> {
    let mut places = Vec::new();
    if cursor.peek_word()?.as_deref() != Some("locations") {
        return Ok(places);
    }
    cursor.word("`locations`")?;
    cursor.expect("[", "`[`")?;
    while !cursor.eat("]")? {
        places.push(place(cursor)?);
        cursor.try_word()?;
        cursor.eat("*")?;
        if !cursor.eat(";")? && cursor.peek()? != Some(']') {
            return cursor.unexpected("`;` or `]`");
        }
    }
    Ok(places)
}

/// `filter p`, if it comes next.
pub(super) fn filter(cursor: &mut Cursor<'_>) -> Result<Option<Proposition>> {
    if cursor.peek_word()?.as_deref() != Some("filter") {
        return Ok(None);
    }
    cursor.word("`filter`")?;
    proposition(cursor).map(Some)
}

fn proposition(cursor: &mut Cursor<'_>) -> Result<Proposition> {
    cursor.deeper(|cursor| chain(cursor, "\\/", conjunction, Proposition::Or))
}

fn conjunction(cursor: &mut Cursor<'_>) -> Result<Proposition> {
    chain(cursor, "/\\", implication, Proposition::And)
}

fn chain(
    cursor: &mut Cursor<'_>,
    sign: &str,
    part: fn(&mut Cursor<'_>) -> Result<Proposition>,
    join: fn(Vec<Proposition>) -> Proposition,
) -> Result<Proposition> {
    let first = part(cursor)?;
    if !cursor.eat(sign)? {
        return Ok(first);
    }
    let mut parts = vec![first, part(cursor)?];
    while cursor.eat(sign)? {
        parts.push(part(cursor)?);
    }
    Ok(join(parts))
}

fn implication(cursor: &mut Cursor<'_>) -> Result<Proposition> {
    let premise = negation(cursor)?;
    if !cursor.eat("=>")? {
        return Ok(premise);
    }
    let conclusion = cursor.deeper(implication)?;
    Ok(Proposition::Implies(Box::new(premise), Box::new(conclusion)))
}

fn negation(cursor: &mut Cursor<'_>) -> Result<Proposition> {
    let word = cursor.peek_word()?;
    if word.as_deref() == Some("not") {
        cursor.word("`not`")?;
    } else if !cursor.eat("~")? {
        return atom(cursor, word.as_deref());
    }
    cursor.deeper(|cursor| Ok(Proposition::Not(Box::new(negation(cursor)?))))
}

fn atom(cursor: &mut Cursor<'_>, word: Option<&str>) -> Result<Proposition> {
    match word {
        Some("true") => {
            cursor.word("`true`")?;
            return Ok(Proposition::True);
        }
        Some("false") => {
            cursor.word("`false`")?;
            return Ok(Proposition::False);
        }
        _ => {}
    }
    if cursor.eat("(")? {
        let inner = proposition(cursor)?;
        cursor.expect(")", "`)`, `/\\`, `\\/` or `=>`")?;
        return Ok(inner);
    }
    let place = place(cursor)?;
    let relation = if cursor.eat("!=")? || cursor.eat("<>")? {
        Relation::NotEqual
    } else if cursor.eat("==")? || cursor.eat("=")? {
        Relation::Equal
    } else {
        return cursor.unexpected("`=` or `!=`");
    };
    cursor.eat("&")?;
    let value = cursor.value("a number or a name")?;
    Ok(Proposition::Compare { place, relation, value })
}

/// `0:rax`, `P0:rax`, `x`, `[x]` or `t[1]`.
pub(super) fn place(cursor: &mut Cursor<'_>) -> Result<Spanned<Place>> {
    const EXPECTED: &str = "a variable (`x`) or a register (`0:rax`)";
    let start = cursor.here()?;
    if cursor.eat("[")? {
        let name = cursor.word("a variable")?.node;
        cursor.expect("]", "`]`")?;
        return Ok(Spanned::new(Place::Location(name), cursor.since(start)));
    }
    if cursor.at_number()? {
        let cpu = cursor.number(0, i128::from(u32::MAX), "the number of a CPU")?.node as u32;
        return register(cursor, start, cpu);
    }
    let name = cursor.word(EXPECTED)?.node;
    if cursor.peek()? == Some(':')
        && let Some(cpu) = name.strip_prefix(['P', 'p']).and_then(|number| number.parse().ok())
    {
        return register(cursor, start, cpu);
    }
    if cursor.eat("[")? {
        let index = cursor.number(0, i128::from(u64::MAX), "the number of an element")?.node as u64;
        cursor.expect("]", "`]`")?;
        return Ok(Spanned::new(Place::Element(name, index), cursor.since(start)));
    }
    Ok(Spanned::new(Place::Location(name), cursor.since(start)))
}

fn register(cursor: &mut Cursor<'_>, start: usize, cpu: u32) -> Result<Spanned<Place>> {
    cursor.expect(":", "`:` and a register")?;
    cursor.eat("%")?;
    let name = cursor.word("a register")?.node;
    Ok(Spanned::new(Place::Register { cpu, name }, cursor.since(start)))
}
