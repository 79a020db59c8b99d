//! Reading the arguments of a statement or an operation, with errors that point at them.

use crate::error::{Error, Problem};
use crate::race::Race;
use crate::source::{Span, Spanned};
use crate::syntax::{Argument, Value};

/// The arguments of one statement or operation. Every one must be taken.
pub(super) struct Arguments<'r> {
    race: &'r Race,
    /// What they belong to, and where it is.
    word: &'r Spanned<String>,
    rest: Vec<&'r Argument>,
    /// The names of what was asked for, for messages.
    known: Vec<&'static str>,
}

impl<'r> Arguments<'r> {
    pub(super) fn new(race: &'r Race, word: &'r Spanned<String>, arguments: &'r [Argument]) -> Self {
        Self { race, word, rest: arguments.iter().collect(), known: Vec::new() }
    }

    /// Takes the next argument without a key that is not one of the flags asked for later.
    pub(super) fn positional(&mut self, what: &'static str, right: &str) -> Result<&'r Spanned<Value>, Error> {
        self.known.push(what);
        let next = self.rest.iter().position(|argument| argument.key.is_none());
        match next.map(|index| self.rest.remove(index)).and_then(|argument| argument.values.first()) {
            Some(value) => Ok(value),
            None => {
                let problem =
                    Problem::Missing { what: format!("{what} of `{}`", self.word.node), right: right.to_owned() };
                Err(self.error(self.word.span, problem))
            }
        }
    }

    /// Takes the flag of this name, if it is there.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<Span> {
        self.known.push(name);
        let index = self.rest.iter().position(|argument| {
            argument.key.is_none()
                && matches!(&argument.values[..], [value] if value.node == Value::Name(name.to_owned()))
        })?;
        Some(self.rest.remove(index).span())
    }

    /// Takes the one of these flags that is there, or the default.
    pub(super) fn one_of<T: Copy>(&mut self, words: &[(&'static str, T)], default: T) -> T {
        let mut found = default;
        for (word, value) in words {
            if self.flag(word).is_some() {
                found = *value;
            }
        }
        found
    }

    /// Takes the values of a key, if it is there.
    pub(super) fn key(&mut self, name: &'static str) -> Option<&'r [Spanned<Value>]> {
        self.known.push(name);
        let index = self.rest.iter().position(|argument| argument.key.as_ref().is_some_and(|key| key.node == name))?;
        Some(&self.rest.remove(index).values)
    }

    /// Takes the one value of a key, if it is there.
    pub(super) fn one(&mut self, name: &'static str) -> Result<Option<&'r Spanned<Value>>, Error> {
        match self.key(name) {
            None => Ok(None),
            Some([value]) => Ok(Some(value)),
            Some(values) => Err(self.one_value(name, values)),
        }
    }

    /// Takes the number of a key, or the default.
    pub(super) fn number(&mut self, name: &'static str, default: u64, most: u64) -> Result<u64, Error> {
        match self.key(name) {
            None => Ok(default),
            Some([value]) => self.in_range(value, most),
            Some(values) => Err(self.one_value(name, values)),
        }
    }

    /// Takes the named value of a key, or the default.
    pub(super) fn named<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)], default: T) -> Result<T, Error> {
        match self.key(name) {
            None => Ok(default),
            Some([value]) => named(self.race, name, value, words),
            Some(values) => Err(self.one_value(name, values)),
        }
    }

    /// A value that must be a number from 0 to `most`.
    pub(super) fn in_range(&self, value: &Spanned<Value>, most: u64) -> Result<u64, Error> {
        number(self.race, value, most)
    }

    /// Fails if arguments are left that nobody asked for.
    pub(super) fn finish(self) -> Result<(), Error> {
        let Some(argument) = self.rest.first() else { return Ok(()) };
        let found = argument.key.as_ref().map_or_else(
            || argument.values.first().map(ToString::to_string).unwrap_or_default(),
            |key| format!("{key}="),
        );
        let known = self.known.iter().map(|&name| name.to_owned()).collect();
        Err(self.error(argument.span(), Problem::Unknown { what: "argument", found, known }))
    }

    pub(super) fn error(&self, span: Span, problem: Problem) -> Error {
        Error::new(&self.race.source, span, problem)
    }

    fn one_value(&self, name: &str, values: &[Spanned<Value>]) -> Error {
        let span = values.last().map_or(self.word.span, |value| value.span);
        let problem = Problem::Unexpected { expected: format!("one value for `{name}`"), found: "several".to_owned() };
        self.error(span, problem)
    }
}

/// A value that must be a number from 0 to `most`.
pub(super) fn number(race: &Race, value: &Spanned<Value>, most: u64) -> Result<u64, Error> {
    match &value.node {
        Value::Number(number) => match u64::try_from(*number) {
            Ok(number) if number <= most => Ok(number),
            _ => {
                let found = value.node.to_string();
                Err(Error::new(&race.source, value.span, Problem::NumberRange { found, least: 0, most: most.into() }))
            }
        },
        other => {
            let problem = Problem::Unexpected { expected: "a number".to_owned(), found: format!("`{other}`") };
            Err(Error::new(&race.source, value.span, problem))
        }
    }
}

/// A value that must be one of these words.
pub(super) fn named<T: Copy>(
    race: &Race,
    what: &'static str,
    value: &Spanned<Value>,
    words: &[(&str, T)],
) -> Result<T, Error> {
    let found = value.node.to_string();
    match words.iter().find(|(word, _)| *word == found) {
        Some((_, value)) => Ok(*value),
        None => {
            let known = words.iter().map(|(word, _)| (*word).to_owned()).collect();
            Err(Error::new(&race.source, value.span, Problem::Unknown { what, found, known }))
        }
    }
}
