//! ptdump: what is mapped in a range, told as runs of neighbours that are mapped alike. For people and for tools (Linux: `mm/ptdump.c`).
//!
//! # Protocol
//!
//! No lock is taken. The walk goes on in *sections* with interrupts off, and nothing that was read of a table is used in the next one: each descends from the
//! root anew. A section ends with the table of pages that it is in, with an upper entry that leads to no table, or where a run ends.
//!
//! 1. What keeps tables from being freed under fast GUP keeps them here. A walker with interrupts on, or one that goes on with a table from before, reads a
//!    table that was freed (syzbot fd95a72470f5a44e464c, July 2026: ptdump against vmap; arm64's `show_pte`, a77644d009de; race `ptdump-free`).
//! 2. Interrupts are off for one descent and 512 entries at the most, however large the range is.
//! 3. Who is told is told between sections: he may take his time, print, and wait.
//!
//! # Guarantee
//!
//! Every entry told was in its slot at some moment of the call, if the [`EntryRead`] keeps its promise. Neighbours, of one run too, need not have been there at
//! the same moment. What is malformed is told like everything else, and the walk goes on behind it.

use core::ops::ControlFlow;

use machine::addr::PAGE_SHIFT;
use machine::{Cpu, IrqOff, VirtAddr};

use crate::entry::Entry;
use crate::error::AddressError;
use crate::level::Level;
use crate::memory::TableMemory;
use crate::mode::{Mode, Root};
use crate::nonpresent::{Marker, NonPresent};
use crate::read::EntryRead;
use crate::rights::{Attributes, Flags, Rights};
use crate::table::{Slot, Table};
use crate::walk;

/// Neighbours whose entries are of one level and say the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first address.
    pub start: VirtAddr,
    /// How many bytes, at least 1: the end itself may lie behind the last address there is.
    pub bytes: u64,
    /// The level of the entries. Of a hole: at which level nothing is there; the higher, the fewer tables.
    pub level: Level,
    /// What they say.
    pub what: What,
}

impl Run {
    /// The last address.
    pub const fn last(&self) -> VirtAddr {
        self.start.wrapping_add(self.bytes - 1)
    }

    /// Whether `next`, which begins where this ends, says the same.
    fn is_like(&self, next: &Self) -> bool {
        self.level == next.level && self.what == next.what
    }
}

/// What entries say, besides which frames they name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Nothing.
    Hole,
    /// Pages are mapped.
    Leaf {
        /// By such leaves, software bits included. Accessed and dirty are left out: they change by themselves, and would make a run of each page.
        attributes: Attributes,
        /// What the leaf and the tables above it allow together.
        effective: Rights,
    },
    /// Pages are mapped for software, and must not be used for now. Without accessed and dirty as well.
    ProtNone(Attributes),
    /// Pages are on swap, wherever there.
    Swap,
    /// Pages are on their way to other frames.
    Migration,
    /// No pages, but something to know about the place.
    Marker(Marker),
    /// Not present, and of no encoding that there is: the table was damaged.
    Unknown,
    /// Present, with bits that must be zero: the hardware raises a page fault with RSVD.
    Malformed {
        /// These bits.
        reserved: u64,
    },
    /// Present, and leads to a frame that holds no table. Of the root's level: perhaps it is the root that is none.
    NotATable,
}

/// Tells `each` what is mapped in `bytes` bytes from `start` on: runs, in order, that cover the range without a gap. Two that follow each other differ. `each` may end the walk.
///
/// Context: any in which fast GUP is allowed, and, where a table is freed after the CPUs that have its address space active took an interrupt, this CPU is one of them. `each` runs as the caller does.
///
/// # Errors
/// The range is misaligned, or not all of it is translated by the mode. Nothing was told.
#[track_caller]
pub fn ptdump<C: Cpu, M: Mode, T: TableMemory, R: EntryRead, B>(
    cpu: &C,
    mode: &M,
    memory: &T,
    reader: &R,
    root: Root,
    (start, bytes): (VirtAddr, u64),
    mut each: impl FnMut(Run) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, AddressError> {
    mode.check_range(start, bytes)?;
    let walker = Walker { mode, memory, reader, root };
    let mut current = None;
    let mut done = 0;
    while done < bytes {
        let irq = cpu.irq_off();
        let (seen, ended) = walker.section(&irq, start.wrapping_add(done), bytes - done, &mut current);
        drop(irq);
        done += seen;
        if let Some(run) = ended
            && let ControlFlow::Break(value) = each(run)
        {
            return Ok(ControlFlow::Break(value));
        }
    }
    Ok(current.map_or(ControlFlow::Continue(()), each))
}

struct Walker<'w, M, T, R> {
    mode: &'w M,
    memory: &'w T,
    reader: &'w R,
    root: Root,
}

