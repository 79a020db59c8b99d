//! Searches that are left and gone on with: a file for each variant, in a folder.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::Keeper;
use lab::{Checkpoint, CheckpointError, Snapshot};
use serde::{Deserialize, Serialize};

use crate::decide::Work;
use crate::saved_run::CODE;

/// Where checkpoints are kept, and how often they are taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoints {
    /// The folder. It is made if it is not there.
    pub folder: PathBuf,
    /// How much time passes between two.
    pub every: Duration,
    /// What is done with those that are there.
    pub present: Present,
}

/// What is done with a checkpoint of a variant that is to be decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Present {
    /// The search goes on where it was left.
    Resumed,
    /// The variant is not decided: hours of work are not lost by a slip.
    Refused,
}

/// Which search a checkpoint is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Label {
    code: String,
    race: String,
    variant: Option<String>,
    memory: String,
    text: String,
    /// Of a search by several processes: which member of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<(usize, usize)>,
}

impl Label {
    fn of(item: &Work<'_>, member: Option<(usize, usize)>) -> Self {
        Self {
            code: CODE.to_owned(),
            race: item.race.litmus.name.node.clone(),
            variant: item.variant.map(|variant| variant.name.node.clone()),
            memory: item.memory.name().to_owned(),
            text: item.race.source.text().to_owned(),
            member,
        }
    }

    /// The beginning of the names of its files.
    fn stem(&self) -> String {
        let names = [Some(&self.race), self.variant.as_ref(), Some(&self.memory)];
        let names: Vec<String> = names.into_iter().flatten().map(|name| as_file_name(name)).collect();
        names.join(".")
    }
}

/// The checkpoint of one variant.
pub(crate) struct Place {
    path: PathBuf,
    label: Label,
    /// How much time passes between two.
    pub(crate) every: Duration,
}

/// Why a search cannot go on, or not begin.
#[derive(Debug)]
pub(crate) enum Refusal {
    Folder(PathBuf, io::Error),
    Present(PathBuf),
    Unreadable(PathBuf, CheckpointError),
    OtherCode(PathBuf),
    OtherQuestion(PathBuf),
    /// Of a search by so many members.
    OtherMembers(PathBuf, usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let anew = "delete it to begin anew";
        match self {
            Self::Folder(path, error) => write!(f, "{} is no folder for checkpoints: {error}", path.display()),
            Self::Present(path) => {
                write!(f, "{} is there already: `--resume` goes on with it; {anew}", path.display())
            }
            Self::Unreadable(path, why) => write!(f, "{} cannot be gone on with: {why}; {anew}", path.display()),
            Self::OtherCode(path) => {
                let why = "the engine, the lab or the scenarios have changed since: what was visited says nothing of this code";
                write!(f, "{} cannot be gone on with: {why}; {anew}", path.display())
            }
            Self::OtherQuestion(path) => {
                write!(f, "{} cannot be gone on with: the race has changed since; {anew}", path.display())
            }
            Self::OtherMembers(path, members) => {
                let why = format!("it is a part of a search by {members} members (processes times `--team`)");
                write!(f, "{} cannot be gone on with: {why}; start as many again, or {anew}", path.display())
            }
        }
    }
}

impl Checkpoints {
    /// Where that of a variant is, and what is there.
    pub(crate) fn of(&self, item: &Work<'_>) -> Result<(Place, Option<Checkpoint>), Refusal> {
        fs::create_dir_all(&self.folder).map_err(|error| Refusal::Folder(self.folder.clone(), error))?;
        let label = Label::of(item, None);
        let path = self.folder.join(format!("{}.checkpoint", label.stem()));
        let found = match File::open(&path) {
            Ok(_) if self.present == Present::Refused => return Err(Refusal::Present(path)),
            Ok(file) => Some(read(&path, file, &label)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Refusal::Unreadable(path, error.into())),
        };
        Ok((Place { path, label, every: self.every }, found))
    }
}

fn read(path: &Path, file: File, wanted: &Label) -> Result<Checkpoint, Refusal> {
    let unreadable = |why| Refusal::Unreadable(path.to_owned(), why);
    let checkpoint = Checkpoint::read(BufReader::with_capacity(1 << 20, file)).map_err(unreadable)?;
    let label: Label = serde_json::from_slice(&checkpoint.label).map_err(|_| unreadable(CheckpointError::Damaged))?;
    if label.code != wanted.code {
        return Err(Refusal::OtherCode(path.to_owned()));
    }
    if label != *wanted {
        return Err(Refusal::OtherQuestion(path.to_owned()));
    }
    Ok(checkpoint)
}

