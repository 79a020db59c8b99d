//! Saving the runs that `check` finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lab::Replay;
use races::{Asked, Need, Race, SavedRun, VariantReport};

use crate::failure::Failure;
use crate::page::page;

/// Where runs go.
pub(crate) struct Saver {
    files: Option<Place>,
    /// What was written, and of which run.
    written: BTreeMap<PathBuf, String>,
    page: Option<PathBuf>,
    /// What the page will show.
    shown: Vec<(SavedRun, Replay)>,
}

enum Place {
    /// A file for each run.
    Folder(PathBuf),
    /// One file, for one run.
    File(PathBuf),
}

impl Saver {
    /// Files, and a page for all of them. A folder is what is one, or ends like one; it is made if it is not there.
    pub(crate) fn new(files: Option<&Path>, page: Option<&Path>) -> Result<Self, Failure> {
        let files = match files {
            Some(path) if path.is_dir() || path.to_string_lossy().ends_with(std::path::MAIN_SEPARATOR) => {
                fs::create_dir_all(path).map_err(|cause| Failure::Write { path: path.to_owned(), cause })?;
                Some(Place::Folder(path.to_owned()))
            }
            Some(path) => Some(Place::File(path.to_owned())),
            None => None,
        };
        if let Some(path) = page {
            // Better now than after a long search.
            write(path, "")?;
        }
        Ok(Self { files, written: BTreeMap::new(), page: page.map(Path::to_owned), shown: Vec::new() })
    }

    /// Files, each for one run, in a folder; it is made if it is not there.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder).map_err(|cause| Failure::Write { path: folder.to_owned(), cause })?;
        let files = Some(Place::Folder(folder.to_owned()));
        Ok(Self { files, written: BTreeMap::new(), page: None, shown: Vec::new() })
    }

    /// Saves the run that shows why something is needed, if there is one, and says where.
    pub(crate) fn save_need(&mut self, race: &Race, asked: &Asked, need: &Need) -> Result<Option<PathBuf>, Failure> {
        let Some((run, _)) = SavedRun::of_need(race, asked, need)? else { return Ok(None) };
        let Some(Place::Folder(folder)) = &self.files else { return Ok(None) };
        let path = self.free_name(folder, &run.file_name());
        write(&path, &run.to_text())?;
        self.written.insert(path.clone(), run.file_name());
        Ok(Some(path))
    }

    /// Saves the run that a report shows, if it shows one and that is asked for, and says where.
    pub(crate) fn save(&mut self, race: &Race, report: &VariantReport) -> Result<Option<PathBuf>, Failure> {
        if self.files.is_none() && self.page.is_none() {
            return Ok(None);
        }
        let Some((run, replay)) = SavedRun::of(race, report)? else { return Ok(None) };
        let path = match &self.files {
            None => None,
            Some(Place::Folder(folder)) => Some(self.free_name(folder, &run.file_name())),
            Some(Place::File(path)) => {
                if let Some(other) = self.written.get(path) {
                    return Err(Failure::Usage {
                        problem: format!("{} has the run of {other}, and there are more", path.display()),
                        remedy: "name a folder, with a `/` at its end, or choose one with --variant and --memory"
                            .into(),
                    });
                }
                Some(path.clone())
            }
        };
        if let Some(path) = &path {
            write(path, &run.to_text())?;
            self.written.insert(path.clone(), name(report));
        }
        if self.page.is_some() {
            self.shown.push((run, replay));
        }
        Ok(path)
    }

    /// Writes the page, and says where.
    pub(crate) fn finish(self) -> Result<Option<PathBuf>, Failure> {
        let Some(path) = self.page else { return Ok(None) };
        if self.shown.is_empty() {
            // What was found by then is nothing: an empty file would only puzzle.
            fs::remove_file(&path).map_err(|cause| Failure::Write { path, cause })?;
            return Ok(None);
        }
        write(&path, &page(&self.shown))?;
        Ok(Some(path))
    }

    /// Two files in different folders may have one name.
    fn free_name(&self, folder: &Path, name: &str) -> PathBuf {
        let numbered = (2..).map(|number| folder.join(format!("{number}.{name}")));
        let mut names = std::iter::once(folder.join(name)).chain(numbered);
        names.find(|path| !self.written.contains_key(path)).unwrap_or_else(|| folder.join(name))
    }
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|cause| Failure::Write { path: path.to_owned(), cause })
}

/// What a report is about, in words.
fn name(report: &VariantReport) -> String {
    let variant = report.variant.as_ref().map_or_else(String::new, |variant| format!(" {variant}"));
    format!("{}{variant} ({})", report.race, report.memory.name())
}
