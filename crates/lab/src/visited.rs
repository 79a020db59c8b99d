//! The set of states that were visited.
//!
//! Nearly all of its cost is waiting for memory, so it is one flat table: a look-up touches one cache line, most of the time.

/// A set of fingerprints. They are random numbers already: no hashing.
pub(crate) struct Visited {
    /// A power of two of slots; 0 is an empty one.
    slots: Vec<u128>,
    len: usize,
}

impl Visited {
    pub(crate) fn new() -> Self {
        Self { slots: vec![0; 1 << 8], len: 0 }
    }

    /// Adds a fingerprint. Returns whether it is new.
    #[inline]
    pub(crate) fn insert(&mut self, fingerprint: u128) -> bool {
        // One in 2^128 fingerprints is taken for another.
        let wanted = fingerprint.max(1);
        let mask = self.slots.len() - 1;
        let mut at = (wanted >> 64) as usize & mask;
        loop {
            match self.slots[at] {
                0 => break,
                found if found == wanted => return false,
                _ => at = (at + 1) & mask,
            }
        }
        self.slots[at] = wanted;
        self.len += 1;
        if self.len * 4 > self.slots.len() * 3 {
            self.grow();
        }
        true
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u128> {
        self.slots.iter().copied().filter(|&slot| slot != 0)
    }

    #[cold]
    fn grow(&mut self) {
        let mut slots = vec![0; self.slots.len() * 2];
        ask_for_huge_pages(&mut slots);
        let mask = slots.len() - 1;
        for fingerprint in self.iter() {
            let mut at = (fingerprint >> 64) as usize & mask;
            while slots[at] != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = fingerprint;
        }
        self.slots = slots;
    }

    /// Bytes in use; while the table grows, three times as many.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u128>()
    }

    /// Whether some `more` fingerprints may make the table grow.
    pub(crate) fn grows_within(&self, more: u64) -> bool {
        (self.len as u64 + more) * 4 > self.slots.len() as u64 * 3
    }
}

fn ask_for_huge_pages(slots: &mut [u128]) {
    const HUGE: usize = 2 << 20;
    #[cfg(target_os = "linux")]
    if size_of_val(slots) >= 2 * HUGE {
        let start = slots.as_mut_ptr().addr().next_multiple_of(HUGE);
        let bytes = size_of_val(slots) - HUGE;
        // SAFETY: advice about memory that is ours; whether it is taken changes nothing but speed.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), bytes, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = slots;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;

    #[test]
    fn each_fingerprint_is_new_once() {
        let mut visited = Visited::new();
        let all: Vec<u128> = (0..10_000).map(hash::spread).chain([0]).collect();
        assert!(all.iter().all(|&fingerprint| visited.insert(fingerprint)));
        assert!(!all.iter().any(|&fingerprint| visited.insert(fingerprint)));
    }
}
