//! Physical memory: frames that are backed by memory of the process.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machine::addr::{PAGE_SHIFT, PAGE_SIZE};
use machine::{Cpu, Frame, PhysAddr, Word64};
use pagetable::level::ENTRIES;
use pagetable::{NotATable, OutOfFrames, Pdpt, Table, TableMemory, TableMeta, TableSource};

use crate::reservation::Reservation;

/// A run of frames, with an allocator that several threads may use at once.
///
/// Frames hold page tables (as [`TableMemory`] and [`TableSource`]) or whatever their user puts there ([`Self::bytes`]). A frame is backed by memory once
/// it is touched, until the arena is dropped: giving it back does not make its memory go away, so who still reads in it reads
/// something, not nothing.
pub struct FrameArena {
    /// Where the first frame is, and how many bytes follow.
    start: NonNull<u8>,
    bytes: u64,
    first: PhysAddr,
    metas: NonNull<TableMeta>,
    /// How many frames were ever handed out, in order; all above are untouched.
    fresh: AtomicU64,
    /// How long `returned` is, for a look without its lock.
    returned_count: AtomicU64,
    returned: Mutex<Vec<Frame>>,
    memory: Reservation,
    meta_memory: Reservation,
}

// SAFETY: the pointers lead into the two reservations, which move along and are themselves `Send` and `Sync`; the memory there is accessed as words, which
// are atomics, or through `bytes`, whose callers take care themselves. All else is atomic or behind a lock.
unsafe impl Send for FrameArena {}
// SAFETY: as above.
unsafe impl Sync for FrameArena {}

impl FrameArena {
    /// `frames` frames, from `first` on. Costs address space only.
    ///
    /// # Errors
    /// The system refused to reserve that much ([`io::ErrorKind::OutOfMemory`]), or a frame would lie above 2^52
    /// ([`io::ErrorKind::InvalidInput`]).
    pub fn new(first: Frame, frames: u64) -> io::Result<Self> {
        if first.number().checked_add(frames).is_none_or(|end| end > 1 << 40) {
            let problem = format!("{frames} frames from number {first} on end above frame 2^40");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let bytes = |each: u64| usize::try_from(frames * each).map_err(|_| io::ErrorKind::OutOfMemory);
        let memory = Reservation::new(bytes(PAGE_SIZE)?)?;
        let meta_memory = Reservation::new(bytes(size_of::<TableMeta>() as u64)?)?;
        memory.prefer_huge_pages();
        meta_memory.prefer_huge_pages();
        Ok(Self {
            start: memory.start(),
            bytes: frames * PAGE_SIZE,
            first: first.start(),
            metas: meta_memory.start().cast(),
            fresh: AtomicU64::new(0),
            returned_count: AtomicU64::new(0),
            returned: Mutex::new(Vec::new()),
            memory,
            meta_memory,
        })
    }

    /// Backs the first `frames` frames with memory now, so that nobody pays for it later.
    ///
    /// # Errors
    /// There is not that much, or the system cannot do that (Linux before 5.14).
    pub fn populate(&self, frames: u64) -> io::Result<()> {
        let frames = frames.min(self.count()) as usize;
        self.memory.populate(frames * PAGE_SIZE as usize)?;
        self.meta_memory.populate(frames * size_of::<TableMeta>())
    }

    /// A frame that nobody has. It holds what its last user left there, or zeros.
    ///
    /// # Errors
    /// There is none left.
    pub fn allocate(&self) -> Result<Frame, OutOfFrames> {
        if self.returned_count.load(Ordering::Relaxed) != 0
            && let Some(frame) = self.pop_returned()
        {
            return Ok(frame);
        }
        let step = |fresh| (fresh < self.count()).then_some(fresh + 1);
        match self.fresh.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(fresh) => Ok(self.first.frame().wrapping_add(fresh)),
            Err(_) => self.pop_returned().ok_or(OutOfFrames),
        }
    }

    /// Takes back a frame that [`Self::allocate`] gave. The next one to ask may get it at once.
    ///
    /// # Panics
    /// The frame is not one of this arena, or was never handed out.
    pub fn free(&self, frame: Frame) {
        let index = frame.number().wrapping_sub(self.first.frame().number());
        assert!(index < self.fresh.load(Ordering::Relaxed), "{frame} was given back and never handed out");
        let mut returned = self.returned();
        returned.push(frame);
        self.returned_count.store(returned.len() as u64, Ordering::Relaxed);
    }

