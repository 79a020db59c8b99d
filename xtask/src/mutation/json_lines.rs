//! A file of JSON, a value a line, to which values are added as they come: who is ended goes on where he was.

use std::fs::{self, File};
use std::io::Write;
use std::marker::PhantomData;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The file, to add to.
pub(super) struct JsonLines<T> {
    file: File,
    of: PhantomData<T>,
}

/// What is in the file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value = |line| serde_json::from_str(line).with_context(|| format!("in {}: {line}", path.display()));
    text.lines().map(value).collect()
}

impl<T: Serialize + DeserializeOwned> JsonLines<T> {
    /// What is in the file, which may be new, and the file.
    pub(super) fn open(path: &Path) -> Result<(Vec<T>, Self)> {
        let file = File::options().append(true).create(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok((read(path)?, Self { file, of: PhantomData }))
    }

    pub(super) fn add(&mut self, value: &T) -> Result<()> {
        // In one piece: who is ended leaves whole lines.
        self.file.write_all((serde_json::to_string(value)? + "\n").as_bytes()).context("cannot add a line")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_when_it_is_opened_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("numbers");
        for number in 0..3 {
            let (known, mut file) = JsonLines::<u32>::open(&path).expect("it can be opened");
            assert_eq!(known, (0..number).collect::<Vec<_>>());
            file.add(&number).expect("it can be written");
        }
        fs::write(&path, "1\nno number\n").expect("it can be written");
        assert!(read::<u32>(&path).is_err());
    }
}
