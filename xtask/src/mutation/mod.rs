//! `cargo xtask mutation`: all mutants that `cargo mutants` lists, in one build; an environment variable says which is active. Building the engine's tests
//! takes longer than running them, and here it is done once. `docs/mutation.md` says what came of it.
//!
//! In this order:
//!
//! 1. `build` makes a copy of the workspace with the mutants in it ([`rewrite`]), and leaves out those that do not compile ([`viable`]).
//! 2. `baseline` runs every test and every variant of the races with no mutant active: all must pass, and each tells which mutants it reaches ([`baseline`]).
//! 3. `run` asks for each mutant those that reach it, the quickest first, until one notices ([`pass`]). Results are added to a file as they come: a pass can be
//!    ended at any time, and goes on where it was.
//! 4. `summary` counts them.

mod baseline;
mod copy;
mod diagnostics;
mod json_lines;
mod judge;
mod list;
mod operator;
mod pass;
mod place;
mod process;
mod results;
mod rewrite;
#[cfg(test)]
mod rewrite_tests;
mod splice;
mod viable;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::target_dir;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the copy, its build and the results are (default: the folder `mutation` among the build products)
    #[arg(long)]
    folder: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Copy the workspace, put the mutants in, leave out those that do not compile, and build the tests
    Build,
    /// Run all tests and races with no mutant active, and see which mutants they reach
    Baseline,
    /// Activate one mutant after the other, and see who notices
    Run(pass::Arguments),
    /// Count the results, and list the mutants that nothing notices
    Summary,
}

/// The sub-command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let place = copy::Place::new(arguments.folder.clone().unwrap_or_else(|| target_dir().join("mutation")))?;
    match &arguments.command {
        Command::Build => viable::build(&place)?,
        Command::Baseline => baseline::measure(&place)?,
        Command::Run(arguments) => pass::run(&place, arguments)?,
        Command::Summary => results::print_summary(&place)?,
    }
    Ok(ExitCode::SUCCESS)
}
