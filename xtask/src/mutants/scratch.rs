//! A scratch copy of the workspace, kept between runs so that only what changed is built again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::list::Mutant;
use crate::cargo::cargo;

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
        let wanted = files_under(workspace)?;
        for path in &wanted {
            copy_if_different(&workspace.join(path), &source.join(path))?;
        }
        if source.is_dir() {
            let wanted: HashSet<&PathBuf> = wanted.iter().collect();
            for path in files_under(&source)?.iter().filter(|path| !wanted.contains(path)) {
                fs::remove_file(source.join(path))?;
            }
        }
        Ok(Self { source, target: place.join("target"), _lock: lock })
    }

    /// Cargo, at work on the copy.
    pub(super) fn cargo(&self) -> Command {
        let mut command = cargo(&self.source);
        command.env("CARGO_TARGET_DIR", &self.target);
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

/// The files under `folder`, relative to it, without build products and without what tools hide there.
fn files_under(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inside) = folders.pop() {
        let path = folder.join(&inside);
        for entry in fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            let relative = inside.join(&name);
            if entry.file_type()?.is_dir() {
                let is_hidden = name.to_string_lossy().starts_with('.') && name != ".cargo";
                if !is_hidden && name != "target" {
                    folders.push(relative);
                }
            } else {
                files.push(relative);
            }
        }
    }
    Ok(files)
}

fn copy_if_different(from: &Path, to: &Path) -> Result<()> {
    let wanted = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|held| held == wanted) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a file has a folder")?)?;
    fs::write(to, wanted).with_context(|| format!("cannot write {}", to.display()))
}
