//! `2..5`: from, to, both included.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// How many of something, at least and at most. As text `2..5`, or `4`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Range {
    first: u64,
    last: u64,
}

/// No race is larger.
const MOST: u64 = races::scope::MOST_CPUS as u64;

impl Range {
    /// One number.
    pub(crate) const fn only(number: u64) -> Self {
        Self { first: number, last: number }
    }

    /// The numbers in it.
    pub(crate) const fn numbers(self) -> RangeInclusive<u64> {
        self.first..=self.last
    }

    /// What a user wrote.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.parse::<u64>() {
            Ok(number @ 1..=MOST) => Ok(number),
            Ok(number) => Err(format!("{number} is out of range (from 1 to {MOST})")),
            Err(_) => Err("neither a number nor a range such as 2..5".to_owned()),
        };
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let range = Self { first: number(first)?, last: number(last.strip_prefix('=').unwrap_or(last))? };
        if range.first > range.last {
            return Err(format!("the range ends before it begins (did you mean {}..{}?)", range.last, range.first));
        }
        Ok(range)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}..{}", self.first, self.last),
        }
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// `3/24`: the third of 24 machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Job {
    number: usize,
    of: usize,
}

impl Job {
    /// What a user wrote.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            Some((number, of)) => Err(format!("there is no part {number} of {of}")),
            None => Err("not of the form 3/24".to_owned()),
        }
    }

    /// Whether the row of this number, from 1, is its.
    pub(crate) const fn has(self, row: usize) -> bool {
        row % self.of == self.number % self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_printed() {
        for text in ["2..5", "1", "64", "1..64"] {
            assert_eq!(Range::parse(text).map(|range| range.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Range::parse("2..=5"), Range::parse("2..5"));
        assert_eq!(Range::parse("2..2").map(|range| range.to_string()), Ok("2".to_owned()));
        for wrong in ["", "x", "5..2", "0..3", "2..", "..3", "2..65", "-1..2", "2..3..4", "2.5"] {
            assert!(Range::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn jobs_have_each_row_once() {
        for of in 1..6 {
            let jobs: Vec<Job> = (1..=of).map(|number| Job::parse(&format!("{number}/{of}")).expect("a job")).collect();
            assert!((1..20).all(|row| jobs.iter().filter(|job| job.has(row)).count() == 1), "{of}");
        }
        for wrong in ["", "3", "0/2", "3/2", "1/0", "a/b", "1/2/3"] {
            assert!(Job::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
