//! A search that was left, in a file.
//!
//! The file holds what its author wrote first (which question it is, which code), then the search: states that were visited, parts that are left, counts, what is
//! known of constant and private words. A hash over everything comes last, so a file that was cut or edited is told from one that is whole. All numbers are little-endian.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::choice::Choice;
use crate::team::{Part, Sum};
use crate::visited::Fingerprints;

/// What every file begins with. The last byte is the version.
const MAGIC: [u8; 8] = *b"FGUPCHK\x02";

/// How wide fingerprints are.
const WIDE: u8 = 16;
const NARROW: u8 = 8;

/// A search, when nobody works on it.
pub struct Snapshot<'t> {
    pub(crate) root: u128,
    pub(crate) elapsed: Duration,
    pub(crate) fingerprints: Fingerprints,
    pub(crate) sum: &'t Sum,
    pub(crate) parts: &'t [Part],
    pub(crate) visited: &'t dyn Fn() -> AllVisited<'t>,
    pub(crate) quiet: Vec<(u32, u32)>,
}

pub(crate) type AllVisited<'t> = Box<dyn Iterator<Item = u128> + 't>;

/// A search that can be gone on with: [`crate::Team::resuming`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// What its author wrote first.
    pub label: Vec<u8>,
    pub(crate) root: u128,
    pub(crate) elapsed: Duration,
    pub(crate) fingerprints: Fingerprints,
    pub(crate) states: u64,
    pub(crate) transitions: u64,
    pub(crate) depth: u64,
    pub(crate) ends: u64,
    pub(crate) observations: BTreeSet<Vec<u64>>,
    pub(crate) quiet: Vec<(u32, u32)>,
    pub(crate) parts: Vec<Part>,
    pub(crate) visited: Vec<u128>,
}

/// Why a file is no checkpoint.
#[derive(Debug)]
pub enum CheckpointError {
    /// It cannot be read.
    Io(io::Error),
    /// It begins otherwise.
    NotACheckpoint,
    /// It was written by another version, of this number.
    OtherVersion(u8),
    /// It ends too soon.
    Truncated,
    /// It was changed after it was written.
    Damaged,
}

impl std::fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::NotACheckpoint => f.write_str("it is no checkpoint"),
            Self::OtherVersion(version) => {
                write!(f, "it has version {version} of the format, and only version {} can be read", MAGIC[7])
            }
            Self::Truncated => f.write_str("it is cut off"),
            Self::Damaged => f.write_str("it was changed after it was written"),
        }
    }
}

impl std::error::Error for CheckpointError {}

impl From<io::Error> for CheckpointError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Io(error) }
    }
}

impl Snapshot<'_> {
    /// Writes the search, after a label that says what it is: [`Checkpoint::label`].
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, label: &[u8], out: impl Write) -> io::Result<()> {
        let mut out = Hashing { inner: out, hash: Xxh3::new() };
        out.write_all(&MAGIC)?;
        out.count(label.len())?;
        out.write_all(label)?;
        out.wide(self.root)?;
        out.write_all(&[match self.fingerprints {
            Fingerprints::Wide => WIDE,
            Fingerprints::Narrow => NARROW,
        }])?;
        let Sum { states, transitions, depth, ends, observations } = self.sum;
        for number in [*states, *transitions, *depth, *ends, self.elapsed.as_millis() as u64] {
            out.number(number)?;
        }
        out.count(observations.len())?;
        for observation in observations {
            out.count(observation.len())?;
            observation.iter().try_for_each(|word| out.number(*word))?;
        }
        out.count(self.quiet.len())?;
        for (unit, bits) in &self.quiet {
            out.small(*unit)?;
            out.small(*bits)?;
        }
        out.count(self.parts.len())?;
        for part in self.parts {
            out.choices(&part.base)?;
            out.choices(&part.choices)?;
            out.count(part.frames.len())?;
            for (first, next) in &part.frames {
                out.count(*first)?;
                out.count(*next)?;
            }
        }
        out.count((self.visited)().count())?;
        for fingerprint in (self.visited)() {
            out.wide(fingerprint)?;
        }
        let hash = out.hash.digest128();
        out.inner.write_all(&hash.to_le_bytes())?;
        out.inner.flush()
    }
}

