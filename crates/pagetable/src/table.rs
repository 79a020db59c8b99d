//! A table, its metadata, and one slot of it.

use machine::{Cpu, SeqCount, SpinLock, VirtAddr, Word32, Word64};

use crate::entry::Entry;
use crate::level::{ENTRIES, Level};
use crate::read::EntryRead;
use crate::recheck::{Recheck, Rechecked};
use crate::write::EntryWrite;

/// The words of a table as the hardware wants them: a frame of their own.
#[repr(C, align(4096))]
pub struct TableFrame(pub [Word64; ENTRIES]);

const _: () = assert!(size_of::<TableFrame>() == 4096);

impl TableFrame {
    /// A frame full of zeros.
    pub const fn new() -> Self {
        Self([const { Word64::new(0) }; ENTRIES])
    }
}

impl Default for TableFrame {
    fn default() -> Self {
        Self::new()
    }
}

/// What software keeps beside a table: in Linux, fields of the table page's `struct ptdesc`.
///
/// A cache line each: the locks of neighbouring tables are taken by different CPUs. That is 1.6 % of the table.
#[repr(C, align(64))]
pub struct TableMeta {
    /// The page-table lock: held to change the table's entries.
    pub lock: SpinLock,
    /// How many entries of the table are not none. Changed under the lock, or by a single owner. It is what
    /// makes "is this table empty" one load instead of a scan of 512 entries.
    pub children: Word32,
    /// How many entries lead to the table besides one; what that means, and how it changes, is the business of whoever shares tables.
    pub sharers: Word32,
    /// Odd while a writer that brackets its changes is at work: see [`crate::write::Sequenced`].
    pub sequence: SeqCount,
}

impl TableMeta {
    /// The metadata of an empty, unlocked table.
    pub const fn new() -> Self {
        Self { lock: SpinLock::new(), children: Word32::new(0), sharers: Word32::new(0), sequence: SeqCount::new() }
    }
}

impl Default for TableMeta {
    fn default() -> Self {
        Self::new()
    }
}

/// A table of 512 entries.
#[derive(Clone, Copy)]
pub struct Table<'m> {
    cells: &'m [Word64; ENTRIES],
    meta: &'m TableMeta,
}

/// The root of PAE.
#[derive(Clone, Copy)]
pub struct Pdpt<'m> {
    cells: &'m [Word64; 4],
    meta: &'m TableMeta,
}

/// The place of one entry, in whichever kind of table.
#[derive(Clone, Copy)]
pub struct Slot<'m> {
    cell: &'m Word64,
    meta: &'m TableMeta,
}

impl<'m> Table<'m> {
    /// A table made of these cells and this metadata.
    #[inline(always)]
    pub const fn new(cells: &'m [Word64; ENTRIES], meta: &'m TableMeta) -> Self {
        Self { cells, meta }
    }

    /// All cells.
    #[inline(always)]
    pub const fn cells(self) -> &'m [Word64; ENTRIES] {
        self.cells
    }

    /// The metadata.
    #[inline(always)]
    pub const fn meta(self) -> &'m TableMeta {
        self.meta
    }

    /// The slot that translates `address`, for a table of this level.
    #[inline(always)]
    pub fn slot(self, level: Level, address: VirtAddr) -> Slot<'m> {
        // The index is below 512 by its mask, so this never panics (and the check is optimised out).
        Slot { cell: &self.cells[level.index(address)], meta: self.meta }
    }
}

impl<'m> Pdpt<'m> {
    /// A PAE root made of these cells and this metadata.
    #[inline(always)]
    pub const fn new(cells: &'m [Word64; 4], meta: &'m TableMeta) -> Self {
        Self { cells, meta }
    }

    /// All cells.
    #[inline(always)]
    pub const fn cells(self) -> &'m [Word64; 4] {
        self.cells
    }

    /// The metadata.
    #[inline(always)]
    pub const fn meta(self) -> &'m TableMeta {
        self.meta
    }

    /// The PDPTE that translates `address`: its bits 31:30.
    #[inline(always)]
    pub fn slot(self, address: VirtAddr) -> Slot<'m> {
        Slot { cell: &self.cells[Level::Pud.index(address) & 3], meta: self.meta }
    }
}

impl<'m> Slot<'m> {
    /// The slot of this cell, in the table with this metadata.
    #[inline(always)]
    pub const fn new(cell: &'m Word64, meta: &'m TableMeta) -> Self {
        Self { cell, meta }
    }

    /// The cell.
    #[inline(always)]
    pub const fn cell(self) -> &'m Word64 {
        self.cell
    }

    /// The metadata of the table that the slot is in.
    #[inline(always)]
    pub const fn meta(self) -> &'m TableMeta {
        self.meta
    }

    /// Reads the entry by a protocol.
    #[inline(always)]
    #[track_caller]
    pub fn read<C: Cpu, R: EntryRead>(self, cpu: &C, reader: &R) -> Entry {
        reader.read(cpu, self.cell, &self.meta.sequence)
    }

    /// Compares the entry with what was read earlier.
    #[inline(always)]
    #[track_caller]
    pub fn recheck<C: Cpu, K: Recheck>(self, cpu: &C, protocol: &K, seen: Entry) -> Rechecked {
        protocol.recheck(cpu, self.cell, &self.meta.sequence, seen)
    }

    /// [`EntryWrite::set`] here.
    #[inline(always)]
    #[track_caller]
    pub fn set<C: Cpu, W: EntryWrite>(self, cpu: &C, writer: &W, new: Entry) {
        writer.set(cpu, self.cell, &self.meta.sequence, new);
    }
}
