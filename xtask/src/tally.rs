//! How many checks of a step passed, and which failed for what reason.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed and were skipped. A step that is not made of tests counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// One thing that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Its name.
    pub(crate) what: String,
    /// The reason, or the first lines of it. May be empty.
    pub(crate) why: String,
}

/// The counts, and the failures among them by name. There may be fewer names than failures: not every tool says which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    pub(crate) failures: Vec<Failure>,
}

impl Tally {
    /// Counts one that passed.
    pub(crate) fn pass(&mut self) {
        self.counts += Counts::PASSED;
    }

    /// Counts one that could not be tried.
    pub(crate) fn skip(&mut self) {
        self.counts += Counts::SKIPPED;
    }

    /// Counts one that failed, and notes why.
    pub(crate) fn fail(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.counts += Counts::FAILED;
        self.failures.push(Failure { what: what.into(), why: why.into() });
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.counts += more.counts;
        self.failures.extend(more.failures);
    }
}
