//! Loom explores the protocols by which threads stand in for interrupts and RCU.

use anyhow::Result;

use super::runners::{Runner, counted};
use crate::cargo::{cargo, target_dir, workspace};
use crate::summary::Outcome;

pub(crate) fn run() -> Result<Outcome> {
    let mut command = cargo(&workspace());
    command.args(["test", "--release", "--package", "fastgup-hosted", "--test", "hosted", "--quiet"]);
    // A folder of its own: another `cfg` builds every package again, and would throw out what the other steps built.
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target_dir().join("loom"));
    counted(&mut command, Runner::CargoTest)
}
