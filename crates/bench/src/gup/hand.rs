//! What fast GUP is held against: the same walk by hand, with and without a count, and a lock around somebody else's walk.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::kernel::{SMALL, SMALL_PAGES};
use crate::page_tables::{Contestant, Hand, X86_64};

/// A count per page, as far apart as the engine's records.
struct Counts(Vec<Count>);

#[repr(align(32))]
struct Count(AtomicU32);

/// Below every physical address that is mapped.
const DATA: u64 = 1 << 40;
/// What one pin adds.
const PIN: u32 = 1024;

impl Counts {
    fn new() -> Self {
        Self((0..SMALL_PAGES).map(|_| Count(AtomicU32::new(1))).collect())
    }

    #[inline]
    fn of(&self, phys: u64) -> Option<&AtomicU32> {
        Some(&self.0.get((phys.wrapping_sub(DATA) >> 12) as usize)?.0)
    }
}

fn mapped<T: Contestant>() -> T {
    let mut tables = T::new();
    for page in 0..SMALL_PAGES {
        tables.map(SMALL.as_u64() + (page << 12), DATA + (page << 12));
    }
    tables
}

/// The hand-written walk, and a count around it.
pub(super) struct ByHand {
    tables: Hand,
    counts: Counts,
}

impl ByHand {
    pub(super) fn new() -> Self {
        Self { tables: mapped(), counts: Counts::new() }
    }

    #[inline]
    pub(super) fn translate(&self, virt: u64) -> Option<u64> {
        self.tables.translate(virt)
    }

    /// Walk, add to the count unless it is zero, read the entry again, take off the count: a pin and an unpin, and nothing else of what
    /// GUP looks at (no rights, no special bit, no interrupts, no folio, no pmd).
    #[inline]
    pub(super) fn pin_and_unpin(&self, virt: u64) -> Option<u64> {
        let leaf = self.tables.leaf(virt)?;
        let entry = leaf.load(Ordering::Acquire);
        let phys = Hand::page_of(entry)?;
        let count = self.counts.of(phys)?;
        let mut seen = count.load(Ordering::Relaxed);
        while seen != 0 {
            match count.compare_exchange(seen, seen + PIN, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => {
                    let unchanged = leaf.load(Ordering::Acquire) == entry;
                    count.fetch_sub(PIN, Ordering::SeqCst);
                    return unchanged.then_some(phys);
                }
                Err(found) => seen = found,
            }
        }
        None
    }
}

/// What one does without a lockless walk: a lock around `x86_64`'s translation and the count.
pub(super) struct Locked {
    tables: Mutex<X86_64>,
    counts: Counts,
}

impl Locked {
    pub(super) fn new() -> Self {
        Self { tables: Mutex::new(mapped()), counts: Counts::new() }
    }

    /// Unpinning takes no lock.
    #[inline]
    pub(super) fn pin_and_unpin(&self, virt: u64) -> Option<u64> {
        let (phys, count) = {
            let tables = self.tables.lock().ok()?;
            let phys = tables.translate(virt)?;
            let count = self.counts.of(phys)?;
            count.fetch_add(PIN, Ordering::SeqCst);
            (phys, count)
        };
        count.fetch_sub(PIN, Ordering::SeqCst);
        Some(phys)
    }
}
