//! What the init block of a file of machine operations says.

use lab::Paging;
use machine::addr::PAGE_SIZE;
use machine::{Frame, Pcid, VirtAddr};

use super::entry::{self, Flags};
use super::layout::{self, Layout};
use crate::arguments::{Arguments, find, impossible, number, unique};
use crate::error::{Error, Problem};
use crate::machine_options::{self, MachineOptions};
use crate::orders;
use crate::race::Race;
use crate::source::{Span, Spanned};
use crate::syntax::{Argument, Mode, Script, Statement, Value};

/// A page that nothing is mapped to.
pub(super) const NONE: &str = "none";
/// The greatest frame number of a machine with 52-bit physical addresses.
const MOST_FRAME: u64 = (1 << 40) - 1;
/// Where the first page is, unless it says so itself.
const FIRST_PAGE: u64 = 0x4000_0000;

/// A data frame.
pub(super) struct FrameSetup {
    pub(super) name: String,
    pub(super) frame: Frame,
    pub(super) holds: u64,
}

/// An address space.
pub(super) struct SpaceSetup {
    pub(super) name: String,
    cpus: Vec<u64>,
    pub(super) pcid: Pcid,
}

/// A virtual page.
pub(super) struct PageSetup {
    pub(super) name: String,
    pub(super) space: usize,
    pub(super) address: VirtAddr,
    /// Its leaf at the start; `None` if there is none.
    pub(super) leaf: Option<(Frame, Flags)>,
    /// The entry of this level is not there at the start, though everything below is.
    pub(super) absent: Option<u8>,
}

/// A table of leaves that nothing points to at the start.
pub(super) struct TableSetup {
    pub(super) name: String,
    /// Which page has which frame there.
    pub(super) leaves: Vec<(usize, Frame)>,
}

/// A word of the kernel's own memory, or several: what untranslated accesses reach.
pub(super) struct WordSetup {
    pub(super) name: String,
    pub(super) initial: Vec<u64>,
}

/// All of an init block.
pub(super) struct Setup {
    pub(super) paging: Paging,
    pub(super) spaces: Vec<SpaceSetup>,
    pub(super) frames: Vec<FrameSetup>,
    pub(super) pages: Vec<PageSetup>,
    pub(super) tables: Vec<TableSetup>,
    pub(super) words: Vec<WordSetup>,
    pub(super) layout: Layout,
    pub(super) options: MachineOptions,
    /// The CPUs that something outside sends an NMI.
    pub(super) nmis: Vec<u64>,
    pub(super) cpus: usize,
}

impl Setup {
    pub(super) fn new(race: &Race, script: &Script) -> Result<Self, Error> {
        let paging = if race.litmus.mode.node == Mode::EltPae { Paging::PAE } else { Paging::FOUR_LEVEL };
        let mut setup = Self {
            paging,
            spaces: Vec::new(),
            frames: Vec::new(),
            pages: Vec::new(),
            tables: Vec::new(),
            words: Vec::new(),
            layout: Layout::default(),
            options: MachineOptions::NONE,
            nmis: Vec::new(),
            cpus: script.columns.len(),
        };
        for statement in &script.init {
            setup.add(race, statement)?;
        }
        if setup.spaces.is_empty() {
            setup.spaces.push(SpaceSetup { name: String::new(), cpus: Vec::new(), pcid: Pcid::ZERO });
        }
        setup.layout = Layout::new(&setup);
        if setup.layout.tables.len() as u64 > layout::MOST_TABLES {
            let why = format!("{} page tables", setup.layout.tables.len());
            let right = format!("at most {}", layout::MOST_TABLES);
            return Err(impossible(race, race.litmus.mode.span, why, right));
        }
        Ok(setup)
    }

