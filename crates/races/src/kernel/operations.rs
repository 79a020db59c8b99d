//! The operations that cells may hold.

use machine::{Access, VirtAddr};
use mm::{FileId, FileKind, Foll, SpaceId};

use super::arguments::Arguments;
use super::setup::Setup;
use crate::error::{Error, Problem};
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::{Operation, Value};

/// What an operation does.
pub(super) enum Action {
    /// `r = gup(x, pin, write)`, `r = gup_fast(...)` (never falls back): the register gets the number of the first frame, 0 if there is none.
    Gup { start: VirtAddr, pages: u64, flags: Foll, into: usize },
    /// `release(r)`: gives back what a `gup` into this register took.
    Release { from: usize, done: Access },
    /// `touch(x, write)`: user code accesses the address until it succeeds.
    Touch { address: VirtAddr, access: Access },
    /// `zap(x)`: MADV_DONTNEED.
    Zap { start: VirtAddr, pages: u64 },
    /// `unmap_mapping(f, 0, 1)`: zap by rmap.
    UnmapMapping { file: FileId, first: u64, pages: u64 },
    /// `replace(f, 0, B)`: another folio in the place of a page of a cached file.
    Replace { file: FileId, page: u64, frame: Option<usize> },
    /// `revoke(f, 0, B)`: a driver takes a frame back, and has another in its place or none. The old one is freed.
    Revoke { file: FileId, page: u64, frame: Option<usize> },
    /// `write_protect(x)`.
    WriteProtect { start: VirtAddr, pages: u64 },
    /// `munmap(x)`.
    Munmap { space: SpaceId, start: VirtAddr, pages: u64 },
}

/// One operation of one CPU.
pub(super) struct Step {
    pub(super) action: Action,
    /// As the file writes it.
    pub(super) text: String,
    /// Its name.
    pub(super) word: String,
    /// Whether the variant's `rounds` repeats it (together with its neighbours that are repeated, too).
    pub(super) repeat: Repeat,
}

/// How often an operation runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    Once,
    /// As often as the variant's `rounds` says.
    Rounds,
}

/// The most registers that one CPU's results can be in: what the lab can report.
const MOST_REGISTERS: usize = 16;

/// The operations of one CPU, and the registers that hold their results.
#[derive(Default)]
pub(super) struct Column {
    pub(super) steps: Vec<Step>,
    pub(super) registers: Vec<String>,
}

impl Column {
    pub(super) fn new(race: &Race, setup: &Setup, operations: &[Operation]) -> Result<Self, Error> {
        let mut column = Self::default();
        for operation in operations {
            let step = column.step(race, setup, operation)?;
            column.steps.push(step);
        }
        Ok(column)
    }

    fn step(&mut self, race: &Race, setup: &Setup, operation: &Operation) -> Result<Step, Error> {
        let mut arguments = Arguments::new(race, &operation.word, &operation.arguments);
        let repeat = arguments.one_of(&[("rounds", Repeat::Rounds)], Repeat::Once);
        let action = match operation.word.node.as_str() {
            "gup" => self.gup(race, setup, operation, &mut arguments, Foll::NONE)?,
            "gup_fast" => self.gup(race, setup, operation, &mut arguments, Foll::FAST_ONLY)?,
            "release" => {
                let done = access(&mut arguments);
                let register = arguments.positional("register", "release(r0)")?;
                let name = register.node.to_string();
                let Some(from) = self.registers.iter().position(|known| *known == name) else {
                    let problem = Problem::Unknown { what: "register", found: name, known: self.registers.clone() };
                    return Err(Error::new(&race.source, register.span, problem));
                };
                Action::Release { from, done }
            }
            "touch" => {
                let access = access(&mut arguments);
                let (_, address) = setup.address(race, arguments.positional("address", "touch(x, write)")?)?;
                Action::Touch { address, access }
            }
            "zap" => {
                let (start, pages) = range(race, setup, &mut arguments)?;
                Action::Zap { start, pages }
            }
            "write_protect" => {
                let (start, pages) = range(race, setup, &mut arguments)?;
                Action::WriteProtect { start, pages }
            }
            "munmap" => {
                let name = arguments.positional("area", "munmap(x)")?;
                let (area, _) = setup.address(race, name)?;
                let area = &setup.areas[area].area;
                Action::Munmap { space: SpaceId::new(0), start: area.start, pages: area.pages }
            }
            "unmap_mapping" => {
                let (file, first) = file_page(race, setup, &mut arguments, None)?;
                let count = arguments.positional("number of pages", "unmap_mapping(f, 0, 1)")?;
                Action::UnmapMapping { file, first, pages: arguments.in_range(count, u64::from(u32::MAX))? }
            }
            "replace" => {
                let (file, page) = file_page(race, setup, &mut arguments, Some(FileKind::Cached))?;
                let frame = frame(race, setup, &mut arguments, "replace(f, 0, B)")?;
                Action::Replace { file, page, frame }
            }
            "revoke" => {
                let (file, page) = file_page(race, setup, &mut arguments, Some(FileKind::Driver))?;
                let frame = frame(race, setup, &mut arguments, "revoke(f, 0, B)")?;
                Action::Revoke { file, page, frame }
            }
            other => {
                let known = [
                    "gup",
                    "gup_fast",
                    "release",
                    "touch",
                    "zap",
                    "write_protect",
                    "munmap",
                    "unmap_mapping",
                    "replace",
                    "revoke",
                ];
                let known = known.map(str::to_owned).to_vec();
                let problem = Problem::Unknown { what: "operation", found: other.to_owned(), known };
                return Err(Error::new(&race.source, operation.word.span, problem));
            }
        };
        arguments.finish()?;
        if let (Some(register), false) = (&operation.result, matches!(action, Action::Gup { .. })) {
            let why = format!("`{}` has no result", operation.word.node);
            let problem = Problem::Impossible { why, right: "only `gup` and `gup_fast` do".to_owned() };
            return Err(Error::new(&race.source, register.span, problem));
        }
        Ok(Step { action, text: operation.to_string(), word: operation.word.node.clone(), repeat })
    }

