//! Which operations there are.

use machine::{Access, VirtAddr};
use mm::{AreaRights, FileId, FileKind, Foll, SpaceId, UffdProtection, Usage};

use super::cell::Cell;
use super::{Action, Copy, Device, Section, User, Whose};
use crate::error::{Error, Problem};
use crate::protection_keys::{WritePkru, take_key};

/// Reads the arguments of one operation.
type Read = fn(&mut Cell<'_, '_>) -> Result<Action, Error>;

/// Of an operation on pages of an area, as `zap(x, pages=1)`.
fn on_range(cell: &mut Cell<'_, '_>, action: fn(SpaceId, VirtAddr, u64) -> Action) -> Result<Action, Error> {
    let (start, pages) = cell.range()?;
    Ok(action(cell.space()?, start, pages))
}

/// All of them, by name.
const WORDS: &[(&str, Read)] = &[
    ("gup", |cell| gup(cell, Foll::NONE, Whose::Own)),
    ("gup_fast", |cell| gup(cell, Foll::FAST_ONLY, Whose::Own)),
    ("gup_remote", |cell| gup(cell, Foll::NONE, Whose::Another)),
    ("release", release),
    ("touch", touch),
    ("push", |cell| Ok(Action::Push { address: cell.address("push(x)")? })),
    ("zap", |cell| on_range(cell, |space, start, pages| Action::Zap { space, start, pages })),
    ("guard", |cell| on_range(cell, |space, start, pages| Action::Guard { space, start, pages })),
    ("unguard", |cell| on_range(cell, |space, start, pages| Action::Unguard { space, start, pages })),
    ("write_protect", |cell| on_range(cell, |space, start, pages| Action::WriteProtect { space, start, pages })),
    ("uffd_copy", uffd_copy),
    ("uffd_protect", |cell| on_range(cell, |space, start, pages| Action::UffdProtect { space, start, pages })),
    ("uffd_unprotect", |cell| on_range(cell, |space, start, pages| Action::UffdUnprotect { space, start, pages })),
    ("harvest", harvest),
    ("enter_lazy", enter_lazy),
    ("leave_lazy", |cell| Ok(Action::LeaveLazy { space: cell.own })),
    ("swap_out", |cell| on_range(cell, |space, start, pages| Action::SwapOut { space, start, pages })),
    ("fail", |cell| Ok(Action::Fail { address: cell.address("fail(x)")?, space: cell.space()? })),
    ("migrate", |cell| Ok(Action::Migrate { address: cell.address("migrate(x)")?, space: cell.space()? })),
    ("migrate_range", |cell| on_range(cell, |space, start, pages| Action::MigrateRange { space, start, pages })),
    ("numa_hint", |cell| on_range(cell, |space, start, pages| Action::NumaHint { space, start, pages })),
    ("write_back", |cell| {
        let (file, page) = cell.file_page(Some(FileKind::Cached))?;
        Ok(Action::WriteBack { file, page })
    }),
    ("drop_page", |cell| {
        let (file, page) = cell.file_page(Some(FileKind::Cached))?;
        Ok(Action::DropPage { file, page })
    }),
    ("drain", |cell| {
        let value = cell.arguments.positional("frame", "drain(A)")?;
        Ok(Action::Drain { frame: cell.setup.frame_named(cell.race, value)? })
    }),
    ("mmap", |cell| Ok(Action::Mmap { area: cell.place("mmap(x)")?.0.area, space: cell.space()? })),
    ("munmap", |cell| {
        let (start, pages) = cell.whole_or_part("munmap(x)")?;
        Ok(Action::Munmap { space: cell.space()?, start, pages })
    }),
    ("mprotect", mprotect),
    ("wrpkru", |cell| WritePkru::read(cell.race, &cell.operation.word, &mut cell.arguments).map(Action::WritePkru)),
    ("mremap", mremap),
    ("fork", fork),
    ("share_table", share_table),
    ("merge", merge),
    ("merge_zeros", |cell| Ok(Action::MergeZeros { from: place(cell, "merge_zeros(y)")? })),
    ("unmerge", |cell| on_range(cell, |space, start, pages| Action::Unmerge { space, start, pages })),
    ("unmap_mapping", unmap_mapping),
    ("replace", |cell| {
        let (file, page) = cell.file_page(Some(FileKind::Cached))?;
        Ok(Action::Replace { file, page, frame: cell.frame("replace(f, 0, B)")? })
    }),
    ("collapse", |cell| Ok(Action::Collapse { address: cell.address("collapse(x)")?, space: cell.space()? })),
    ("split_leaf", |cell| Ok(Action::SplitLeaf { address: cell.address("split_leaf(x)")?, space: cell.space()? })),
    ("split_folio", |cell| Ok(Action::SplitFolio { address: cell.address("split_folio(x)")?, space: cell.space()? })),
    ("revoke", |cell| {
        let (file, page) = cell.file_page(Some(FileKind::Driver))?;
        Ok(Action::Revoke { file, page, frame: cell.frame("revoke(f, 0, B)")? })
    }),
    ("move", move_page),
    ("kill", kill),
    ("follow", |cell| {
        let device = cell.device()?;
        Ok(Action::Follow { start: cell.address("follow(x)")?, space: cell.space()?, device })
    }),
    ("mirror", |cell| {
        let access = cell.access();
        Ok(Action::Mirror { address: cell.address("mirror(x, write)")?, space: cell.space()?, access })
    }),
    ("device", |cell| {
        let device = cell.device()?.unwrap_or(Device::Load);
        Ok(Action::Device { address: cell.address("device(x, write=1)")?, space: cell.space()?, device })
    }),
    ("io", |cell| {
        let device = cell.device()?.unwrap_or(Device::Load);
        Ok(Action::Io { from: cell.register("io(r0, write=1)")?, device })
    }),
    ("dump", |cell| {
        let sections = [("rcu", Section::Rcu), ("irq-off", Section::IrqOff)];
        let section = cell.arguments.one_of(&sections, Section::None);
        Ok(Action::Dump { address: cell.address("dump(x)")?, space: cell.space()?, section })
    }),
    ("ptdump", |cell| on_range(cell, |space, start, pages| Action::Ptdump { space, start, pages })),
    ("walk", |cell| Ok(Action::Walk { address: cell.address("walk(x)")?, space: cell.space()? })),
];

