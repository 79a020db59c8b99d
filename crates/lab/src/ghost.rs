//! What monitors remember lies among the state of the machine.

use crate::cells;
use crate::core::Core;
use crate::monitor::GhostWords;

/// One monitor's words.
pub(crate) struct View<'c, 'a> {
    pub(crate) core: &'c mut Core<'a>,
    pub(crate) first: usize,
}

impl View<'_, '_> {
    fn offset(&self, index: usize) -> usize {
        assert!(self.first + index < self.core.ghost_words, "the monitor remembers no word {index}");
        cells::ghost_cell(self.first + index)
    }
}

impl GhostWords for View<'_, '_> {
    fn get(&self, index: usize) -> u64 {
        self.core.get(self.offset(index), 8)
    }

    fn set(&mut self, index: usize, value: u64) {
        let offset = self.offset(index);
        self.core.set(offset, 8, value);
    }
}

/// The same, of a state that is over.
pub(crate) struct Copied(pub(crate) Vec<u64>);

impl GhostWords for Copied {
    fn get(&self, index: usize) -> u64 {
        self.0[index]
    }

    fn set(&mut self, index: usize, value: u64) {
        self.0[index] = value;
    }
}
