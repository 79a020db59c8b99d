//! Miri looks for undefined behaviour in the engine's own tests.

use std::process::Command;

use anyhow::Result;

use super::ENGINE;
use super::runners::{Runner, counted};
use crate::cargo::{succeeds, workspace};
use crate::summary::Outcome;

pub(crate) fn run() -> Result<Outcome> {
    let is_there = succeeds(Command::new("cargo").args(["+nightly", "miri", "--version"]));
    if !is_there {
        return Ok(Outcome::Skipped("no nightly toolchain with Miri (rustup +nightly component add miri)".into()));
    }
    let mut command = Command::new("cargo");
    // cargo and rustup say in these which toolchain built us: nightly must find its own.
    for inherited in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC"] {
        command.env_remove(inherited);
    }
    command.current_dir(workspace()).args(["+nightly", "miri", "test", "--lib"]);
    for package in ENGINE {
        command.args(["-p", package]);
    }
    counted(&mut command, Runner::CargoTest)
}
