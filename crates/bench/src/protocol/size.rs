//! How large the protocol is, and how large its graph must be.

use std::fmt;
use std::str::FromStr;

/// How large the protocol is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    pub(crate) readers: usize,
    pub(crate) entries: usize,
    pub(crate) faulters: usize,
}

impl Size {
    pub(crate) const fn new(readers: usize, entries: usize, faulters: usize) -> Self {
        Self { readers, entries, faulters }
    }
}

/// `3,3,2`
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.readers, self.entries, self.faulters)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<usize> = text.split(',').filter_map(|number| number.parse().ok()).collect();
        match numbers[..] {
            [readers, entries, faulters] => Ok(Self { readers, entries, faulters }),
            _ => Err(format!("{text} is not READERS,ENTRIES,FAULTERS")),
        }
    }
}

/// Whether states that differ only in which reader, or which faulter, does what are one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cpus {
    Named,
    Interchangeable,
}

/// A size that is explored, and what must come out.
pub(crate) struct Case {
    pub(crate) workload: &'static str,
    pub(crate) size: Size,
    /// How often everybody explores it.
    pub(crate) rounds: usize,
    pub(crate) states: u64,
    transitions: u64,
    /// How many states are left when CPUs are interchangeable. How many transitions is up to the checker: it depends on which state stands for its kind.
    orbits: u64,
}

/// What CI explores.
pub(crate) const QUICK: Case = Case {
    workload: "protocol, 3 readers, 3 entries, 2 faulters",
    size: Size::new(3, 3, 2),
    rounds: 1,
    states: 443_768,
    transitions: 1_782_581,
    orbits: 57_601,
};

/// All sizes. Where the numbers are from: SPIN 6.5.2, TLC, Stateright 0.31 and Rumur 2022.08 counted 443,768 and 5,041,490 states before this suite was there, and
/// the latter two and a prototype the rest; the transitions are those that they generate, without the one into the first state. The numbers with interchangeable CPUs are Rumur's
/// with scalarsets.
pub(crate) const ALL: [Case; 4] = [
    Case { rounds: 3, ..QUICK },
    Case {
        workload: "protocol, 4 readers, 3 entries, 2 faulters",
        size: Size::new(4, 3, 2),
        rounds: 2,
        states: 5_041_490,
        transitions: 24_830_758,
        orbits: 206_672,
    },
    Case {
        workload: "protocol, 4 readers, 4 entries, 2 faulters",
        size: Size::new(4, 4, 2),
        rounds: 1,
        states: 31_787_168,
        transitions: 157_834_272,
        orbits: 1_139_342,
    },
    Case {
        workload: "protocol, 5 readers, 3 entries, 2 faulters",
        size: Size::new(5, 3, 2),
        rounds: 1,
        states: 63_323_312,
        transitions: 368_778_399,
        orbits: 674_640,
    },
];

/// A graph, as a checker counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Graph {
    pub(crate) states: u64,
    /// Without the one into the first state.
    pub(crate) transitions: u64,
}

/// How much of a count a checker prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Digits {
    All,
    /// The first eight, rounded.
    Eight,
}

impl Digits {
    fn agree(self, counted: u64, expected: u64) -> bool {
        match self {
            Self::All => counted == expected,
            Self::Eight => counted.abs_diff(expected) < 10_u64.pow(expected.max(1).ilog10().saturating_sub(7)).max(1),
        }
    }
}

impl Case {
    /// Whether these are the numbers that must come out.
    pub(crate) fn is_as_expected(&self, cpus: Cpus, graph: Graph, digits: Digits) -> bool {
        match cpus {
            Cpus::Named => digits.agree(graph.states, self.states) && digits.agree(graph.transitions, self.transitions),
            Cpus::Interchangeable => digits.agree(graph.states, self.orbits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_digits_are_compared_where_no_more_are_printed() {
        let [_, _, middle, _] = &ALL;
        let printed = |transitions| Graph { states: middle.states, transitions };
        let agrees = |transitions, digits| middle.is_as_expected(Cpus::Named, printed(transitions), digits);
        assert!(agrees(157_834_272, Digits::All));
        // SPIN counts the step into the first state, rounds, and has that step taken off again.
        assert!(agrees(157_834_269, Digits::Eight));
        assert!(!agrees(157_834_269, Digits::All));
        assert!(!agrees(157_834_259, Digits::Eight));
        assert!(!QUICK.is_as_expected(Cpus::Named, Graph { states: 443_767, transitions: 1_782_581 }, Digits::Eight));
    }
}
