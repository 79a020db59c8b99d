//! Where Markdown goes: a file of its own, or a place in one that people write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->";

/// A file to write results to.
pub(crate) struct Destination {
    path: PathBuf,
    before: String,
    after: String,
}

impl Destination {
    /// Looks at the file before anything is measured.
    ///
    /// # Errors
    /// It is there and cannot be read, or has no place for results.
    pub(crate) fn find(path: &Path) -> Result<Self, String> {
        let around = match fs::read_to_string(path) {
            Ok(text) => Self::split(&text)
                .ok_or_else(|| format!("{} has no lines {} and {END}", path.display(), BEGIN.trim_end()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), String::new()),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        Ok(Self { path: path.to_owned(), before: around.0, after: around.1 })
    }

    fn split(text: &str) -> Option<(String, String)> {
        let begin = text.find(BEGIN)? + BEGIN.len();
        let end = begin + text[begin..].find(END)?;
        Some((text[..begin].to_owned(), text[end..].to_owned()))
    }

    /// Writes `results` there, and leaves what people wrote.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, results: &str) -> Result<(), String> {
        let text = format!("{}{results}{}", self.before, self.after);
        fs::write(&self.path, text).map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays() {
        let text = format!("above\n{BEGIN}old\n{END}\nbelow\n");
        let (before, after) = Destination::split(&text).unwrap();
        assert_eq!(format!("{before}new\n{after}"), format!("above\n{BEGIN}new\n{END}\nbelow\n"));
    }

    #[test]
    fn a_file_without_both_marks_has_no_place() {
        assert!(Destination::split("text").is_none());
        assert!(Destination::split(&format!("{END}\n{BEGIN}")).is_none());
    }

    #[test]
    fn a_file_that_is_not_text_is_refused() {
        let error = Destination::find(Path::new(env!("CARGO_MANIFEST_DIR"))).err().unwrap();
        assert!(error.contains("cannot read"), "{error}");
    }
}
