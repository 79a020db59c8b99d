//! Frames for data: a buddy allocator over a stretch of frames, each with its record.

use machine::{Cpu, Frame, SpinLock, Word32};
use mm::{FolioFlags, FrameSource, Membership, MemoryMap, Page};
use pagetable::OutOfFrames;
use pagetable::{Table, TableMeta};

use crate::arch::{self, BareCpu, at_physical};
use crate::memory::Bump;

/// The largest run: 2 MiB.
pub(crate) const HUGE_ORDER: u8 = 9;
const ORDERS: usize = HUGE_ORDER as usize + 1;
const NOBODY: u32 = u32::MAX;
/// In [`Run::state`]: a free run begins here; its order is in the low bits.
const FREE: u32 = 1 << 8;

/// Where a frame is in the lists of free runs, if one begins there.
struct Run {
    state: Word32,
    next: Word32,
    previous: Word32,
}

/// The frames. The first is the zero page.
pub(crate) struct DataFrames {
    first: Frame,
    pages: &'static [Page],
    runs: &'static [Run],
    lists: [Word32; ORDERS],
    in_use: Word32,
    lock: SpinLock,
}

impl DataFrames {
    /// All that is left.
    pub(crate) fn new<C: Cpu>(cpu: &C, bump: &mut Bump) -> Self {
        let each = machine::addr::PAGE_SIZE + (size_of::<Page>() + size_of::<Run>()) as u64;
        let count = ((bump.bytes().saturating_sub(8 << 20)) / each) as usize / 512 * 512;
        let runs = bump.all(count, |_| Run {
            state: Word32::new(0),
            next: Word32::new(NOBODY),
            previous: Word32::new(NOBODY),
        });
        let record = |first: Frame, index: usize| {
            let membership = Membership { head: first.wrapping_add(index as u64), order: 0 };
            match index {
                0 => Page::new(membership, 1, FolioFlags::ZERO),
                _ => Page::new(membership, 0, FolioFlags::FILE),
            }
        };
        let first = bump.frames(count as u64, 512);
        let pages = bump.all(count, |index| record(first, index));
        let frames = Self {
            first,
            pages,
            runs,
            lists: [const { Word32::new(NOBODY) }; ORDERS],
            in_use: Word32::new(0),
            lock: SpinLock::new(),
        };
        for index in (512..count as u32).step_by(512).rev() {
            frames.push(cpu, index, HUGE_ORDER);
        }
        for order in 0..HUGE_ORDER {
            frames.push(cpu, 1 << order, order);
        }
        frames.words(first).iter().for_each(|word| cpu.store(word, 0));
        frames
    }

    /// How many frames are handed out; the zero page is not.
    pub(crate) fn in_use<C: Cpu>(&self, cpu: &C) -> u64 {
        u64::from(cpu.load(&self.in_use))
    }

    /// How many records of free frames still count something. Exact while nobody runs.
    pub(crate) fn counted<C: Cpu>(&self, cpu: &C) -> u64 {
        let count = |page: &&Page| {
            cpu.load(page.refcount_word()) | cpu.load(page.pincount_word()) | cpu.load(page.mapcount_word()) != 0
        };
        self.pages[1..].iter().filter(count).count() as u64
    }

