//! Where Markdown goes: a file of its own, or a place in one that people write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The lines around a place: the one without a name, or one of several.
fn marks(place: &str) -> (String, String) {
    let space = if place.is_empty() { "" } else { " " };
    (format!("<!-- measured: {place}{space}begin -->\n"), format!("<!-- measured: {place}{space}end -->"))
}

/// A file to write results to, and a place in it.
pub struct Destination {
    path: PathBuf,
    before: String,
    after: String,
}

impl Destination {
    /// Looks at the file before anything is measured. `place` is the name in its lines `<!-- measured: NAME begin -->` and `<!-- measured: NAME end -->`; the place
    /// without a name has lines without one.
    ///
    /// # Errors
    /// It is there and cannot be read, or has no place for results.
    pub fn find(path: &Path, place: &str) -> Result<Self, String> {
        let around = match fs::read_to_string(path) {
            Ok(text) => Self::split(&text, place).ok_or_else(|| {
                let (begin, end) = marks(place);
                format!("{} has no lines {} and {end}", path.display(), begin.trim_end())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), String::new()),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        Ok(Self { path: path.to_owned(), before: around.0, after: around.1 })
    }

    fn split(text: &str, place: &str) -> Option<(String, String)> {
        let (first, last) = marks(place);
        let begin = text.find(&first)? + first.len();
        let end = begin + text[begin..].find(&last)?;
        Some((text[..begin].to_owned(), text[end..].to_owned()))
    }

    /// Writes `results` there, and leaves what people wrote.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, results: &str) -> Result<(), String> {
        let text = format!("{}{results}{}", self.before, self.after);
        fs::write(&self.path, text).map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays_and_so_do_other_places() {
        let (begin, end) = marks("");
        let (other_begin, other_end) = marks("protocol");
        let text = format!("above\n{begin}old\n{end}\n{other_begin}other\n{other_end}below\n");
        let (before, after) = Destination::split(&text, "").unwrap();
        assert_eq!(format!("{before}new\n{after}"), text.replace("old", "new"));
        let (before, after) = Destination::split(&text, "protocol").unwrap();
        assert_eq!(format!("{before}new\n{after}"), text.replace("other", "new"));
    }

    #[test]
    fn a_file_without_both_marks_has_no_place() {
        let (begin, end) = marks("");
        assert!(Destination::split("text", "").is_none());
        assert!(Destination::split(&format!("{end}\n{begin}"), "").is_none());
        assert!(Destination::split(&format!("{begin}{end}"), "protocol").is_none());
    }

    #[test]
    fn a_file_that_is_not_text_is_refused() {
        let error = Destination::find(Path::new(env!("CARGO_MANIFEST_DIR")), "").err().unwrap();
        assert!(error.contains("cannot read"), "{error}");
    }
}
