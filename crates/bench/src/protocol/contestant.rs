//! Who explores the protocol, and how each is run.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

use tempfile::TempDir;

use super::alone::{Job, Library, read_graph};
use super::size::{Case, Cpus, Digits, Graph, Size};
use crate::page_tables::OURS;
use crate::spin::{Built, Spin, Verifier};

pub(crate) const SPIN: &str = "SPIN, exact, depth first";
pub(crate) const OURS_SYMMETRIC: &str = "fastgup, interchangeable CPUs";
pub(crate) const RUMUR_SYMMETRIC: &str = "Rumur, scalarsets";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contestant {
    Lab(Cpus),
    Spin,
    Rumur(Cpus),
    Stateright,
}

/// In the order of the table.
pub(crate) const ALL: [Contestant; 6] = [
    Contestant::Lab(Cpus::Named),
    Contestant::Lab(Cpus::Interchangeable),
    Contestant::Spin,
    Contestant::Stateright,
    Contestant::Rumur(Cpus::Named),
    Contestant::Rumur(Cpus::Interchangeable),
];

/// A contestant that can be started, as often as one likes.
pub(crate) struct Ready {
    pub(crate) command: Command,
    /// From what it says.
    pub(crate) read: fn(&str) -> Option<Graph>,
    /// Where its program is.
    _folder: Option<TempDir>,
}

impl Contestant {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lab(Cpus::Named) => OURS,
            Self::Lab(Cpus::Interchangeable) => OURS_SYMMETRIC,
            Self::Spin => SPIN,
            Self::Stateright => "stateright 0.31, breadth first",
            Self::Rumur(Cpus::Named) => "Rumur",
            Self::Rumur(Cpus::Interchangeable) => RUMUR_SYMMETRIC,
        }
    }

    pub(crate) const fn cpus(self) -> Cpus {
        match self {
            Self::Lab(cpus) | Self::Rumur(cpus) => cpus,
            _ => Cpus::Named,
        }
    }

    pub(crate) const fn digits(self) -> Digits {
        match self {
            Self::Spin => Digits::Eight,
            _ => Digits::All,
        }
    }

    /// Makes its program, if it has one of its own.
    ///
    /// # Errors
    /// In words: what is missing, or what went wrong.
    pub(crate) fn prepare(self, case: &Case) -> Result<Ready, String> {
        let size = case.size;
        match self {
            Self::Lab(cpus) => of_library(Library::Lab(cpus), size),
            Self::Stateright => of_library(Library::Stateright, size),
            Self::Spin => of_spin(size, case.states),
            Self::Rumur(cpus) => of_rumur(size, cpus),
        }
    }
}

fn of_library(library: Library, size: Size) -> Result<Ready, String> {
    let command = Job::new(library, size, 0).command().map_err(|error| error.to_string())?;
    Ok(Ready { command, read: read_graph, _folder: None })
}

fn of_spin(Size { readers, entries, faulters }: Size, states: u64) -> Result<Ready, String> {
    let spin = Spin::find().map_err(|problem| problem.to_string())?;
    let all_taken: Vec<String> = (0..readers).map(|reader| format!("!pending[{reader}]")).collect();
    let definitions = format!(
        "#define READERS {readers}\n#define ENTRIES {entries}\n#define FAULTERS {faulters}\n#define ALL_TAKEN ({})\n",
        all_taken.join(" && ")
    );
    let made = spin.make(Built::ForSpeed { states }, &definitions, include_str!("protocol.pml"));
    let Verifier { folder, command } = made.map_err(|problem| problem.to_string())?;
    let read = |output: &str| {
        let found = crate::spin::read(output).ok()?;
        // SPIN counts the step into the first state.
        (!found.is_assertion_violated).then(|| Graph { states: found.states, transitions: found.transitions - 1 })
    };
    Ok(Ready { command, read, _folder: Some(folder) })
}

fn of_rumur(Size { readers, entries, faulters }: Size, cpus: Cpus) -> Result<Ready, String> {
    let types = match cpus {
        Cpus::Named => "Reader: 1..READERS; Faulter: 1..FAULTERS;",
        Cpus::Interchangeable => "Reader: scalarset(READERS); Faulter: scalarset(FAULTERS);",
    };
    let model = format!(
        "const READERS: {readers}; ENTRIES: {entries}; FAULTERS: {faulters};\ntype {types}\n{}",
        include_str!("protocol.m")
    );
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    fs::write(folder.path().join("protocol.m"), model).map_err(|error| error.to_string())?;
    make(folder.path(), "rumur", &["protocol.m", "--output", "protocol.c", "--threads", "1"])?;
    make(
        folder.path(),
        "gcc",
        &["-std=c11", "-O3", "-march=native", "-w", "protocol.c", "-o", "protocol", "-lpthread"],
    )
    .or_else(|_| {
        // Where Rumur exchanges 16 bytes at once, gcc has to be told that the processor can.
        make(folder.path(), "gcc", &["-std=c11", "-O3", "-mcx16", "-w", "protocol.c", "-o", "protocol", "-lpthread"])
    })?;
    Ok(Ready { command: Command::new(folder.path().join("protocol")), read: read_rumur, _folder: Some(folder) })
}

fn make(folder: &Path, program: &'static str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).current_dir(folder).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("`{program}` is not installed (Debian: apt-get install {program})"))
        }
        Err(error) => Err(format!("cannot start {program}: {error}")),
        Ok(output) if !output.status.success() => {
            Err(format!("`{program}` failed: {}", String::from_utf8_lossy(&output.stderr)))
        }
        Ok(_) => Ok(()),
    }
}

/// `57601 states, 232228 rules fired in 1s.`, at the end, if nothing is wrong.
fn read_rumur(output: &str) -> Option<Graph> {
    output.contains("No error found.").then_some(())?;
    let line = output.lines().rev().find(|line| line.contains(" rules fired in "))?;
    let mut words = line.split_whitespace();
    Some(Graph { states: words.next()?.parse().ok()?, transitions: words.nth(1)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rumur_says_is_read() {
        let end =
            "Status:\n\n\tNo error found.\n\nState Space Explored:\n\n\t57601 states, 232228 rules fired in 1s.\n";
        assert_eq!(read_rumur(end), Some(Graph { states: 57601, transitions: 232228 }));
        assert_eq!(read_rumur(&end.replace("No error", "1 error(s)")), None);
    }
}
