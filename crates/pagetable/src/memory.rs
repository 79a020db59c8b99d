//! Where tables live, and where frames for new ones come from.

use core::marker::PhantomData;
use core::ptr::NonNull;

use machine::addr::PAGE_SHIFT;
use machine::{Cpu, Frame, PhysAddr, Word64};

use crate::error::{NotATable, OutOfFrames};
use crate::level::{ENTRIES, Level};
use crate::table::{Pdpt, Table, TableFrame, TableMeta};

/// The memory that page tables lie in.
///
/// A table stays accessible for as long as the memory is borrowed, even after its frame was given back: its
/// words are shared memory that anybody may read, and what they hold by then is the business of the protocols.
/// That keeps a walker that lost a race a *logical* error, which the lab reports, instead of undefined
/// behaviour.
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

    /// Whether one of the `frames` frames from `first` on may hold a table. Any numbers may be asked for. Memory that does not know where it ends says no.
    fn holds_any(&self, first: Frame, frames: u64) -> bool;
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
    #[inline]
    fn holds_any(&self, first: Frame, frames: u64) -> bool {
        T::holds_any(self, first, frames)
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

/// Frames in a row, all of which may hold tables. Every access is checked: an entry that names another frame is
/// an error.
#[derive(Clone, Copy)]
pub struct TableArena<'m> {
    /// The physical address of the first frame.
    start: PhysAddr,
    frames: &'m [TableFrame],
    /// As many as `frames`: `new` sees to it.
    metas: &'m [TableMeta],
}

impl<'m> TableArena<'m> {
    /// The arena whose first frame has this number. Of `frames` and `metas` only as many are used as there are of both.
    #[inline]
    pub fn new(first: Frame, frames: &'m [TableFrame], metas: &'m [TableMeta]) -> Self {
        let count = frames.len().min(metas.len());
        Self { start: first.start(), frames: &frames[..count], metas: &metas[..count] }
    }
}

impl TableMemory for TableArena<'_> {
    #[inline(always)]
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        // In bytes, because the address bits of an entry are that already: two shifts less a level. Numbers whose
        // address does not fit into 64 bits do not come from entries, and the compiler drops the test there.
        let offset = frame.start().as_u64().wrapping_sub(self.start.as_u64());
        if frame.number() >> (u64::BITS - PAGE_SHIFT) != 0 || offset >= size_of_val(self.frames) as u64 {
            return Err(NotATable { address: frame.start() });
        }
        // Only now: on a 32-bit CPU a frame above 4 GiB would look like one of these.
        let offset = offset as usize;
        let cells = self.frames.as_ptr().wrapping_byte_add(offset);
        // SAFETY: `offset` is a multiple of the size of a frame, because both addresses are, and below the size
        // of all of `frames`: this is one of them.
        let cells = unsafe { covered(cells) };
        // SAFETY: as above; `metas` has the same length as `frames` since `new`.
        let meta = unsafe { self.metas.get_unchecked(offset / size_of::<TableFrame>()) };
        Ok(Table::new(&cells.0, meta))
    }

    #[inline]
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        pdpt_in(self.table(root.frame())?, root).ok_or(NotATable { address: root })
    }

    fn holds_any(&self, first: Frame, frames: u64) -> bool {
        let own = self.start.frame().number();
        overlap((own, self.frames.len() as u64), (first.number(), frames))
    }
}

/// Frames in a row, with no check at all: a kernel's direct map. A level of a walk costs what it costs in a walk written
/// by hand; [`TableArena`] adds a subtraction, a comparison and a branch to it.
#[derive(Clone, Copy)]
pub struct DirectMap<'m> {
    /// Where frame 0 would be; it need not exist.
    frame_zero: *const u8,
    /// Where the metadata of frame 0 would be.
    meta_zero: *const TableMeta,
    borrowed: PhantomData<(&'m [TableFrame], &'m [TableMeta])>,
}

// SAFETY: a `DirectMap` gives shared access to words and nothing else, as `&[TableFrame]` and `&[TableMeta]`
// do, and those are `Send` and `Sync`.
unsafe impl Send for DirectMap<'_> {}
// SAFETY: as above.
unsafe impl Sync for DirectMap<'_> {}

impl DirectMap<'_> {
    /// The map where the frame `first` is accessible at `frames`, the next one behind it, and so on; and their
    /// metadata from `metas` on.
    ///
    /// # Safety
    /// [`TableMemory::table`] and [`TableMemory::pdpt`] of this value are only called for frames that the map
    /// covers: nobody else calls them, and no present, well-formed entry of the tables names another frame as a
    /// table. "Covers" means: the memory where the map puts the frame and its metadata is initialised, valid
    /// for reads and writes for `'m`, and accessed by all only atomically (through words) or by the hardware.
    #[inline]
    pub const unsafe fn new(first: Frame, frames: NonNull<TableFrame>, metas: NonNull<TableMeta>) -> Self {
        let before = first.number() as usize;
        Self {
            frame_zero: frames.as_ptr().cast_const().wrapping_sub(before).cast(),
            meta_zero: metas.as_ptr().cast_const().wrapping_sub(before),
            borrowed: PhantomData,
        }
    }
}

impl TableMemory for DirectMap<'_> {
    #[inline(always)]
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        // In bytes: the address bits of an entry are the offset already, which saves two shifts a level.
        let cells = self.frame_zero.wrapping_add(frame.start().as_u64() as usize).cast::<[Word64; ENTRIES]>();
        let meta = self.meta_zero.wrapping_add(frame.number() as usize);
        // SAFETY: the caller of `new` promised that every frame that is asked for has its memory here.
        let cells = unsafe { covered(cells) };
        // SAFETY: and its metadata here.
        let meta = unsafe { covered(meta) };
        Ok(Table::new(cells, meta))
    }

    #[inline(always)]
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        pdpt_in(self.table(root.frame())?, root).ok_or(NotATable { address: root })
    }

    fn holds_any(&self, _: Frame, _: u64) -> bool {
        false
    }
}

/// What lies at `pointer`. Tells the compiler that it is not null, which wrapping arithmetic hides, so that a
/// `Result` with it costs no test.
///
/// # Safety
/// `pointer` is valid for reads of a `T`, for `'m`, and all others change it through atomics only.
#[inline(always)]
unsafe fn covered<'m, T>(pointer: *const T) -> &'m T {
    // SAFETY: a pointer that is valid for reads is not null.
    unsafe { core::hint::assert_unchecked(!pointer.is_null()) };
    // SAFETY: the caller promised that it is valid.
    unsafe { &*pointer }
}

/// Whether two runs, each a first number and a length, have a number in common.
const fn overlap((one, length): (u64, u64), (other, other_length): (u64, u64)) -> bool {
    one < other.saturating_add(other_length) && other < one.saturating_add(length)
}
