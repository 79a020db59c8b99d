//! The copy of the workspace that has the mutants in it.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::list::{Id, Mutant, by_file};
use super::rewrite::{State, rewrite};
use super::splice::Owned;
use crate::cargo::{cargo, workspace};
use crate::tree::copy_tree;

/// What tells in the copy which mutant is active.
const IN_MACHINE: &str = include_str!("in_machine.rs");

/// The folder of all that belongs to a pass.
pub(super) struct Place {
    folder: PathBuf,
}

/// A mutant, and whether it is in the copy.
#[derive(Serialize, Deserialize)]
pub(super) struct Planned {
    #[serde(flatten)]
    pub(super) mutant: Mutant,
    pub(super) state: State,
}

/// What was written into the copy.
pub(super) struct Written {
    pub(super) states: BTreeMap<Id, State>,
    /// Of each file that has mutants in it: what is whose.
    pub(super) owned: BTreeMap<String, Vec<Owned>>,
}

impl Place {
    pub(super) fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(folder.join("source")).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder: fs::canonicalize(folder)? })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn source(&self) -> PathBuf {
        self.folder.join("source")
    }

    /// One process at a time may change the copy or ask it.
    pub(super) fn lock(&self) -> Result<File> {
        let lock = File::create(self.file("lock"))?;
        lock.try_lock().context("another process is at work in this folder")?;
        Ok(lock)
    }

    /// Cargo, at work on the copy. What the copy's lints find is not what they are for.
    pub(super) fn cargo(&self) -> Command {
        let mut command = cargo(&self.source());
        command.env("CARGO_TARGET_DIR", self.file("target"));
        command.env("RUSTFLAGS", "--cap-lints=allow");
        // `machine::mutant::on` is asked in constant functions too, and must not be active in constants: only the compiler's own means can do that.
        command.env("RUSTC_BOOTSTRAP", "machine");
        command
    }

    /// Brings the copy up to date, with all mutants in it but for some.
    ///
    /// # Errors
    /// A file cannot be read, written or understood.
    pub(super) fn write(&self, mutants: &[Mutant], without: &HashSet<Id>) -> Result<Written> {
        let files = by_file(mutants);
        let mut written = Written { states: BTreeMap::new(), owned: BTreeMap::new() };
        copy_tree(&workspace(), &self.source(), |path, original| {
            let name = path.to_str().context("a file's name is not text")?;
            if name == "crates/machine/src/lib.rs" {
                let text = std::str::from_utf8(original)?;
                let features = "#![no_std] #![feature(core_intrinsics, const_eval_select)]";
                return Ok(Some(
                    text.replacen("#![no_std]", features, 1) + "\npub mod mutant {\n" + IN_MACHINE + "}\n",
                ));
            }
            let Some(mutants) = files.get(name) else { return Ok(None) };
            let (spliced, states) =
                rewrite(std::str::from_utf8(original)?, mutants, without).context(name.to_owned())?;
            written.states.extend(states);
            written.owned.insert(name.to_owned(), spliced.owned);
            Ok(Some(spliced.text))
        })?;
        Ok(written)
    }

    pub(super) fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.file(name);
        fs::write(&path, serde_json::to_vec(value)?).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn load<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.file(name);
        let text = fs::read(&path)
            .with_context(|| format!("cannot read {}: `build`, then `baseline` come first", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))
    }

    /// The mutants as `build` left them.
    pub(super) fn plan(&self) -> Result<Vec<Planned>> {
        self.load("plan.json")
    }
}
