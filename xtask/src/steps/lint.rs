//! What the toolchain itself can say about the source.

use anyhow::Result;

use super::whole;
use crate::cargo::{cargo, workspace};
use crate::summary::Outcome;

pub(crate) fn format() -> Result<Outcome> {
    whole(cargo(&workspace()).args(["fmt", "--all", "--check"]))
}

pub(crate) fn clippy() -> Result<Outcome> {
    whole(cargo(&workspace()).args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

pub(crate) fn docs() -> Result<Outcome> {
    whole(cargo(&workspace()).args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
}
