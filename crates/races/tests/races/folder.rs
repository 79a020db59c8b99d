//! A folder of the catalogue, decided.

use races::catalogue::entries;
use races::{Ends, Options, Race, VariantReport, Witnesses};

/// Its races, and what was found of each variant.
pub(crate) struct Folder {
    pub(crate) races: Vec<Race>,
    pub(crate) reports: Vec<VariantReport>,
}

impl Folder {
    /// Decides all races of a folder; the runs that show what was found are not looked for.
    ///
    /// # Panics
    /// A file cannot be read, or the folder holds none.
    pub(crate) fn decide(name: &str) -> Self {
        let races: Vec<Race> = entries()
            .filter(|entry| entry.folder == name)
            .map(|entry| Race::of_catalogue(&entry).unwrap_or_else(|error| panic!("{}", error.one_line())))
            .collect();
        assert!(!races.is_empty(), "{name} holds no race");
        let options = Options { witnesses: Witnesses::Skipped, ends: Ends::Collected, ..Options::default() };
        let mut reports = Vec::new();
        races::decide(&races, &options, |report| reports.push(report));
        Self { races, reports }
    }
}
