//! Where tables live, and where frames for new ones come from.

use core::marker::PhantomData;
use core::ptr::NonNull;

use machine::{Cpu, Frame, PhysAddr};

use crate::error::{NotATable, OutOfFrames};
use crate::level::Level;
use crate::table::{Pdpt, Table, TableFrame, TableMeta};

/// The memory that page tables lie in.
///
/// A table stays accessible for as long as the memory is borrowed, even after its frame was given back: its words are shared memory that
/// anybody may read, and what they hold by then is the business of the protocols. That keeps a walker that lost a race a
/// *logical* error, which the lab reports, instead of undefined behaviour.
pub trait TableMemory {
    /// The table in a frame, with its metadata.
    ///
    /// # Errors
    /// There is none: an entry named a frame that cannot hold a table.
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable>;

    /// The four PDPTEs of PAE at an address that is a multiple of 32.
    ///
    /// # Errors
    /// There are none.
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable>;
}

impl<T: TableMemory> TableMemory for &T {
    #[inline(always)]
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        T::table(self, frame)
    }
    #[inline(always)]
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        T::pdpt(self, root)
    }
}

/// Where frames for tables come from and go to. Nothing else in this crate allocates.
pub trait TableSource {
    /// Gives a frame for a table. What it holds does not matter; its child count is set by whoever publishes it.
    ///
    /// # Errors
    /// There is none left.
    #[track_caller]
    fn allocate_table<C: Cpu>(&self, cpu: &C) -> Result<Frame, OutOfFrames>;

    /// Takes a frame back. No CPU can reach it any more, by software or hardware.
    #[track_caller]
    fn free_table<C: Cpu>(&self, cpu: &C, frame: Frame);
}

impl<T: TableSource> TableSource for &T {
    #[inline]
    fn allocate_table<C: Cpu>(&self, cpu: &C) -> Result<Frame, OutOfFrames> {
        T::allocate_table(self, cpu)
    }
    #[inline]
    fn free_table<C: Cpu>(&self, cpu: &C, frame: Frame) {
        T::free_table(self, cpu, frame);
    }
}

/// Bytes in a PAE root, and its alignment.
const PDPT_BYTES: u64 = 32;

/// The PAE root at an address inside a frame; `None` if it is not aligned.
#[inline(always)]
fn pdpt_in<'m>(table: Table<'m>, root: PhysAddr) -> Option<Pdpt<'m>> {
    let offset = root.as_u64() & (Level::Pte.size() - 1);
    let first = (offset / 8) as usize;
    let cells = table.cells().get(first..first + 4)?.try_into().ok()?;
    offset.is_multiple_of(PDPT_BYTES).then(|| Pdpt::new(cells, table.meta()))
}

/// Frames in a row, all of which may hold tables. Every access is checked: an entry that names another frame is an error.
#[derive(Clone, Copy)]
pub struct TableArena<'m> {
    first: Frame,
    frames: &'m [TableFrame],
    metas: &'m [TableMeta],
}

impl<'m> TableArena<'m> {
    /// The arena whose first frame has this number. Of `frames` and `metas` only as many are used as there are of both.
    #[inline]
    pub const fn new(first: Frame, frames: &'m [TableFrame], metas: &'m [TableMeta]) -> Self {
        Self { first, frames, metas }
    }
}

impl TableMemory for TableArena<'_> {
    #[inline(always)]
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        let index = frame.number().wrapping_sub(self.first.number()) as usize;
        match (self.frames.get(index), self.metas.get(index)) {
            (Some(cells), Some(meta)) => Ok(Table::new(&cells.0, meta)),
            _ => Err(NotATable { address: frame.start() }),
        }
    }

    #[inline]
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        pdpt_in(self.table(root.frame())?, root).ok_or(NotATable { address: root })
    }
}

/// Frames in a row, with no check at all: a kernel's direct map.
#[derive(Clone, Copy)]
pub struct DirectMap<'m> {
    frames: NonNull<TableFrame>,
    metas: NonNull<TableMeta>,
    first: Frame,
    borrowed: PhantomData<(&'m [TableFrame], &'m [TableMeta])>,
}

// SAFETY: a `DirectMap` gives shared access to words and nothing else, as `&[TableFrame]` and `&[TableMeta]`
// do, and those are `Send` and `Sync`.
unsafe impl Send for DirectMap<'_> {}
// SAFETY: as above.
unsafe impl Sync for DirectMap<'_> {}

impl DirectMap<'_> {
    /// The map where the frame `first` is accessible at `frames`, the next one behind it, and so on; and their metadata from
    /// `metas` on.
    ///
    /// # Safety
    /// [`TableMemory::table`] and [`TableMemory::pdpt`] of this value are only called for frames that the map covers: nobody else calls them, and
    /// no present, well-formed entry of the tables names another frame as a table. "Covers" means: the memory where the map puts the frame
    /// and its metadata is initialised, valid for reads and writes for `'m`, and accessed by all only atomically (through words)
    /// or by the hardware.
    #[inline]
    pub const unsafe fn new(first: Frame, frames: NonNull<TableFrame>, metas: NonNull<TableMeta>) -> Self {
        Self { frames, metas, first, borrowed: PhantomData }
    }
}

impl TableMemory for DirectMap<'_> {
    #[inline(always)]
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        let index = frame.number().wrapping_sub(self.first.number()) as usize;
        // Wrapping arithmetic, so that only the access itself needs the promise.
        let cells = self.frames.as_ptr().wrapping_add(index);
        let meta = self.metas.as_ptr().wrapping_add(index);
        // SAFETY: the caller of `new` promised that a frame that is asked for is accessible at its place from `frames` on.
        let cells = unsafe { &*cells };
        // SAFETY: and its metadata at its place from `metas` on.
        let meta = unsafe { &*meta };
        Ok(Table::new(&cells.0, meta))
    }

    #[inline(always)]
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        pdpt_in(self.table(root.frame())?, root).ok_or(NotATable { address: root })
    }
}