/// What an operation is.
pub(super) fn read(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let word = &cell.operation.word;
    match WORDS.iter().find(|(name, _)| *name == word.node) {
        Some((_, read)) => read(cell),
        None => {
            let known = WORDS.iter().map(|(name, _)| (*name).to_owned()).collect();
            let problem = Problem::Unknown { what: "operation", found: word.node.clone(), known };
            Err(Error::new(&cell.race.source, word.span, problem))
        }
    }
}

fn gup(cell: &mut Cell<'_, '_>, given: Foll, whose: Whose) -> Result<Action, Error> {
    let words = [
        ("get", Foll::GET),
        ("pin", Foll::PIN),
        ("write", Foll::WRITE),
        ("longterm", Foll::LONGTERM),
        ("force", Foll::FORCE),
        ("nofault", Foll::NOFAULT),
    ];
    let mut flags = given;
    for (word, flag) in words {
        if cell.arguments.flag(word).is_some() {
            flags = flags | flag;
        }
    }
    let space = cell.space()?;
    let (start, pages) = cell.range()?;
    if let Err(error) = flags.validate() {
        return Err(cell.impossible(cell.operation.span, error.to_string(), "gup_fast(x, pin, write)"));
    }
    Ok(Action::Gup { space, start, pages, flags, whose, into: cell.result()? })
}

fn release(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    if let Some(register) = &cell.operation.result {
        let why = format!("`{}` has no result", cell.operation.word.node);
        return Err(cell.impossible(register.span, why, "all other operations have"));
    }
    let done = cell.access();
    Ok(Action::Release { from: cell.register("release(r0)")?, done })
}

fn touch(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let user = match (cell.word()?, cell.access(), cell.into) {
        (Some(word), _, _) => User::Store(word),
        (None, Access::Read, Some(_)) => User::Load,
        (None, access, _) => User::Access(access),
    };
    Ok(Action::Touch { address: cell.address("touch(x, write)")?, user })
}

