//! What can go wrong before there is an answer, and how it is said: with the source underlined on a terminal, on one line elsewhere.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anstream::{AutoStream, ColorChoice};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use races::scope::NoScope;
use races::{BadRun, CannotReplay, ClusterError, LoadError};

/// Why a command ends early.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum Failure {
    /// A file or name is wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Load(#[from] LoadError),
    /// The arguments do not fit the races.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What would be right.
        #[help]
        remedy: String,
    },
    /// The race has no such scope.
    #[error(transparent)]
    Scope(#[from] NoScope),
    /// A folder cannot be searched.
    #[error("cannot read the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// A file is no saved run.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Run(#[from] BadRun),
    /// A run cannot be done again.
    #[error("the run cannot be done again")]
    Replay(#[from] CannotReplay),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Processes do not come together, or one was lost.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cluster(#[from] ClusterError),
    /// There is no image, or no machine to run it on.
    #[error("{0}")]
    Boot(String),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Says it on standard error. A reader who has gone away needs no telling.
    pub(crate) fn report(&self) {
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return;
        }
        let text = if io::stderr().is_terminal() { self.fancy() } else { self.plain() };
        let _ = writeln!(anstream::stderr(), "{text}");
    }

    fn fancy(&self) -> String {
        let has_colour = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
        let theme = if has_colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let mut text = String::new();
        match GraphicalReportHandler::new_themed(theme)
            .with_width(crate::show::width::of_stderr())
            .render_report(&mut text, self)
        {
            Ok(()) => text,
            Err(std::fmt::Error) => self.plain(),
        }
    }

    fn plain(&self) -> String {
        if let Self::Load(LoadError::Syntax(error)) | Self::Scope(NoScope::Impossible(error)) = self {
            return format!("error: {}", error.one_line());
        }
        let mut text = format!("error: {self}");
        let mut cause = std::error::Error::source(self);
        while let Some(deeper) = cause {
            text.push_str(&format!(": {deeper}"));
            cause = deeper.source();
        }
        if let Some(help) = self.help() {
            text.push_str(&format!(" ({help})"));
        }
        text
    }
}
