//! Where the page tables lie, and what is in them at the start.

use machine::{Frame, VirtAddr};

use super::entry::Flags;
use super::setup::{PageSetup, Setup};

/// The first frame for tables.
pub(super) const FIRST_TABLE: u64 = 0x10;
/// How many tables there may be.
pub(super) const MOST_TABLES: u64 = 64;

/// Whether page tables may lie in a frame.
pub(super) fn is_for_tables(frame: Frame) -> bool {
    (FIRST_TABLE..FIRST_TABLE + MOST_TABLES).contains(&frame.number())
}

/// An entry: the table's frame, and the index in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) table: Frame,
    pub(super) index: usize,
}

/// One entry at the start.
pub(super) struct Initial {
    pub(super) slot: Slot,
    pub(super) entry: u64,
    /// As traces call it.
    pub(super) name: String,
}

/// A table that translates part of an address space.
struct Linked {
    space: usize,
    level: u8,
    /// The first address that it translates.
    base: u64,
    frame: Frame,
}

/// All page tables.
#[derive(Default)]
pub(super) struct Layout {
    /// Their frames: the roots, the tables on the way to pages, those that nothing points to.
    pub(super) tables: Vec<Frame>,
    linked: Vec<Linked>,
    spares: Vec<Frame>,
    pub(super) entries: Vec<Initial>,
}

impl Layout {
    pub(super) fn new(setup: &Setup) -> Self {
        let mut layout = Self::default();
        let top = setup.paging.levels();
        for space in 0..setup.spaces.len() {
            layout.link(space, top, 0);
        }
        for page in &setup.pages {
            for level in (1..top).rev() {
                layout.link(page.space, level, base(page.address, level));
            }
        }
        for _ in &setup.tables {
            let frame = layout.add();
            layout.spares.push(frame);
        }
        for (number, page) in setup.pages.iter().enumerate() {
            for level in (1..=top).rev() {
                let slot = layout.slot(setup, number, level);
                if layout.entries.iter().any(|known| known.slot == slot) {
                    continue;
                }
                let there = page.absent != Some(level);
                let entry = layout.original(setup, number, level).filter(|_| there).unwrap_or(0);
                let name = format!("{}({})", name_of(level), page.name);
                layout.entries.push(Initial { slot, entry, name });
            }
        }
        for (number, table) in setup.tables.iter().enumerate() {
            for (index, page) in setup.pages.iter().enumerate() {
                let leaf = table.leaves.iter().find(|(of, _)| *of == index);
                let flags = page.leaf.map_or(Flags::LINK, |(_, flags)| flags);
                let entry = leaf.map_or(0, |(_, frame)| flags.entry(setup.paging, 1, *frame));
                let slot = Slot { table: layout.spare(number), index: setup.paging.index(page.address, 1) };
                let name = format!("pte({}) in {}", page.name, table.name);
                if !layout.entries.iter().any(|known| known.slot == slot) {
                    layout.entries.push(Initial { slot, entry, name });
                }
            }
        }
        layout
    }

    fn add(&mut self) -> Frame {
        let frame = Frame::new(FIRST_TABLE + self.tables.len() as u64);
        self.tables.push(frame);
        frame
    }

    fn link(&mut self, space: usize, level: u8, base: u64) {
        if self.find(space, level, base).is_none() {
            let frame = self.add();
            self.linked.push(Linked { space, level, base, frame });
        }
    }

    fn find(&self, space: usize, level: u8, base: u64) -> Option<Frame> {
        let same = |table: &&Linked| (table.space, table.level, table.base) == (space, level, base);
        self.linked.iter().find(same).map(|table| table.frame)
    }

    /// The top table of a space.
    pub(super) fn root(&self, setup: &Setup, space: usize) -> Frame {
        self.find(space, setup.paging.levels(), 0).unwrap_or(Frame::new(FIRST_TABLE))
    }

    /// The table with this number among those that nothing points to.
    pub(super) fn spare(&self, number: usize) -> Frame {
        self.spares.get(number).copied().unwrap_or(Frame::new(FIRST_TABLE))
    }

    /// The level of the entries of a table.
    pub(super) fn level_of(&self, setup: &Setup, table: Frame) -> u8 {
        let linked = self.linked.iter().find(|linked| linked.frame == table);
        linked.map_or(1, |linked| linked.level.min(setup.paging.levels()))
    }

    /// The entry of a level on the way to a page.
    pub(super) fn slot(&self, setup: &Setup, page: usize, level: u8) -> Slot {
        let PageSetup { space, address, .. } = setup.pages[page];
        let top = setup.paging.levels();
        let base = if level == top { 0 } else { base(address, level) };
        let table = self.find(space, level, base).unwrap_or(Frame::new(FIRST_TABLE));
        Slot { table, index: setup.paging.index(address, level) }
    }

    /// What that entry is at the start, or would be if it were there; `None` for a page that is mapped to nothing.
    pub(super) fn original(&self, setup: &Setup, page: usize, level: u8) -> Option<u64> {
        let PageSetup { space, address, leaf, .. } = setup.pages[page];
        if level == 1 {
            return leaf.map(|(frame, flags)| flags.entry(setup.paging, 1, frame));
        }
        let below = self.find(space, level - 1, base(address, level - 1))?;
        Some(Flags::LINK.entry(setup.paging, level, below))
    }
}

/// The first address that a table of `level` for `address` translates, if it is not the top one.
fn base(address: VirtAddr, level: u8) -> u64 {
    address.align_down(lab::Paging::span(level + 1)).as_u64()
}

/// What Linux calls an entry of this level.
fn name_of(level: u8) -> &'static str {
    match level {
        1 => "pte",
        2 => "pmd",
        3 => "pud",
        _ => "pgd",
    }
}
