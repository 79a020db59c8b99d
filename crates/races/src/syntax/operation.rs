//! Memory-management operations: the init block, the cells and the variants of an `MM_...` file.
//!
//! Names and arguments only. What they mean is said by the tables of the module that runs them.

use std::fmt;

use super::condition::Value;
use super::write_table;
use crate::source::{Span, Spanned};

/// The init block and the columns of a file of operations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Script {
    /// The statements of the init block, in order.
    pub init: Vec<Statement>,
    /// For each CPU what it does, in order. The number of the column is the number of the CPU.
    pub columns: Vec<Vec<Operation>>,
    /// What every CPU does when it takes an IPI; empty if there is no such column.
    pub ipi: Vec<Operation>,
    /// What every CPU does when it takes an NMI; empty if there is no such column.
    pub nmi: Vec<Operation>,
}

/// One statement of the init block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Statement {
    /// `key=value[,value...]`.
    Setting(Argument),
    /// `word name [= value...] [key=value... | flag ...]`.
    Declaration {
        /// What is declared: `frame`, `file`, `area` ...
        word: Spanned<String>,
        /// What it is called.
        name: Spanned<String>,
        /// What follows a `=` after the name; empty if there is none.
        values: Vec<Spanned<Value>>,
        /// The rest.
        arguments: Vec<Argument>,
    },
}

/// `key=value...`, or a lone value (a flag, a positional argument).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Argument {
    /// What stands before the `=`, if there is one.
    pub key: Option<Spanned<String>>,
    /// At least one; exactly one without a key.
    pub values: Vec<Spanned<Value>>,
}

impl Argument {
    /// From the key, if there is one, to the last value.
    pub fn span(&self) -> Span {
        let first = self.key.as_ref().map(|key| key.span).or(self.values.first().map(|value| value.span));
        let last = self.values.last().map(|value| value.span).or(first);
        first.unwrap_or_default().to(last.unwrap_or_default())
    }
}

/// One cell: `[register =] word(arguments)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The register that takes the result.
    pub result: Option<Spanned<String>>,
    /// Which operation.
    pub word: Spanned<String>,
    /// What is between the parentheses.
    pub arguments: Vec<Argument>,
    /// All of the cell.
    pub span: Span,
}

impl Operation {
    /// The operation without what says in which variants it runs.
    pub(crate) fn without_variants(&self) -> Self {
        let is_in = |argument: &&Argument| argument.key.as_ref().is_some_and(|key| key.node == "in");
        let arguments = self.arguments.iter().filter(|argument| !is_in(argument)).cloned().collect();
        Self { arguments, ..self.clone() }
    }
}

/// `variant name : key=value, ... => expectation` and an optional quoted explanation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variant {
    /// Its name, unique in the file.
    pub name: Spanned<String>,
    /// The protocol choices that it makes; others are the file's or the default.
    pub choices: Vec<Argument>,
    /// What the file says about its verdict.
    pub expectation: Spanned<Expectation>,
    /// The quoted text after it.
    pub explanation: Option<String>,
}

/// What a file expects of a variant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expectation {
    /// `?`: run it and tell.
    Undecided,
    /// `safe`.
    Safe,
    /// One of these rules is broken.
    Breaks(Vec<Spanned<String>>),
}

fn write_values(f: &mut fmt::Formatter<'_>, values: &[Spanned<Value>], between: &str) -> fmt::Result {
    for (number, value) in values.iter().enumerate() {
        write!(f, "{}{value}", if number == 0 { "" } else { between })?;
    }
    Ok(())
}

impl Argument {
    fn write(&self, f: &mut fmt::Formatter<'_>, between: &str) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key}=")?;
        }
        write_values(f, &self.values, between)
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, ",")
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(setting) => write!(f, "{setting};"),
            Self::Declaration { word, name, values, arguments } => {
                write!(f, "{word} {name}")?;
                if !values.is_empty() {
                    f.write_str(" = ")?;
                    write_values(f, values, " ")?;
                }
                for argument in arguments {
                    write!(f, " {argument}")?;
                }
                f.write_str(";")
            }
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(register) = &self.result {
            write!(f, "{register} = ")?;
        }
        write!(f, "{}(", self.word)?;
        for (number, argument) in self.arguments.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { ", " })?;
            argument.write(f, "|")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{{")?;
        for statement in &self.init {
            writeln!(f, "  {statement}")?;
        }
        writeln!(f, "}}")?;
        let programs = self.columns.iter().enumerate().map(|(number, column)| (format!("P{number}"), column));
        let handlers = [("IPI".to_owned(), &self.ipi), ("NMI".to_owned(), &self.nmi)];
        let all = programs.chain(handlers.into_iter().filter(|(_, column)| !column.is_empty()));
        let cells: Vec<Vec<String>> = all
            .map(|(heading, column)| std::iter::once(heading).chain(column.iter().map(ToString::to_string)).collect())
            .collect();
        write_table(f, &cells)
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecided => f.write_str("?"),
            Self::Safe => f.write_str("safe"),
            Self::Breaks(rules) => {
                for (number, rule) in rules.iter().enumerate() {
                    write!(f, "{}{rule}", if number == 0 { "" } else { " | " })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "variant {}", self.name)?;
        for (number, choice) in self.choices.iter().enumerate() {
            write!(f, "{}{choice}", if number == 0 { " : " } else { ", " })?;
        }
        write!(f, " => {}", self.expectation)?;
        match &self.explanation {
            Some(text) => write!(f, "\n  \"{text}\""),
            None => Ok(()),
        }
    }
}
