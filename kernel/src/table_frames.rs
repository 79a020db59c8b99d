//! Frames for page tables.

use machine::{Cpu, Frame, PhysAddr, SpinLock, Word32};
use pagetable::{NotATable, OutOfFrames, Pdpt, Table, TableArena, TableFrame, TableMemory, TableMeta, TableSource};

use crate::arch::at_physical;
use crate::memory::Bump;

/// A run of frames that hold tables or nothing, and which of them are free.
pub(crate) struct TableFrames {
    arena: TableArena<'static>,
    first: Frame,
    /// The free ones, by index.
    stack: &'static [Word32],
    free: Word32,
    lock: SpinLock,
}

impl TableFrames {
    pub(crate) fn new(bump: &mut Bump, count: usize) -> Self {
        let metas = bump.all(count, |_| TableMeta::new());
        let stack = bump.all(count, |index| Word32::new((count - 1 - index) as u32));
        let first = bump.frames(count as u64, 1);
        let frames = at_physical(first.start().as_u64()).cast::<TableFrame>();
        // SAFETY: the frames are ours for ever, any bytes are words, and all access to them is by words or by walkers of hardware.
        let frames = unsafe { core::slice::from_raw_parts(frames, count) };
        let arena = TableArena::new(first, frames, metas);
        Self { arena, first, stack, free: Word32::new(count as u32), lock: SpinLock::new() }
    }

    /// How many are in use.
    pub(crate) fn in_use<C: Cpu>(&self, cpu: &C) -> u64 {
        self.stack.len() as u64 - u64::from(cpu.load(&self.free))
    }
}

impl TableMemory for TableFrames {
    #[inline(always)]
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        self.arena.table(frame)
    }

    #[inline(always)]
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        self.arena.pdpt(root)
    }

    fn holds_any(&self, first: Frame, frames: u64) -> bool {
        self.arena.holds_any(first, frames)
    }
}

impl TableSource for TableFrames {
    fn allocate_table<C: Cpu>(&self, cpu: &C) -> Result<Frame, OutOfFrames> {
        let guard = self.lock.lock(cpu);
        let free = cpu.owned_load(&self.free);
        let result = match free.checked_sub(1) {
            Some(top) => {
                cpu.owned_store(&self.free, top);
                Ok(self.first.wrapping_add(u64::from(cpu.owned_load(&self.stack[top as usize]))))
            }
            None => Err(OutOfFrames),
        };
        guard.unlock();
        result
    }

    fn free_table<C: Cpu>(&self, cpu: &C, frame: Frame) {
        let guard = self.lock.lock(cpu);
        let free = cpu.owned_load(&self.free);
        cpu.owned_store(&self.stack[free as usize], (frame.number() - self.first.number()) as u32);
        cpu.owned_store(&self.free, free + 1);
        guard.unlock();
    }
}