    fn gup(
        &mut self,
        race: &Race,
        setup: &Setup,
        operation: &Operation,
        arguments: &mut Arguments<'_>,
        given: Foll,
    ) -> Result<Action, Error> {
        let words = [("get", Foll::GET), ("pin", Foll::PIN), ("write", Foll::WRITE), ("longterm", Foll::LONGTERM)];
        let mut flags = given;
        for (word, flag) in words {
            if arguments.flag(word).is_some() {
                flags = flags | flag;
            }
        }
        let (start, pages) = range(race, setup, arguments)?;
        if let Err(error) = flags.validate() {
            let problem = Problem::Impossible { why: error.to_string(), right: "gup_fast(x, pin, write)".to_owned() };
            return Err(Error::new(&race.source, operation.span, problem));
        }
        let register = operation.result.as_ref().map_or("_", |register| register.node.as_str());
        let into = match self.registers.iter().position(|known| known == register) {
            Some(into) => into,
            None => {
                self.registers.push(register.to_owned());
                self.registers.len() - 1
            }
        };
        if into >= MOST_REGISTERS {
            let why = format!("a CPU has at most {MOST_REGISTERS} registers");
            let problem = Problem::Impossible { why, right: "use one again".to_owned() };
            return Err(Error::new(&race.source, operation.span, problem));
        }
        Ok(Action::Gup { start, pages, flags, into })
    }
}

fn access(arguments: &mut Arguments<'_>) -> Access {
    arguments.one_of(&[("read", Access::Read), ("write", Access::Write)], Access::Read)
}

fn range(race: &Race, setup: &Setup, arguments: &mut Arguments<'_>) -> Result<(VirtAddr, u64), Error> {
    let pages = arguments.number("pages", 1, 1 << 20)?;
    let (_, start) = setup.address(race, arguments.positional("address", "an area, or x+0x1000")?)?;
    Ok((start, pages))
}

fn file_page(
    race: &Race,
    setup: &Setup,
    arguments: &mut Arguments<'_>,
    kind: Option<FileKind>,
) -> Result<(FileId, u64), Error> {
    let name = arguments.positional("file", "a file")?;
    let file = setup.file_named(race, name)?;
    if kind.is_some_and(|kind| kind != setup.files[file].kind) {
        let why = format!("`{}` is of the other kind of file", name.node);
        let problem =
            Problem::Impossible { why, right: "`replace` is for cached files, `revoke` for drivers'".to_owned() };
        return Err(Error::new(&race.source, name.span, problem));
    }
    let page = arguments.positional("page", "a page of the file")?;
    let pages = setup.files[file].pages.len() as u64 * setup.files[file].leaf.frames();
    Ok((FileId::new(file as u16), arguments.in_range(page, pages.saturating_sub(1))?))
}

fn frame(race: &Race, setup: &Setup, arguments: &mut Arguments<'_>, right: &str) -> Result<Option<usize>, Error> {
    let value: &Spanned<Value> = arguments.positional("frame", right)?;
    match &value.node {
        Value::Name(none) if none == "none" => Ok(None),
        _ => setup.frame_named(race, value).map(Some),
    }
}
