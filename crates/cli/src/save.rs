//! Saving the runs that `check` finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use races::{Race, SavedRun, VariantReport};

use crate::failure::Failure;

/// Where runs go.
pub(crate) struct Saver {
    place: Place,
    /// What was written, and of which run.
    written: BTreeMap<PathBuf, String>,
}

enum Place {
    /// A file for each run.
    Folder(PathBuf),
    /// One file, for one run.
    File(PathBuf),
}

impl Saver {
    /// A folder is what is one, or ends like one; it is made if it is not there.
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        let is_folder = path.is_dir() || path.to_string_lossy().ends_with(std::path::MAIN_SEPARATOR);
        let place = if is_folder {
            fs::create_dir_all(path).map_err(|cause| Failure::Write { path: path.to_owned(), cause })?;
            Place::Folder(path.to_owned())
        } else {
            Place::File(path.to_owned())
        };
        Ok(Self { place, written: BTreeMap::new() })
    }

    /// Saves the run that a report shows, if it shows one, and says where.
    pub(crate) fn save(&mut self, race: &Race, report: &VariantReport) -> Result<Option<PathBuf>, Failure> {
        let Some((run, _)) = SavedRun::of(race, report)? else { return Ok(None) };
        let path = match &self.place {
            Place::Folder(folder) => self.free_name(folder, &run.file_name()),
            Place::File(path) => {
                if let Some(other) = self.written.get(path) {
                    return Err(Failure::Usage {
                        problem: format!("{} has the run of {other}, and there are more", path.display()),
                        remedy: "name a folder, with a `/` at its end, or choose one with --variant and --memory"
                            .into(),
                    });
                }
                path.clone()
            }
        };
        fs::write(&path, run.to_text()).map_err(|cause| Failure::Write { path: path.clone(), cause })?;
        self.written.insert(path.clone(), name(report));
        Ok(Some(path))
    }

    /// Two files in different folders may have one name.
    fn free_name(&self, folder: &Path, name: &str) -> PathBuf {
        let numbered = (2..).map(|number| folder.join(format!("{number}.{name}")));
        let mut names = std::iter::once(folder.join(name)).chain(numbered);
        names.find(|path| !self.written.contains_key(path)).unwrap_or_else(|| folder.join(name))
    }
}

/// What a report is about, in words.
pub(crate) fn name(report: &VariantReport) -> String {
    let variant = report.variant.as_ref().map_or_else(String::new, |variant| format!(" {variant}"));
    format!("{}{variant} ({})", report.race, report.memory.name())
}
