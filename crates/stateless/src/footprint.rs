//! What a step depends on and what depends on it.
//!
//! Two steps of different processes that use no resource in conflicting ways can change places without anybody telling the difference. Where that is hard
//! to say, a resource is coarser than it need be: more runs, the same answer.

use crate::memory::Place;

/// Something that steps use. Below [`FIRST_OTHER`] it is a 4-byte unit of memory.
pub(crate) type Resource = u32;

const FIRST_OTHER: u32 = 1 << 28;

const fn other(kind: u32, number: usize) -> Resource {
    FIRST_OTHER + (kind << 20) + number as u32
}

/// The TLB and the paging-structure caches of a CPU, and its CR3.
pub(crate) const fn translations(cpu: usize) -> Resource {
    other(0, cpu)
}

/// The entries on the way to a page, in whatever tables: a table's entry is on it if its index is that of the page.
pub(crate) const fn path(page: usize) -> Resource {
    other(1, page)
}

/// Which interrupts wait for a CPU.
pub(crate) const fn pending(cpu: usize) -> Resource {
    other(2, cpu)
}

/// Whether the store buffer of a CPU is empty.
pub(crate) const fn buffer(cpu: usize) -> Resource {
    other(3, cpu)
}

/// Whether a CPU is in an RCU read-side section.
pub(crate) const fn section(cpu: usize) -> Resource {
    other(4, cpu)
}

/// Broadcasts on their way to a CPU.
pub(crate) const fn arrivals(cpu: usize) -> Resource {
    other(5, cpu)
}

/// Whether a block of frames is handed out.
pub(crate) const fn block(block: usize) -> Resource {
    other(6, block)
}

/// The same, of any block.
pub(crate) const ANY_BLOCK: Resource = other(7, 0);

/// A word of the watchers' notes.
pub(crate) const fn note(index: usize) -> Resource {
    other(8, index)
}

/// Where the scheduler can move threads to.
pub(crate) const SCHEDULER: Resource = other(9, 0);

/// How a step uses a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// It looks.
    Reads,
    /// It looks through its CPU's own store buffer.
    Loads,
    /// It changes it.
    Writes,
    /// It lets a store leave its CPU's buffer: the view of that CPU is what it was.
    Drains,
}

impl Use {
    fn changes(self) -> bool {
        matches!(self, Self::Writes | Self::Drains)
    }

    /// Whether the order of two uses of one resource matters. `same_cpu`: both are of one CPU.
    pub(crate) fn conflicts(self, other: Self, same_cpu: SameCpu) -> bool {
        let own_view = matches!((self, other), (Self::Loads, Self::Drains) | (Self::Drains, Self::Loads));
        (self.changes() || other.changes()) && !(own_view && same_cpu == SameCpu::Yes)
    }
}

/// Whether two steps are of one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SameCpu {
    Yes,
    No,
}

impl SameCpu {
    pub(crate) fn of(one: usize, other: usize) -> Self {
        if one == other { Self::Yes } else { Self::No }
    }
}

/// Everything that a step uses.
#[derive(Clone, Default, Debug)]
pub(crate) struct Footprint(Vec<(Resource, Use)>);

impl Footprint {
    pub(crate) fn add(&mut self, resource: Resource, how: Use) {
        if !self.0.contains(&(resource, how)) {
            self.0.push((resource, how));
        }
    }

    pub(crate) fn add_place(&mut self, place: Place, how: Use) {
        place.units().for_each(|unit| self.add(unit, how));
    }

    pub(crate) fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|&(resource, how)| self.add(resource, how));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Resource, Use)> {
        self.0.iter().copied()
    }

    pub(crate) fn conflicts(&self, other: &Self, same_cpu: SameCpu) -> bool {
        self.iter().any(|(resource, how)| {
            other.iter().any(|(theirs, other)| resource == theirs && how.conflicts(other, same_cpu))
        })
    }
}