impl<M: Mode, T: TableMemory, R: EntryRead> Walker<'_, M, T, R> {
    /// Looks at what one table decides of the `left` bytes from `at` on, until a run ends. Returns how many bytes those are, and the run that ended; the one that is going on is `current`.
    #[track_caller]
    fn section<C: Cpu>(
        &self,
        irq: &IrqOff<'_, C>,
        at: VirtAddr,
        left: u64,
        current: &mut Option<Run>,
    ) -> (u64, Option<Run>) {
        let Self { mode, memory, reader, root } = *self;
        let mut level = mode.root_level();
        let mut above = Rights::WRITE.and(Rights::EXECUTE).and(Rights::USER);
        let Ok(mut slot) = walk::root_slot(mode, memory, root, at) else {
            return (left, add(current, Run { start: at, bytes: left, level, what: What::NotATable }));
        };
        loop {
            let entry = walk::read(irq.cpu(), mode, level, slot, reader);
            let what = match level.lower() {
                Some(lower) if mode.leads_to_table(level, entry) => {
                    if mode.has_rights(level) {
                        above = above.intersection(entry.rights());
                    }
                    match memory.table(entry.table_frame()) {
                        Ok(table) if lower == Level::Pte => {
                            return self.pages(irq, table, above, (at, left), current);
                        }
                        Ok(table) => {
                            (slot, level) = (table.slot(lower, at), lower);
                            continue;
                        }
                        Err(_) => What::NotATable,
                    }
                }
                _ => self.what(level, entry, above),
            };
            let size = level.size();
            let bytes = (size - (at.as_u64() & (size - 1))).min(left);
            return (bytes, add(current, Run { start: at, bytes, level, what }));
        }
    }

    /// [`Self::section`] in a table of pages.
    #[track_caller]
    fn pages<C: Cpu>(
        &self,
        irq: &IrqOff<'_, C>,
        table: Table<'_>,
        above: Rights,
        (at, left): (VirtAddr, u64),
        current: &mut Option<Run>,
    ) -> (u64, Option<Run>) {
        let level = Level::Pte;
        let cells = table.cells().iter().skip(level.index(at));
        let mut seen = 0;
        for (cell, _) in cells.zip(0..left >> PAGE_SHIFT) {
            let entry = Slot::new(cell, table.meta()).read(irq.cpu(), self.reader);
            let what = self.what(level, entry, above);
            let ended = add(current, Run { start: at.wrapping_add(seen), bytes: level.size(), level, what });
            seen += level.size();
            if ended.is_some() {
                return (seen, ended);
            }
        }
        (seen, None)
    }

    /// What an entry says that leads to no table.
    fn what(&self, level: Level, entry: Entry, above: Rights) -> What {
        if entry.is_none() {
            return What::Hole;
        }
        if entry.is_present() {
            return match self.mode.reserved(level, entry) {
                0 => What::Leaf {
                    attributes: entry.attributes(level).without(Flags::ACCESSED_DIRTY),
                    effective: above.intersection(entry.rights()),
                },
                reserved => What::Malformed { reserved },
            };
        }
        match entry.non_present(level) {
            Ok(Some(NonPresent::Swap(_))) => What::Swap,
            Ok(Some(NonPresent::Migration(_))) => What::Migration,
            Ok(Some(NonPresent::Marker(marker))) => What::Marker(marker),
            Ok(Some(NonPresent::ProtNone(leaf))) => What::ProtNone(leaf.attributes.without(Flags::ACCESSED_DIRTY)),
            Ok(None) | Err(_) => What::Unknown,
        }
    }
}

/// Goes on with `current`, or ends it and begins with `next`. Returns what ended.
fn add(current: &mut Option<Run>, next: Run) -> Option<Run> {
    match current {
        Some(run) if run.is_like(&next) => {
            run.bytes += next.bytes;
            None
        }
        _ => current.replace(next),
    }
}
