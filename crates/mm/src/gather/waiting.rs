//! The folios that wait for a flush.

use machine::addr::Frame;
use machine::{Cpu, Word64};
use pagetable::level::ENTRIES;
use pagetable::{TableMemory, TableSource};

/// How many folios wait on the stack of whoever zaps: few, as kernel stacks are small.
const ON_STACK: usize = 48;

/// How many frames are taken at most so that more can wait: 8,240 in all. Linux lets 10,000 wait (`MAX_GATHER_BATCH_COUNT`), because to give back more at once
/// takes long.
const FRAMES: usize = 16;

/// Leaves of one folio that were cleared one after the other.
#[derive(Clone, Copy)]
pub(super) struct Cleared {
    /// The folio's first frame.
    pub(super) head: Frame,
    /// How many leaves: as many mappings, and as many references.
    pub(super) leaves: u32,
}

/// There is no room, and no frame to make some.
pub(super) struct Full;

/// Folios that have lost leaves, in the order in which they did. Each is kept by the references of these.
pub(super) struct Waiting {
    on_stack: [u64; ON_STACK],
    /// What there is no room for on the stack, in frames that nobody else knows.
    frames: [Frame; FRAMES],
    /// Of these, how many have been taken.
    taken: usize,
    count: usize,
}

impl Cleared {
    const LEAVES_BITS: u32 = 24;
    const MOST_LEAVES: u32 = (1 << Self::LEAVES_BITS) - 1;

    /// In one word: numbers of frames that an entry can hold have 40 bits.
    const fn pack(self) -> u64 {
        self.head.number() << Self::LEAVES_BITS | self.leaves as u64
    }

    const fn unpack(word: u64) -> Self {
        Self { head: Frame::new(word >> Self::LEAVES_BITS), leaves: (word & Self::MOST_LEAVES as u64) as u32 }
    }
}

impl Waiting {
    pub(super) const fn new() -> Self {
        Self { on_stack: [0; ON_STACK], frames: [Frame::new(0); FRAMES], taken: 0, count: 0 }
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// One more leaf of this folio waits; it may join the last folio if that is not among the first `settled`. A frame is taken only if that is `worth_it`.
    ///
    /// # Errors
    /// There is no room. Nothing has changed.
    #[inline]
    pub(super) fn keep<C: Cpu>(
        &mut self,
        cpu: &C,
        tables: &(impl TableMemory + TableSource),
        settled: usize,
        head: Frame,
        worth_it: impl FnOnce() -> bool,
    ) -> Result<(), Full> {
        if self.count > settled
            && let Some(last) = self.get(cpu, tables, self.count - 1)
            && last.head == head
            && last.leaves < Cleared::MOST_LEAVES
        {
            self.set(cpu, tables, self.count - 1, Cleared { head, leaves: last.leaves + 1 });
            return Ok(());
        }
        if self.count == ON_STACK + self.taken * ENTRIES {
            self.grow(cpu, tables, worth_it)?;
        }
        self.set(cpu, tables, self.count, Cleared { head, leaves: 1 });
        self.count += 1;
        Ok(())
    }

    /// Takes one more frame.
    #[cold]
    fn grow<C: Cpu>(
        &mut self,
        cpu: &C,
        tables: &(impl TableMemory + TableSource),
        worth_it: impl FnOnce() -> bool,
    ) -> Result<(), Full> {
        let place = self.frames.get_mut(self.taken).ok_or(Full)?;
        if !worth_it() {
            return Err(Full);
        }
        let frame = tables.allocate_table(cpu).map_err(|_| Full)?;
        if tables.table(frame).is_err() {
            tables.free_table(cpu, frame);
            return Err(Full);
        }
        *place = frame;
        self.taken += 1;
        Ok(())
    }

    /// The folio with this number, if there are so many.
    #[inline]
    pub(super) fn get<C: Cpu>(&self, cpu: &C, tables: &impl TableMemory, index: usize) -> Option<Cleared> {
        if index >= self.count {
            return None;
        }
        let word = match index.checked_sub(ON_STACK) {
            None => self.on_stack[index],
            Some(index) => cpu.owned_load(cell(tables, self.frames[index / ENTRIES], index)?),
        };
        Some(Cleared::unpack(word))
    }

    #[inline]
    fn set<C: Cpu>(&mut self, cpu: &C, tables: &impl TableMemory, index: usize, cleared: Cleared) {
        match index.checked_sub(ON_STACK) {
            None => self.on_stack[index] = cleared.pack(),
            Some(index) => {
                if let Some(cell) = cell(tables, self.frames[index / ENTRIES], index) {
                    cpu.owned_store(cell, cleared.pack());
                }
            }
        }
    }

    /// Nothing waits any more. Frames that were taken stay for what comes.
    pub(super) const fn clear(&mut self) {
        self.count = 0;
    }

    /// Gives back the frames that were taken. Nothing waits any more.
    pub(super) fn free<C: Cpu>(&mut self, cpu: &C, tables: &impl TableSource) {
        self.clear();
        for &frame in &self.frames[..self.taken] {
            tables.free_table(cpu, frame);
        }
        self.taken = 0;
    }
}

fn cell(tables: &impl TableMemory, frame: Frame, index: usize) -> Option<&Word64> {
    tables.table(frame).ok().map(|table| &table.cells()[index % ENTRIES])
}