    /// The words of a frame, as the kernel sees it.
    pub(crate) fn words(&self, frame: Frame) -> &'static [machine::Word64; 512] {
        words(frame)
    }

    fn push<C: Cpu>(&self, cpu: &C, index: u32, order: u8) {
        let list = &self.lists[usize::from(order)];
        let next = cpu.owned_load(list);
        let run = &self.runs[index as usize];
        cpu.owned_store(&run.state, FREE | u32::from(order));
        cpu.owned_store(&run.next, next);
        cpu.owned_store(&run.previous, NOBODY);
        if next != NOBODY {
            cpu.owned_store(&self.runs[next as usize].previous, index);
        }
        cpu.owned_store(list, index);
    }

    fn unlink<C: Cpu>(&self, cpu: &C, index: u32, order: u8) {
        let run = &self.runs[index as usize];
        let (next, previous) = (cpu.owned_load(&run.next), cpu.owned_load(&run.previous));
        match previous {
            NOBODY => cpu.owned_store(&self.lists[usize::from(order)], next),
            previous => cpu.owned_store(&self.runs[previous as usize].next, next),
        }
        if next != NOBODY {
            cpu.owned_store(&self.runs[next as usize].previous, previous);
        }
        cpu.owned_store(&run.state, 0);
    }

    fn take<C: Cpu>(&self, cpu: &C, order: u8) -> Option<u32> {
        let found = (order..=HUGE_ORDER).find(|order| cpu.owned_load(&self.lists[usize::from(*order)]) != NOBODY)?;
        let index = cpu.owned_load(&self.lists[usize::from(found)]);
        self.unlink(cpu, index, found);
        for half in (order..found).rev() {
            self.push(cpu, index + (1 << half), half);
        }
        Some(index)
    }

    fn give_back<C: Cpu>(&self, cpu: &C, mut index: u32, mut order: u8) {
        while order < HUGE_ORDER {
            let other = index ^ 1 << order;
            if cpu.owned_load(&self.runs[other as usize].state) != FREE | u32::from(order) {
                break;
            }
            self.unlink(cpu, other, order);
            index &= !(1 << order);
            order += 1;
        }
        self.push(cpu, index, order);
    }
}

/// The words of any frame of memory, as the kernel sees it.
pub(crate) fn words(frame: Frame) -> &'static [machine::Word64; 512] {
    assert!(frame.start().as_u64() < arch::reach(), "the kernel does not see frame {frame}");
    // SAFETY: memory that the kernel sees for ever; any bytes are words, and user code and others access it by atomic accesses only.
    let cells = unsafe { &*at_physical(frame.start().as_u64()).cast() };
    static NO_META: TableMeta = TableMeta::new();
    Table::new(cells, &NO_META).cells()
}

impl FrameSource<BareCpu> for DataFrames {
    fn allocate(&self, cpu: &BareCpu, order: u8) -> Result<Frame, OutOfFrames> {
        if order > HUGE_ORDER {
            return Err(OutOfFrames);
        }
        let guard = self.lock.lock(cpu);
        let found = self.take(cpu, order);
        if found.is_some() {
            cpu.owned_store(&self.in_use, cpu.owned_load(&self.in_use) + (1 << order));
        }
        guard.unlock();
        found.map(|index| self.first.wrapping_add(u64::from(index))).ok_or(OutOfFrames)
    }

    fn zero(&self, cpu: &BareCpu, folio: Membership) {
        for index in 0..1 << folio.order {
            cpu.zero(words(folio.head.wrapping_add(index)));
        }
    }

    fn copy(&self, _: &BareCpu, from: Frame, to: Frame, pages: u64) {
        for index in 0..pages {
            arch::copy_words(words(from.wrapping_add(index)), words(to.wrapping_add(index)));
        }
    }

    fn equal(&self, cpu: &BareCpu, one: Frame, other: Frame) -> bool {
        words(one).iter().zip(words(other)).all(|(one, other)| cpu.load(one) == cpu.load(other))
    }

    fn zero_page(&self) -> Option<Frame> {
        Some(self.first)
    }
}

impl MemoryMap<BareCpu> for DataFrames {
    #[inline(always)]
    fn page(&self, _: &BareCpu, frame: Frame) -> Option<&Page> {
        let index = frame.number().wrapping_sub(self.first.number());
        if index < self.pages.len() as u64 { self.pages.get(index as usize) } else { None }
    }

    fn release(&self, cpu: &BareCpu, folio: Membership) {
        let guard = self.lock.lock(cpu);
        cpu.owned_store(&self.in_use, cpu.owned_load(&self.in_use) - (1 << folio.order));
        self.give_back(cpu, (folio.head.number() - self.first.number()) as u32, folio.order);
        guard.unlock();
    }
}
