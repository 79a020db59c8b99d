//! What it takes to do a run again: which choice was taken at each step, and what was known of words.
//!
//! As text: first the choices, `r0` for a step of the code of CPU0, `i` for an interrupt, `d` for a store that leaves its buffer, `b` for a broadcast that
//! arrives, `a` for an accessed flag set unasked; `r0.2` is the third possibility of several. Then a bar, and what was known of words: `16400+2:1w` says that
//! the two 4-byte units from number 16400 on were accessed by agent 1 only and written.

use std::fmt;
use std::str::FromStr;

use crate::choice::{Choice, Turn};
use crate::quiet::KnownUnits;

/// A run, as it can be done again by [`crate::Lab::replay`] on a lab that is built in the same way, in another process or on another machine.
///
/// Its text ([`ToString`], [`FromStr`]) fits into a test.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recording {
    pub(crate) choices: Vec<Choice>,
    /// Which accesses are steps depends on this (see `quiet.rs`).
    pub(crate) known: Vec<KnownUnits>,
}

impl Recording {
    /// How many steps the run has.
    pub fn len(&self) -> usize {
        self.choices.len()
    }

    /// Whether it ended before its first step.
    pub fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for choice in &self.choices {
            write!(f, "{choice} ")?;
        }
        f.write_str("|")?;
        self.known.iter().try_for_each(|known| write!(f, " {known}"))
    }
}

/// A text that is no [`Recording`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadRecording {
    /// The word that was not understood; empty if the bar is missing.
    pub word: String,
}

impl fmt::Display for BadRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.word.as_str() {
            "" => {
                f.write_str("the recording of a run has a bar between its steps and its words; this one has been cut")
            }
            word => write!(f, "`{word}` is no step, and no word, of the recording of a run"),
        }
    }
}

impl std::error::Error for BadRecording {}

impl FromStr for Recording {
    type Err = BadRecording;

    fn from_str(text: &str) -> Result<Self, BadRecording> {
        let (choices, known) = text.split_once('|').ok_or(BadRecording { word: String::new() })?;
        Ok(Self { choices: words(choices)?, known: words(known)? })
    }
}

fn words<T: FromStr>(text: &str) -> Result<Vec<T>, BadRecording> {
    text.split_ascii_whitespace().map(|word| word.parse().map_err(|_| BadRecording { word: word.to_owned() })).collect()
}

const LETTERS: [(Turn, char); 6] = [
    (Turn::Run, 'r'),
    (Turn::Interrupt, 'i'),
    (Turn::Drain, 'd'),
    (Turn::Arrive, 'b'),
    (Turn::Speculate, 'a'),
    (Turn::Move, 'm'),
];

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = LETTERS.iter().find(|(turn, _)| *turn == self.turn()).map_or('?', |(_, letter)| *letter);
        write!(f, "{letter}{}", self.cpu())?;
        match self.argument() {
            0 => Ok(()),
            argument => write!(f, ".{argument}"),
        }
    }
}

impl FromStr for Choice {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let first = word.chars().next().ok_or(())?;
        let (turn, letter) = LETTERS.iter().find(|(_, letter)| *letter == first).ok_or(())?;
        let (cpu, argument) = word[letter.len_utf8()..].split_once('.').unwrap_or((&word[letter.len_utf8()..], "0"));
        let (cpu, argument): (u8, u16) = (number(cpu)?, number(argument)?);
        Ok(Self::new(*turn, cpu.into(), argument.into()))
    }
}

impl fmt::Display for KnownUnits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}:{}{}", self.unit, self.units, self.accessor, if self.written { "w" } else { "" })
    }
}

impl FromStr for KnownUnits {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let (range, rest) = word.split_once(':').ok_or(())?;
        let (unit, units) = range.split_once('+').ok_or(())?;
        let (accessor, written) = rest.strip_suffix('w').map_or((rest, false), |accessor| (accessor, true));
        Ok(Self { unit: number(unit)?, units: number(units)?, accessor: number(accessor)?, written })
    }
}

/// A number as it is printed: `parse` alone would take a sign, and zeroes before it.
fn number<T: FromStr + ToString>(text: &str) -> Result<T, ()> {
    text.parse().ok().filter(|number: &T| number.to_string() == text).ok_or(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_survives_being_text() {
        let choices = vec![
            Choice::new(Turn::Run, 0, 0),
            Choice::new(Turn::Run, 15, 3),
            Choice::new(Turn::Interrupt, 1, 2),
            Choice::new(Turn::Drain, 2, 0),
            Choice::new(Turn::Arrive, 0, 1),
            Choice::new(Turn::Speculate, 1, 65535),
            Choice::new(Turn::Move, 0, 1),
        ];
        let known = vec![
            KnownUnits { unit: 16400, units: 2, accessor: 255, written: true },
            KnownUnits { unit: 16402, units: 1, accessor: 1, written: false },
        ];
        let recording = Recording { choices, known };
        let text = recording.to_string();
        assert_eq!(text, "r0 r15.3 i1.2 d2 b0.1 a1.65535 m0.1 | 16400+2:255w 16402+1:1");
        assert_eq!(text.parse(), Ok(recording));
        assert_eq!("|".parse(), Ok(Recording::default()));
    }

    #[test]
    fn what_is_no_recording_is_named() {
        for (text, word) in [
            ("r0 r1", ""),
            ("r0 x1 |", "x1"),
            ("r |", "r"),
            ("r0.-1 |", "r0.-1"),
            ("r+1 |", "r+1"),
            ("r256 |", "r256"),
            ("r0 | 1:1", "1:1"),
            ("| 1+1:1ww", "1+1:1ww"),
            ("é |", "é"),
        ] {
            assert_eq!(text.parse::<Recording>(), Err(BadRecording { word: word.to_owned() }), "{text}");
        }
    }
}
