//! A litmus test as it is written. `GRAMMAR.md` has the grammar.
//!
//! `Display` of a [`Litmus`] writes a text that parses to an equal one.

mod condition;
mod initial;
mod instruction;
mod mnemonic;
mod operation;
mod register;

use std::collections::HashSet;
use std::fmt;

pub use condition::{Condition, Place, Proposition, Quantifier, Relation, Value};
pub use initial::{Initial, InitialValue, Scalar, Type};
pub use instruction::{Dialect, Instruction, Label, Line, Lock, Memory, Operand, Program};
pub use mnemonic::{Fence, Jump, Mnemonic, Test};
pub use operation::{Argument, Expectation, Operation, Script, Statement, Variant};
pub use register::{Part, Register, Width};

use crate::source::Spanned;

/// One litmus test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Litmus {
    /// What its cells hold and which machine runs them.
    pub mode: Spanned<Mode>,
    /// Its name: the second word of the first line.
    pub name: Spanned<String>,
    /// The quoted lines under the heading: the source, the question, the story.
    pub quotes: Vec<String>,
    /// The `Key=value` lines.
    pub info: Vec<(Spanned<String>, Spanned<String>)>,
    /// The init block and the columns.
    pub body: Body,
    /// The `variant` lines; always empty for instructions.
    pub variants: Vec<Variant>,
    /// Places that are shown in final states beside those of the condition.
    pub locations: Vec<Spanned<Place>>,
    /// Final states that do not satisfy this do not count.
    pub filter: Option<Proposition>,
    /// The final condition.
    pub condition: Option<Condition>,
}

impl Litmus {
    /// How many columns the test has.
    pub fn cpus(&self) -> usize {
        match &self.body {
            Body::Instructions(program) => program.columns.len(),
            Body::Operations(script) => script.columns.len(),
        }
    }

    /// The value of a `Key=value` line, by the key as it is written.
    pub fn info(&self, key: &str) -> Option<&Spanned<String>> {
        self.info.iter().find(|(name, _)| name.node == key).map(|(_, value)| value)
    }

    /// Every place that a final state is told apart by: those of the condition and of `locations`, each once.
    pub fn observed(&self) -> Vec<&Spanned<Place>> {
        let mut places: Vec<&Spanned<Place>> = Vec::new();
        if let Some(condition) = &self.condition {
            condition.proposition.for_each_place(&mut |place| places.push(place));
        }
        places.extend(&self.locations);
        let mut seen = HashSet::new();
        places.retain(|place| seen.insert(&place.node));
        places
    }
}

/// The first word of a litmus file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Instructions of 32-bit x86, written as Intel does (destination first).
    X86,
    /// Instructions of x86-64, written as AT&T does (source first).
    X86_64,
    /// Memory-management operations on 32-bit PAE paging.
    MmPae,
    /// Memory-management operations on 4-level paging.
    MmX86_64,
    /// Memory-management operations on 5-level paging.
    MmLa57,
    /// Operations of the machine itself, on 32-bit PAE paging.
    EltPae,
    /// Operations of the machine itself, on 4-level paging.
    EltX86_64,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::X86, Self::X86_64, Self::MmPae, Self::MmX86_64, Self::MmLa57, Self::EltPae, Self::EltX86_64];

    /// As it is written in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86 => "X86",
            Self::X86_64 => "X86_64",
            Self::MmPae => "MM_PAE",
            Self::MmX86_64 => "MM_X86_64",
            Self::MmLa57 => "MM_LA57",
            Self::EltPae => "ELT_PAE",
            Self::EltX86_64 => "ELT_X86_64",
        }
    }

    /// How the instructions of this mode are written; `None` where cells hold operations.
    pub const fn dialect(self) -> Option<Dialect> {
        match self {
            Self::X86 => Some(Dialect::Intel),
            Self::X86_64 => Some(Dialect::Att),
            Self::MmPae | Self::MmX86_64 | Self::MmLa57 | Self::EltPae | Self::EltX86_64 => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The init block and the columns, by the kind of cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Cells hold x86 instructions.
    Instructions(Program),
    /// Cells hold operations, of memory management or of the machine.
    Operations(Script),
}

impl fmt::Display for Litmus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.mode, self.name)?;
        for quote in &self.quotes {
            writeln!(f, "\"{quote}\"")?;
        }
        for (key, value) in &self.info {
            writeln!(f, "{key}={value}")?;
        }
        match &self.body {
            Body::Instructions(program) => program.write(f, self.mode.node.dialect().unwrap_or(Dialect::Att))?,
            Body::Operations(script) => write!(f, "{script}")?,
        }
        for variant in &self.variants {
            writeln!(f, "{variant}")?;
        }
        if !self.locations.is_empty() {
            write!(f, "locations [")?;
            for place in &self.locations {
                write!(f, "{place};")?;
            }
            writeln!(f, "]")?;
        }
        if let Some(filter) = &self.filter {
            writeln!(f, "filter {filter}")?;
        }
        if let Some(condition) = &self.condition {
            writeln!(f, "{condition}")?;
        }
        Ok(())
    }
}

/// Writes rows of cells so that the bars stand below each other.
fn write_table(f: &mut fmt::Formatter<'_>, columns: &[Vec<String>]) -> fmt::Result {
    let widths: Vec<usize> =
        columns.iter().map(|column| column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let rows = columns.iter().map(Vec::len).max().unwrap_or(0);
    for row in 0..rows {
        for (number, (column, width)) in columns.iter().zip(&widths).enumerate() {
            let cell = column.get(row).map_or("", String::as_str);
            write!(f, "{} {cell:width$} ", if number == 0 { "" } else { "|" })?;
        }
        writeln!(f, ";")?;
    }
    Ok(())
}
