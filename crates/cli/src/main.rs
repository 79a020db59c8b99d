//! `fastgup`: can this interleaving happen, and does the mend close it? Decided by running the code.

#![forbid(unsafe_code)]

mod arguments;
mod command;
mod exit;
mod failure;
mod interrupt;
mod mends;
mod page;
mod progress;
mod save;
mod select;
mod show;
mod stepper;
mod sweep;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use exit::Exit;
use failure::Failure;
use races::ClusterError;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        None => command::seed::run(),
        Some(Command::Check(check)) if command::sweep::is_asked(check) => command::sweep::run(check),
        Some(Command::Check(check)) => command::check::run(check),
        Some(Command::Merge(merge)) => command::merge::run(merge),
        Some(Command::Boot(boot)) => command::boot::run(boot),
        Some(Command::Needed(needed)) => command::needed::run(needed),
        Some(Command::Races(races)) => command::races::run(races),
        Some(Command::Replay(replay)) => command::replay::run(replay),
    };
    let exit = done.unwrap_or_else(|failure| {
        failure.report();
        match failure {
            Failure::Output(_) => Exit::OutputClosed,
            // The search has no answer, but it can be gone on with.
            Failure::Cluster(ClusterError::Lost { .. }) => Exit::Bounded,
            Failure::Load(_)
            | Failure::Cluster(_)
            | Failure::Usage { .. }
            | Failure::Scope(_)
            | Failure::Boot(_)
            | Failure::Folder { .. }
            | Failure::Run(_)
            | Failure::Replay(_)
            | Failure::Read { .. }
            | Failure::Write { .. } => Exit::BadInput,
        }
    });
    exit.into()
}