    /// Forgets in which order frames were given back, if all were: the next come in order again, as from a new arena.
    ///
    /// # Errors
    /// So many frames are still handed out, and nothing changed.
    pub fn tidy(&self) -> Result<(), u64> {
        let mut returned = self.returned();
        let all = returned.len() as u64;
        // Fails if a frame is out, or goes out at this moment: who takes one from `returned` needs the lock.
        self.fresh
            .compare_exchange(all, 0, Ordering::Relaxed, Ordering::Relaxed)
            .map_err(|fresh| fresh.saturating_sub(all))?;
        returned.clear();
        self.returned_count.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// How many frames are handed out.
    pub fn in_use(&self) -> u64 {
        let returned = self.returned();
        self.fresh.load(Ordering::Relaxed) - returned.len() as u64
    }

    /// The frames, as a range of numbers.
    pub fn frames(&self) -> std::ops::Range<u64> {
        let first = self.first.frame().number();
        first..first + self.count()
    }

    /// Where the frame's 4096 bytes are; `None` if the frame is not one of this arena. Valid for as long as the arena lives. Several threads may use them at
    /// once: what that means is up to them.
    #[inline]
    pub fn bytes(&self, frame: Frame) -> Option<NonNull<[u8; PAGE_SIZE as usize]>> {
        Some(self.at(self.offset(frame)?).cast())
    }

    pub(crate) const fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) const fn metas(&self) -> *mut TableMeta {
        self.metas.as_ptr()
    }

    const fn count(&self) -> u64 {
        self.bytes / PAGE_SIZE
    }

    /// How far into the arena's memory the frame is. In bytes: for a frame out of an entry that is a mask and a subtraction.
    #[inline(always)]
    fn offset(&self, frame: Frame) -> Option<usize> {
        let is_address = frame.number() < 1 << (u64::BITS - PAGE_SHIFT);
        let offset = frame.start().as_u64().wrapping_sub(self.first.as_u64());
        (is_address && offset < self.bytes).then_some(offset as usize)
    }

    #[inline(always)]
    fn at(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: `offset` is below `bytes` (the caller got it from `offset`, or stays within the same frame), which is how long the reservation is.
        unsafe { self.start.add(offset) }
    }

    #[inline(always)]
    fn meta(&self, offset: usize) -> &TableMeta {
        // SAFETY: `offset` is below `bytes`, so this is the number of one of the frames, and the metas' memory was reserved for that many.
        let meta = unsafe { self.metas.add(offset >> PAGE_SHIFT) };
        // SAFETY: the memory lives as long as `self`, is aligned, starts as zeros, which is a valid `TableMeta` (words
        // only), and is only ever accessed as one.
        unsafe { meta.as_ref() }
    }

    fn returned(&self) -> MutexGuard<'_, Vec<Frame>> {
        // A panic elsewhere cannot leave a `Vec` half changed.
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn pop_returned(&self) -> Option<Frame> {
        let mut returned = self.returned();
        let frame = returned.pop();
        self.returned_count.store(returned.len() as u64, Ordering::Relaxed);
        frame
    }
}

impl TableMemory for FrameArena {
    #[inline(always)]
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        let offset = self.offset(frame).ok_or(NotATable { address: frame.start() })?;
        let cells = self.at(offset).cast::<[Word64; ENTRIES]>();
        // SAFETY: the frame's 4096 bytes lie in the reservation, which lives as long as `self`; they are aligned to
        // 4096, and any bytes are valid words. All of it is inside atomics, so others may write meanwhile.
        let cells = unsafe { cells.as_ref() };
        Ok(Table::new(cells, self.meta(offset)))
    }

    #[inline(always)]
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        let offset = self.offset(root.frame()).filter(|_| root.is_aligned(32)).ok_or(NotATable { address: root })?;
        let in_frame = (root.as_u64() % PAGE_SIZE) as usize;
        let cells = self.at(offset + in_frame).cast::<[Word64; 4]>();
        // SAFETY: as in `table`; 32 bytes that are aligned to 32 end within the frame.
        let cells = unsafe { cells.as_ref() };
        Ok(Pdpt::new(cells, self.meta(offset)))
    }

    fn holds_any(&self, first: Frame, frames: u64) -> bool {
        let own = self.frames();
        own.start < first.number().saturating_add(frames) && first.number() < own.end
    }
}

impl TableSource for FrameArena {
    fn allocate_table<C: Cpu>(&self, _: &C) -> Result<Frame, OutOfFrames> {
        self.allocate()
    }

    fn free_table<C: Cpu>(&self, _: &C, frame: Frame) {
        self.free(frame);
    }
}

impl std::fmt::Debug for FrameArena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameArena").field("frames", &self.frames()).field("in_use", &self.in_use()).finish()
    }
}
