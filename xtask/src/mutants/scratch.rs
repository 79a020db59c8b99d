//! A scratch copy of the workspace, kept between runs so that only what changed is built again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::list::Mutant;
use crate::cargo::cargo;
use crate::tree::copy_tree;

/// The copy. One process at a time may have it.
pub(super) struct Scratch {
    source: PathBuf,
    target: PathBuf,
    _lock: File,
}

/// The copy with one edit in it.
#[must_use = "the edit stays until it is mended"]
pub(super) struct Broken {
    file: PathBuf,
    sound: String,
}

impl Scratch {
    /// Brings the copy under `place` up to date with `workspace`. Files that are the same are not touched: cargo goes by their time.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(super) fn copy_of(workspace: &Path, place: &Path) -> Result<Self> {
        fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
        let lock = File::create(place.join("lock"))?;
        lock.lock().context("cannot lock the scratch copy")?;
        let source = place.join("source");
        copy_tree(workspace, &source, |_, _| Ok(None))?;
        Ok(Self { source, target: place.join("target"), _lock: lock })
    }

    /// Cargo, at work on the copy.
    pub(super) fn cargo(&self) -> Command {
        let mut command = cargo(&self.source);
        // The races are what takes longest to build, and each edit is asked about few of them.
        command.args(["--config", "profile.dev.package.fastgup-races.opt-level=1"]);
        // Each edit is built from what was built before it, whatever the caller's builds are like.
        command.env("CARGO_TARGET_DIR", &self.target).env("CARGO_INCREMENTAL", "1");
        command
    }

    /// The text of the edit's file with the edit in it.
    ///
    /// # Errors
    /// The file is not there, or does not hold the text exactly once.
    pub(super) fn broken_text(&self, mutant: &Mutant) -> Result<String> {
        let sound = self.sound_text(mutant)?;
        let times = sound.matches(&mutant.find).count();
        ensure!(times == 1, "{} holds the text to replace {times} times, not once:\n{}", mutant.file, mutant.find);
        Ok(sound.replacen(&mutant.find, &mutant.replace, 1))
    }

    /// Puts the edit into the copy.
    ///
    /// # Errors
    /// As [`Self::broken_text`], or the file cannot be written.
    pub(super) fn breaking(&self, mutant: &Mutant) -> Result<Broken> {
        let broken = Broken { file: self.source.join(&mutant.file), sound: self.sound_text(mutant)? };
        fs::write(&broken.file, self.broken_text(mutant)?)?;
        Ok(broken)
    }

    fn sound_text(&self, mutant: &Mutant) -> Result<String> {
        let file = self.source.join(&mutant.file);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", mutant.file))
    }
}

impl Broken {
    /// Takes the edit out again. A run that dies before this is harmless: the next one starts by bringing the copy up to date.
    pub(super) fn mend(self) -> Result<()> {
        fs::write(&self.file, &self.sound).with_context(|| format!("cannot mend {}", self.file.display()))
    }
}
