//! What the toolchain itself can say about the source.

use anyhow::Result;
use boot::{ImageError, Mode};

use super::whole;
use crate::cargo::{cargo, target_dir, workspace};
use crate::summary::{Counts, Outcome};

pub(crate) fn format() -> Result<Outcome> {
    whole(cargo(&workspace()).args(["fmt", "--all", "--check"]))
}

pub(crate) fn clippy() -> Result<Outcome> {
    whole(cargo(&workspace()).args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

/// The kernel is a workspace of its own, whose compiler may be another, with another clippy.
pub(crate) fn kernel_clippy() -> Result<Outcome> {
    let mut counts = Counts::default();
    for mode in Mode::ALL {
        match boot::image::lint(mode, &target_dir()) {
            Ok(()) => counts += Counts::PASSED,
            Err(ImageError::Toolchain(lack)) => return Ok(Outcome::Skipped(lack.to_string())),
            Err(error) => {
                eprintln!("{}: {error}", mode.name());
                counts += Counts::FAILED;
            }
        }
    }
    Ok(Outcome::Ran(counts))
}

pub(crate) fn docs() -> Result<Outcome> {
    whole(cargo(&workspace()).args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
}
