//! A run in a file: what it takes to do it again anywhere, and what must be seen then.

use std::path::{Path, PathBuf};

use lab::trace::Step;
use lab::{History, Recording, Row, Trace};
use miette::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::race::Race;
use crate::replay::{CannotReplay, replay};
use crate::report::{MemoryOrder, VariantReport, Verdict};
use crate::source::Source;

/// What the first member of a file says.
const FORMAT: &str = "fastgup run";
/// Of the format. Another number is another format.
const VERSION: u64 = 1;
/// The digest of the source that this program was built from.
pub const CODE: &str = env!("FASTGUP_CODE");

/// A run that was found, with the race it is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRun {
    /// The program that saved it.
    pub program: String,
    /// The digest of its source.
    pub code: String,
    /// What the litmus file was called.
    pub file: String,
    /// Its text.
    pub litmus: String,
    /// The variant; `None` for a file of instructions.
    pub variant: Option<String>,
    /// The memory order.
    pub memory: MemoryOrder,
    /// The verdict that the run is the reason for.
    pub verdict: Verdict,
    /// The rule that it breaks.
    pub rule: Option<String>,
    /// One sentence: why.
    pub message: Option<String>,
    /// Whether no such run has fewer steps, and none as many with fewer context switches.
    pub shortest: Option<bool>,
    /// What the file says about the variant.
    pub explanation: Option<String>,
    /// What it takes to do it again: the text of a [`Recording`].
    pub recording: String,
    /// The names of the CPUs.
    pub cpus: Vec<String>,
    /// The steps.
    pub steps: Vec<Step>,
    /// What the states speak of.
    pub rows: Vec<Row>,
    /// For each state the rows that are not what they were in the state before, with what they hold now; `None` if they are gone.
    pub states: Vec<Vec<(usize, Option<String>)>>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    format: String,
    version: u64,
    /// The SHA-256 of the run as JSON without blanks, its members in the order of their names.
    seal: String,
    run: Value,
}

/// Why a file is no run that can be done again.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum BadRun {
    /// The file system said no.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
    /// It is something else.
    #[error("{} is no saved run: {why}", path.display())]
    #[diagnostic(help("`fastgup check RACE --save-trace FILE` saves one"))]
    Other {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It ends too early.
    #[error("{} has been cut off in line {line}", path.display())]
    #[diagnostic(help("get the whole file, or save the run anew"))]
    CutOff {
        /// The file.
        path: PathBuf,
        /// Where it ends.
        line: usize,
    },
    /// It has another format.
    #[error("{} was saved in version {found} of the format, and this program reads version {VERSION}", path.display())]
    #[diagnostic(help("replay it with the program that saved it, or save the run anew"))]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// Somebody has changed it.
    #[error("{} has been edited since it was saved: its seal does not fit", path.display())]
    #[diagnostic(help("edit the litmus file and check that; a saved run is what was found"))]
    Edited {
        /// The file.
        path: PathBuf,
    },
    /// The race in it is none for this program.
    #[error("the race in {} cannot be run any more", path.display())]
    Race {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<Error>,
    },
}

impl SavedRun {
    /// The run that a report shows, done again for its states. `None` if the report shows none.
    ///
    /// # Errors
    /// The run does not go the same way again: the code keeps state that the lab does not see.
    pub fn of(race: &Race, report: &VariantReport) -> Result<Option<(Self, lab::Replay)>, CannotReplay> {
        let Some(trace) = &report.trace else { return Ok(None) };
        let done = replay(race, report.variant.as_deref(), report.memory, &trace.recording)?;
        let saved = Self {
            program: format!("fastgup {}", env!("CARGO_PKG_VERSION")),
            code: CODE.to_owned(),
            file: report.file.clone(),
            litmus: race.source.text().to_owned(),
            variant: report.variant.clone(),
            memory: report.memory,
            verdict: report.verdict,
            rule: report.rule.clone(),
            message: report.message.clone(),
            shortest: report.shortest,
            explanation: report.explanation.clone(),
            recording: trace.recording.to_string(),
            cpus: trace.cpus.clone(),
            steps: trace.steps.clone(),
            rows: done.history.rows.clone(),
            states: differences(&done.history),
        };
        Ok(Some((saved, done)))
    }

    /// As the text of a file.
    pub fn to_text(&self) -> String {
        let run = serde_json::to_value(self).expect("a run has text for keys, and whole numbers");
        let envelope = Envelope { format: FORMAT.to_owned(), version: VERSION, seal: seal(&run), run };
        serde_json::to_string_pretty(&envelope).expect("as above") + "\n"
    }

