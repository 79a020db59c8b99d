//! What the init block of a file of operations says: frames, files, areas, and what is mapped at the start.

use machine::addr::PAGE_SIZE;
use machine::{Access, Frame, VirtAddr};
use mm::{AreaRights, FileKind, FolioFlags};
use pagetable::Level;

use super::arguments::{Arguments, named, number};
use super::watch::Watch;
use crate::error::{Error, Problem};
use crate::race::Race;
use crate::source::{Span, Spanned};
use crate::syntax::{Mode, Script, Statement, Value};

/// The frames that page tables come from: this many unless `tables=` says otherwise.
const DEFAULT_TABLES: u64 = 12;
const MOST_TABLES: u64 = 64;
/// The greatest frame number of a machine with 52-bit physical addresses.
const MOST_FRAME: u64 = (1 << 40) - 1;
/// Page tables lie from this frame on, unless `tables-at=` says otherwise; data frames must not.
const FIRST_TABLE: u64 = 0x100;

/// Which frames page tables lie in: the root, which CR3 of PAE can only name below 4 GiB, in the first, and the others together.
#[derive(Clone, Copy)]
pub(super) struct TableFrames {
    /// Number 1 lies one frame after this, and so on.
    others: u64,
}

impl TableFrames {
    /// The frame of the table with this number; 0 is the root.
    pub(super) const fn frame(self, number: u64) -> Frame {
        Frame::new(if number == 0 { FIRST_TABLE } else { self.others + number })
    }

    /// The number of the table in a frame, if it can be one.
    pub(super) fn number(self, frame: Frame) -> Option<u64> {
        match frame.number() {
            FIRST_TABLE => Some(0),
            frame => frame.checked_sub(self.others).filter(|number| (1..MOST_TABLES).contains(number)),
        }
    }
}

/// A frame, or a large folio, that the file names.
pub(super) struct FrameSetup {
    pub(super) name: String,
    pub(super) first: Frame,
    pub(super) order: u8,
    pub(super) owner: Owner,
    pub(super) flags: FolioFlags,
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
    pub(super) file: usize,
    pub(super) area: mm::Area,
}

/// All of an init block.
pub(super) struct Setup {
    pub(super) tables: u64,
    /// Where they lie.
    pub(super) frames_of_tables: TableFrames,
    pub(super) frames: Vec<FrameSetup>,
    pub(super) files: Vec<FileSetup>,
    pub(super) areas: Vec<AreaSetup>,
    /// Rules that are not held: a file that asks what happens *after* they are broken says so.
    pub(super) tolerated: Vec<&'static str>,
    /// What is faulted in before the start.
    pub(super) mapped: Vec<(VirtAddr, Access)>,
}

impl Setup {
    /// Gives meaning to the init block.
    pub(super) fn new(race: &Race, script: &Script) -> Result<Self, Error> {
        let mut setup = Self {
            tables: DEFAULT_TABLES,
            frames_of_tables: TableFrames { others: FIRST_TABLE },
            frames: Vec::new(),
            files: Vec::new(),
            areas: Vec::new(),
            tolerated: Vec::new(),
            mapped: Vec::new(),
        };
        for statement in &script.init {
            setup.add(race, script, statement)?;
        }
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
        let mut tables: Vec<(Level, u64)> = Vec::new();
        if root == Level::Pud {
            tables.extend((0..4).map(|pdpte| (Level::Pud, pdpte)));
        }
        for &(page, _) in &self.mapped {
            let area = self.areas.iter().find(|area| area.area.contains(page));
            let leaf = area.map_or(Level::Pte, |area| self.files[area.file].leaf);
            // The entry of each level above the leaf, up to the root's own, points to a table.
            let levels = Level::ALL.into_iter().filter(|level| (leaf < *level) && (*level <= root));
            tables.extend(levels.map(|level| (level, page.as_u64() / level.size())));
        }
        tables.sort_unstable();
        tables.dedup();
        1 + tables.len() as u64
    }

