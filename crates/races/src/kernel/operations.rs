//! The operations that cells may hold.

use machine::{Access, VirtAddr};
use mm::{Area, FileId, FileKind, Foll, SpaceId};

use super::arguments::{Arguments, named};
use super::setup::Setup;
use crate::error::{Error, Problem};
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::{Argument, Operation, Value, Variant};

/// What an operation does. `space` is that of the CPU, unless the operation names another.
pub(super) enum Action {
    /// `r = gup(x, pin, write)`, `r = gup_fast(...)` (never falls back): the register gets the number of the first frame, 0 if there is none.
    Gup { space: SpaceId, start: VirtAddr, pages: u64, flags: Foll, into: usize },
    /// `release(r)`: gives back what a `gup` into this register took.
    Release { from: usize, done: Access },
    /// `r = touch(x, write=1)`: user code accesses the address until it succeeds.
    Touch { address: VirtAddr, user: User },
    /// `zap(x)`: MADV_DONTNEED.
    Zap { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `unmap_mapping(f, 0, 1)`: zap by rmap.
    UnmapMapping { file: FileId, first: u64, pages: u64 },
    /// `replace(f, 0, B)`: another folio in the place of a page of a cached file.
    Replace { file: FileId, page: u64, frame: Option<usize> },
    /// `revoke(f, 0, B)`: a driver takes a frame back, and has another in its place or none. The old one is freed.
    Revoke { file: FileId, page: u64, frame: Option<usize> },
    /// `move(f, 0, B)`: as `revoke`, and what the old frame held is copied to the new one.
    Move { file: FileId, page: u64, frame: usize, copy: Copy },
    /// `kill(f)`: the device goes whose memory the file maps.
    Kill { file: FileId },
    /// `r = follow(x, write=1)`: finds out which frame a driver has mapped, and lets a device access it while that is certain.
    Follow { space: SpaceId, start: VirtAddr, device: Option<Device> },
    /// `r = walk(x)`: a walker that knows small pages only.
    Walk { space: SpaceId, address: VirtAddr },
    /// `r = io(r0, write=1)`: a device accesses the frame in a register.
    Io { from: usize, device: Device },
    /// `write_protect(x)`.
    WriteProtect { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `mmap(x)`: an area that is not there at the start.
    Mmap { space: SpaceId, area: Area },
    /// `swap_out(x, pages=1)`: the pages that are mapped there go to swap, with one flush for all.
    SwapOut { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `migrate(x)`: the folio that is mapped there moves to other frames.
    Migrate { space: SpaceId, address: VirtAddr },
    /// `migrate_range(x, pages=1)`.
    MigrateRange { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `write_back(f, 0)`: a page of a cached file is cleaned and written out.
    WriteBack { file: FileId, page: u64 },
    /// `drop_page(f, 0)`: a clean page of a cached file is taken out of memory.
    DropPage { file: FileId, page: u64 },
    /// `munmap(x)`, `munmap(x+0x1000, pages=1)`.
    Munmap { space: SpaceId, start: VirtAddr, pages: u64 },
}

/// What user code does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum User {
    /// Accesses the page; what it moves does not matter.
    Access(Access),
    /// Loads its word.
    Load,
    /// Stores this.
    Store(u64),
}

/// What a device does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Device {
    Load,
    Store(u64),
}

/// When a driver copies what it moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copy {
    /// When nobody can reach the old frame any more.
    Revoked,
    /// Before it takes the old frame away.
    Early,
}

impl Action {
    /// The page that it speaks of, and whose it is, for one that user code or GUP accesses. `own` is the space of the CPU.
    pub(super) fn page(&self, own: usize) -> Option<(VirtAddr, usize)> {
        match *self {
            Self::Gup { space, start, .. } => Some((start, usize::from(space.number()))),
            Self::Touch { address, .. } => Some((address, own)),
            Self::Follow { space, start, .. } => Some((start, usize::from(space.number()))),
            _ => None,
        }
    }
}

/// One operation of one CPU.
pub(super) struct Step {
    pub(super) action: Action,
    /// The register that gets its result.
    pub(super) into: Option<usize>,
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

/// The greatest word that user code can store: above are results that are no words.
const MOST_WORD: u64 = u64::MAX - 1;
/// The most registers that one CPU's results can be in: what the lab can report.
const MOST_REGISTERS: usize = 16;

/// The operations of one CPU, and the registers that hold their results.
#[derive(Default)]
pub(super) struct Column {
    pub(super) steps: Vec<Step>,
    pub(super) registers: Vec<String>,
}

impl Column {
    /// Gives meaning to what the CPU with this number does.
    pub(super) fn new(
        race: &Race,
        setup: &Setup,
        cpu: usize,
        operations: &[Operation],
        variant: Option<&Variant>,
    ) -> Result<Self, Error> {
        let mut column = Self::default();
        for operation in operations {
            let mut arguments = Arguments::new(race, &operation.word, &operation.arguments);
            let takes_part = takes_part(race, &mut arguments, variant)?;
            let step = column.step(race, setup, setup.space_of(cpu), operation, arguments)?;
            if takes_part {
                column.steps.push(step);
            }
        }
        Ok(column)
    }

