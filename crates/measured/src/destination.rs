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
    place: String,
}

impl Destination {
    /// Looks at the file before anything is measured. `place` is the name in its lines `<!-- measured: NAME begin -->` and `<!-- measured: NAME end -->`; the place
    /// without a name has lines without one.
    ///
    /// # Errors
    /// It is there and cannot be read, or has no place for results.
    pub fn find(path: &Path, place: &str) -> Result<Self, String> {
        let destination = Self { path: path.to_owned(), place: place.to_owned() };
        destination.around()?;
        Ok(destination)
    }

    /// What the file holds before the place and after it.
    fn around(&self) -> Result<(String, String), String> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Self::split(&text, &self.place).ok_or_else(|| {
                let (begin, end) = marks(&self.place);
                format!("{} has no lines {} and {end}", self.path.display(), begin.trim_end())
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((String::new(), String::new())),
            Err(error) => Err(format!("cannot read {}: {error}", self.path.display())),
        }
    }

    fn split(text: &str, place: &str) -> Option<(String, String)> {
        let (first, last) = marks(place);
        let begin = text.find(&first)? + first.len();
        let end = begin + text[begin..].find(&last)?;
        Some((text[..begin].to_owned(), text[end..].to_owned()))
    }

    /// Writes `results` there, and leaves what people wrote, also since [`Self::find`]: to measure may take half an hour.
    ///
    /// # Errors
    /// It cannot be written, or has no place for results any more.
    pub fn write(&self, results: &str) -> Result<(), String> {
        let (before, after) = self.around()?;
        let text = format!("{before}{results}{after}");
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
    fn what_people_write_while_it_is_measured_stays() {
        let path = std::env::temp_dir().join(format!("fastgup-destination-{}.md", std::process::id()));
        let (begin, end) = marks("");
        fs::write(&path, format!("early\n{begin}old\n{end}")).unwrap();
        let destination = Destination::find(&path, "").unwrap();
        fs::write(&path, format!("late\n{begin}old\n{end}")).unwrap();
        destination.write("new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("late\n{begin}new\n{end}"));
        fs::write(&path, "all of it is gone").unwrap();
        assert!(destination.write("new\n").unwrap_err().contains("has no lines"));
        fs::remove_file(&path).unwrap();
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
