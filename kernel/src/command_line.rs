//! The command line.

use core::fmt;

/// What was asked for.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) load: &'static str,
    pub(crate) operations: u64,
    pub(crate) seed: u64,
    pub(crate) checks: u64,
}

/// A word that means nothing.
pub(crate) enum BadWord {
    Unknown(&'static str),
    NotANumber(&'static str),
}

impl fmt::Display for BadWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => {
                write!(f, "command line: {word} means nothing; there are load=, ops=, seed= and checks=")
            }
            Self::NotANumber(word) => write!(f, "command line: {word} needs a decimal number of at most 64 bits"),
        }
    }
}

impl Request {
    /// Reads it. Words without `=`, such as the name of the image, are left out.
    pub(crate) fn parse(text: &'static str) -> Result<Self, BadWord> {
        let mut request = Self { load: "none", operations: 100_000, seed: 1, checks: 200_000 };
        for word in text.split_ascii_whitespace() {
            let Some((name, value)) = word.split_once('=') else { continue };
            let number = || value.parse().map_err(|_| BadWord::NotANumber(word));
            match name {
                "load" => request.load = value,
                "ops" => request.operations = number()?,
                "seed" => request.seed = number()?,
                "checks" => request.checks = number()?,
                _ => return Err(BadWord::Unknown(word)),
            }
        }
        Ok(request)
    }
}
