//! The memory of the simulated machine.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use machine::{Frame, Word64};

use crate::frames::{Backing, Pool};
use crate::mapping::Mapping;

/// Bytes kept for the state of the simulated hardware: CPUs, store buffers, what monitors remember.
pub(crate) const MACHINE_BYTES: usize = 64 << 10;
const DEFAULT_OBJECT_BYTES: usize = 1 << 20;
const FRAME_BYTES: usize = 4096;

/// One block of one pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) first: Frame,
    pub(crate) order: u32,
    /// Index into the pools.
    pub(crate) pool: usize,
    /// Where its words are, as an offset into the arena.
    pub(crate) words: Option<usize>,
}

/// The memory of the simulated machine: everything that CPUs share, and the frames that page tables lie in.
///
/// Values placed here live as long as the arena and are not dropped. Between explorations memory holds the initial state.
pub struct Arena {
    memory: Mapping,
    next: AtomicUsize,
    objects_end: usize,
    /// A lab lives that uses this memory.
    taken: AtomicBool,
    pools: Vec<Pool>,
    /// Sorted by first frame.
    blocks: Vec<Block>,
}

// SAFETY: an `Arena` owns its memory. Through a shared reference it hands out disjoint parts (`next` is atomic) and
// shared references to `Word64`s, which are atomics.
unsafe impl Sync for Arena {}
// SAFETY: as above; nothing in it belongs to a thread. What it holds is `Sync`, and is never handed out by value.
unsafe impl Send for Arena {}

impl Arena {
    /// Memory without frames, for 1 MiB of objects.
    pub fn new() -> Self {
        Self::with_frames(Vec::new())
    }

    /// Memory with these pools of frames, for 1 MiB of objects.
    ///
    /// # Panics
    /// If two blocks overlap, a block is not aligned to its size, a pool of tables has an order, or two pools have one name.
    pub fn with_frames(pools: Vec<Pool>) -> Self {
        Self::with_capacity(DEFAULT_OBJECT_BYTES, pools)
    }

    /// Memory with these pools of frames, for `object_bytes` bytes of objects.
    ///
    /// # Panics
    /// As [`Self::with_frames`].
    pub fn with_capacity(object_bytes: usize, pools: Vec<Pool>) -> Self {
        let objects_end = (MACHINE_BYTES + object_bytes).next_multiple_of(FRAME_BYTES);
        let mut end = objects_end;
        let mut blocks = Vec::new();
        for (pool_index, pool) in pools.iter().enumerate() {
            assert!(pools[..pool_index].iter().all(|other| other.kind != pool.kind), "two pools named {:?}", pool.kind);
            assert!(pool.backing == Backing::Number || pool.order == 0, "a table is one frame");
            for &first in &pool.blocks {
                assert!(first.number().trailing_zeros() >= pool.order, "the block at frame {first} is not aligned");
                let words = (pool.backing == Backing::Words).then(|| {
                    let at = end;
                    end += FRAME_BYTES;
                    at
                });
                blocks.push(Block { first, order: pool.order, pool: pool_index, words });
            }
        }
        blocks.sort_by_key(|block| block.first);
        for pair in blocks.windows(2) {
            let end = pair[0].first.wrapping_add(1 << pair[0].order);
            assert!(end <= pair[1].first, "the blocks at frames {} and {} overlap", pair[0].first, pair[1].first);
        }
        Self {
            memory: Mapping::new(end),
            next: AtomicUsize::new(MACHINE_BYTES),
            objects_end,
            taken: AtomicBool::new(false),
            pools,
            blocks,
        }
    }

    /// Places a value. Apart from words it must not change: `Sync` keeps cells out.
    ///
    /// # Panics
    /// If the arena is full.
    pub fn alloc<T: Sync>(&self, value: T) -> &T {
        let place = self.reserve(Layout::new::<T>()).cast::<T>();
        // SAFETY: `reserve` gave memory of this layout to nobody else.
        unsafe { place.write(value) };
        // SAFETY: it was just written, lives as long as `self`, and is not written again except inside its atomics.
        unsafe { place.as_ref() }
    }