impl Checkpoint {
    /// Reads what [`Snapshot::write`] wrote.
    ///
    /// # Errors
    /// It is something else, or not all of it, or was changed.
    pub fn read(input: impl Read) -> Result<Self, CheckpointError> {
        let mut input = Hashing { inner: input, hash: Xxh3::new() };
        let magic: [u8; 8] = input.bytes()?;
        if magic[..7] != MAGIC[..7] {
            return Err(CheckpointError::NotACheckpoint);
        }
        if magic[7] != MAGIC[7] {
            return Err(CheckpointError::OtherVersion(magic[7]));
        }
        let label = input.list(|input| Ok(input.bytes::<1>()?[0]))?;
        let root = input.read_wide()?;
        let fingerprints = match input.bytes()? {
            [WIDE] => Fingerprints::Wide,
            [NARROW] => Fingerprints::Narrow,
            _ => return Err(CheckpointError::Damaged),
        };
        let [states, transitions, depth, ends, milliseconds] = [
            input.read_number()?,
            input.read_number()?,
            input.read_number()?,
            input.read_number()?,
            input.read_number()?,
        ];
        let observations = input.list(|input| input.list(Hashing::read_number))?;
        let quiet = input.list(|input| Ok((input.read_small()?, input.read_small()?)))?;
        let parts = input.list(|input| {
            let choices = |input: &mut Hashing<_>| input.list(|input| input.read_small().map(Choice::from_bits));
            let (base, choices) = (choices(input)?, choices(input)?);
            let frames = input.list(|input| Ok((input.read_number()? as usize, input.read_number()? as usize)))?;
            Ok(Part { base, choices, frames })
        })?;
        let visited = input.list(Hashing::read_wide)?;
        let hash = input.hash.digest128();
        let mut written = [0; 16];
        input.inner.read_exact(&mut written)?;
        let is_whole = written == hash.to_le_bytes() && input.inner.read(&mut [0])? == 0;
        if !is_whole || !parts.iter().all(Part::is_sound) {
            return Err(CheckpointError::Damaged);
        }
        Ok(Self {
            label,
            root,
            elapsed: Duration::from_millis(milliseconds),
            fingerprints,
            states,
            transitions,
            depth,
            ends,
            observations: observations.into_iter().collect(),
            quiet,
            parts,
            visited,
        })
    }

    /// How many states were visited.
    #[must_use]
    pub fn states(&self) -> u64 {
        self.states
    }
}

/// Hashes what goes through it.
struct Hashing<T> {
    inner: T,
    hash: Xxh3,
}

impl<W: Write> Hashing<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }

    fn small(&mut self, number: u32) -> io::Result<()> {
        self.write_all(&number.to_le_bytes())
    }

    fn number(&mut self, number: u64) -> io::Result<()> {
        self.write_all(&number.to_le_bytes())
    }

    fn wide(&mut self, number: u128) -> io::Result<()> {
        self.write_all(&number.to_le_bytes())
    }

    fn count(&mut self, count: usize) -> io::Result<()> {
        self.number(count as u64)
    }

    fn choices(&mut self, choices: &[Choice]) -> io::Result<()> {
        self.count(choices.len())?;
        choices.iter().try_for_each(|choice| self.small(choice.bits()))
    }
}

impl<R: Read> Hashing<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn read_small(&mut self) -> Result<u32, CheckpointError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn read_number(&mut self) -> Result<u64, CheckpointError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn read_wide(&mut self) -> Result<u128, CheckpointError> {
        self.bytes().map(u128::from_le_bytes)
    }

    /// A count, and as many items. A count that was damaged runs into the end of the file; nothing is reserved for it.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, CheckpointError>,
    ) -> Result<Vec<T>, CheckpointError> {
        let count = self.read_number()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}
