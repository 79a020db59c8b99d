//! What the init block of a file of operations says.
//!
//! | module | what |
//! |---|---|
//! | [`frames`] | frames and files |
//! | [`areas`] | areas, and what is mapped at the start |
//! | [`spaces`] | address spaces |
//! | [`tables`] | where page tables lie |

mod areas;
mod frames;
mod spaces;
mod tables;

use machine::addr::PAGE_SIZE;
use machine::{Access, CpuSet, Frame, VirtAddr};
use mm::{FileKind, FolioFlags, UffdModes};
use pagetable::Level;

use super::table_check::TableChecks;
use super::watch::Watch;
use crate::arguments::{Arguments, find, impossible, named, number};
use crate::error::{Error, Problem};
use crate::machine_options::{self, MachineOptions};
use crate::race::Race;
use crate::scope;
use crate::source::Spanned;
use crate::syntax::{Argument, Mode, Script, Statement, Value};
use frames::MOST_FRAME;
pub(super) use tables::TableFrames;
use tables::{FIRST_TABLE, MOST_TABLES};

/// The frames that page tables come from: this many unless `tables=` says otherwise.
const DEFAULT_TABLES: u64 = 12;

/// What can be set.
const SETTINGS: [&str; 12] = [
    "check",
    "cpus",
    "entries",
    "machine",
    "memory",
    "nmi",
    "parts-at",
    "reader-locks",
    "swap",
    "tables",
    "tables-at",
    "tolerate",
];

/// The most places on swap.
const MOST_PLACES: u64 = 16;

/// A frame, or a large folio, that the file names.
pub(super) struct FrameSetup {
    pub(super) name: String,
    pub(super) first: Frame,
    pub(super) order: u8,
    pub(super) owner: Owner,
    pub(super) flags: FolioFlags,
    /// What is in it at the start, where contents matter.
    pub(super) holds: u64,
    /// How many references are held, for ever, by who takes no part.
    pub(super) elsewhere: u32,
    /// The CPU that moves a page away from there when it comes upon its NUMA hint.
    pub(super) far_from: Option<usize>,
}

/// Whose a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// The page cache's: it has a record and counts.
    Cache,
    /// A driver's, in ordinary memory: it has a record, which nobody but the driver may touch.
    Driver,
    /// A driver's, in a device: it has no record.
    Device,
    /// A device's, with page records that go when the device does.
    Pagemap,
    /// Nobody's at the start: the engine may allocate it.
    Spare,
}

/// An address space.
pub(super) struct SpaceSetup {
    pub(super) name: String,
    /// The CPUs that run in it.
    cpus: Vec<u64>,
}

/// Whether an area is there at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    There,
    /// An operation maps it.
    Later,
}

/// Whether the contents of data frames matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Contents {
    /// Only which frame is reached.
    Ignored,
    /// Each frame has a word.
    Words,
}

/// A file.
pub(super) struct FileSetup {
    pub(super) name: String,
    pub(super) kind: FileKind,
    pub(super) leaf: Level,
    /// For each leaf-sized piece the index of its frame.
    pub(super) pages: Vec<Option<usize>>,
}

/// An area.
pub(super) struct AreaSetup {
    pub(super) name: String,
    /// The address space that it is in at the start.
    pub(super) space: usize,
    pub(super) file: usize,
    pub(super) area: mm::Area,
    pub(super) start: Start,
    /// Which of its faults are handed over when the race begins.
    pub(super) uffd: UffdModes,
}

/// A page that is touched before the start.
#[derive(Clone, Copy)]
pub(super) struct Mapped {
    /// Its address space.
    pub(super) space: usize,
    pub(super) address: VirtAddr,
    pub(super) access: Access,
    /// The pages that may be allocated for it.
    pub(super) size: MappedSize,
}

