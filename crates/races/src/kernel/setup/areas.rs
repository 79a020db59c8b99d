//! Areas, and what is mapped at the start.

use machine::addr::PAGE_SIZE;
use machine::{Access, VirtAddr};
use mm::{AreaRights, FileKind, Growth, HugePages, Sharing, UffdModes};

use super::{AreaSetup, Mapped, MappedSize, Setup, Start};
use crate::arguments::{Arguments, impossible, named, unique};
use crate::error::{Error, Problem};
use crate::protection_keys::take_key;
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::{Mode, Value};

impl Setup {
    pub(super) fn area(
        &mut self,
        race: &Race,
        name: &Spanned<String>,
        mut arguments: Arguments<'_>,
    ) -> Result<(), Error> {
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
        let rights = [("none", AreaRights::None), ("r", AreaRights::Read), ("rw", AreaRights::ReadWrite)];
        let rights = arguments.named("rights", &rights, AreaRights::ReadWrite)?;
        let kind = if self.files[file].kind == FileKind::Anonymous { Sharing::Private } else { Sharing::Shared };
        let sharing = arguments.one_of(&[("shared", Sharing::Shared), ("private", Sharing::Private)], kind);
        let huge = arguments.one_of(&[("huge", HugePages::Allowed)], HugePages::Never);
        let growth = arguments.one_of(&[("stack", Growth::Down)], Growth::Never);
        let space = match arguments.one("space")? {
            Some(space) => self.space_named(race, space)?,
            None => 0,
        };
        let start = arguments.one_of(&[("later", Start::Later)], Start::There);
        let uffd = uffd_modes(race, arguments.key("uffd").unwrap_or_default())?;
        let key = take_key(race, &mut arguments)?.unwrap_or_default();
        arguments.finish()?;
        if start == Start::Later && uffd != UffdModes::NONE {
            let why = format!("area {name} is not there at the start, and nothing is registered later");
            return Err(impossible(race, name.span, why, "an area that is not `later`"));
        }
        let area = mm::Area {
            sharing,
            huge,
            growth,
            key,
            ..mm::Area::shared(VirtAddr::new(at), pages, rights, mm::FileId::new(file as u16), offset)
        };
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
        if let Some(other) = self.areas.iter().find(|other| {
            start == Start::There
                && other.start == start
                && other.space == space
                && other.area.start < area.end()
                && area.start < other.area.end()
        }) {
            return Err(impossible(
                race,
                name.span,
                format!("area {} lies there", other.name),
                "areas that do not overlap",
            ));
        }
        self.areas.push(AreaSetup { name: name.node.clone(), space, file, area, start, uffd });
        Ok(())
    }

    pub(super) fn map(
        &mut self,
        race: &Race,
        name: &Spanned<String>,
        mut arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        let access = arguments.one_of(&[("read", Access::Read), ("write", Access::Write)], Access::Read);
        let size = arguments.one_of(&[("small", MappedSize::Small)], MappedSize::Any);
        let most = arguments.number("pages", 1 << 20, 1 << 20)?;
        let size = match arguments.one("shared")? {
            Some(other) => MappedSize::TableOf(self.address(race, other)?.0),
            None => match arguments.number("keep", 0, 512)? {
                0 => size,
                pages => MappedSize::Part(pages),
            },
        };
        arguments.finish()?;
        let (_, area) = self.area_named(race, name)?;
        if area.start == Start::Later {
            let why = format!("area {name} is not there at the start");
            return Err(impossible(race, name.span, why, "an area that is not `later`"));
        }
        let (space, leaf) = (area.space, self.files[area.file].leaf);
        let mm::Area { start, pages, .. } = area.area;
        let most = if matches!(size, MappedSize::TableOf(_)) { leaf.frames() } else { most };
        let leaves = (0..pages.min(most).div_ceil(leaf.frames())).map(|piece| Mapped {
            space,
            address: start.wrapping_add(piece * leaf.size()),
            access,
            size,
        });
        self.mapped.extend(leaves);
        Ok(())
    }
}

/// `uffd=missing,wp`: which faults are handed over.
fn uffd_modes(race: &Race, values: &[Spanned<Value>]) -> Result<UffdModes, Error> {
    let words = [("missing", UffdModes::MISSING), ("wp", UffdModes::WRITE_PROTECT)];
    values.iter().try_fold(UffdModes::NONE, |all, value| Ok(all.and(named(race, "uffd", value, &words)?)))
}

/// The first address behind those that user mode has.
const fn user_end(mode: Mode) -> u64 {
    match mode {
        Mode::MmLa57 => 1 << 56,
        Mode::MmX86_64 => 1 << 47,
        _ => 1 << 32,
    }
}
