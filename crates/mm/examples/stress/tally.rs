//! How often each operation was done, and how often it was refused.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by operation.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<&'static str, Counts>);

#[derive(Clone, Copy, Default)]
struct Counts {
    done: u64,
    refused: u64,
}

/// What came of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// It was done.
    Done,
    /// It could not be done now: no frames, nothing there, pinned.
    Refused,
}

impl<T, E> From<&Result<T, E>> for Came {
    fn from(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Done } else { Self::Refused }
    }
}

impl Tally {
    pub(crate) fn count(&mut self, operation: &'static str, came: Came) {
        let counts = self.0.entry(operation).or_default();
        match came {
            Came::Done => counts.done += 1,
            Came::Refused => counts.refused += 1,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (operation, counts) in &other.0 {
            let sum = self.0.entry(operation).or_default();
            sum.done += counts.done;
            sum.refused += counts.refused;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:24} {:>12} {:>12}", "operation", "done", "refused")?;
        for (operation, Counts { done, refused }) in &self.0 {
            write!(f, "\n{operation:24} {done:>12} {refused:>12}")?;
        }
        Ok(())
    }
}
