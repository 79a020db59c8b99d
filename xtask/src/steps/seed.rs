//! The first command of the README, as a newcomer types it.

use anyhow::Result;

use super::whole;
use crate::cargo::{cargo, workspace};
use crate::summary::Outcome;

pub(crate) fn run() -> Result<Outcome> {
    Ok(Outcome::Ran(whole(cargo(&workspace()).args(["run", "--release", "--quiet"]))?))
}