    /// Places `count` values.
    ///
    /// # Panics
    /// If the arena is full.
    pub fn alloc_slice<T: Sync>(&self, count: usize, mut value: impl FnMut(usize) -> T) -> &[T] {
        let place = self.reserve(Layout::array::<T>(count).expect("a slice fits the address space")).cast::<T>();
        for index in 0..count {
            let value = value(index);
            // SAFETY: `index` is inside the `count` values reserved.
            let slot = unsafe { place.add(index) };
            // SAFETY: the slot is ours, as above.
            unsafe { slot.write(value) };
        }
        // SAFETY: all `count` values were just written; they live as long as `self` and change only inside atomics.
        unsafe { NonNull::slice_from_raw_parts(place, count).as_ref() }
    }

    fn reserve(&self, layout: Layout) -> NonNull<u8> {
        // Whole 8-byte cells, so that no two objects share one.
        let align = layout.align().max(8);
        let mut start = 0;
        let reserved = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            start = next.next_multiple_of(align);
            let end = start.checked_add(layout.size())?.next_multiple_of(8);
            (end <= self.objects_end).then_some(end)
        });
        assert!(reserved.is_ok(), "the arena is full: {} bytes of objects", self.objects_end - MACHINE_BYTES);
        self.place(start)
    }

    fn place(&self, offset: usize) -> NonNull<u8> {
        NonNull::new(self.memory.base().wrapping_add(offset)).expect("an offset inside the mapping")
    }

    /// What is now where values were placed, word by word, each with its offset from [`Self::base`]. What is not a word of the machine holds what its bytes mean to the program that runs: an address,
    /// perhaps, or nothing at all.
    pub fn placed(&self) -> impl Iterator<Item = (usize, u64)> {
        let end = self.next.load(Ordering::Relaxed);
        (MACHINE_BYTES..end).step_by(size_of::<u64>()).map(|offset| (offset, self.held_at(offset)))
    }

    /// The eight bytes at an offset below [`Self::next`].
    fn held_at(&self, offset: usize) -> u64 {
        let held;
        // No load of the language: padding has no value there.
        // SAFETY: eight aligned bytes of the mapping, which lives as long as `self`. One load, which changes nothing; what changes there, changes as atomics.
        unsafe {
            core::arch::asm!(
                "mov {held}, qword ptr [{place}]",
                held = out(reg) held,
                place = in(reg) self.place(offset).as_ptr(),
                options(nostack, preserves_flags, readonly),
            );
        }
        held
    }

    /// The words of a frame, if it has some.
    pub fn table(&self, frame: Frame) -> Option<&[Word64; 512]> {
        let offset = self.block_of(frame)?.1.words?;
        let place = self.place(offset).cast::<[Word64; 512]>();
        // SAFETY: 4096 aligned bytes, zeroed when allocated (a valid array of words), changed only as atomics, living as long as `self`.
        Some(unsafe { place.as_ref() })
    }

    /// Gives the memory to a lab.
    ///
    /// # Panics
    /// If another one has it.
    pub(crate) fn take(&self) {
        assert!(!self.taken.swap(true, Ordering::Acquire), "another lab that uses this arena still lives");
    }

    /// The lab is no more.
    pub(crate) fn give_back(&self) {
        self.taken.store(false, Ordering::Release);
    }

    /// The block that holds a frame, and its index.
    pub(crate) fn block_of(&self, frame: Frame) -> Option<(usize, &Block)> {
        let index = self.blocks.partition_point(|block| block.first <= frame).checked_sub(1)?;
        let block = &self.blocks[index];
        (frame.number() - block.first.number() < 1 << block.order).then_some((index, block))
    }

    /// The pools of frames.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The first byte of the memory, aligned to a page. Others than a lab that access it do so as atomics, and while no lab has it.
    pub fn base(&self) -> *mut u8 {
        self.memory.base()
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Where the frames begin.
    pub(crate) fn frames_offset(&self) -> usize {
        self.objects_end
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}
