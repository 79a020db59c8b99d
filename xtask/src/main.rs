//! Sets up and runs what fastgup needs: `cargo xtask test` is the one command that checks everything.

#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod links;
#[cfg(test)]
mod linux;
mod mutants;
mod mutation;
mod needed;
mod rooms;
mod setup;
mod steps;
mod summary;
mod tally;
mod test;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Sets up and runs what fastgup needs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check there is, or only the steps named
    Test(test::Arguments),
    /// Break the engine on purpose, one edit at a time, and see that a race file notices
    Mutants(mutants::Arguments),
    /// Make the tables of docs/needed.md from what `fastgup needed --json` has printed
    Needed(needed::Arguments),
    /// Run all of cargo-mutants' mutants in one build, and say which nothing notices
    Mutation(mutation::Arguments),
    /// Say what this machine lacks, and how to install it
    Setup(setup::Arguments),
    /// Run the benchmarks; what follows is passed on to them
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Test(arguments) => test::run(&arguments),
        Command::Mutants(arguments) => mutants::run(&arguments),
        Command::Needed(arguments) => needed::run(&arguments),
        Command::Mutation(arguments) => mutation::run(&arguments),
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}