/// Which pages may be allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MappedSize {
    /// As the area says.
    Any,
    /// Only small ones, as if there were no large.
    Small,
    /// As the area says; of a huge page so many pages stay mapped.
    Part(u64),
    /// None: the table of the area with this index serves.
    TableOf(usize),
}

/// All of an init block.
pub(super) struct Setup {
    pub(super) tables: u64,
    /// Where they lie.
    pub(super) frames_of_tables: TableFrames,
    /// At least one.
    pub(super) spaces: Vec<SpaceSetup>,
    pub(super) frames: Vec<FrameSetup>,
    pub(super) files: Vec<FileSetup>,
    pub(super) areas: Vec<AreaSetup>,
    /// Rules that are not held: a file that asks what happens *after* they are broken says so.
    pub(super) tolerated: Vec<&'static str>,
    /// What is faulted in before the start.
    pub(super) mapped: Vec<Mapped>,
    pub(super) contents: Contents,
    /// Where the parts of each address space begin that have locks of their own, 0 first.
    pub(super) parts: Vec<VirtAddr>,
    /// How many locks for readers each mmap lock has.
    pub(super) reader_locks: u64,
    /// How many places on swap there are.
    pub(super) swap: u64,
    /// What the machine is beyond what it always is.
    pub(super) machine: MachineOptions,
    /// The CPUs that something outside sends an NMI.
    pub(super) nmis: Vec<usize>,
    pub(super) table_checks: TableChecks,
}

impl Setup {
    /// Gives meaning to the init block.
    pub(super) fn new(race: &Race, script: &Script) -> Result<Self, Error> {
        let mut setup = Self {
            tables: DEFAULT_TABLES,
            frames_of_tables: TableFrames { roots: spaces::declared(script), others: FIRST_TABLE },
            spaces: Vec::new(),
            frames: Vec::new(),
            files: Vec::new(),
            areas: Vec::new(),
            tolerated: Vec::new(),
            mapped: Vec::new(),
            contents: Contents::Ignored,
            parts: vec![VirtAddr::new(0)],
            reader_locks: 0,
            swap: 0,
            machine: MachineOptions::NONE,
            nmis: Vec::new(),
            table_checks: TableChecks::None,
        };
        for statement in &script.init {
            setup.add(race, script, statement)?;
        }
        setup.finish_spaces();
        let needed = setup.tables_needed(race.litmus.mode.node);
        if setup.tables < needed {
            let why = format!("{} frames for page tables are too few: {needed} are in use at the start", setup.tables);
            return Err(impossible(race, race.litmus.mode.span, why, format!("tables={needed} or more")));
        }
        Ok(setup)
    }

    /// How many tables there are before any operation: the root, those that PAE fills beforehand, and the ways to what is mapped.
    fn tables_needed(&self, mode: Mode) -> u64 {
        let root = match mode {
            Mode::MmLa57 => Level::Pgd,
            Mode::MmX86_64 => Level::P4d,
            _ => Level::Pud,
        };
        let mut tables: Vec<(usize, Level, u64)> = Vec::new();
        if root == Level::Pud {
            tables.extend((0..self.spaces.len()).flat_map(|space| (0..4).map(move |pdpte| (space, Level::Pud, pdpte))));
        }
        for &Mapped { space, address: page, .. } in &self.mapped {
            let area = self.areas.iter().find(|area| area.space == space && area.area.contains(page));
            let leaf = area.map_or(Level::Pte, |area| self.files[area.file].leaf);
            // The entry of each level above the leaf, up to the root's own, points to a table.
            let levels = Level::ALL.into_iter().filter(|level| (leaf < *level) && (*level <= root));
            tables.extend(levels.map(|level| (space, level, page.as_u64() / level.size())));
        }
        tables.sort_unstable();
        tables.dedup();
        (self.spaces.len() + tables.len()) as u64
    }