    /// Whether an operation depends on what is in frames.
    pub(super) fn moves_words(&self) -> bool {
        self.steps.iter().any(|step| {
            matches!(
                step.action,
                Action::Touch { user: User::Load | User::Store(_), .. }
                    | Action::Io { .. }
                    | Action::Follow { device: Some(_), .. }
            )
        })
    }

    fn step(
        &mut self,
        race: &Race,
        setup: &Setup,
        own: usize,
        operation: &Operation,
        mut arguments: Arguments<'_>,
    ) -> Result<Step, Error> {
        let repeat = arguments.one_of(&[("rounds", Repeat::Rounds)], Repeat::Once);
        let space = |arguments: &mut Arguments<'_>| match arguments.one("space")? {
            Some(space) => setup.space_named(race, space).map(|index| SpaceId::new(index as u16)),
            None => Ok(SpaceId::new(own as u16)),
        };
        let into = match &operation.result {
            Some(register) => Some(self.register(race, &register.node, operation)?),
            None => None,
        };
        let action = match operation.word.node.as_str() {
            "gup" | "gup_fast" => {
                let space = space(&mut arguments)?;
                let given = if operation.word.node == "gup" { Foll::NONE } else { Foll::FAST_ONLY };
                self.gup(race, setup, operation, &mut arguments, (space, into), given)?
            }
            "release" => {
                let done = access(&mut arguments);
                Action::Release { from: self.known_register(race, &mut arguments, "release(r0)")?, done }
            }
            "io" => {
                let device = device(&mut arguments)?.unwrap_or(Device::Load);
                Action::Io { from: self.known_register(race, &mut arguments, "io(r0, write=1)")?, device }
            }
            "follow" => {
                let device = device(&mut arguments)?;
                let (_, start) = setup.address(race, arguments.positional("address", "follow(x)")?)?;
                Action::Follow { space: space(&mut arguments)?, start, device }
            }
            "kill" => {
                let name = arguments.positional("file", "kill(f)")?;
                let file = setup.file_named(race, name)?;
                if setup.files[file].kind != FileKind::Mixed {
                    let why = format!("`{}` is not of a device with page records", name.node);
                    let problem = Problem::Impossible { why, right: "a `mixed` file of `pagemap` frames".to_owned() };
                    return Err(Error::new(&race.source, name.span, problem));
                }
                Action::Kill { file: FileId::new(file as u16) }
            }
            "walk" => {
                let (_, address) = setup.address(race, arguments.positional("address", "walk(x)")?)?;
                Action::Walk { space: space(&mut arguments)?, address }
            }
            "move" => {
                let copy = arguments.one_of(&[("early", Copy::Early)], Copy::Revoked);
                let (file, page) = file_page(race, setup, &mut arguments, Some(FileKind::Driver))?;
                let value = arguments.positional("frame", "move(f, 0, B)")?;
                Action::Move { file, page, frame: setup.frame_named(race, value)?, copy }
            }
            "touch" => {
                let user = match (arguments.one("write")?, access(&mut arguments), into) {
                    (Some(value), _, _) => User::Store(arguments.in_range(value, MOST_WORD)?),
                    (_, Access::Read, Some(_)) => User::Load,
                    (_, access, _) => User::Access(access),
                };
                let (_, address) = setup.address(race, arguments.positional("address", "touch(x, write)")?)?;
                Action::Touch { address, user }
            }
            "zap" => {
                let (start, pages) = range(race, setup, &mut arguments)?;
                Action::Zap { space: space(&mut arguments)?, start, pages }
            }
            "write_protect" => {
                let (start, pages) = range(race, setup, &mut arguments)?;
                Action::WriteProtect { space: space(&mut arguments)?, start, pages }
            }
            "swap_out" => {
                let (start, pages) = range(race, setup, &mut arguments)?;
                Action::SwapOut { space: space(&mut arguments)?, start, pages }
            }
            "migrate" => {
                let (_, address) = setup.address(race, arguments.positional("address", "migrate(x)")?)?;
                Action::Migrate { space: space(&mut arguments)?, address }
            }
            "migrate_range" => {
                let (start, pages) = range(race, setup, &mut arguments)?;
                Action::MigrateRange { space: space(&mut arguments)?, start, pages }
            }
            "write_back" | "drop_page" => {
                let (file, page) = file_page(race, setup, &mut arguments, Some(FileKind::Cached))?;
                match operation.word.node.as_str() {
                    "write_back" => Action::WriteBack { file, page },
                    _ => Action::DropPage { file, page },
                }
            }
            "mmap" => {
                let (area, _) = setup.address(race, arguments.positional("area", "mmap(x)")?)?;
                Action::Mmap { space: space(&mut arguments)?, area: setup.areas[area].area }
            }
            "munmap" => {
                let pages = arguments.number("pages", 0, 1 << 20)?;
                let (area, address) = setup.address(race, arguments.positional("address", "munmap(x)")?)?;
                let area = &setup.areas[area].area;
                let (start, pages) = if pages == 0 { (area.start, area.pages) } else { (address, pages) };
                Action::Munmap { space: space(&mut arguments)?, start, pages }
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
                    "swap_out",
                    "migrate",
                    "migrate_range",
                    "write_back",
                    "drop_page",
                    "mmap",
                    "munmap",
                    "unmap_mapping",
                    "replace",
                    "revoke",
                    "move",
                    "kill",
                    "follow",
                    "io",
                    "walk",
                ];
                let known = known.map(str::to_owned).to_vec();
                let problem = Problem::Unknown { what: "operation", found: other.to_owned(), known };
                return Err(Error::new(&race.source, operation.word.span, problem));
            }
        };
        arguments.finish()?;
        if let (Some(register), Action::Release { .. }) = (&operation.result, &action) {
            let why = format!("`{}` has no result", operation.word.node);
            let problem = Problem::Impossible { why, right: "all other operations have".to_owned() };
            return Err(Error::new(&race.source, register.span, problem));
        }
        Ok(Step { action, into, text: text(operation), word: operation.word.node.clone(), repeat })
    }

