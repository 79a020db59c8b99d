//! The frames that everybody's tables lie in: backed in advance, and handed out in the same order to each.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use hosted::FrameArena;
use machine::{Frame, PhysAddr};

/// No table is at physical address 0, which some take for "none".
const FIRST: Frame = Frame::new(0x100);

/// 40,000 tables: what a million random pages in 64 GiB need, and some more.
pub(crate) const TABLES: u64 = 40_000;

static ARENA: OnceLock<FrameArena> = OnceLock::new();

/// Where physical address 0 would lie: what others call the offset of the direct mapping.
static DIRECT_MAP: AtomicUsize = AtomicUsize::new(0);

/// The arena.
pub(crate) fn arena() -> &'static FrameArena {
    ARENA.get_or_init(|| {
        let arena = FrameArena::new(FIRST, TABLES).expect("address space for the tables");
        arena.populate(TABLES).expect("memory for the tables");
        let first = arena.bytes(FIRST).expect("the first frame");
        let direct_map = first.as_ptr().expose_provenance().wrapping_sub(FIRST.start().as_u64() as usize);
        DIRECT_MAP.store(direct_map, Ordering::Relaxed);
        arena
    })
}

/// The offset of the direct mapping.
#[inline(always)]
pub(crate) fn direct_map() -> usize {
    DIRECT_MAP.load(Ordering::Relaxed)
}

/// Where a physical address lies.
#[inline(always)]
pub(crate) fn at<T>(phys: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(direct_map().wrapping_add(phys as usize))
}

/// The physical address of a new frame, with whatever it holds.
pub(crate) fn allocate() -> u64 {
    arena().allocate().expect("enough frames were reserved").start().as_u64()
}

/// Takes a frame back.
pub(crate) fn free(phys: u64) {
    arena().free(PhysAddr::new(phys).frame());
}
