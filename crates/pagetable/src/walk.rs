//! The lockless walk.
//!
//! A walker reads every entry once, decides on its copy, and computes the next table from the copy, never from
//! the cell again. What it needs from its caller: *tables stay tables while it walks* (interrupts off, an RCU
//! read-side section, or a lock that keeps tables from being freed).
//!
//! What it guarantees: each entry that it reports was in its slot at some moment of the call (if the
//! [`EntryRead`] keeps its promise). The path as a whole need not have existed at any single moment; who needs
//! that re-checks ([`Slot::recheck`](crate::Slot::recheck)).
//!
//! Step by step, as fast GUP wants it: [`root_slot`], [`read`], [`step`], again; at the end
//! the re-check. As a whole: [`translate`], [`lookup`]. Over a range, once per table: [`visit`].

use machine::addr::PAGE_SHIFT;
use machine::{Cpu, Frame, VirtAddr, Word64};

use crate::entry::Entry;
use crate::error::WalkError;
use crate::level::{ENTRIES, Level};
use crate::memory::TableMemory;
use crate::mode::{Mode, Root, RootShape};
use crate::read::EntryRead;
use crate::rights::Rights;
use crate::table::{Slot, Table, TableMeta};
use crate::width::Width;

/// The slot of the root that translates `address`. Its level is [`Mode::root_level`].
///
/// # Errors
/// The mode does not translate the address, or the root is not a table.
#[inline(always)]
pub fn root_slot<'m, M: Mode, T: TableMemory>(
    mode: &M,
    memory: &'m T,
    root: Root,
    address: VirtAddr,
) -> Result<Slot<'m>, WalkError> {
    mode.check(address)?;
    let level = mode.root_level();
    match mode.root_shape() {
        RootShape::Table => memory.table(root.address().frame()).map(|table| table.slot(level, address)),
        RootShape::FourPdptes => memory.pdpt(root.address()).map(|table| table.slot(address)),
    }
    .map_err(|table| WalkError::NotATable { address, level, table })
}

/// Reads the entry of `level` in `slot`, by the protocol, or plainly where it cannot change.
///
/// That is so for the PDPTEs of PAE: CPUs read them when they load CR3 and not again (SDM vol. 3A, 4.4.1), so
/// whoever changed one would have to make every CPU that runs the address space load CR3 once more. Kernels
/// fill them before the first load, and so does this one's `mm`.
#[inline(always)]
#[track_caller]
pub fn read<C: Cpu, M: Mode, R: EntryRead>(cpu: &C, mode: &M, level: Level, slot: Slot<'_>, reader: &R) -> Entry {
    if mode.root_shape() == RootShape::FourPdptes && level == mode.root_level() {
        M::Width::owned_load(cpu, slot.cell())
    } else {
        slot.read(cpu, reader)
    }
}

/// Where an entry leads.
#[derive(Clone, Copy)]
pub enum Step<'m> {
    /// The entry maps pages itself.
    Leaf,
    /// The entry points to a table; this is the slot there, one level lower.
    Lower(Slot<'m>),
}

/// Where `entry`, a copy of what a slot of `level` held, leads on the way to `address`.
///
/// # Errors
/// It is not present, malformed, or points to something that is not a table.
#[inline(always)]
pub fn step<'m, M: Mode, T: TableMemory>(
    mode: &M,
    memory: &'m T,
    level: Level,
    entry: Entry,
    address: VirtAddr,
) -> Result<Step<'m>, WalkError> {
    match level.lower() {
        Some(lower) if mode.leads_to_table(level, entry) => match memory.table(entry.table_frame()) {
            Ok(table) => Ok(Step::Lower(table.slot(lower, address))),
            Err(table) => Err(WalkError::NotATable { address, level, table }),
        },
        _ => check_leaf(mode, level, entry, address).map(|()| Step::Leaf),
    }
}

/// Whether an entry that does not lead to a table is a leaf.
#[inline(always)]
pub(crate) fn check_leaf<M: Mode>(mode: &M, level: Level, entry: Entry, address: VirtAddr) -> Result<(), WalkError> {
    if !entry.is_present() {
        return Err(WalkError::NotPresent { address, level, entry });
    }
    mode.check_entry(level, entry, address)?;
    Ok(())
}

