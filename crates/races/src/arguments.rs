//! Reading the arguments of a statement or an operation, with errors that point at them.

use crate::error::{Error, Problem};
use crate::race::Race;
use crate::source::{Span, Spanned};
use crate::syntax::{Argument, Value, Variant};

/// The arguments of one statement or operation. Every one must be taken.
pub(crate) struct Arguments<'r> {
    race: &'r Race,
    /// What they belong to, and where it is.
    word: &'r Spanned<String>,
    rest: Vec<&'r Argument>,
    /// The names of what was asked for, for messages.
    known: Vec<&'static str>,
}

impl<'r> Arguments<'r> {
    pub(crate) fn new(race: &'r Race, word: &'r Spanned<String>, arguments: &'r [Argument]) -> Self {
        Self { race, word, rest: arguments.iter().collect(), known: Vec::new() }
    }

    /// Takes the next argument without a key that is not one of the flags asked for later.
    pub(crate) fn positional(&mut self, what: &'static str, right: &str) -> Result<&'r Spanned<Value>, Error> {
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
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<Span> {
        self.known.push(name);
        let index = self.rest.iter().position(|argument| {
            argument.key.is_none()
                && matches!(&argument.values[..], [value] if value.node == Value::Name(name.to_owned()))
        })?;
        Some(self.rest.remove(index).span())
    }

    /// Takes the one of these flags that is there, or the default.
    pub(crate) fn one_of<T: Copy>(&mut self, words: &[(&'static str, T)], default: T) -> T {
        let mut found = default;
        for (word, value) in words {
            if self.flag(word).is_some() {
                found = *value;
            }
        }
        found
    }

    /// Takes the values of a key, if it is there.
    pub(crate) fn key(&mut self, name: &'static str) -> Option<&'r [Spanned<Value>]> {
        self.known.push(name);
        let index = self.rest.iter().position(|argument| argument.key.as_ref().is_some_and(|key| key.node == name))?;
        Some(&self.rest.remove(index).values)
    }

    /// The same for a key that the file itself made up.
    pub(crate) fn values_of(&mut self, name: &str) -> Option<&'r [Spanned<Value>]> {
        let index = self.rest.iter().position(|argument| argument.key.as_ref().is_some_and(|key| key.node == name))?;
        Some(&self.rest.remove(index).values)
    }

    /// Takes the one value of a key, if it is there.
    pub(crate) fn one(&mut self, name: &'static str) -> Result<Option<&'r Spanned<Value>>, Error> {
        match self.key(name) {
            None => Ok(None),
            Some([value]) => Ok(Some(value)),
            Some(values) => Err(self.one_value(name, values)),
        }
    }

    /// Takes the number of a key, or the default.
    pub(crate) fn number(&mut self, name: &'static str, default: u64, most: u64) -> Result<u64, Error> {
        match self.key(name) {
            None => Ok(default),
            Some([value]) => self.in_range(value, most),
            Some(values) => Err(self.one_value(name, values)),
        }
    }

    /// Takes the named value of a key, or the default.
    pub(crate) fn named<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)], default: T) -> Result<T, Error> {
        match self.key(name) {
            None => Ok(default),
            Some([value]) => named(self.race, name, value, words),
            Some(values) => Err(self.one_value(name, values)),
        }
    }

    /// A value that must be a number from 0 to `most`.
    pub(crate) fn in_range(&self, value: &Spanned<Value>, most: u64) -> Result<u64, Error> {
        number(self.race, value, most)
    }

    /// Whether an operation runs under a variant: `in=v|w`.
    pub(crate) fn takes_part(&mut self, variant: Option<&Variant>) -> Result<bool, Error> {
        let race = self.race;
        let Some(names) = self.key("in") else { return Ok(true) };
        let variants = race.litmus.variants.iter().map(|variant| variant.name.node.as_str());
        let known: Vec<(&str, &str)> = variants.map(|name| (name, name)).collect();
        let mut takes_part = false;
        for name in names {
            let name = named(race, "variant", name, &known)?;
            takes_part |= variant.is_some_and(|variant| variant.name.node == name);
        }
        Ok(takes_part)
    }

    /// A value that must be a number from `least` to `most`.
    pub(crate) fn between(&self, value: &Spanned<Value>, least: u64, most: u64) -> Result<u64, Error> {
        match number(self.race, value, most)? {
            number if number >= least => Ok(number),
            _ => {
                let (found, least) = (value.node.to_string(), least.into());
                Err(self.error(value.span, Problem::NumberRange { found, least, most: most.into() }))
            }
        }
    }

    /// Whether there is an argument with this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.rest.iter().any(|argument| argument.key.as_ref().is_some_and(|found| found.node == key))
    }

    /// Whether every argument was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails if arguments are left that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Some(argument) = self.rest.first() else { return Ok(()) };
        let found = argument.key.as_ref().map_or_else(
            || argument.values.first().map(ToString::to_string).unwrap_or_default(),
            |key| format!("{key}="),
        );
        let known = self.known.iter().map(|&name| name.to_owned()).collect();
        Err(self.error(argument.span(), Problem::Unknown { what: "argument", found, known }))
    }

    pub(crate) fn error(&self, span: Span, problem: Problem) -> Error {
        Error::new(&self.race.source, span, problem)
    }

    fn one_value(&self, name: &str, values: &[Spanned<Value>]) -> Error {
        let span = values.last().map_or(self.word.span, |value| value.span);
        let problem = Problem::Unexpected { expected: format!("one value for `{name}`"), found: "several".to_owned() };
        self.error(span, problem)
    }
}

/// A value that must be a number from 0 to `most`.
pub(crate) fn number(race: &Race, value: &Spanned<Value>, most: u64) -> Result<u64, Error> {
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
pub(crate) fn named<T: Copy>(
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

/// The place of a name among those that exist.
pub(crate) fn find<'n>(
    race: &Race,
    what: &'static str,
    name: &str,
    span: Span,
    names: impl Iterator<Item = &'n String> + Clone,
) -> Result<usize, Error> {
    names.clone().position(|known| known == name).ok_or_else(|| {
        let problem = Problem::Unknown { what, found: name.to_owned(), known: names.cloned().collect() };
        Error::new(&race.source, span, problem)
    })
}

/// Fails if the name is taken.
pub(crate) fn unique<'n>(
    race: &Race,
    what: &'static str,
    name: &Spanned<String>,
    mut names: impl Iterator<Item = &'n String>,
) -> Result<(), Error> {
    if names.any(|known| *known == name.node) {
        return Err(Error::new(&race.source, name.span, Problem::Duplicate { what, name: name.node.clone() }));
    }
    Ok(())
}

/// A machine that cannot be, and what could.
pub(crate) fn impossible(race: &Race, span: Span, why: String, right: impl Into<String>) -> Error {
    Error::new(&race.source, span, Problem::Impossible { why, right: right.into() })
}