/// What no file system minds.
fn as_file_name(name: &str) -> String {
    let kept = |letter: char| letter.is_ascii_alphanumeric() || "-_+".contains(letter);
    name.chars().map(|letter| if kept(letter) { letter } else { '_' }).collect()
}

/// The checkpoints of one member of a search by several processes: `<search>.<member>of<members>.<number>.checkpoint`.
pub(crate) struct MemberPlace<'c> {
    checkpoints: &'c Checkpoints,
    label: Label,
    stem: String,
}

impl<'c> MemberPlace<'c> {
    pub(crate) fn new(checkpoints: &'c Checkpoints, item: &Work<'_>, member: (usize, usize)) -> Self {
        let label = Label::of(item, Some(member));
        let stem = format!("{}.{}of{}.", label.stem(), member.0, member.1);
        Self { checkpoints, label, stem }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.checkpoints.folder.join(format!("{}{number}.checkpoint", self.stem))
    }

    /// A file of the same search by another number of members.
    fn of_another_search(&self) -> io::Result<Option<(PathBuf, usize)>> {
        let stem = format!("{}.", self.label.stem());
        for entry in fs::read_dir(&self.checkpoints.folder)? {
            let name = entry?.file_name();
            let members = name.to_str().and_then(|name| {
                let member = name.strip_prefix(&stem)?.strip_suffix(".checkpoint")?.split('.').next()?;
                member.split_once("of")?.1.parse::<usize>().ok()
            });
            if let Some(members) = members.filter(|&members| self.label.member.is_some_and(|own| own.1 != members)) {
                return Ok(Some((self.checkpoints.folder.join(name), members)));
            }
        }
        Ok(None)
    }

    /// The numbers of the files that are there.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.checkpoints.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(&self.stem)?.strip_suffix(".checkpoint"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(numbers)
    }
}

impl Keeper for MemberPlace<'_> {
    fn every(&self) -> Duration {
        self.checkpoints.every
    }

    fn present(&self) -> Result<Vec<u64>, String> {
        let folder = &self.checkpoints.folder;
        let present = fs::create_dir_all(folder).and_then(|()| Ok((self.numbers()?, self.of_another_search()?)));
        let (numbers, other) = present.map_err(|error| Refusal::Folder(folder.clone(), error).to_string())?;
        if let Some((path, members)) = other {
            return Err(Refusal::OtherMembers(path, members).to_string());
        }
        match numbers.first() {
            Some(number) if self.checkpoints.present == Present::Refused => {
                Err(Refusal::Present(self.path(*number)).to_string())
            }
            _ => Ok(numbers),
        }
    }

    fn read(&self, number: u64) -> Result<Checkpoint, String> {
        let path = self.path(number);
        let file = File::open(&path).map_err(|error| Refusal::Unreadable(path.clone(), error.into()));
        file.and_then(|file| read(&path, file, &self.label)).map_err(|refusal| refusal.to_string())
    }

    fn write(&self, number: u64, snapshot: &Snapshot<'_>) -> Result<(), String> {
        let path = self.path(number);
        save(&path, &self.label, snapshot).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn keep_only(&self, kept: Option<u64>) {
        for number in self.numbers().unwrap_or_default() {
            if Some(number) != kept {
                // If it stays, it is one more that is there.
                let _ = fs::remove_file(self.path(number));
            }
        }
    }
}

/// Keeps a snapshot. The file is the old one or the new one, whenever power fails.
fn save(path: &Path, label: &Label, snapshot: &Snapshot<'_>) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let result = write(&unfinished, label, snapshot).and_then(|()| fs::rename(&unfinished, path));
    if result.is_err() {
        // What is left of it takes room that the disk may not have.
        let _ = fs::remove_file(&unfinished);
    }
    result
}

fn write(path: &Path, label: &Label, snapshot: &Snapshot<'_>) -> io::Result<()> {
    let label = serde_json::to_vec(label)?;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    snapshot.write(&label, &mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

impl Place {
    /// Keeps a snapshot.
    pub(crate) fn save(&self, snapshot: &Snapshot<'_>) -> io::Result<()> {
        save(&self.path, &self.label, snapshot)
    }

    /// The variant is decided.
    pub(crate) fn remove(&self) {
        // If it stays, the next run refuses to begin and says why.
        let _ = fs::remove_file(&self.path);
    }
}
