//! Where a member keeps its checkpoints.

use std::time::Duration;

use lab::{Checkpoint, Snapshot};

/// Keeps the checkpoints of one member of one search. All members write one of the same number at the same moment of the search; together these are one
/// checkpoint. What goes wrong is said in a sentence that names the file.
pub trait Keeper {
    /// How much time passes between two.
    fn every(&self) -> Duration;

    /// The numbers of those that are there; or why the search is not to begin.
    ///
    /// # Errors
    /// A sentence.
    fn present(&self) -> Result<Vec<u64>, String>;

    /// Reads one.
    ///
    /// # Errors
    /// A sentence.
    fn read(&self, number: u64) -> Result<Checkpoint, String>;

    /// Writes one.
    ///
    /// # Errors
    /// A sentence.
    fn write(&self, number: u64, snapshot: &Snapshot<'_>) -> Result<(), String>;

    /// Removes all but this one.
    fn keep_only(&self, number: Option<u64>);
}
