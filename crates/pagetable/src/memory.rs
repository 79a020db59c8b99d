//! Where tables live, and where frames for new ones come from.

use machine::{Cpu, Frame, PhysAddr};

use crate::error::{NotATable, OutOfFrames};
use crate::table::{Pdpt, Table};

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
