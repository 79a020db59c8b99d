//! A folio that nobody can take a reference to.

use machine::Cpu;

use crate::folio::Folio;

impl Folio<'_> {
    /// Makes the reference count 0 if it is `expected`, all of which are the caller's to dispose of. Nobody can take a reference then, and nobody has
    /// one.
    ///
    /// A full barrier.
    ///
    /// # Errors
    /// How many references there are. Nothing has changed.
    pub(super) fn freeze<C: Cpu>(&self, cpu: &C, expected: u32) -> Result<(), u32> {
        cpu.compare_exchange(self.head_page().refcount_word(), expected, 0).map(|_| ())
    }

    /// Ends [`Self::freeze`]: the folio has these references again.
    pub(super) fn unfreeze<C: Cpu>(&self, cpu: &C, references: u32) {
        cpu.store(self.head_page().refcount_word(), references);
    }

    /// One reference more, for a caller that has one.
    pub(crate) fn get_held<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(self.head_page().refcount_word(), 1);
    }
}
