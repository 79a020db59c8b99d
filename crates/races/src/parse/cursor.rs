//! A place in the text, and the small things that are read there: words, numbers, signs, comments.

use crate::error::{Error, Problem};
use crate::source::{Source, Span, Spanned};
use crate::syntax::Value;

/// The smallest number that a file may hold.
pub(super) const LEAST: i128 = i64::MIN as i128;
/// The largest.
pub(super) const MOST: i128 = u64::MAX as i128;
/// How deep parentheses, negations and implications may nest: deeper ones would overflow the stack of whoever walks them.
const MAX_DEPTH: usize = 100;
/// How much of an odd piece of text a message repeats, in characters.
const SHOWN: usize = 40;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// Reads a [`Source`] from front to back. Space and comments before a token are skipped.
#[derive(Clone)]
pub(super) struct Cursor<'s> {
    source: &'s Source,
    at: usize,
    words: Words,
    depth: usize,
}

/// What a word may look like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// Letters, digits, `_`, `.` and `$`.
    Plain,
    /// Also single dashes inside: `low-high-low`.
    Dashed,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(source: &'s Source) -> Self {
        Self { source, at: 0, words: Words::Plain, depth: 0 }
    }

    pub(super) fn read_words_as(&mut self, words: Words) {
        self.words = words;
    }

    fn rest(&self) -> &'s str {
        self.source.text().get(self.at..).unwrap_or("")
    }

    pub(super) fn error<T>(&self, span: Span, problem: Problem) -> Result<T> {
        Err(Error::new(self.source, span, problem))
    }

    /// Where the next token begins.
    pub(super) fn here(&mut self) -> Result<usize> {
        self.skip()?;
        Ok(self.at)
    }

    /// From `start` to where the last token ended.
    pub(super) fn since(&self, start: usize) -> Span {
        Span { start, end: self.at }
    }

    /// Skips space and comments.
    fn skip(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("(*") {
                return Ok(());
            }
            self.skip_comment()?;
        }
    }

    fn skip_comment(&mut self) -> Result<()> {
        let start = self.at;
        let mut open = 0_usize;
        let mut bytes = self.rest().as_bytes();
        while let [first, rest @ ..] = bytes {
            let step = match (first, rest.first()) {
                (b'(', Some(b'*')) => {
                    open += 1;
                    2
                }
                (b'*', Some(b')')) => {
                    open -= 1;
                    2
                }
                _ => 1,
            };
            bytes = &bytes[step..];
            self.at += step;
            if open == 0 {
                return Ok(());
            }
        }
        self.error(Span { start, end: start + 2 }, Problem::UnterminatedComment)
    }

    /// The next character after space and comments.
    pub(super) fn peek(&mut self) -> Result<Option<char>> {
        self.skip()?;
        Ok(self.rest().chars().next())
    }

    /// Whether `sign` comes next; if so, it is read.
    pub(super) fn eat(&mut self, sign: &str) -> Result<bool> {
        self.skip()?;
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        Ok(found)
    }

    /// Reads `sign`, or says that `expected` is missing.
    pub(super) fn expect(&mut self, sign: &str, expected: &str) -> Result<()> {
        if self.eat(sign)? { Ok(()) } else { self.unexpected(expected) }
    }

    /// The error that something other than `expected` comes next.
    pub(super) fn unexpected<T>(&mut self, expected: &str) -> Result<T> {
        self.skip()?;
        let rest = self.rest();
        let token = match rest.chars().next() {
            None => "",
            Some(first) if is_word_start(first) || first.is_ascii_digit() => {
                let end = rest.find(|c: char| !is_word_part(c)).unwrap_or(rest.len());
                &rest[..end]
            }
            Some(first) => &rest[..first.len_utf8()],
        };
        let found = if token.is_empty() { "the end of the file".to_owned() } else { format!("`{}`", shown(token)) };
        let span = Span { start: self.at, end: self.at + token.len() };
        self.error(span, Problem::Unexpected { expected: expected.to_owned(), found })
    }

    /// The next word, if one comes next.
    pub(super) fn try_word(&mut self) -> Result<Option<Spanned<String>>> {
        self.skip()?;
        let rest = self.rest();
        if !rest.starts_with(is_word_start) {
            return Ok(None);
        }
        let mut end = 0;
        for (offset, character) in rest.char_indices() {
            let dash = self.words == Words::Dashed
                && character == '-'
                && rest[offset + 1..].starts_with(|next: char| next.is_ascii_alphanumeric());
            if !is_word_part(character) && !dash {
                break;
            }
            end = offset + character.len_utf8();
        }
        let start = self.at;
        self.at += end;
        Ok(Some(Spanned::new(rest[..end].to_owned(), self.since(start))))
    }

    /// The next word, or the error that `expected` is missing.
    pub(super) fn word(&mut self, expected: &str) -> Result<Spanned<String>> {
        match self.try_word()? {
            Some(word) => Ok(word),
            None => self.unexpected(expected),
        }
    }

    /// The next word, without reading it.
    pub(super) fn peek_word(&self) -> Result<Option<String>> {
        Ok(self.clone().try_word()?.map(|word| word.node))
    }

    /// Whether a word and then `sign` come next.
    pub(super) fn word_then(&self, sign: &str) -> Result<bool> {
        let mut ahead = self.clone();
        Ok(ahead.try_word()?.is_some() && ahead.eat(sign)?)
    }

    /// Whether `key=` comes next, not `name =>`.
    pub(super) fn key_comes(&self) -> Result<bool> {
        Ok(self.word_then("=")? && !self.word_then("=>")?)
    }

    /// Whether a number comes next.
    pub(super) fn at_number(&mut self) -> Result<bool> {
        self.skip()?;
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        Ok(digits.starts_with(|first: char| first.is_ascii_digit()))
    }

    /// The next number: decimal or `0x...`, with `_` between digits, from `least` to `most`.
    pub(super) fn number(&mut self, least: i128, most: i128, expected: &str) -> Result<Spanned<i128>> {
        if !self.at_number()? {
            return self.unexpected(expected);
        }
        let rest = self.rest();
        let (sign, digits) = match rest.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, rest),
        };
        let length = digits.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(digits.len());
        let written = &digits[..length];
        let start = self.at;
        self.at += rest.len() - digits.len() + length;
        let span = self.since(start);
        let clean = written.replace('_', "").to_ascii_lowercase();
        let (radix, figures) = match clean.strip_prefix("0x") {
            Some(figures) => (16, figures),
            None => (10, clean.as_str()),
        };
        if figures.is_empty() || !figures.chars().all(|figure| figure.is_digit(radix)) {
            let problem = Problem::Unexpected { expected: expected.to_owned(), found: format!("`{}`", shown(written)) };
            return self.error(span, problem);
        }
        match i128::from_str_radix(figures, radix).map(|size| sign * size) {
            Ok(number) if (least..=most).contains(&number) => Ok(Spanned::new(number, span)),
            _ => self.error(span, Problem::NumberRange { found: shown(&rest[..span.end - start]), least, most }),
        }
    }

    /// A number, a name, or a name and an offset.
    pub(super) fn value(&mut self, expected: &str) -> Result<Spanned<Value>> {
        if self.at_number()? {
            return Ok(self.number(LEAST, MOST, expected)?.map(Value::Number));
        }
        let start = self.here()?;
        let name = self.word(expected)?.node;
        if self.peek()? == Some('+') && self.eat("+")? {
            let offset = self.number(0, MOST, "a number of bytes")?.node;
            return Ok(Spanned::new(Value::Offset(name, offset), self.since(start)));
        }
        Ok(Spanned::new(Value::Name(name), self.since(start)))
    }

    /// A text in double quotes, if one comes next.
    pub(super) fn try_string(&mut self) -> Result<Option<String>> {
        if !self.eat("\"")? {
            return Ok(None);
        }
        let start = self.at - 1;
        let Some(length) = self.rest().find('"') else {
            return self.error(Span { start, end: start + 1 }, Problem::UnterminatedString);
        };
        let text = self.rest()[..length].to_owned();
        self.at += length + 1;
        Ok(Some(text))
    }

    /// What stands between here and the end of the line, without space around it.
    pub(super) fn rest_of_line(&mut self) -> Spanned<String> {
        let line = self.rest().split('\n').next().unwrap_or("");
        let text = line.trim();
        let start = self.at + (line.len() - line.trim_start().len()).min(line.len());
        self.at += line.len();
        Spanned::new(text.to_owned(), Span { start, end: start + text.len() })
    }

    /// The characters up to the next space or one of `ends`; `None` if there are none before the end of the line.
    pub(super) fn chunk(&mut self, ends: &[char]) -> Option<Spanned<String>> {
        let rest = self.rest();
        let start = self.at + (rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len());
        let text = self.source.text().get(start..).unwrap_or("");
        let length = text.find(|c: char| c.is_whitespace() || ends.contains(&c)).unwrap_or(text.len());
        if length == 0 {
            return None;
        }
        self.at = start + length;
        Some(Spanned::new(text[..length].to_owned(), self.since(start)))
    }

    /// Runs `read` one level deeper.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return self.error(Span { start: self.at, end: self.at }, Problem::TooDeep { limit: MAX_DEPTH });
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }
}

fn is_word_start(character: char) -> bool {
    character.is_ascii_alphabetic() || matches!(character, '_' | '.')
}

fn is_word_part(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '$')
}

/// `text`, shortened if it is long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
