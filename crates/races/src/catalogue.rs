//! The litmus files that come with the project, built into the program.

use include_dir::{Dir, include_dir};

static FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/catalogue");
const EXTENSION: &str = ".litmus";

/// One file of the catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name: the file name without `.litmus`.
    pub name: &'static str,
    /// Its folder: `x86`, `mm`, `machine`, `transform` or `coatcheck`.
    pub folder: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl Entry {
    /// What messages call the file: `catalogue/x86/SB.litmus`.
    pub fn path(&self) -> String {
        format!("catalogue/{}/{}{EXTENSION}", self.folder, self.name)
    }
}

/// Every file, sorted by folder and name.
pub fn entries() -> impl Iterator<Item = Entry> {
    let mut entries: Vec<Entry> = FILES
        .dirs()
        .flat_map(|folder| folder.files().map(move |file| (folder, file)))
        .filter_map(|(folder, file)| {
            Some(Entry {
                name: file.path().file_name()?.to_str()?.strip_suffix(EXTENSION)?,
                folder: folder.path().to_str()?,
                text: file.contents_utf8()?,
            })
        })
        .collect();
    entries.sort_unstable_by_key(|entry| (entry.folder, entry.name));
    entries.into_iter()
}

/// The file of this name, with or without its folder and `.litmus`.
pub fn entry(name: &str) -> Option<Entry> {
    let name = name.strip_prefix("catalogue/").unwrap_or(name);
    let name = name.strip_suffix(EXTENSION).unwrap_or(name);
    entries().find(|entry| {
        name == entry.name
            || name.strip_prefix(entry.folder).and_then(|rest| rest.strip_prefix('/')) == Some(entry.name)
    })
}
