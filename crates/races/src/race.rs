//! A litmus file, read and checked, ready to be decided.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::catalogue;
use crate::error::{Error, LoadError, Problem, closest};
use crate::orders;
use crate::report::MemoryOrder;
use crate::rule;
use crate::scenario;
use crate::scope;
use crate::source::{Source, Span};
use crate::syntax::{Expectation, Litmus, Variant};

/// A litmus test together with the text it came from.
#[derive(Clone, Debug)]
pub struct Race {
    /// The text.
    pub source: Source,
    /// What it says; where it says `entries`, how many.
    pub litmus: Litmus,
}

impl Race {
    /// Parses `source` and checks, for every variant and memory order, that a machine can be made of it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(source: Source) -> Result<Self, Error> {
        let litmus = scope::with_entries(&source, crate::parse::parse(&source)?)?;
        let race = Self { source, litmus };
        scope::check(&race)?;
        race.check_expectations()?;
        for (variant, memory) in race.runs()? {
            scenario::prepare(&race, variant, memory)?;
        }
        Ok(race)
    }

    /// A file that expects a rule which does not exist would never be satisfied.
    fn check_expectations(&self) -> Result<(), Error> {
        for variant in &self.litmus.variants {
            let Expectation::Breaks(rules) = &variant.expectation.node else { continue };
            if let Some(expected) = rules.iter().find(|expected| !rule::ALL.contains(&expected.node.as_str())) {
                let known = rule::ALL.map(str::to_owned).to_vec();
                let problem = Problem::Unknown { what: "rule", found: expected.node.clone(), known };
                return Err(Error::new(&self.source, expected.span, problem));
            }
        }
        Ok(())
    }

    /// Every variant under every memory order that the file asks for.
    pub(crate) fn runs(&self) -> Result<Vec<(Option<&Variant>, MemoryOrder)>, Error> {
        let variants: Vec<Option<&Variant>> = match self.litmus.variants.as_slice() {
            [] => vec![None],
            variants => variants.iter().map(Some).collect(),
        };
        let mut runs = Vec::new();
        for variant in variants {
            runs.extend(orders::of(self, variant)?.into_iter().map(|order| (variant, order)));
        }
        Ok(runs)
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is not a litmus test.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        let failed = |cause| LoadError::Read { path: path.to_owned(), cause };
        let mut bytes = Vec::new();
        // One byte more than is allowed tells a file that is too large, however large it is.
        let file = File::open(path).map_err(failed)?;
        file.take(crate::MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > crate::MAX_FILE_BYTES {
            let found = std::fs::metadata(path).map_or(bytes.len() as u64, |data| data.len());
            return Err(Error::new(&Source::new(name, ""), Span::default(), Problem::TooLarge { found }).into());
        }
        // Bytes that are no text are replaced by a sign that no litmus test has outside comments: the parser points at it.
        Ok(Self::new(Source::new(name, String::from_utf8_lossy(&bytes)))?)
    }

    /// A race of the catalogue.
    ///
    /// # Errors
    /// It is not a litmus test that can be run.
    pub fn of_catalogue(entry: &catalogue::Entry) -> Result<Self, Error> {
        Self::new(Source::new(entry.path(), entry.text))
    }

    /// The file at this path, or else the race of the catalogue with this name (that of its file, with or without folder and
    /// `.litmus`).
    ///
    /// # Errors
    /// There is neither, or it is not a litmus test.
    pub fn find(name: &str) -> Result<Self, LoadError> {
        let path = Path::new(name);
        if path.is_file() {
            return Self::read(path);
        }
        match catalogue::entry(name) {
            Some(entry) => Ok(Self::of_catalogue(&entry)?),
            None => Err(unknown(name)),
        }
    }

    /// The races that `name` stands for: those of all `.litmus` files in and below a folder, by path, or the one that
    /// [`Self::find`] finds. Each with its own error, so that one bad file hides no other.
    pub fn find_all(name: &str) -> Vec<Result<Self, LoadError>> {
        let path = Path::new(name);
        if !path.is_dir() {
            return vec![Self::find(name)];
        }
        let mut files = Vec::new();
        match litmus_files(path, &mut files) {
            Ok(()) if files.is_empty() => {
                let remedy = "litmus files end in `.litmus`".to_owned();
                vec![Err(LoadError::Unknown { name: name.to_owned(), remedy })]
            }
            Ok(()) => {
                files.sort();
                files.iter().map(|file| Self::read(file)).collect()
            }
            Err((path, cause)) => vec![Err(LoadError::Read { path, cause })],
        }
    }
}

fn unknown(name: &str) -> LoadError {
    let known: Vec<String> = catalogue::entries().map(|entry| entry.name.to_owned()).collect();
    let remedy = match closest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "give the path of a file or folder, or a name of the catalogue".to_owned(),
    };
    LoadError::Unknown { name: name.to_owned(), remedy }
}

fn litmus_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), (PathBuf, std::io::Error)> {
    let failed = |cause| (folder.to_owned(), cause);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // Symbolic links to folders are not followed: they may lead back.
        if entry.file_type().map_err(failed)?.is_dir() {
            litmus_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "litmus") {
            files.push(path);
        }
    }
    Ok(())
}