    fn add(&mut self, race: &Race, script: &Script, statement: &Statement) -> Result<(), Error> {
        match statement {
            Statement::Setting(setting) => {
                let Some(key) = &setting.key else {
                    let known = SETTINGS.map(|name| format!("{name}=")).to_vec();
                    let found = setting.values.first().map(ToString::to_string).unwrap_or_default();
                    return Err(Error::new(
                        &race.source,
                        setting.span(),
                        Problem::Unknown { what: "setting", found, known },
                    ));
                };
                self.set(race, script, key, &setting.values)
            }
            Statement::Declaration { word, name, values, arguments } => {
                let (values, arguments) = words_apart(values, arguments);
                let (values, arguments) = (&values[..], Arguments::new(race, word, &arguments));
                match word.node.as_str() {
                    "frame" => self.frame(race, name, values, arguments),
                    "file" => self.file(race, name, values, arguments),
                    "area" => self.area(race, name, arguments),
                    "mapped" => self.map(race, name, arguments),
                    "space" => self.space(race, script, name, arguments),
                    other => {
                        let known = ["frame", "file", "space", "area", "mapped"].map(str::to_owned).to_vec();
                        let problem = Problem::Unknown { what: "declaration", found: other.to_owned(), known };
                        Err(Error::new(&race.source, word.span, problem))
                    }
                }
            }
        }
    }

    fn set(
        &mut self,
        race: &Race,
        script: &Script,
        key: &Spanned<String>,
        values: &[Spanned<Value>],
    ) -> Result<(), Error> {
        for value in values {
            match key.node.as_str() {
                "cpus" => {
                    let cpus = number(race, value, 64)?;
                    if cpus != script.columns.len() as u64 {
                        let why = format!(
                            "the machine has {cpus} CPUs, and the program has {} columns",
                            script.columns.len()
                        );
                        return Err(impossible(race, value.span, why, "one column for each CPU"));
                    }
                }
                "check" => {
                    self.table_checks = named(race, "check", value, &[("page-tables", TableChecks::Counted)])?;
                }
                // It stands for itself in the rest of the file: `scope.rs`.
                scope::ENTRIES => {}
                machine_options::KEY => self.machine = self.machine.and(MachineOptions::named(race, value)?),
                "nmi" => {
                    let cpu = number(race, value, script.columns.len() as u64 - 1)?;
                    self.nmis.push(cpu as usize);
                }
                "tolerate" => self.tolerated.push(tolerated(race, value)?),
                "tables-at" => self.frames_of_tables.others = number(race, value, MOST_FRAME)?,
                "reader-locks" => self.reader_locks = number(race, value, u64::from(CpuSet::CAPACITY))?,
                "parts-at" => self.parts.push(self.next_part(race, value)?),
                "swap" => self.swap = number(race, value, MOST_PLACES)?,
                "tables" => self.tables = number(race, value, MOST_TABLES)?,
                "memory" => {
                    named(race, "memory order", value, &[("sc", ()), ("tso", ())])?;
                }
                other => {
                    let known = SETTINGS.map(str::to_owned).to_vec();
                    let problem = Problem::Unknown { what: "setting", found: other.to_owned(), known };
                    return Err(Error::new(&race.source, key.span, problem));
                }
            }
        }
        Ok(())
    }

    /// Where one more part of address spaces begins, behind those that there are.
    fn next_part(&self, race: &Race, value: &Spanned<Value>) -> Result<VirtAddr, Error> {
        let start = VirtAddr::new(number(race, value, u64::MAX)?);
        match self.parts.last() {
            Some(last) if *last < start && start.is_aligned(PAGE_SIZE) => Ok(start),
            last => {
                let last = last.copied().unwrap_or(VirtAddr::new(0));
                let why = format!("a part of an address space cannot begin at {start}");
                Err(impossible(race, value.span, why, format!("a multiple of {PAGE_SIZE:#x} above {last}")))
            }
        }
    }