    fn add(&mut self, race: &Race, script: &Script, statement: &Statement) -> Result<(), Error> {
        match statement {
            Statement::Setting(setting) => {
                let Some(key) = &setting.key else {
                    let known = ["cpus=", "memory=", "tables=", "tables-at=", "tolerate="].map(str::to_owned).to_vec();
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
                let arguments = Arguments::new(race, word, arguments);
                match word.node.as_str() {
                    "frame" => self.frame(race, name, values, arguments),
                    "file" => self.file(race, name, values, arguments),
                    "area" => self.area(race, name, arguments),
                    "mapped" => self.map(race, name, arguments),
                    other => {
                        let known = ["frame", "file", "area", "mapped"].map(str::to_owned).to_vec();
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
                "tolerate" => self.tolerated.push(tolerated(race, value)?),
                "tables-at" => self.frames_of_tables.others = number(race, value, MOST_FRAME)?,
                "tables" => self.tables = number(race, value, MOST_TABLES)?,
                "memory" => {
                    named(race, "memory order", value, &[("sc", ()), ("tso", ())])?;
                }
                other => {
                    let known = ["cpus", "memory", "tables", "tables-at", "tolerate"].map(str::to_owned).to_vec();
                    let problem = Problem::Unknown { what: "setting", found: other.to_owned(), known };
                    return Err(Error::new(&race.source, key.span, problem));
                }
            }
        }
        Ok(())
    }

    fn frame(
        &mut self,
        race: &Race,
        name: &Spanned<String>,
        values: &[Spanned<Value>],
        mut arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        unique(race, "frame", name, self.frames.iter().map(|frame| &frame.name))?;
        let [value] = values else {
            let right = format!("frame {name} = 0x123456;");
            return Err(Error::new(
                &race.source,
                name.span,
                Problem::Missing { what: "the frame's number".into(), right },
            ));
        };
        let first = number(race, value, MOST_FRAME)?;
        let order = arguments.number("order", 0, 18)? as u8;
        let owner = arguments.one_of(&[("driver", Owner::Driver), ("device", Owner::Device)], Owner::Cache);
        let kinds = [
            ("file", FolioFlags::FILE),
            ("shmem", FolioFlags::SHMEM),
            ("secret", FolioFlags::SECRET),
            ("zero", FolioFlags::ZERO),
            ("movable", FolioFlags::MOVABLE),
        ];
        let flags = arguments.one_of(&kinds, FolioFlags::SHMEM);
        arguments.finish()?;
        let frames = 1u64 << order;
        if first % frames != 0 {
            let why = format!("frame {first:#x} cannot start a folio of order {order}");
            return Err(impossible(race, value.span, why, format!("a multiple of {frames:#x}")));
        }
        let end = first + frames;
        let tables = self.frames_of_tables.others..self.frames_of_tables.others + MOST_TABLES;
        if first < tables.end && tables.start < end || (first..end).contains(&FIRST_TABLE) {
            let why = "page tables lie there".to_owned();
            return Err(impossible(
                race,
                value.span,
                why,
                format!("frames outside {:#x} to {:#x}", tables.start, tables.end - 1),
            ));
        }
        if let Some(other) = self.frames.iter().find(|other| {
            let start = other.first.number();
            first < start + (1 << other.order) && start < end
        }) {
            return Err(impossible(
                race,
                value.span,
                format!("frame {} lies there", other.name),
                "frames that do not overlap",
            ));
        }
        self.frames.push(FrameSetup { name: name.node.clone(), first: Frame::new(first), order, owner, flags });
        Ok(())
    }

    fn file(
        &mut self,
        race: &Race,
        name: &Spanned<String>,
        values: &[Spanned<Value>],
        mut arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        unique(race, "file", name, self.files.iter().map(|file| &file.name))?;
        let mut pages = Vec::new();
        for value in values {
            pages.push(match &value.node {
                Value::Name(none) if none == "none" => None,
                _ => Some(self.frame_named(race, value)?),
            });
        }
        let kind = arguments.one_of(&[("driver", FileKind::Driver)], FileKind::Cached);
        let levels = [("pte", Level::Pte), ("pmd", Level::Pmd), ("pud", Level::Pud)];
        let leaf = arguments.named("leaf", &levels, Level::Pte)?;
        arguments.finish()?;
        if leaf == Level::Pud && race.litmus.mode.node == Mode::MmPae {
            let why = "PAE has no 1 GiB pages".to_owned();
            return Err(impossible(race, name.span, why, "leaf=pte or leaf=pmd"));
        }
        for (index, value) in pages.iter().zip(values) {
            let Some(frame) = index.map(|index| &self.frames[index]) else { continue };
            let right_owner = (kind == FileKind::Cached) == (frame.owner == Owner::Cache);
            if !right_owner {
                let why = format!("frame {} is not of the kind of file {name}", frame.name);
                let right = "frames of drivers and devices in files that are `driver`, others in others";
                return Err(impossible(race, value.span, why, right));
            }
            if 1 << frame.order < leaf.frames() {
                let why = format!("frame {} is smaller than a {leaf} leaf", frame.name);
                return Err(impossible(race, value.span, why, format!("order={}", leaf.frames().ilog2())));
            }
        }
        self.files.push(FileSetup { name: name.node.clone(), kind, leaf, pages });
        Ok(())
    }

    fn area(&mut self, race: &Race, name: &Spanned<String>, mut arguments: Arguments<'_>) -> Result<(), Error> {
        unique(race, "area", name, self.areas.iter().map(|area| &area.name))?;
        let file = match arguments.key("file") {
            Some([file]) => self.file_named(race, file)?,
            _ => {
                let right = format!("area {name} file=f at=0x40000000;");
                return Err(Error::new(
                    &race.source,
                    name.span,
                    Problem::Missing { what: "the area's file".into(), right },
                ));
            }
        };
        let leaf = self.files[file].leaf;
        let offset = arguments.number("offset", 0, u64::from(u32::MAX))?;
        let pages = arguments.number("pages", leaf.frames(), 1 << 20)?;
        let at = arguments.number("at", 0x4000_0000, u64::MAX)?;
        let rights = arguments.named(
            "rights",
            &[("r", AreaRights::Read), ("rw", AreaRights::ReadWrite)],
            AreaRights::ReadWrite,
        )?;
        arguments.finish()?;
        let area = mm::Area::shared(VirtAddr::new(at), pages, rights, mm::FileId::new(file as u16), offset);
        let end = user_end(race.litmus.mode.node);
        if at.checked_add(pages * PAGE_SIZE).is_none_or(|last| last > end) {
            let why = format!(
                "an area of {pages} pages at {at:#x} is outside the user addresses of {}",
                race.litmus.mode.node
            );
            return Err(impossible(race, name.span, why, format!("addresses below {end:#x}")));
        }
        let size = leaf.size();
        if at % size != 0 || pages % leaf.frames() != 0 || offset % leaf.frames() != 0 || pages == 0 {
            let why =
                format!("an area of a file of {leaf} leaves must start, end and be offset at multiples of {size:#x}");
            return Err(impossible(race, name.span, why, format!("at={:#x} pages={}", at - at % size, leaf.frames())));
        }
        if let Some(other) =
            self.areas.iter().find(|other| other.area.start < area.end() && area.start < other.area.end())
        {
            return Err(impossible(
                race,
                name.span,
                format!("area {} lies there", other.name),
                "areas that do not overlap",
            ));
        }
        self.areas.push(AreaSetup { name: name.node.clone(), file, area });
        Ok(())
    }

    fn map(&mut self, race: &Race, name: &Spanned<String>, mut arguments: Arguments<'_>) -> Result<(), Error> {
        let access = arguments.one_of(&[("read", Access::Read), ("write", Access::Write)], Access::Read);
        arguments.finish()?;
        let (_, area) = self.area_named(race, name)?;
        let leaf = self.files[area.file].leaf;
        let mm::Area { start, pages, .. } = area.area;
        let leaves = (0..pages / leaf.frames()).map(|piece| (start.wrapping_add(piece * leaf.size()), access));
        self.mapped.extend(leaves);
        Ok(())
    }

    /// The index of a frame that the file names.
    pub(super) fn frame_named(&self, race: &Race, value: &Spanned<Value>) -> Result<usize, Error> {
        find(race, "frame", &value.node.to_string(), value.span, self.frames.iter().map(|frame| &frame.name))
    }

    /// The index of a file that the file names.
    pub(super) fn file_named(&self, race: &Race, value: &Spanned<Value>) -> Result<usize, Error> {
        find(race, "file", &value.node.to_string(), value.span, self.files.iter().map(|file| &file.name))
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

    /// The name of a virtual page, as the file would write it.
    pub(super) fn page_name(&self, page: VirtAddr) -> String {
        match self.areas.iter().find(|area| area.area.contains(page)) {
            Some(area) if area.area.start == page => area.name.clone(),
            Some(area) => format!("{}+{:#x}", area.name, page.as_u64() - area.area.start.as_u64()),
            None => page.to_string(),
        }
    }
}

/// The rule that a `tolerate=` setting or choice names.
pub(super) fn tolerated(race: &Race, value: &Spanned<Value>) -> Result<&'static str, Error> {
    let rules = Watch::RULES.map(|rule| (rule, rule));
    named(race, "rule that can be tolerated", value, &rules)
}

/// The first address behind those that user mode has.
const fn user_end(mode: Mode) -> u64 {
    match mode {
        Mode::MmLa57 => 1 << 56,
        Mode::MmX86_64 => 1 << 47,
        _ => 1 << 32,
    }
}

fn find<'n>(
    race: &Race,
    what: &'static str,
    name: &str,
    span: Span,
    names: impl Iterator<Item = &'n String> + Clone,
) -> Result<usize, Error> {
    names.clone().position(|known| known == name).ok_or_else(|| {
        let problem = Problem::Unknown { what, found: name.to_owned(), known: names.cloned().collect() };
        Error::new(&race.source, span, problem)
    })
}

fn unique<'n>(
    race: &Race,
    what: &'static str,
    name: &Spanned<String>,
    mut names: impl Iterator<Item = &'n String>,
) -> Result<(), Error> {
    if names.any(|known| *known == name.node) {
        return Err(Error::new(&race.source, name.span, Problem::Duplicate { what, name: name.node.clone() }));
    }
    Ok(())
}

fn impossible(race: &Race, span: Span, why: String, right: impl Into<String>) -> Error {
    Error::new(&race.source, span, Problem::Impossible { why, right: right.into() })
}
