//! A run in a file: what it takes to do it again anywhere, and what must be seen then.

use std::path::{Path, PathBuf};

use lab::trace::Step;
use lab::{History, Recording, Row, Trace};
use miette::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::needed::{self, Asked, Need, Place};
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
    /// What of the code was left out, if anything was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Place>,
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

/// What a run is of, and why it was looked for.
struct Found<'f> {
    variant: Option<&'f str>,
    memory: MemoryOrder,
    verdict: Verdict,
    rule: Option<&'f str>,
    message: Option<&'f str>,
    without: &'f [Place],
    shortest: Option<bool>,
    explanation: Option<&'f str>,
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
        let found = Found {
            variant: report.variant.as_deref(),
            memory: report.memory,
            verdict: report.verdict,
            rule: report.rule.as_deref(),
            message: report.message.as_deref(),
            without: &[],
            shortest: report.shortest,
            explanation: report.explanation.as_deref(),
        };
        Self::of_trace(race, found, trace).map(Some)
    }

    /// The run that shows why something is needed, in the same way. `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn of_need(race: &Race, asked: &Asked, need: &Need) -> Result<Option<(Self, lab::Replay)>, CannotReplay> {
        let Some(trace) = &need.trace else { return Ok(None) };
        let is_misuse = need.breaks.as_deref() == Some(needed::MISUSE);
        let places: Vec<String> = need.places.iter().map(ToString::to_string).collect();
        let message = format!("without {}: {}", places.join(" and "), need.message.as_deref().unwrap_or(""));
        let found = Found {
            variant: asked.variant.as_deref(),
            memory: asked.memory,
            verdict: if is_misuse { Verdict::Error } else { Verdict::Violation },
            rule: need.breaks.as_deref().filter(|_| !is_misuse),
            message: Some(&message),
            without: &need.places,
            shortest: need.shortest,
            explanation: None,
        };
        Self::of_trace(race, found, trace).map(Some)
    }

    fn of_trace(race: &Race, found: Found<'_>, trace: &Trace) -> Result<(Self, lab::Replay), CannotReplay> {
        let done = replay(race, found.variant, found.memory, &trace.recording, found.without)?;
        let saved = Self {
            program: format!("fastgup {}", env!("CARGO_PKG_VERSION")),
            code: CODE.to_owned(),
            file: race.source.name().to_owned(),
            litmus: race.source.text().to_owned(),
            variant: found.variant.map(str::to_owned),
            memory: found.memory,
            verdict: found.verdict,
            rule: found.rule.map(str::to_owned),
            message: found.message.map(str::to_owned),
            without: found.without.to_vec(),
            shortest: found.shortest,
            explanation: found.explanation.map(str::to_owned),
            recording: trace.recording.to_string(),
            cpus: trace.cpus.clone(),
            steps: trace.steps.clone(),
            rows: done.history.rows.clone(),
            states: differences(&done.history),
        };
        Ok((saved, done))
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
        if let Some(place) = self.without.iter().find(|place| place.label().is_none()) {
            return other(format!("there is no `{}` that could be left out", place.what));
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
        Trace { cpus: self.cpus.clone(), steps: self.steps.clone(), recording, ..Trace::default() }
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

    /// A name for its file: race, variant, memory order, and what was left out.
    pub fn file_name(&self) -> String {
        let race = Path::new(&self.file).file_stem().map_or_else(|| "run".into(), |stem| stem.to_string_lossy());
        let variant = self.variant.as_ref().map_or_else(String::new, |variant| format!("{variant}."));
        let without = |place: &Place| {
            let file =
                Path::new(&place.file).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            format!(".without-{}-{file}-{}", place.what.replace(' ', "-"), place.line)
        };
        let without: String = self.without.iter().map(without).collect();
        format!("{race}.{variant}{}{without}.run.json", self.memory.name())
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
