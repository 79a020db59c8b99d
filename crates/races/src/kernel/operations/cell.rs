//! Reading the arguments of one operation.

use machine::{Access, VirtAddr};
use mm::{FileId, FileKind, SpaceId};

use super::{Column, Device};
use crate::arguments::Arguments;
use crate::error::{Error, Problem};
use crate::kernel::setup::{AreaSetup, Setup};
use crate::race::Race;
use crate::source::{Span, Spanned};
use crate::syntax::{Operation, Value};

/// The greatest word that user code can store: above are results that are no words.
const MOST_WORD: u64 = u64::MAX - 1;
/// The most pages that an operation can speak of.
const MOST_PAGES: u64 = 1 << 20;

/// One operation, whose arguments are taken one after the other.
pub(super) struct Cell<'c, 'r> {
    pub(super) race: &'r Race,
    pub(super) setup: &'r Setup,
    /// The address space of the CPU.
    pub(super) own: SpaceId,
    pub(super) operation: &'r Operation,
    pub(super) arguments: Arguments<'r>,
    /// The register that gets the result.
    pub(super) into: Option<usize>,
    pub(super) column: &'c mut Column,
}

impl<'r> Cell<'_, 'r> {
    /// `space=q`, or the CPU's own.
    pub(super) fn space(&mut self) -> Result<SpaceId, Error> {
        match self.arguments.one("space")? {
            Some(space) => self.setup.space_named(self.race, space).map(|index| SpaceId::new(index as u16)),
            None => Ok(self.own),
        }
    }

    /// `x`, or `x+0x1000`.
    pub(super) fn address(&mut self, right: &'static str) -> Result<VirtAddr, Error> {
        self.place(right).map(|(_, address)| address)
    }

    /// The same, with the area that it names.
    pub(super) fn place(&mut self, right: &'static str) -> Result<(&'r AreaSetup, VirtAddr), Error> {
        let value = self.arguments.positional("address", right)?;
        let (area, address) = self.setup.address(self.race, value)?;
        Ok((&self.setup.areas[area], address))
    }

    /// `x, pages=1`.
    pub(super) fn range(&mut self) -> Result<(VirtAddr, u64), Error> {
        let pages = self.arguments.number("pages", 1, MOST_PAGES)?;
        Ok((self.address("an area, or x+0x1000")?, pages))
    }

    /// A range that is the whole area, unless `pages=` says otherwise.
    pub(super) fn whole_or_part(&mut self, right: &'static str) -> Result<(VirtAddr, u64), Error> {
        let pages = self.arguments.number("pages", 0, MOST_PAGES)?;
        let (area, address) = self.place(right)?;
        Ok(if pages == 0 { (area.area.start, area.area.pages) } else { (address, pages) })
    }

    /// `f, 0`: a page of a file, of this kind if one is asked for.
    pub(super) fn file_page(&mut self, kind: Option<FileKind>) -> Result<(FileId, u64), Error> {
        let name = self.arguments.positional("file", "a file")?;
        let file = self.setup.file_named(self.race, name)?;
        let found = self.setup.files[file].kind;
        // Their slots are the driver's own affair; for revoking they are alike.
        let found = if found == FileKind::PfnMapped { FileKind::Driver } else { found };
        if kind.is_some_and(|kind| kind != found) {
            let why = format!("`{}` is of the other kind of file", name.node);
            return Err(self.impossible(name.span, why, "`replace` is for cached files, `revoke` for drivers'"));
        }
        let page = self.arguments.positional("page", "a page of the file")?;
        let pages = self.setup.files[file].pages.len() as u64 * self.setup.files[file].leaf.frames();
        Ok((FileId::new(file as u16), self.arguments.in_range(page, pages.saturating_sub(1))?))
    }

    /// The index of a frame that the file names; `None` for `none`.
    pub(super) fn frame(&mut self, right: &'static str) -> Result<Option<usize>, Error> {
        let value: &Spanned<Value> = self.arguments.positional("frame", right)?;
        match &value.node {
            Value::Name(none) if none == "none" => Ok(None),
            _ => self.setup.frame_named(self.race, value).map(Some),
        }
    }

    /// A register that an earlier operation has for its result.
    pub(super) fn register(&mut self, right: &'static str) -> Result<usize, Error> {
        let register = self.arguments.positional("register", right)?;
        let name = register.node.to_string();
        self.column.registers.iter().position(|known| *known == name).ok_or_else(|| {
            let problem = Problem::Unknown { what: "register", found: name, known: self.column.registers.clone() };
            Error::new(&self.race.source, register.span, problem)
        })
    }

    /// The register for the result, or one that nobody can name.
    pub(super) fn result(&mut self) -> Result<usize, Error> {
        match self.into {
            Some(into) => Ok(into),
            None => self.column.register(self.race, "_", self.operation),
        }
    }

    /// `read` or `write`.
    pub(super) fn access(&mut self) -> Access {
        self.arguments.one_of(&[("read", Access::Read), ("write", Access::Write)], Access::Read)
    }

    /// `write=1`: the word to store.
    pub(super) fn word(&mut self) -> Result<Option<u64>, Error> {
        match self.arguments.one("write")? {
            Some(word) => self.arguments.in_range(word, MOST_WORD).map(Some),
            None => Ok(None),
        }
    }

    /// What a device is told to do with a frame: `write=1`, or `read`.
    pub(super) fn device(&mut self) -> Result<Option<Device>, Error> {
        match self.word()? {
            Some(word) => Ok(Some(Device::Store(word))),
            None => Ok(self.arguments.flag("read").map(|_| Device::Load)),
        }
    }

    pub(super) fn impossible(&self, span: Span, why: String, right: &str) -> Error {
        Error::new(&self.race.source, span, Problem::Impossible { why, right: right.to_owned() })
    }
}
