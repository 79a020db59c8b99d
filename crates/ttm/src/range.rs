//! Room in a resource: ranges of pages, allocated first fit or best fit (Linux: `drm_mm`, as the range manager of TTM uses it).

use core::fmt;

use machine::{Cpu, Word64};

/// Room for one range that is in use.
pub struct RangeSlot {
    start: Word64,
    pages: Word64,
}

impl RangeSlot {
    /// A slot that is not in use.
    pub const fn new() -> Self {
        Self { start: Word64::new(0), pages: Word64::new(0) }
    }

    fn get<C: Cpu>(&self, cpu: &C) -> Range {
        Range { start: cpu.owned_load(&self.start), pages: cpu.owned_load(&self.pages) }
    }

    fn set<C: Cpu>(&self, cpu: &C, range: Range) {
        cpu.owned_store(&self.start, range.start);
        cpu.owned_store(&self.pages, range.pages);
    }
}

impl Default for RangeSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// Pages of a resource, counted from its first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) pages: u64,
}

/// Which of the holes that are large enough is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// The first: quick.
    First,
    /// The one of which least remains: large holes stay for large objects.
    Best,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Demand {
    pub(crate) pages: u64,
    /// In pages, a power of two.
    pub(crate) alignment: u64,
    /// The number of page 0 for alignment: that of its frame.
    pub(crate) base: u64,
    /// The range lies within `window.0 .. window.1`.
    pub(crate) window: (u64, u64),
    pub(crate) fit: Fit,
}

/// Why there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoom {
    /// No hole is large enough.
    Space,
    /// All slots of the caller are in use.
    Slots,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Space => "no hole is large enough",
            Self::Slots => "all range slots are in use",
        })
    }
}

impl core::error::Error for NoRoom {}

/// The ranges in use, sorted by where they start. Who calls a method holds the lock of the resource.
pub(crate) struct Ranges<'d> {
    pages: u64,
    slots: &'d [RangeSlot],
    count: Word64,
    used: Word64,
}

impl<'d> Ranges<'d> {
    pub(crate) const fn new(pages: u64, slots: &'d [RangeSlot]) -> Self {
        Self { pages, slots, count: Word64::new(0), used: Word64::new(0) }
    }

    /// How many pages there are, used or not.
    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    pub(crate) fn used<C: Cpu>(&self, cpu: &C) -> u64 {
        cpu.owned_load(&self.used)
    }

    fn in_use<C: Cpu>(&self, cpu: &C) -> &'d [RangeSlot] {
        let count = cpu.owned_load(&self.count) as usize;
        &self.slots[..count.min(self.slots.len())]
    }

    /// Takes a range out of a hole and returns where it starts.
    pub(crate) fn allocate<C: Cpu>(&self, cpu: &C, demand: &Demand) -> Result<u64, NoRoom> {
        let slots = self.in_use(cpu);
        let mut found: Option<(usize, u64, u64)> = None;
        let mut hole = 0;
        for index in 0..=slots.len() {
            let next = slots.get(index).map(|slot| slot.get(cpu));
            let end = next.map_or(self.pages, |range| range.start);
            if let Some(start) = demand.place_in(hole, end) {
                let rest = end - hole - demand.pages;
                if found.is_none_or(|(_, _, best)| rest < best) {
                    found = Some((index, start, rest));
                }
                if demand.fit == Fit::First {
                    break;
                }
            }
            if let Some(range) = next {
                hole = range.start + range.pages;
            }
        }
        let (index, start, _) = found.ok_or(NoRoom::Space)?;
        if slots.len() == self.slots.len() {
            return Err(NoRoom::Slots);
        }
        for moved in (index..slots.len()).rev() {
            self.slots[moved + 1].set(cpu, self.slots[moved].get(cpu));
        }
        self.slots[index].set(cpu, Range { start, pages: demand.pages });
        cpu.owned_store(&self.count, slots.len() as u64 + 1);
        cpu.owned_store(&self.used, self.used(cpu) + demand.pages);
        Ok(start)
    }

    /// Gives back the range that starts at `start`; `None` if there is none.
    pub(crate) fn free<C: Cpu>(&self, cpu: &C, start: u64) -> Option<Range> {
        let slots = self.in_use(cpu);
        let index = slots.partition_point(|slot| slot.get(cpu).start < start);
        let range = slots.get(index).map(|slot| slot.get(cpu)).filter(|range| range.start == start)?;
        for moved in index + 1..slots.len() {
            self.slots[moved - 1].set(cpu, self.slots[moved].get(cpu));
        }
        cpu.owned_store(&self.count, slots.len() as u64 - 1);
        cpu.owned_store(&self.used, self.used(cpu) - range.pages);
        Some(range)
    }

    /// The ranges in use, lowest first.
    pub(crate) fn iter<C: Cpu>(&self, cpu: &C) -> impl Iterator<Item = Range> {
        self.in_use(cpu).iter().map(move |slot| slot.get(cpu))
    }
}

impl Demand {
    /// Where the range would start in the hole `hole..end`.
    fn place_in(&self, hole: u64, end: u64) -> Option<u64> {
        let from = hole.max(self.window.0);
        let until = end.min(self.window.1);
        let start = self.base.checked_add(from)?.checked_next_multiple_of(self.alignment)? - self.base;
        (start.checked_add(self.pages)? <= until).then_some(start)
    }
}
