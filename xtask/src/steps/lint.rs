//! What the toolchain itself can say about the source.

use anyhow::Result;
use boot::ImageError;

use super::{for_each_mode, whole};
use crate::cargo::{cargo, target_dir, workspace};
use crate::summary::Outcome;
use crate::tally::Tally;

pub(crate) fn format() -> Result<Outcome> {
    Ok(Outcome::Ran(whole(cargo(&workspace()).args(["fmt", "--all", "--check"]))?))
}

pub(crate) fn clippy() -> Result<Outcome> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    Ok(Outcome::Ran(whole(cargo(&workspace()).args(clippy))?))
}

/// The kernel is a workspace of its own, whose compiler may be another, with another clippy.
pub(crate) fn kernel_clippy() -> Result<Outcome> {
    let mut tally = Tally::default();
    for (mode, linted) in for_each_mode(|mode| boot::image::lint(mode, &target_dir())) {
        match linted {
            Ok(()) => tally.pass(),
            Err(ImageError::Toolchain(lack)) => return Ok(Outcome::Skipped(lack.to_string())),
            Err(error) => {
                eprintln!("{}: {error}", mode.name());
                tally.fail(mode.name(), error.to_string());
            }
        }
    }
    Ok(Outcome::Ran(tally))
}

pub(crate) fn docs() -> Result<Outcome> {
    let doc = ["doc", "--workspace", "--no-deps", "--quiet"];
    Ok(Outcome::Ran(whole(cargo(&workspace()).args(doc).env("RUSTDOCFLAGS", "-D warnings"))?))
}
