//! The steps of `cargo xtask test`, one file per kind.

pub(crate) mod kernel;
pub(crate) mod lint;
pub(crate) mod loom;
pub(crate) mod miri;
pub(crate) mod no_std;
pub(crate) mod runners;
pub(crate) mod seed;
pub(crate) mod stress;

use std::process::Command;

use anyhow::{Context, Result};

use crate::summary::{Counts, Outcome};

/// The packages that must build without the standard library.
pub(crate) const ENGINE: [&str; 4] = ["fastgup-machine", "fastgup-pagetable", "fastgup-mm", "fastgup-ttm"];

/// Runs a command that either succeeds or fails as a whole.
fn whole(command: &mut Command) -> Result<Outcome> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    Ok(Outcome::Ran(if status.success() { Counts::PASSED } else { Counts::FAILED }))
}
