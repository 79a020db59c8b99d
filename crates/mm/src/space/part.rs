//! Parts of an address space: each has the areas that lie in it, and a lock for them.

use core::fmt;

use machine::addr::VirtAddr;
use machine::{Cpu, PerCpuRwLock, ReaderLock, Word32, Word64};

use crate::area::{Area, AreaSlot};

/// The areas that begin between two addresses, and what protects them.
///
/// An area lies in one part; who asks for one that would reach into the next is refused. So whoever adds, cuts or moves areas excludes only those who do something in the
/// same parts. A part begins at its own start and ends where the next one begins; the last has no end.
///
/// Two cache lines' worth of alignment, as processors prefetch lines in pairs: CPUs that work in neighbours of a slice do not write each other's lines, nor those that tell which part holds an
/// address.
#[repr(align(128))]
pub struct SpacePart<'a> {
    start: VirtAddr,
    areas: Areas<'a>,
}

/// What is written when areas change.
#[repr(align(128))]
struct Areas<'a> {
    /// Protects the areas. Faults hold it for reading; whoever adds, cuts or moves areas for writing; zap by rmap does not hold it.
    mmap_lock: PerCpuRwLock<'a>,
    /// Sorted by address; the first `count` are in use.
    slots: &'a [AreaSlot],
    count: Word64,
    /// How many gathers have begun here and not ended (Linux: `tlb_flush_pending`, of the whole address space).
    gathers: Word32,
}

/// Why an address space cannot have these parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartsError {
    /// The first begins here and not at 0, or there is none.
    First(Option<VirtAddr>),
    /// One begins here, and the one before it does not begin before that.
    Order(VirtAddr),
    /// One begins here, inside a page.
    Misaligned(VirtAddr),
}

impl<'a> SpacePart<'a> {
    /// A part without areas that begins at `start`; `slots` is the room for its areas.
    pub const fn new(start: VirtAddr, slots: &'a [AreaSlot]) -> Self {
        let mmap_lock = PerCpuRwLock::new(&[]);
        Self { start, areas: Areas { mmap_lock, slots, count: Word64::new(0), gathers: Word32::new(0) } }
    }

    /// The same part, whose mmap lock has these locks for readers: faults on different CPUs do not write the same line then, and whoever changes areas takes
    /// all. More of them than CPUs are of no use.
    #[must_use]
    pub const fn with_reader_locks(self, locks: &'a [ReaderLock]) -> Self {
        Self { areas: Areas { mmap_lock: PerCpuRwLock::new(locks), ..self.areas }, ..self }
    }

    /// The first address that belongs to it.
    pub const fn start(&self) -> VirtAddr {
        self.start
    }

    /// Its mmap lock, so that a trace can name it.
    pub const fn mmap_lock(&self) -> &PerCpuRwLock<'a> {
        &self.areas.mmap_lock
    }

    /// The word that counts its areas, so that a trace can name it.
    pub const fn count_word(&self) -> &Word64 {
        &self.areas.count
    }

    /// The word that counts gathers, so that a trace can name it.
    pub const fn gathers_word(&self) -> &Word32 {
        &self.areas.gathers
    }

    /// Whether these can be the parts of an address space.
    pub(super) fn check(parts: &[Self]) -> Result<(), PartsError> {
        let first = parts.first().map(Self::start);
        if first != Some(VirtAddr::new(0)) {
            return Err(PartsError::First(first));
        }
        for (before, part) in parts.iter().zip(&parts[1..]) {
            if part.start <= before.start {
                return Err(PartsError::Order(part.start));
            }
            if !part.start.is_aligned(machine::addr::PAGE_SIZE) {
                return Err(PartsError::Misaligned(part.start));
            }
        }
        Ok(())
    }

    /// How many areas there are. The caller holds [`Self::mmap_lock`].
    pub(super) fn count<C: Cpu>(&self, cpu: &C) -> usize {
        (cpu.owned_load(&self.areas.count) as usize).min(self.areas.slots.len())
    }

    /// How many areas can be added. The caller holds [`Self::mmap_lock`].
    pub(super) fn free_slots<C: Cpu>(&self, cpu: &C) -> usize {
        self.areas.slots.len() - self.count(cpu)
    }

    /// The slots in use. The caller holds [`Self::mmap_lock`].
    pub(super) fn used<C: Cpu>(&self, cpu: &C) -> &'a [AreaSlot] {
        &self.areas.slots[..self.count(cpu)]
    }

    /// The index of the first area that ends behind `address`. The caller holds [`Self::mmap_lock`].
    pub(super) fn first_ending_behind<C: Cpu>(&self, cpu: &C, address: VirtAddr) -> usize {
        self.used(cpu).partition_point(|slot| slot.get(cpu).end() <= address)
    }

    /// The area with this index. The caller holds [`Self::mmap_lock`].
    pub(super) fn area<C: Cpu>(&self, cpu: &C, index: usize) -> Option<Area> {
        self.used(cpu).get(index).map(|slot| slot.get(cpu))
    }

    /// Puts `new` in the place of `old` areas from `index` on. There are slots enough, and the order stays. The caller holds
    /// [`Self::mmap_lock`] for writing.
    ///
    /// Costs three loads and three stores for every area behind, if the number of areas changes: a sorted array, so that a fault finds its area in few cache lines.
    pub(super) fn splice<C: Cpu>(&self, cpu: &C, index: usize, old: usize, new: &[Area]) {
        let count = self.count(cpu);
        let moved = |from: usize, to: usize| self.areas.slots[to].set(cpu, &self.areas.slots[from].get(cpu));
        if new.len() > old {
            (index + old..count).rev().for_each(|slot| moved(slot, slot + (new.len() - old)));
        } else if new.len() < old {
            (index + old..count).for_each(|slot| moved(slot, slot - (old - new.len())));
        }
        for (slot, area) in self.areas.slots[index..].iter().zip(new) {
            slot.set(cpu, area);
        }
        cpu.owned_store(&self.areas.count, (count + new.len() - old) as u64);
    }

    /// A gather begins that may clear entries here. The full barrier orders this before every entry that it clears.
    pub(super) fn gather_begins<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(&self.areas.gathers, 1);
    }

    /// How many gathers have begun and not ended.
    pub(super) fn gathers<C: Cpu>(&self, cpu: &C) -> u32 {
        cpu.load(&self.areas.gathers)
    }

    /// A gather has ended: what it took away is flushed.
    pub(super) fn gather_ends<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(&self.areas.gathers, u32::MAX);
    }
}

impl fmt::Display for PartsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(None) => write!(f, "an address space has at least one part"),
            Self::First(Some(start)) => write!(f, "the first part begins at {start}: it must begin at 0"),
            Self::Order(start) => {
                write!(f, "the part that begins at {start} comes too late: parts are sorted by address")
            }
            Self::Misaligned(start) => write!(f, "a part begins at {start}, inside a page"),
        }
    }
}

impl core::error::Error for PartsError {}
