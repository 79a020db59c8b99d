//! Physical memory: frames that are backed by memory of the process.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machine::addr::PAGE_SIZE;
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
    /// Where frame 0 would lie, so that a frame's address is found by one addition. Outside the reservation, if `first` is not 0.
    origin: *mut u8,
    first: u64,
    frames: u64,
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
            origin: memory.start().as_ptr().wrapping_sub((first.number() * PAGE_SIZE) as usize),
            first: first.number(),
            frames,
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
        let frames = frames.min(self.frames) as usize;
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
        let step = |fresh| (fresh < self.frames).then_some(fresh + 1);
        match self.fresh.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(fresh) => Ok(Frame::new(self.first + fresh)),
            Err(_) => self.pop_returned().ok_or(OutOfFrames),
        }
    }

    /// Takes back a frame that [`Self::allocate`] gave. The next one to ask may get it at once.
    ///
    /// # Panics
    /// The frame is not one of this arena, or was never handed out.
    pub fn free(&self, frame: Frame) {
        let index = frame.number().wrapping_sub(self.first);
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
        self.first..self.first + self.frames
    }

    /// Where the frame's 4096 bytes are; `None` if the frame is not one of this arena. Valid for as long as the arena lives. Several threads may use them at
    /// once: what that means is up to them.
    #[inline]
    pub fn bytes(&self, frame: Frame) -> Option<NonNull<[u8; PAGE_SIZE as usize]>> {
        self.index(frame)?;
        NonNull::new(self.origin.wrapping_add(frame.start().as_u64() as usize).cast())
    }

    #[inline(always)]
    fn index(&self, frame: Frame) -> Option<usize> {
        let index = frame.number().wrapping_sub(self.first);
        (index < self.frames).then_some(index as usize)
    }

    #[inline(always)]
    fn meta(&self, index: usize) -> &TableMeta {
        // SAFETY: `index` is below `frames` (the caller got it from `index`), and the metas' memory was reserved for that many.
        let meta = unsafe { self.metas.add(index) };
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
        let index = self.index(frame).ok_or(NotATable { address: frame.start() })?;
        let words = self.origin.wrapping_add(frame.start().as_u64() as usize).cast::<[Word64; ENTRIES]>();
        // SAFETY: the frame is one of the arena, so the 4096 bytes lie in the reservation, which lives as long as `self`; they
        // are aligned to 4096, and any bytes are valid words. All of it is inside atomics, so others may write meanwhile.
        let cells = unsafe { &*words };
        Ok(Table::new(cells, self.meta(index)))
    }

    #[inline(always)]
    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        let index = self.index(root.frame()).filter(|_| root.is_aligned(32)).ok_or(NotATable { address: root })?;
        let words = self.origin.wrapping_add(root.as_u64() as usize).cast::<[Word64; 4]>();
        // SAFETY: as in `table`; 32 bytes that are aligned to 32 end within the frame.
        let cells = unsafe { &*words };
        Ok(Pdpt::new(cells, self.meta(index)))
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
