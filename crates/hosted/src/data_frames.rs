//! Frames for data, with contents, records and an allocator.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machine::addr::PAGE_SIZE;
use machine::{Cpu, CpuSet, Frame, Word, Word64};
use mm::{FolioFlags, FrameSource, Membership, MemoryMap, Page};
use pagetable::{OutOfFrames, TableMemory};

use crate::arena::FrameArena;
use crate::buddy::Buddy;
use crate::failures::Failures;
use crate::thread_cpu::ThreadCpu;

/// How many single frames move between the common stock and a CPU's own at a time: a few cache lines of everything that is kept by frame.
const BATCH: usize = 256;

/// A CPU's own stock holds no more than this part of all frames, so that a CPU that frees does not starve the others.
const LARGEST_PART: usize = 8;

/// A stretch of frames with real contents, each with a record, that come and go as folios: what [`mm`] calls a source of frames and a memory map.
///
/// The first frame is the zero page. Single frames go through a small stock of each CPU's own, so that CPUs that fault at the same time do not
/// wait for each other.
pub struct DataFrames {
    memory: FrameArena,
    pages: Vec<Page>,
    /// What each frame is: [`FREE`] or [`TAKEN`].
    states: Vec<AtomicU8>,
    buddy: Mutex<Buddy>,
    stocks: Vec<Stock>,
    failures: Arc<Failures>,
}

/// What one CPU has of its own, so that CPUs do not wait for each other's cache lines.
#[repr(align(128))]
#[derive(Default)]
struct Stock {
    /// Single frames that its next allocations get.
    frames: Mutex<Vec<u64>>,
    /// How many folios it gave back so far.
    released: AtomicU64,
}

const FREE: u8 = 0;
const TAKEN: u8 = 1;

/// A frame that is not as it should be when nobody uses memory any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Leak {
    /// The frame.
    pub frame: Frame,
    /// Its references.
    pub references: u32,
    /// Its pins, if they are counted apart.
    pub pins: u32,
    /// Its mappings.
    pub mappings: u32,
}

impl DataFrames {
    /// `frames` frames from `first` on, the first of which is the zero page.
    ///
    /// # Errors
    /// As for [`FrameArena::new`].
    pub fn new(first: Frame, frames: u64, failures: Arc<Failures>) -> io::Result<Self> {
        let memory = FrameArena::new(first, frames)?;
        let record = |index| {
            let membership = Membership { head: first.wrapping_add(index), order: 0 };
            match index {
                0 => Page::new(membership, 1, FolioFlags::ZERO),
                _ => Page::new(membership, 0, FolioFlags::FILE),
            }
        };
        Ok(Self {
            memory,
            pages: (0..frames).map(record).collect(),
            states: (0..frames).map(|index| AtomicU8::new(if index == 0 { TAKEN } else { FREE })).collect(),
            // Aligned runs are runs of aligned frame numbers.
            buddy: Mutex::new(Buddy::new(first.number() + 1, first.number() + frames)),
            stocks: (0..CpuSet::CAPACITY).map(|_| Stock::default()).collect(),
            failures,
        })
    }

    /// Which allocation fails on purpose.
    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Backs all frames with memory now: see [`FrameArena::populate`].
    ///
    /// # Errors
    /// As there.
    pub fn populate(&self) -> io::Result<()> {
        self.memory.populate(self.pages.len() as u64)
    }

    /// The frames, the zero page among them, as a range of numbers.
    pub fn frames(&self) -> std::ops::Range<u64> {
        self.memory.frames()
    }

    /// The record of a frame; `None` if it is not one of these. As [`MemoryMap::page`], for callers that have no CPU.
    #[inline(always)]
    pub fn record(&self, frame: Frame) -> Option<&Page> {
        self.pages.get(self.index(frame)?)
    }

    /// How many frames are handed out; the zero page is not.
    pub fn in_use(&self) -> u64 {
        self.states[1..].iter().filter(|state| state.load(Ordering::Relaxed) == TAKEN).count() as u64
    }

    /// How many folios came back so far.
    pub fn released(&self) -> u64 {
        self.stocks.iter().map(|stock| stock.released.load(Ordering::Relaxed)).sum()
    }

    /// The frames that are handed out, or have counts although they are free. Exact while no CPU runs.
    pub fn leaks(&self) -> Vec<Leak> {
        let read = |word: &machine::Word32| word.atomic_load(Ordering::SeqCst);
        let all = self.pages.iter().zip(&self.states).enumerate().skip(1);
        all.filter_map(|(index, (page, state))| {
            let leak = Leak {
                frame: Frame::new(self.frames().start + index as u64),
                references: read(page.refcount_word()),
                pins: read(page.pincount_word()),
                mappings: read(page.mapcount_word()),
            };
            let counted = (leak.references, leak.pins, leak.mappings) != (0, 0, 0);
            (state.load(Ordering::Relaxed) == TAKEN || counted).then_some(leak)
        })
        .collect()
    }

    /// The words of a frame; `None` if it is not one of these.
    #[inline]
    pub fn words(&self, frame: Frame) -> Option<&[Word64]> {
        self.memory.table(frame).ok().map(|table| &table.cells()[..])
    }

    /// What the word at `offset` bytes into a frame holds.
    ///
    /// # Panics
    /// The frame is not one of these, or the offset is not below 4096.
    pub fn read(&self, frame: Frame, offset: u64) -> u64 {
        self.word(frame, offset).atomic_load(Ordering::SeqCst)
    }

