//! What the exit code says.

use std::process::ExitCode;

use races::{VariantReport, Verdict};

/// How the program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Every verdict is what its file expects.
    AsExpected,
    /// A verdict is not what its file expects.
    Differs,
    /// A file, name or argument is wrong.
    BadInput,
    /// A limit ended a search before its answer.
    Bounded,
    /// Ctrl-C.
    Interrupted,
    /// Whoever read our output has stopped: as if by SIGPIPE.
    OutputClosed,
}

impl Exit {
    /// What a report contributes to the exit code.
    pub(crate) fn of(report: &VariantReport) -> Self {
        Self::of_verdict(report.verdict, report.as_expected)
    }

    /// The same of a verdict that the file expects, or does not.
    pub(crate) fn of_verdict(verdict: Verdict, as_expected: Option<bool>) -> Self {
        match (verdict, as_expected) {
            (Verdict::Error, _) => Self::BadInput,
            (_, Some(false)) => Self::Differs,
            (Verdict::Bounded, _) => Self::Bounded,
            (Verdict::Safe | Verdict::Violation, _) => Self::AsExpected,
        }
    }

    /// The one to end with: what makes the other answers doubtful goes first.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::AsExpected => 0,
            Self::Bounded => 1,
            Self::Differs => 2,
            Self::BadInput => 3,
            Self::Interrupted => 4,
            Self::OutputClosed => 5,
        };
        if rank(other) > rank(self) { other } else { self }
    }

    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::AsExpected => 0,
            Self::Differs => 1,
            Self::BadInput => 2,
            Self::Bounded => 3,
            Self::Interrupted => 128 + 2,
            Self::OutputClosed => 128 + 13,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn what_makes_other_answers_doubtful_goes_first() {
        let ranked =
            [Exit::AsExpected, Exit::Bounded, Exit::Differs, Exit::BadInput, Exit::Interrupted, Exit::OutputClosed];
        for (rank, exit) in ranked.into_iter().enumerate() {
            for lower in &ranked[..=rank] {
                assert_eq!((exit.and(*lower), lower.and(exit)), (exit, exit), "{lower:?} and {exit:?}");
            }
        }
    }

    #[test]
    fn codes_are_those_that_the_help_promises() {
        let codes = [Exit::AsExpected, Exit::Differs, Exit::BadInput, Exit::Bounded, Exit::Interrupted].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 130]);
    }
}