fn mprotect(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let rights = [("none", AreaRights::None), ("r", AreaRights::Read), ("rw", AreaRights::ReadWrite)];
    let rights = cell.arguments.named("rights", &rights, AreaRights::Read)?;
    let key = take_key(cell.race, &mut cell.arguments)?;
    let (start, pages) = cell.whole_or_part("mprotect(x, rights=r)")?;
    Ok(Action::Mprotect { space: cell.space()?, start, pages, rights, key })
}

fn harvest(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let words = [("accessed", Usage::ACCESSED), ("dirty", Usage::DIRTY), ("soft-dirty", Usage::SOFT_DIRTY)];
    let mut clear = Usage::NONE;
    for (word, usage) in words {
        if cell.arguments.flag(word).is_some() {
            clear = clear.and(usage);
        }
    }
    let (start, pages) = cell.range()?;
    if clear == Usage::NONE {
        let why = "`harvest` asks for nothing".to_owned();
        return Err(cell.impossible(
            cell.operation.span,
            why,
            "harvest(x, accessed, dirty, soft-dirty), or some of them",
        ));
    }
    Ok(Action::Harvest { space: cell.space()?, start, pages, clear })
}

fn uffd_copy(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let word = cell.word()?.unwrap_or_default();
    let protection = cell.arguments.one_of(&[("wp", UffdProtection::WriteProtected)], UffdProtection::None);
    let (start, pages) = cell.range()?;
    Ok(Action::UffdCopy { space: cell.space()?, start, pages, word, protection })
}

fn enter_lazy(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let kernel = match cell.arguments.one("kernel")? {
        Some(space) => SpaceId::new(cell.setup.space_named(cell.race, space)? as u16),
        None => cell.own,
    };
    Ok(Action::EnterLazy { space: cell.own, kernel })
}

fn mremap(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let (from, pages) = cell.whole_or_part("mremap(x, y)")?;
    Ok(Action::Mremap { to: cell.address("mremap(x, y)")?, space: cell.space()?, from, pages })
}

fn fork(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let child = cell.arguments.positional("space", "fork(q)")?;
    let child = SpaceId::new(cell.setup.space_named(cell.race, child)? as u16);
    Ok(Action::Fork { space: cell.space()?, child })
}

/// A place of the address space that the area is declared in.
fn place(cell: &mut Cell<'_, '_>, right: &'static str) -> Result<(SpaceId, VirtAddr), Error> {
    let (area, address) = cell.place(right)?;
    Ok((SpaceId::new(area.space as u16), address))
}

fn share_table(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let right = "share_table(y, x)";
    Ok(Action::ShareTable { to: place(cell, right)?, from: place(cell, right)? })
}

fn merge(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let right = "merge(x, y)";
    Ok(Action::Merge { into: place(cell, right)?, from: place(cell, right)? })
}

fn unmap_mapping(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let (file, first) = cell.file_page(None)?;
    let count = cell.arguments.positional("number of pages", "unmap_mapping(f, 0, 1)")?;
    Ok(Action::UnmapMapping { file, first, pages: cell.arguments.in_range(count, u64::from(u32::MAX))? })
}

fn move_page(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let copy = cell.arguments.one_of(&[("early", Copy::Early)], Copy::Revoked);
    let (file, page) = cell.file_page(Some(FileKind::Driver))?;
    let value = cell.arguments.positional("frame", "move(f, 0, B)")?;
    Ok(Action::Move { file, page, frame: cell.setup.frame_named(cell.race, value)?, copy })
}

fn kill(cell: &mut Cell<'_, '_>) -> Result<Action, Error> {
    let name = cell.arguments.positional("file", "kill(f)")?;
    let file = cell.setup.file_named(cell.race, name)?;
    if cell.setup.files[file].kind != FileKind::Mixed {
        let why = format!("`{}` is not of a device with page records", name.node);
        return Err(cell.impossible(name.span, why, "a `mixed` file of `pagemap` frames"));
    }
    Ok(Action::Kill { file: FileId::new(file as u16) })
}