    fn gup(
        &mut self,
        race: &Race,
        setup: &Setup,
        operation: &Operation,
        arguments: &mut Arguments<'_>,
        (space, into): (SpaceId, Option<usize>),
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
        let into = match into {
            Some(into) => into,
            None => self.register(race, "_", operation)?,
        };
        Ok(Action::Gup { space, start, pages, flags, into })
    }

    /// The register that the next argument names, which an earlier operation has as its result.
    fn known_register(&self, race: &Race, arguments: &mut Arguments<'_>, right: &'static str) -> Result<usize, Error> {
        let register = arguments.positional("register", right)?;
        let name = register.node.to_string();
        self.registers.iter().position(|known| *known == name).ok_or_else(|| {
            let problem = Problem::Unknown { what: "register", found: name, known: self.registers.clone() };
            Error::new(&race.source, register.span, problem)
        })
    }

    /// The number of the register of this name.
    fn register(&mut self, race: &Race, name: &str, operation: &Operation) -> Result<usize, Error> {
        if let Some(known) = self.registers.iter().position(|known| known == name) {
            return Ok(known);
        }
        if self.registers.len() == MOST_REGISTERS {
            let why = format!("a CPU has at most {MOST_REGISTERS} registers");
            let problem = Problem::Impossible { why, right: "use one again".to_owned() };
            return Err(Error::new(&race.source, operation.span, problem));
        }
        self.registers.push(name.to_owned());
        Ok(self.registers.len() - 1)
    }
}

/// Whether an operation runs under a variant: `in=v|w`.
fn takes_part(race: &Race, arguments: &mut Arguments<'_>, variant: Option<&Variant>) -> Result<bool, Error> {
    let Some(names) = arguments.key("in") else { return Ok(true) };
    let known: Vec<(&str, &str)> =
        race.litmus.variants.iter().map(|variant| (variant.name.node.as_str(), variant.name.node.as_str())).collect();
    let mut takes_part = false;
    for name in names {
        let name = named(race, "variant", name, &known)?;
        takes_part |= variant.is_some_and(|variant| variant.name.node == name);
    }
    Ok(takes_part)
}

/// The operation as the file writes it, without what says in which variants it runs.
fn text(operation: &Operation) -> String {
    let is_in = |argument: &&Argument| argument.key.as_ref().is_some_and(|key| key.node == "in");
    let arguments = operation.arguments.iter().filter(|argument| !is_in(argument)).cloned().collect();
    Operation { arguments, ..operation.clone() }.to_string()
}

/// What a device is told to do with a frame: `write=1`, or `read`.
fn device(arguments: &mut Arguments<'_>) -> Result<Option<Device>, Error> {
    match arguments.one("write")? {
        Some(word) => Ok(Some(Device::Store(arguments.in_range(word, MOST_WORD)?))),
        None => Ok(arguments.flag("read").map(|_| Device::Load)),
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
    let found = setup.files[file].kind;
    // Their slots are the driver's own affair; for revoking they are alike.
    let found = if found == FileKind::PfnMapped { FileKind::Driver } else { found };
    if kind.is_some_and(|kind| kind != found) {
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