    /// The file and the 4 KiB page of it that the frame with this index holds at the start, if it is a file's that keeps pages.
    pub(super) fn home_of(&self, frame: usize) -> Option<(usize, u64)> {
        self.files.iter().enumerate().filter(|(_, file)| file.kind == FileKind::Cached).find_map(|(number, file)| {
            let piece = file.pages.iter().position(|page| *page == Some(frame))?;
            Some((number, piece as u64 * file.leaf.frames()))
        })
    }

    /// The index of a frame that the file names.
    pub(super) fn frame_named(&self, race: &Race, value: &Spanned<Value>) -> Result<usize, Error> {
        find(race, "frame", &value.node.to_string(), value.span, self.frames.iter().map(|frame| &frame.name))
    }

    /// The index of a file that the file names.
    pub(super) fn file_named(&self, race: &Race, value: &Spanned<Value>) -> Result<usize, Error> {
        find(race, "file", &value.node.to_string(), value.span, self.files.iter().map(|file| &file.name))
    }

    /// Whether faults of any area are.
    pub(super) fn hands_over_faults(&self) -> bool {
        self.areas.iter().any(|area| area.uffd != UffdModes::NONE)
    }

    fn area_named(&self, race: &Race, name: &Spanned<String>) -> Result<(usize, &AreaSetup), Error> {
        let index = find(race, "area", &name.node, name.span, self.areas.iter().map(|area| &area.name))?;
        Ok((index, &self.areas[index]))
    }

    /// The area that a value names, and the address in it: `x`, or `x+0x1000`.
    pub(super) fn address(&self, race: &Race, value: &Spanned<Value>) -> Result<(usize, VirtAddr), Error> {
        let (name, offset) = match &value.node {
            Value::Name(name) => (name.clone(), 0),
            Value::Offset(name, offset) => (name.clone(), *offset),
            Value::Number(number) => (number.to_string(), 0),
        };
        let (index, area) = self.area_named(race, &Spanned { node: name, span: value.span })?;
        let size = area.area.pages * PAGE_SIZE;
        match u64::try_from(offset) {
            Ok(offset) if offset < size => Ok((index, area.area.start.wrapping_add(offset))),
            _ => {
                let found = offset.to_string();
                let most = i128::from(size) - 1;
                Err(Error::new(&race.source, value.span, Problem::NumberRange { found, least: 0, most }))
            }
        }
    }

    /// The name of a virtual page of an address space, as the file would write it.
    pub(super) fn page_name(&self, space: usize, page: VirtAddr) -> String {
        // A child's pages are called like its parent's.
        let areas = self.areas.iter().filter(|area| area.area.contains(page));
        let name = match areas.min_by_key(|area| area.space != space) {
            Some(area) if area.area.start == page => area.name.clone(),
            Some(area) => format!("{}+{:#x}", area.name, page.as_u64() - area.area.start.as_u64()),
            None => page.to_string(),
        };
        match &self.spaces[..] {
            [_] => name,
            spaces => format!("{name} in {}", spaces[space].name),
        }
    }
}

/// Behind `=` the grammar takes every name for a value: those that are words of the language are arguments.
fn words_apart(values: &[Spanned<Value>], arguments: &[Argument]) -> (Vec<Spanned<Value>>, Vec<Argument>) {
    let is_word =
        |value: &&Spanned<Value>| matches!(&value.node, Value::Name(name) if frames::WORDS.contains(&name.as_str()));
    let words = values.iter().filter(is_word).map(|word| Argument { key: None, values: vec![word.clone()] });
    let rest = values.iter().filter(|value| !is_word(value)).cloned().collect();
    (rest, words.chain(arguments.iter().cloned()).collect())
}

/// The rule that a `tolerate=` setting or choice names.
pub(super) fn tolerated(race: &Race, value: &Spanned<Value>) -> Result<&'static str, Error> {
    let rules = Watch::RULES.map(|rule| (rule, rule));
    named(race, "rule that can be tolerated", value, &rules)
}
