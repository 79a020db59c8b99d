//! `cargo xtask bench`: the side-by-side benchmarks.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cargo::{cargo, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to the benchmarks
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs them, each number beside its peers in one run.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut command = cargo(&workspace());
    command.args(["run", "--release", "--package", "fastgup-bench", "--"]).args(&arguments.rest);
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