/// Where a descent ended.
pub(crate) struct Descent<'m> {
    pub(crate) slot: Slot<'m>,
    pub(crate) level: Level,
    /// The table that the slot is in; `None` for the root.
    pub(crate) table: Option<Table<'m>>,
    /// What was read from the slot, if that is why the descent ended there.
    pub(crate) seen: Option<Entry>,
}

impl<'m> Descent<'m> {
    /// The cells of `address` and its neighbours behind it in the same table of pages, as many as `pages` and
    /// the table allow.
    #[inline(always)]
    pub(crate) fn cells(&self, address: VirtAddr, pages: u64) -> &'m [Word64] {
        match self.table {
            Some(table) => {
                let first = Level::Pte.index(address);
                let count = (ENTRIES - first).min(usize::try_from(pages).unwrap_or(ENTRIES));
                &table.cells()[first..first + count]
            }
            None => core::slice::from_ref(self.slot.cell()),
        }
    }
}

/// Goes down to `to`, or to the first entry that does not lead to a table. The common case costs one test a level.
#[inline(always)]
pub(crate) fn descend<'m, M: Mode, T: TableMemory>(
    mode: &M,
    memory: &'m T,
    root: Root,
    address: VirtAddr,
    to: Level,
    load: impl Fn(Slot<'m>) -> Entry,
) -> Result<Descent<'m>, WalkError> {
    let mut slot = root_slot(mode, memory, root, address)?;
    let mut table = None;
    // Level by level, as constants: where the mode knows its root at compile time only the levels it has are
    // left, and where it does not, one comparison. (A loop over an array of levels is not unrolled, and costs
    // half as much again.)
    macro_rules! down {
        ($level:ident to $lower:ident) => {
            if Level::$level <= mode.root_level() && Level::$level > to {
                let entry = load(slot);
                if !mode.leads_to_table(Level::$level, entry) {
                    return Ok(Descent { slot, level: Level::$level, table, seen: Some(entry) });
                }
                match memory.table(entry.table_frame()) {
                    Ok(next) => {
                        slot = next.slot(Level::$lower, address);
                        table = Some(next);
                    }
                    Err(table) => return Err(WalkError::NotATable { address, level: Level::$level, table }),
                }
            }
        };
    }
    down!(Pgd to P4d);
    down!(P4d to Pud);
    down!(Pud to Pmd);
    down!(Pmd to Pte);
    Ok(Descent { slot, level: to.min(mode.root_level()), table, seen: None })
}

/// What a walk found: the leaf that translates an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The 4 KiB frame that holds the address.
    pub frame: Frame,
    /// The level of the leaf.
    pub level: Level,
    /// The leaf.
    pub entry: Entry,
}

/// Walks from the root to the leaf that translates `address`.
///
/// # Errors
/// Why there is none.
#[inline]
#[track_caller]
pub fn translate<C: Cpu, M: Mode, T: TableMemory, R: EntryRead>(
    cpu: &C,
    mode: &M,
    memory: &T,
    reader: &R,
    root: Root,
    address: VirtAddr,
) -> Result<Translation, WalkError> {
    let mut slot = root_slot(mode, memory, root, address)?;
    // As in `descend`. Where the walk ends early, it goes on in a function of that level alone: if it were the same for
    // all, the compiler would carry the level along, and the walk would take one instruction more at each.
    macro_rules! down {
        ($level:ident to $lower:ident) => {
            if Level::$level <= mode.root_level() {
                let entry = slot.read(cpu, reader);
                if !mode.leads_to_table(Level::$level, entry) {
                    return leaf_of::<{ Level::$level as usize }, M>(mode, entry, address);
                }
                match memory.table(entry.table_frame()) {
                    Ok(next) => slot = next.slot(Level::$lower, address),
                    Err(table) => return Err(WalkError::NotATable { address, level: Level::$level, table }),
                }
            }
        };
    }
    down!(Pgd to P4d);
    down!(P4d to Pud);
    down!(Pud to Pmd);
    down!(Pmd to Pte);
    page(mode, slot.read(cpu, reader), address)
}