    /// Writes the word at `offset` bytes into a frame: what a device does, or the kernel by its own mapping.
    ///
    /// # Panics
    /// As for [`Self::read`].
    pub fn write(&self, frame: Frame, offset: u64, value: u64) {
        self.word(frame, offset).atomic_store(value, Ordering::SeqCst);
    }

    /// # Panics
    /// As for [`Self::read`].
    fn word(&self, frame: Frame, offset: u64) -> &Word64 {
        let words = self.words(frame).unwrap_or_else(|| panic!("frame {frame} holds no data"));
        &words[(offset / 8) as usize]
    }

    fn index(&self, frame: Frame) -> Option<usize> {
        let index = frame.number().wrapping_sub(self.frames().start) as usize;
        (index < self.pages.len()).then_some(index)
    }

    fn take(&self, cpu: &ThreadCpu, order: u8) -> Option<u64> {
        if order > 0 {
            return self.take_run(order);
        }
        let mut stock = lock(&self.stocks[cpu.id().index()].frames);
        if let Some(frame) = stock.pop() {
            return Some(frame);
        }
        {
            let mut buddy = lock(&self.buddy);
            stock.extend(std::iter::from_fn(|| buddy.take(0)).take(BATCH));
        }
        if let Some(frame) = stock.pop() {
            return Some(frame);
        }
        drop(stock);
        self.stocks.iter().find_map(|stock| lock(&stock.frames).pop())
    }

    fn take_run(&self, order: u8) -> Option<u64> {
        if let Some(first) = lock(&self.buddy).take(order) {
            return Some(first);
        }
        // Single frames in stock may be what is missing.
        for stock in &self.stocks {
            let frames = std::mem::take(&mut *lock(&stock.frames));
            let mut buddy = lock(&self.buddy);
            frames.into_iter().for_each(|frame| buddy.give_back(frame, 0));
        }
        lock(&self.buddy).take(order)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FrameSource<ThreadCpu> for DataFrames {
    fn allocate(&self, cpu: &ThreadCpu, order: u8) -> Result<Frame, OutOfFrames> {
        self.failures.ask()?;
        if order > crate::buddy::MAX_ORDER {
            return Err(OutOfFrames);
        }
        let first = Frame::new(self.take(cpu, order).ok_or(OutOfFrames)?);
        for frame in 0..1 << order {
            let index = self.index(first.wrapping_add(frame)).ok_or(OutOfFrames)?;
            self.states[index].store(TAKEN, Ordering::Relaxed);
        }
        Ok(first)
    }

    fn zero(&self, cpu: &ThreadCpu, folio: Membership) {
        for index in 0..1 << folio.order {
            if let Some(words) = self.words(folio.head.wrapping_add(index)) {
                cpu.zero(words);
            }
        }
    }

    fn copy(&self, _: &ThreadCpu, from: Frame, to: Frame, pages: u64) {
        for index in 0..pages {
            let (from, to) = (self.words(from.wrapping_add(index)), self.words(to.wrapping_add(index)));
            if let (Some(from), Some(to)) = (from, to) {
                for (from, to) in from.iter().zip(to) {
                    to.atomic_store(from.atomic_load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        }
    }

    fn equal(&self, _: &ThreadCpu, one: Frame, other: Frame) -> bool {
        match (self.words(one), self.words(other)) {
            (Some(one), Some(other)) => one
                .iter()
                .zip(other)
                .all(|(one, other)| one.atomic_load(Ordering::Relaxed) == other.atomic_load(Ordering::Relaxed)),
            _ => false,
        }
    }

    fn zero_page(&self) -> Option<Frame> {
        Some(Frame::new(self.frames().start))
    }
}

impl MemoryMap<ThreadCpu> for DataFrames {
    #[inline(always)]
    fn page(&self, _: &ThreadCpu, frame: Frame) -> Option<&Page> {
        self.record(frame)
    }

    /// # Panics
    /// A frame of the folio is not handed out: it was given back twice.
    fn release(&self, cpu: &ThreadCpu, folio: Membership) {
        for offset in 0..1 << folio.order {
            let frame = folio.head.wrapping_add(offset);
            let state = self.index(frame).map(|index| self.states[index].swap(FREE, Ordering::Relaxed));
            assert!(state == Some(TAKEN), "frame {frame} of {folio:?} was given back and is not handed out");
        }
        let Stock { frames, released } = &self.stocks[cpu.id().index()];
        released.fetch_add(1, Ordering::Relaxed);
        if folio.order > 0 {
            lock(&self.buddy).give_back(folio.head.number(), folio.order);
            return;
        }
        let mut stock = lock(frames);
        stock.push(folio.head.number());
        if stock.len() > (self.pages.len() / LARGEST_PART).max(2 * BATCH) {
            // Those that lie there longest: what was given back last is still in this CPU's cache.
            let mut buddy = lock(&self.buddy);
            stock.drain(..BATCH).for_each(|frame| buddy.give_back(frame, 0));
        }
    }
}

impl fmt::Debug for DataFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFrames").field("frames", &self.frames()).field("in_use", &self.in_use()).finish()
    }
}

impl fmt::Debug for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frame, references, pins, mappings } = self;
        write!(f, "frame {frame}: {references} references, {pins} pins, {mappings} mappings")
    }
}

const _: () = assert!(PAGE_SIZE == 4096);
