//! The arena's tables, found without a look whether they are there.

use std::hint::assert_unchecked;

use machine::addr::PAGE_SIZE;
use machine::{Cpu, Frame, PhysAddr, Word64};
use pagetable::level::ENTRIES;
use pagetable::{NotATable, OutOfFrames, Pdpt, Table, TableMemory, TableMeta, TableSource};

use crate::arena::FrameArena;

/// The memory of a [`FrameArena`], for tables that nobody but trusted code ever wrote: what a kernel's direct mapping is.
///
/// [`FrameArena`] itself looks at every frame number, which takes a comparison a level.
#[derive(Clone, Copy)]
pub struct TrustedArena<'a> {
    arena: &'a FrameArena,
    /// Where frame 0 would lie, and its metadata. Outside the arena's memory, unless its first frame is 0.
    origin: *mut u8,
    metas: *mut TableMeta,
}

// SAFETY: as for the arena that it borrows, which is `Sync`.
unsafe impl Send for TrustedArena<'_> {}
// SAFETY: as above.
unsafe impl Sync for TrustedArena<'_> {}

impl<'a> TrustedArena<'a> {
    /// The tables of `arena`.
    ///
    /// # Safety
    /// Every frame that is looked up through this value is one of the arena. So every root that walks begin at is, and what entries that lead to tables
    /// name, for as long as anybody walks there.
    pub unsafe fn new(arena: &'a FrameArena) -> Self {
        let first = arena.frames().start;
        Self {
            arena,
            origin: arena.start().wrapping_sub((first * PAGE_SIZE) as usize),
            metas: arena.metas().wrapping_sub(first as usize),
        }
    }

    /// The arena.
    pub const fn arena(&self) -> &'a FrameArena {
        self.arena
    }

    #[inline(always)]
    fn words<const N: usize>(&self, address: PhysAddr) -> &[Word64; N] {
        let words = self.origin.wrapping_add(address.as_u64() as usize).cast::<[Word64; N]>();
        // SAFETY: the address is in a frame of the arena (the promise of `new`), and the arena is not at address 0.
        unsafe { assert_unchecked(!words.is_null()) };
        // SAFETY: as above, so there are 4096 bytes, or for a root of PAE 32, which the arena owns while it is borrowed. They are
        // aligned as their address is, any bytes are valid words, and all of them are inside atomics.
        unsafe { &*words }
    }

    #[inline(always)]
    fn meta(&self, frame: Frame) -> &TableMeta {
        let meta = self.metas.wrapping_add(frame.number() as usize);
        // SAFETY: the arena is not at address 0.
        unsafe { assert_unchecked(!meta.is_null()) };
        // SAFETY: the frame is one of the arena, which has a `TableMeta` for each.
        unsafe { &*meta }
    }
}

impl TableMemory for TrustedArena<'_> {
    #[inline(always)]
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        Ok(Table::new(self.words::<ENTRIES>(frame.start()), self.meta(frame)))
    }

    #[inline(always)]
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        if !root.is_aligned(32) {
            return Err(NotATable { address: root });
        }
        Ok(Pdpt::new(self.words::<4>(root), self.meta(root.frame())))
    }

    fn holds_any(&self, first: Frame, frames: u64) -> bool {
        self.arena.holds_any(first, frames)
    }
}

impl TableSource for TrustedArena<'_> {
    fn allocate_table<C: Cpu>(&self, _: &C) -> Result<Frame, OutOfFrames> {
        self.arena.allocate()
    }

    fn free_table<C: Cpu>(&self, _: &C, frame: Frame) {
        self.arena.free(frame);
    }
}
