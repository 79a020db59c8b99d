//! What `cargo mutants --list --json` says: the mutants, numbered.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cargo::{cargo, output};

/// A mutant's number in this copy; 0 is the original.
pub(super) type Id = u32;

/// What kind of change it is.
#[derive(Deserialize, Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
}

/// A place in a file: line and column count from 1, the column in characters.
#[derive(Deserialize, Serialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

#[derive(Deserialize, Serialize, Clone, Debug)]
pub(super) struct Span {
    pub(super) start: Place,
    pub(super) end: Place,
}

#[derive(Deserialize, Serialize, Clone, Debug)]
pub(super) struct Function {
    pub(super) function_name: String,
    pub(super) return_type: String,
}

/// One mutant, as cargo-mutants lists it.
#[derive(Deserialize, Serialize, Clone, Debug)]
pub(super) struct Mutant {
    /// Not in the list: the place in it, from 1 on.
    #[serde(default)]
    pub(super) id: Id,
    /// What it is called: file, place and change.
    pub(super) name: String,
    pub(super) package: String,
    pub(super) file: String,
    pub(super) function: Option<Function>,
    pub(super) genre: Genre,
    /// The text that cargo-mutants would put there.
    pub(super) replacement: String,
    pub(super) span: Span,
}

/// All mutants of the workspace, with the project's configuration.
///
/// # Errors
/// cargo-mutants is not installed, fails, or lists something unknown.
pub(super) fn mutants_of(workspace: &Path) -> Result<Vec<Mutant>> {
    let json = output(cargo(workspace).args(["mutants", "--workspace", "--list", "--json"]))
        .context("cargo-mutants lists the mutants: cargo install cargo-mutants --locked")?;
    let mut mutants: Vec<Mutant> = serde_json::from_str(&json).context("the list of cargo-mutants")?;
    for (id, mutant) in (1..).zip(&mut mutants) {
        mutant.id = id;
    }
    Ok(mutants)
}

/// The mutants of each file.
pub(super) fn by_file(mutants: &[Mutant]) -> BTreeMap<&str, Vec<&Mutant>> {
    let mut files: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        files.entry(&mutant.file).or_default().push(mutant);
    }
    files
}