/// What an entry of a table of pages maps.
#[inline(always)]
fn page<M: Mode>(mode: &M, entry: Entry, address: VirtAddr) -> Result<Translation, WalkError> {
    if mode.maps_page(entry) {
        Ok(Translation { frame: entry.table_frame(), level: Level::Pte, entry })
    } else {
        Err(refusal(mode, Level::Pte, entry, address))
    }
}

/// [`leaf`] at the level of this number.
#[cold]
#[inline(never)]
fn leaf_of<const LEVEL: usize, M: Mode>(mode: &M, entry: Entry, address: VirtAddr) -> Result<Translation, WalkError> {
    leaf(mode, Level::ALL[LEVEL], entry, address)
}

/// What the slot at the end of a descent to [`Level::Pte`] maps.
#[inline(always)]
pub(crate) fn end_of_walk<'m, M: Mode>(
    mode: &M,
    end: &Descent<'m>,
    address: VirtAddr,
    load: impl Fn(Slot<'m>) -> Entry,
) -> Result<Translation, WalkError> {
    match end.seen {
        None => page(mode, load(end.slot), address),
        Some(entry) => leaf(mode, end.level, entry, address),
    }
}

/// What an entry that does not lead to a table maps. Apart from the common case, so that the compiler keeps that short.
#[inline(never)]
fn leaf<M: Mode>(mode: &M, level: Level, entry: Entry, address: VirtAddr) -> Result<Translation, WalkError> {
    check_leaf(mode, level, entry, address)?;
    let page = address.as_u64() >> PAGE_SHIFT & (level.frames() - 1);
    Ok(Translation { frame: entry.leaf_frame(level).wrapping_add(page), level, entry })
}

/// Why an entry of the lowest level maps nothing.
#[cold]
fn refusal<M: Mode>(mode: &M, level: Level, entry: Entry, address: VirtAddr) -> WalkError {
    check_leaf(mode, level, entry, address).err().unwrap_or(WalkError::NotPresent { address, level, entry })
}

/// All entries that a walk saw, and how it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    entries: [Option<Entry>; Level::ALL.len()],
    /// The leaf, or why there is none.
    pub end: Result<Translation, WalkError>,
    /// What the leaf and all tables above it allow together; [`Rights::READ`] if there is no leaf.
    pub rights: Rights,
}

impl Path {
    /// What was read at `level`; `None` if the walk did not come there, or the mode has no such level.
    #[inline]
    pub const fn entry(&self, level: Level) -> Option<Entry> {
        self.entries[level as usize]
    }
}

/// Walks as [`translate`] does, and reports the entry of every level and the effective rights.
pub fn lookup<C: Cpu, M: Mode, T: TableMemory, R: EntryRead>(
    cpu: &C,
    mode: &M,
    memory: &T,
    reader: &R,
    root: Root,
    address: VirtAddr,
) -> Path {
    let mut path = Path {
        entries: [None; Level::ALL.len()],
        end: Err(WalkError::NotPresent { address, level: mode.root_level(), entry: Entry::NONE }),
        rights: Rights::READ,
    };
    let mut rights = Rights::WRITE.and(Rights::EXECUTE).and(Rights::USER);
    let mut level = mode.root_level();
    let mut slot = match root_slot(mode, memory, root, address) {
        Ok(slot) => slot,
        Err(error) => {
            path.end = Err(error);
            return path;
        }
    };
    loop {
        let entry = slot.read(cpu, reader);
        path.entries[level as usize] = Some(entry);
        if mode.has_rights(level) {
            rights = rights.intersection(entry.rights());
        }
        match (step(mode, memory, level, entry, address), level.lower()) {
            (Ok(Step::Lower(next)), Some(lower)) => (slot, level) = (next, lower),
            (Err(error), _) => {
                path.end = Err(error);
                return path;
            }
            (Ok(_), _) => {
                path.end = leaf(mode, level, entry, address);
                path.rights = rights;
                return path;
            }
        }
    }
}

