//! Contestants that are libraries explore in a process of their own: this program again, with a job.

use std::env;
use std::io;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use super::executions::{Covered, Order, by_loom, by_shuttle};
use super::program;
use super::size::{Cpus, Graph, Size};
use super::states;

/// A library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Library {
    Lab(Cpus),
    Stateright,
    Loom,
    Shuttle(Order),
}

const NAMES: [(&str, Library); 6] = [
    ("lab", Library::Lab(Cpus::Named)),
    ("lab-interchangeable", Library::Lab(Cpus::Interchangeable)),
    ("stateright", Library::Stateright),
    ("loom", Library::Loom),
    ("shuttle-depth-first", Library::Shuttle(Order::DepthFirst)),
    ("shuttle-random", Library::Shuttle(Order::Random)),
];

/// What a process does and nothing else: `LIBRARY:READERS,ENTRIES,FAULTERS:SECONDS`. The seconds are for those that do not explore to the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Job {
    library: Library,
    size: Size,
    seconds: u64,
}

impl FromStr for Job {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not LIBRARY:READERS,ENTRIES,FAULTERS:SECONDS");
        let [name, size, seconds] = text.split(':').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let (_, library) = *NAMES.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
        Ok(Self { library, size: size.parse()?, seconds: seconds.parse().map_err(|_| wrong())? })
    }
}

impl Job {
    pub(crate) const fn new(library: Library, size: Size, seconds: u64) -> Self {
        Self { library, size, seconds }
    }

    /// Does it, and prints what [`read_graph`] or [`read_covered`] reads.
    pub(crate) fn run(self) {
        let time = Duration::from_secs(self.seconds);
        match self.library {
            Library::Lab(cpus) => print_graph(program::explore(self.size, cpus)),
            Library::Stateright => print_graph(states::explore(self.size)),
            Library::Loom => print_covered(by_loom(self.size, time)),
            Library::Shuttle(order) => print_covered(by_shuttle(self.size, order, time)),
        }
    }

    /// # Errors
    /// If the system does not know where this program is.
    pub(crate) fn command(self) -> io::Result<Command> {
        let name = NAMES.iter().find(|(_, library)| *library == self.library).map_or("", |(name, _)| *name);
        let mut command = Command::new(env::current_exe()?);
        command.arg("--alone").arg(format!("{name}:{}:{}", self.size, self.seconds));
        Ok(command)
    }
}

fn print_graph(Graph { states, transitions }: Graph) {
    println!("graph {states} {transitions}");
}

fn print_covered(Covered { executions, steps, is_all }: Covered) {
    println!("covered {executions} {steps} {}", u64::from(is_all));
}

pub(crate) fn read_graph(output: &str) -> Option<Graph> {
    match numbers(output, "graph ")?[..] {
        [states, transitions] => Some(Graph { states, transitions }),
        _ => None,
    }
}

pub(crate) fn read_covered(output: &str) -> Option<Covered> {
    match numbers(output, "covered ")?[..] {
        [executions, steps, is_all] => Some(Covered { executions, steps, is_all: is_all != 0 }),
        _ => None,
    }
}

fn numbers(output: &str, word: &str) -> Option<Vec<u64>> {
    let line = output.lines().find_map(|line| line.strip_prefix(word))?;
    line.split(' ').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_can_be_asked() {
        for (name, library) in NAMES {
            let job: Job = format!("{name}:4,3,2:7").parse().unwrap();
            assert_eq!(job, Job::new(library, Size::new(4, 3, 2), 7));
        }
        for wrong in ["lab", "lab:4,3:7", "lab:4,3,2:x", "tlc:4,3,2:7"] {
            assert!(wrong.parse::<Job>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_smallest_scope_has_as_many_states_everywhere() {
        let size = Size::new(2, 1, 1);
        assert_eq!(program::explore(size, Cpus::Named), states::explore(size));
    }
}