    /// What a variant chooses.
    pub(super) fn choose(&mut self, race: &Race, choices: &[Argument]) -> Result<(), Error> {
        for choice in choices {
            let key = choice.key.as_ref();
            match key.map(|key| key.node.as_str()) {
                // `crate::orders` reads it.
                Some(orders::KEY) => {}
                Some(machine_options::KEY) => self.options = MachineOptions::read(race, &choice.values)?,
                found => {
                    let found = found.map_or_else(|| choice.to_string(), str::to_owned);
                    let known = [machine_options::KEY, orders::KEY].map(str::to_owned).to_vec();
                    let problem = Problem::Unknown { what: "choice", found, known };
                    return Err(Error::new(&race.source, choice.span(), problem));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, race: &Race, statement: &Statement) -> Result<(), Error> {
        match statement {
            Statement::Setting(setting) => self.set(race, setting),
            Statement::Declaration { word, name, values, arguments } => {
                let (values, arguments) = words_apart(values, arguments);
                let arguments = Arguments::new(race, word, &arguments);
                if self.names().contains(&name.node) {
                    let problem = Problem::Duplicate { what: "name", name: name.node.clone() };
                    return Err(Error::new(&race.source, name.span, problem));
                }
                match word.node.as_str() {
                    "frame" => self.frame(race, name, &values, arguments),
                    "page" => self.page(race, name, &values, arguments),
                    "table" => self.table(race, name, arguments),
                    "word" => self.word(race, name, &values, arguments),
                    "space" => self.space(race, name, arguments),
                    other => {
                        let known = ["frame", "page", "space", "table", "word"].map(str::to_owned).to_vec();
                        let problem = Problem::Unknown { what: "declaration", found: other.to_owned(), known };
                        Err(Error::new(&race.source, word.span, problem))
                    }
                }
            }
        }
    }

    fn set(&mut self, race: &Race, setting: &Argument) -> Result<(), Error> {
        match setting.key.as_ref().map(|key| key.node.as_str()) {
            // `crate::orders` reads it.
            Some(orders::KEY) => Ok(()),
            Some(machine_options::KEY) => {
                self.options = MachineOptions::read(race, &setting.values)?;
                Ok(())
            }
            Some("nmi") => {
                for value in &setting.values {
                    self.nmis.push(number(race, value, self.cpus as u64 - 1)?);
                }
                Ok(())
            }
            found => {
                let found = found.map_or_else(|| setting.to_string(), str::to_owned);
                let known = [machine_options::KEY, orders::KEY, "nmi"].map(str::to_owned).to_vec();
                Err(Error::new(&race.source, setting.span(), Problem::Unknown { what: "setting", found, known }))
            }
        }
    }

    fn frame(
        &mut self,
        race: &Race,
        name: &Spanned<String>,
        values: &[Spanned<Value>],
        mut arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        let [value] = values else {
            return Err(missing(race, name.span, "the frame's number", format!("frame {name} = 0x100;")));
        };
        let frame = Frame::new(number(race, value, MOST_FRAME)?);
        let holds = arguments.number("holds", 0, u64::MAX - 1)?;
        arguments.finish()?;
        if self.frames.iter().any(|other| other.frame == frame) || layout::is_for_tables(frame) {
            let tables = layout::FIRST_TABLE + layout::MOST_TABLES;
            let right = format!("a frame of its own, from {tables:#x} on: page tables lie below");
            return Err(impossible(race, value.span, format!("frame {frame} is in use"), right));
        }
        self.frames.push(FrameSetup { name: name.node.clone(), frame, holds });
        Ok(())
    }

    fn page(
        &mut self,
        race: &Race,
        name: &Spanned<String>,
        values: &[Spanned<Value>],
        mut arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        let [value] = values else {
            return Err(missing(
                race,
                name.span,
                "the frame of the page",
                format!("page {name} = a; page {name} = none;"),
            ));
        };
        let flags = Flags::read(race, &mut arguments)?;
        let leaf = match &value.node {
            Value::Name(none) if none == NONE => None,
            _ => Some((self.frames[self.frame_named(race, value)?].frame, flags)),
        };
        let space = match arguments.one("space")? {
            Some(space) => {
                let known = self.spaces.iter().map(|space| &space.name);
                find(race, "space", &space.node.to_string(), space.span, known)?
            }
            None => 0,
        };
        let at = arguments.number("at", FIRST_PAGE + PAGE_SIZE * self.pages.len() as u64, u64::MAX)?;
        let absent = arguments.number("absent", 0, u64::from(self.paging.levels()))? as u8;
        arguments.finish()?;
        let address = VirtAddr::new(at);
        if !self.paging.has_address(address) || at % PAGE_SIZE != 0 {
            let why = format!("{} has no page at {address}", race.litmus.mode.node);
            return Err(impossible(race, name.span, why, "the first address of a page"));
        }
        if let Some(other) = self.pages.iter().find(|page| page.space == space && page.address == address) {
            let why = format!("page {} lies there", other.name);
            return Err(impossible(race, name.span, why, "an address of its own"));
        }
        let absent = Some(absent).filter(|&level| level > 1);
        self.pages.push(PageSetup { name: name.node.clone(), space, address, leaf, absent });
        Ok(())
    }

    fn table(&mut self, race: &Race, name: &Spanned<String>, mut arguments: Arguments<'_>) -> Result<(), Error> {
        let names: Vec<String> = self.pages.iter().map(|page| page.name.clone()).collect();
        let mut leaves = Vec::new();
        for (index, page) in names.iter().enumerate() {
            if let Some(values) = arguments.values_of(page) {
                let [frame] = values else {
                    return Err(missing(race, name.span, "one frame for the page", format!("table {name} {page}=a;")));
                };
                leaves.push((index, self.frames[self.frame_named(race, frame)?].frame));
            }
        }
        arguments.finish()?;
        self.tables.push(TableSetup { name: name.node.clone(), leaves });
        Ok(())
    }

    fn word(
        &mut self,
        race: &Race,
        name: &Spanned<String>,
        values: &[Spanned<Value>],
        arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        arguments.finish()?;
        let mut initial = Vec::new();
        for value in values {
            initial.push(number(race, value, u64::MAX)?);
        }
        if initial.is_empty() {
            initial.push(0);
        }
        self.words.push(WordSetup { name: name.node.clone(), initial });
        Ok(())
    }

    fn space(&mut self, race: &Race, name: &Spanned<String>, mut arguments: Arguments<'_>) -> Result<(), Error> {
        unique(race, "space", name, self.spaces.iter().map(|space| &space.name))?;
        if !self.pages.is_empty() && self.spaces.is_empty() {
            let why = "pages come before the first space".to_owned();
            return Err(impossible(race, name.span, why, "spaces first, then their pages"));
        }
        let pcid = Pcid::new(arguments.number("pcid", 0, u64::from(Pcid::COUNT) - 1)? as u16).unwrap_or_default();
        let mut cpus = Vec::new();
        for value in arguments.key("cpus").unwrap_or_default() {
            cpus.push(number(race, value, self.cpus as u64 - 1)?);
        }
        arguments.finish()?;
        self.spaces.push(SpaceSetup { name: name.node.clone(), cpus, pcid });
        Ok(())
    }

    /// The address space that a CPU has loaded at the start: the one that says so, or the first.
    pub(super) fn space_of(&self, cpu: usize) -> usize {
        self.spaces.iter().position(|space| space.cpus.contains(&(cpu as u64))).unwrap_or(0)
    }

    /// Everything that has a name.
    pub(super) fn names(&self) -> Vec<String> {
        let frames = self.frames.iter().map(|frame| &frame.name);
        let pages = self.pages.iter().map(|page| &page.name);
        let (tables, words) = (self.tables.iter().map(|table| &table.name), self.words.iter().map(|word| &word.name));
        let spaces = self.spaces.iter().map(|space| &space.name).filter(|name| !name.is_empty());
        frames.chain(pages).chain(tables).chain(words).chain(spaces).cloned().collect()
    }

    /// The frames that have names, and their numbers.
    pub(super) fn frame_names(&self) -> Vec<(String, u64)> {
        let data = self.frames.iter().map(|frame| (frame.name.clone(), frame.frame.number()));
        let tables = self
            .tables
            .iter()
            .enumerate()
            .map(|(index, table)| (table.name.clone(), self.layout.spare(index).number()));
        data.chain(tables).collect()
    }

    /// The frame of what an entry may point to: a data frame or a table.
    pub(super) fn target(&self, race: &Race, value: &Spanned<Value>) -> Result<Frame, Error> {
        let names = self.frame_names();
        let index =
            find(race, "frame or table", &value.node.to_string(), value.span, names.iter().map(|(name, _)| name))?;
        Ok(Frame::new(names[index].1))
    }

    fn frame_named(&self, race: &Race, value: &Spanned<Value>) -> Result<usize, Error> {
        find(race, "frame", &value.node.to_string(), value.span, self.frames.iter().map(|frame| &frame.name))
    }
}

/// Behind `=` the grammar takes every name for a value: those that say what an entry is like are arguments.
fn words_apart(values: &[Spanned<Value>], arguments: &[Argument]) -> (Vec<Spanned<Value>>, Vec<Argument>) {
    let is_word = |value: &&Spanned<Value>| matches!(&value.node, Value::Name(name) if entry::WORDS.iter().any(|(word, ..)| word == name));
    let words = values.iter().filter(is_word).map(|word| Argument { key: None, values: vec![word.clone()] });
    let rest = values.iter().filter(|value| !is_word(value)).cloned().collect();
    (rest, words.chain(arguments.iter().cloned()).collect())
}

fn missing(race: &Race, span: Span, what: &str, right: String) -> Error {
    Error::new(&race.source, span, Problem::Missing { what: what.to_owned(), right })
}
