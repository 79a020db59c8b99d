//! The stress on threads, for a few seconds.

use anyhow::Result;

use super::whole;
use crate::cargo::{cargo, workspace};
use crate::summary::Outcome;

/// How many operations: a few seconds' worth. The long run, of 10^8, is by hand (docs/measurements.md).
const OPERATIONS: &str = "2000000";

pub(crate) fn run() -> Result<Outcome> {
    let stress = ["run", "--quiet", "--package", "fastgup-mm", "--example", "stress", "--", "--ops", OPERATIONS];
    Ok(Outcome::Ran(whole(cargo(&workspace()).args(stress))?))
}
