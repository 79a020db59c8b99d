//! What can be wrong with a litmus file, said with the place, what was found and what would be right.

use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};

use crate::source::{Position, Source, Span};

/// Something wrong at one place of a litmus file.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{problem}")]
#[diagnostic(code(litmus))]
pub struct Error {
    #[source_code]
    source_code: NamedSource<Arc<str>>,
    #[label("here")]
    at: SourceSpan,
    #[help]
    help: Option<Box<str>>,
    position: Position,
    problem: Box<Problem>,
}

impl Error {
    /// `problem`, found at `span` of `source`.
    pub fn new(source: &Source, span: Span, problem: Problem) -> Self {
        Self {
            source_code: NamedSource::new(source.name(), source.shared_text()),
            at: span.into(),
            help: problem.remedy().map(String::into_boxed_str),
            position: source.position(span.start),
            problem: Box::new(problem),
        }
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The line and column where it begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The file, as messages call it.
    pub fn file(&self) -> &str {
        self.source_code.name()
    }

    /// What would be right, where that can be said.
    pub fn remedy(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// All of it on one line: `file:line:column: problem (remedy)`, as compilers print it.
    pub fn one_line(&self) -> String {
        let remedy = self.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}:{}: {}{remedy}", self.file(), self.position, self.problem)
    }
}

/// The kinds of things that can be wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// Something else should be written here.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What may be written here.
        expected: String,
        /// What is.
        found: String,
    },
    /// A name that is not one of those that exist.
    #[error("unknown {what} `{found}`")]
    Unknown {
        /// What it should name: "instruction", "operation", "key", "register" ...
        what: &'static str,
        /// The name found.
        found: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A name that must be unique is not.
    #[error("{what} `{name}` appears twice")]
    Duplicate {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A row whose number of cells is not that of the heading.
    #[error("this row has {found} columns, the heading has {expected}")]
    RaggedRow {
        /// Cells in the row.
        found: usize,
        /// Columns in the heading.
        expected: usize,
    },
    /// `(*` without `*)`.
    #[error("this comment never ends")]
    UnterminatedComment,
    /// `"` without its second.
    #[error("this string never ends")]
    UnterminatedString,
    /// A number outside its range.
    #[error("the number {found} is out of range")]
    NumberRange {
        /// As it is written.
        found: String,
        /// The smallest number that is allowed here.
        least: i128,
        /// The largest.
        most: i128,
    },
    /// A value that its key or argument does not take.
    #[error("{what} cannot be `{found}`")]
    Value {
        /// The key or argument.
        what: String,
        /// The value found.
        found: String,
        /// What it may be.
        right: String,
    },
    /// Something that must be said is not.
    #[error("{what} is missing")]
    Missing {
        /// What must be said.
        what: String,
        /// How to say it.
        right: String,
    },
    /// An instruction with operands that it does not take.
    #[error("`{mnemonic}` does not take these operands")]
    Operands {
        /// The instruction.
        mnemonic: String,
        /// What it takes.
        right: String,
    },
    /// A set-up or program that no machine could have or run.
    #[error("{why}")]
    Impossible {
        /// Why not.
        why: String,
        /// What would be possible.
        right: String,
    },
    /// The file is larger than [`crate::MAX_FILE_BYTES`].
    #[error("the file has {found} bytes")]
    TooLarge {
        /// Its size in bytes.
        found: u64,
    },
    /// Parentheses or negations nested deeper than a reader could follow.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// How deep is allowed.
        limit: usize,
    },
}

impl Problem {
    /// What would be right, as one phrase.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Unknown { found, known, .. } if !known.is_empty() => Some(match closest(found, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known: {}", known.join(", ")),
            }),
            Self::RaggedRow { .. } => {
                Some("separate cells with `|`; leave a cell empty where a CPU does nothing".into())
            }
            Self::UnterminatedComment => Some("close it with `*)`; comments nest".into()),
            Self::UnterminatedString => Some("close it with `\"`".into()),
            Self::NumberRange { least, most, .. } => Some(format!("from {} to {}", readable(*least), readable(*most))),
            Self::Value { right, .. }
            | Self::Missing { right, .. }
            | Self::Operands { right, .. }
            | Self::Impossible { right, .. }
                if !right.is_empty() =>
            {
                Some(right.clone())
            }
            Self::TooLarge { .. } => Some(format!("a litmus file has at most {} bytes", crate::MAX_FILE_BYTES)),
            _ => None,
        }
    }
}

fn readable(number: i128) -> String {
    if number < 0x1_0000 { number.to_string() } else { format!("{number:#x}") }
}

/// The known name that a reader most probably meant; `None` if none is near.
pub(crate) fn closest<'k>(found: &str, known: &'k [String]) -> Option<&'k str> {
    let lower = found.to_lowercase();
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= name.len().max(found.len()).div_ceil(2) / 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.as_str())
}

/// Why a litmus file could not be had at all.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum LoadError {
    /// The file system said no.
    #[error("cannot read {}", path.display())]
    #[diagnostic(code(litmus::read))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
    /// Neither a file nor a name of the catalogue.
    #[error("no file and no race of the catalogue is called `{name}`")]
    #[diagnostic(code(litmus::unknown))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What would be right.
        #[help]
        remedy: String,
    },
    /// The text is not a litmus test.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Syntax(#[from] Error),
}
