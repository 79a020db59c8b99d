//! Copies of the workspace in which only what changed is written, because cargo goes by the files' times.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Brings the copy of `from` at `to` up to date. `change` may say what a file holds in the copy instead; files that `from` does not have are removed.
///
/// # Errors
/// A file cannot be read or written, or `change` says so.
pub(crate) fn copy_tree(
    from: &Path,
    to: &Path,
    mut change: impl FnMut(&Path, &[u8]) -> Result<Option<String>>,
) -> Result<()> {
    let files = files_under(from)?;
    for path in &files {
        let original = fs::read(from.join(path)).with_context(|| format!("cannot read {}", path.display()))?;
        let changed = change(path, &original)?;
        write_if_different(&to.join(path), changed.as_ref().map_or(&original[..], |text| text.as_bytes()))?;
    }
    let wanted: HashSet<&PathBuf> = files.iter().collect();
    for path in files_under(to)?.iter().filter(|path| !wanted.contains(path)) {
        fs::remove_file(to.join(path))?;
    }
    Ok(())
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

fn write_if_different(to: &Path, wanted: &[u8]) -> Result<()> {
    if fs::read(to).is_ok_and(|held| held == wanted) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a file has a folder")?)?;
    fs::write(to, wanted).with_context(|| format!("cannot write {}", to.display()))
}
