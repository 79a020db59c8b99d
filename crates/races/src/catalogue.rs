//! The litmus files that come with the project, built into the program.

/// One file of the catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name: the file name without `.litmus`.
    pub name: &'static str,
    /// Its folder: `x86` or `mm`.
    pub folder: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// Every file, sorted by folder and name.
pub fn entries() -> impl Iterator<Item = Entry> {
    std::iter::empty()
}

/// The file of this name, with or without its folder and extension.
pub fn entry(name: &str) -> Option<Entry> {
    entries().find(|entry| entry.name == name)
}