    /// The run in a file.
    ///
    /// # Errors
    /// It is none, or not as it was saved.
    pub fn read(path: &Path) -> Result<Self, BadRun> {
        let bytes = std::fs::read(path).map_err(|cause| BadRun::Read { path: path.to_owned(), cause })?;
        Self::from_bytes(path, &bytes)
    }

    /// The run in the content of a file, which messages call `path`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, BadRun> {
        let other = |why: String| BadRun::Other { path: path.to_owned(), why };
        let bad = |error: serde_json::Error| match error.is_eof() {
            true if !bytes.trim_ascii().is_empty() => BadRun::CutOff { path: path.to_owned(), line: error.line() },
            _ => other(error.to_string()),
        };
        let value: Value = serde_json::from_slice(bytes).map_err(bad)?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(other(format!("it does not say \"format\": \"{FORMAT}\"")));
        }
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(found) => return Err(BadRun::Version { path: path.to_owned(), found }),
            None => return Err(other("it does not say which version of the format it has".to_owned())),
        }
        let envelope: Envelope = serde_json::from_value(value).map_err(|error| other(error.to_string()))?;
        if seal(&envelope.run) != envelope.seal {
            return Err(BadRun::Edited { path: path.to_owned() });
        }
        let run: Self = serde_json::from_value(envelope.run).map_err(|error| other(error.to_string()))?;
        run.check(path)?;
        Ok(run)
    }

    /// The seal may be right and the content wrong: whoever sealed it was another program.
    fn check(&self, path: &Path) -> Result<(), BadRun> {
        let other = |why: String| Err(BadRun::Other { path: path.to_owned(), why });
        if let Err(error) = self.recording.parse::<Recording>() {
            return other(error.to_string());
        }
        if self.states.iter().flatten().any(|(row, _)| *row >= self.rows.len()) {
            return other("a state speaks of a row that there is not".to_owned());
        }
        if self.steps.iter().any(|step| step.cpu.index() >= self.cpus.len()) {
            return other("a step is of a CPU that there is not".to_owned());
        }
        let race = self.race().map_err(|cause| BadRun::Race { path: path.to_owned(), cause: Box::new(cause) })?;
        let variants = &race.litmus.variants;
        match &self.variant {
            Some(name) if !variants.iter().any(|variant| variant.name.node == *name) => {
                other(format!("its race has no variant `{name}`"))
            }
            None if !variants.is_empty() => other("it does not say which variant of its race it is of".to_owned()),
            _ => Ok(()),
        }
    }

    /// The race.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn race(&self) -> Result<Race, Error> {
        Race::new(Source::new(self.file.as_str(), self.litmus.as_str()))
    }

    /// The steps, as they were.
    pub fn trace(&self) -> Trace {
        let recording = self.recording.parse().unwrap_or_default();
        Trace { cpus: self.cpus.clone(), steps: self.steps.clone(), recording }
    }

    /// The states, as they were.
    pub fn history(&self) -> History {
        let mut states: Vec<Vec<Option<String>>> = Vec::new();
        for changes in &self.states {
            let mut state = states.last().cloned().unwrap_or_else(|| vec![None; self.rows.len()]);
            for (row, value) in changes {
                if let Some(place) = state.get_mut(*row) {
                    place.clone_from(value);
                }
            }
            states.push(state);
        }
        History { rows: self.rows.clone(), states }
    }

    /// A name for its file: race, variant and memory order.
    pub fn file_name(&self) -> String {
        let race = Path::new(&self.file).file_stem().map_or_else(|| "run".into(), |stem| stem.to_string_lossy());
        let variant = self.variant.as_ref().map_or_else(String::new, |variant| format!("{variant}."));
        format!("{race}.{variant}{}.run.json", self.memory.name())
    }
}

/// Each state without what is as it was in the one before.
pub(crate) fn differences(history: &History) -> Vec<Vec<(usize, Option<String>)>> {
    let nothing = vec![None; history.rows.len()];
    let before = std::iter::once(&nothing).chain(&history.states);
    let changes = |(before, after): (&Vec<Option<String>>, &Vec<Option<String>>)| {
        let rows = before.iter().zip(after).enumerate();
        rows.filter(|(_, (before, after))| before != after).map(|(row, (_, after))| (row, after.clone())).collect()
    };
    before.zip(&history.states).map(changes).collect()
}

fn seal(run: &Value) -> String {
    Sha256::digest(run.to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
