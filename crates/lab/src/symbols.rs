//! Names of places, for people.

use crate::arena::Arena;
use crate::lab::Format;
use crate::trace::Value;

struct Symbol<'a> {
    start: usize,
    bytes: usize,
    name: String,
    format: Option<Format<'a>>,
}

/// Names of ranges of the arena.
pub(crate) struct Symbols<'a> {
    arena: &'a Arena,
    /// Sorted by start; later ones of the same start are more particular.
    symbols: Vec<Symbol<'a>>,
}

impl<'a> Symbols<'a> {
    pub(crate) fn new(arena: &'a Arena) -> Self {
        Self { arena, symbols: Vec::new() }
    }

    pub(crate) fn add(&mut self, offset: usize, bytes: usize, name: String, format: Option<Format<'a>>) {
        let at = self.symbols.partition_point(|symbol| symbol.start <= offset);
        self.symbols.insert(at, Symbol { start: offset, bytes, name, format });
    }

    /// The smallest named range around a word. Halves of a word may have names, and formatters, of their own.
    fn find(&self, offset: usize, bytes: usize) -> Option<&Symbol<'a>> {
        self.symbols
            .iter()
            .filter(|symbol| symbol.start <= offset && offset + bytes <= symbol.start + symbol.bytes)
            .min_by_key(|symbol| symbol.bytes)
    }

    /// The word around this one that has a name of its own, or else this one: halves are shown as what they are halves of.
    pub(crate) fn whole(&self, offset: usize, bytes: usize) -> (usize, usize) {
        match self.find(offset & !7, 8) {
            Some(symbol) if bytes == 4 && symbol.bytes == 8 => (symbol.start, symbol.bytes),
            _ => (offset, bytes),
        }
    }

    /// Whether the word has a name, of its own or as part of something larger.
    pub(crate) fn has_name(&self, offset: usize, bytes: usize) -> bool {
        self.find(offset, bytes).is_some()
    }

    /// The name of the word of 8 bytes here, if it is not only part of something larger.
    pub(crate) fn name_of_word(&self, offset: usize) -> Option<&str> {
        self.find(offset, 8).filter(|symbol| symbol.bytes == 8).map(|symbol| symbol.name.as_str())
    }

    /// The name of a word.
    pub(crate) fn place(&self, offset: usize, bytes: usize) -> String {
        let half = |wide: bool| match (bytes, wide, offset % 8) {
            (4, true, 0) => ".low",
            (4, true, _) => ".high",
            _ => "",
        };
        if let Some(symbol) = self.find(offset, bytes) {
            let index = (offset - symbol.start) / 8;
            return if symbol.bytes <= 8 {
                format!("{}{}", symbol.name, half(symbol.bytes == 8))
            } else {
                format!("{}[{index}]{}", symbol.name, half(true))
            };
        }
        let block =
            self.arena.blocks().iter().find(|block| block.words.is_some_and(|at| (at..at + 4096).contains(&offset)));
        match block.and_then(|block| Some((block.first, block.words?))) {
            Some((frame, words)) => format!("frame {frame}[{}]{}", (offset - words) / 8, half(true)),
            None => format!("word at {:#x}", offset - crate::arena::MACHINE_BYTES),
        }
    }

    /// A value of a word, in hexadecimal and, if its range has a formatter, in words.
    pub(crate) fn value(&self, offset: usize, bytes: usize, bits: u64) -> Value {
        let words = match self.find(offset, bytes) {
            Some(Symbol { format: Some(format), bytes: named, .. }) if bytes == 8 || *named == bytes => {
                Some(format(bits))
            }
            _ => None,
        };
        Value { bits, bytes: bytes as u8, words }
    }
}