/// A part of a range that one table decides.
pub(crate) enum Part<'m> {
    /// Neighbouring entries of one table of pages.
    Pages {
        /// What the first of them translates.
        address: VirtAddr,
        cells: &'m [Word64],
        meta: &'m TableMeta,
    },
    /// One entry of an upper level that does not lead to a table, and is not none.
    Upper {
        /// The first address that it translates; may lie before the range.
        address: VirtAddr,
        level: Level,
        entry: Entry,
        slot: Slot<'m>,
        coverage: Coverage,
    },
}

/// How much of an entry a range covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Coverage {
    Whole,
    Partial,
}

/// Goes through a range, with one descent per table of pages. Skips what a missing table covers.
#[inline(always)]
pub(crate) fn for_each_part<'m, M: Mode, T: TableMemory, E: From<WalkError>>(
    mode: &M,
    memory: &'m T,
    root: Root,
    (start, bytes): (VirtAddr, u64),
    load: impl Fn(Slot<'m>) -> Entry,
    mut each: impl FnMut(Part<'m>) -> Result<(), E>,
) -> Result<(), E> {
    mode.check_range(start, bytes).map_err(WalkError::from)?;
    let mut address = start;
    let mut left = bytes;
    while left != 0 {
        let end = descend(mode, memory, root, address, Level::Pte, &load)?;
        let covered = match end.seen {
            None => {
                let cells = end.cells(address, left >> PAGE_SHIFT);
                each(Part::Pages { address, cells, meta: end.slot.meta() })?;
                cells.len() as u64 * Level::Pte.size()
            }
            Some(entry) => {
                let size = end.level.size();
                let from = address.align_down(size);
                let covered = (size - (address.as_u64() - from.as_u64())).min(left);
                if !entry.is_none() {
                    let coverage = if covered == size { Coverage::Whole } else { Coverage::Partial };
                    each(Part::Upper { address: from, level: end.level, entry, slot: end.slot, coverage })?;
                }
                covered
            }
        };
        address = address.wrapping_add(covered);
        left -= covered;
    }
    Ok(())
}

/// One entry that [`visit`] came by.
#[derive(Clone, Copy)]
pub struct Visited<'m> {
    /// The first address that the entry translates; for a huge leaf this may lie before the range.
    pub address: VirtAddr,
    /// Its level.
    pub level: Level,
    /// What was read: a leaf, or a non-present encoding. Never none.
    pub entry: Entry,
    /// Where, for a re-check.
    pub slot: Slot<'m>,
}

/// Reads, without locks, every entry of `bytes` bytes from `start` on that is a leaf or a non-present encoding,
/// in order, each once. Descends once per table, and skips what a missing table covers. `visitor` may end the
/// visit by an error of its own.
///
/// # Errors
/// The range is bad, an entry is malformed, or the visitor said so; what came before was visited.
#[track_caller]
pub fn visit<'m, C: Cpu, M: Mode, T: TableMemory, R: EntryRead, E: From<WalkError>>(
    cpu: &C,
    mode: &M,
    memory: &'m T,
    reader: &R,
    root: Root,
    range: (VirtAddr, u64),
    mut visitor: impl FnMut(Visited<'m>) -> Result<(), E>,
) -> Result<(), E> {
    let mut visit_one = |address, level, entry: Entry, slot| {
        if entry.is_present() {
            check_leaf(mode, level, entry, address)?;
        }
        visitor(Visited { address, level, entry, slot })
    };
    for_each_part(
        mode,
        memory,
        root,
        range,
        |slot| slot.read(cpu, reader),
        |part| match part {
            Part::Upper { address, level, entry, slot, .. } => visit_one(address, level, entry, slot),
            Part::Pages { mut address, cells, meta } => {
                for cell in cells {
                    let slot = Slot::new(cell, meta);
                    let entry = slot.read(cpu, reader);
                    if !entry.is_none() {
                        visit_one(address, Level::Pte, entry, slot)?;
                    }
                    address = Level::Pte.next(address);
                }
                Ok(())
            }
        },
    )
}
