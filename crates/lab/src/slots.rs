//! Zeroed memory for a table that is looked up at random.
//!
//! Of a large one each look-up would miss the TLB, too, so it asks for huge pages before it is touched, and begins where one does. It also asks for addresses to grow into, which cost nothing
//! until they are touched: what it holds stays where it is then, and the system need not clear as much again.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::mapping::Mapping;

const HUGE_PAGE_BYTES: usize = 2 << 20;
/// A large table can become so many times as long before it moves.
const ROOM_TO_GROW: usize = 16;

/// Integers, of which zero is one.
///
/// # Safety
/// All bits of a value may be zero.
pub(crate) unsafe trait Zeroable: Copy + Default {}

// SAFETY: zero is a value.
unsafe impl Zeroable for u64 {}
// SAFETY: zero is a value.
unsafe impl Zeroable for u128 {}

/// A slice on the heap, or in huge pages.
pub(crate) struct Slots<T> {
    first: NonNull<T>,
    len: usize,
    /// So many there are addresses for.
    capacity: usize,
    /// Whose memory it is.
    _owner: Owner<T>,
}

enum Owner<T> {
    Heap(#[expect(dead_code, reason = "it is dropped")] Vec<T>),
    System(#[expect(dead_code, reason = "it is unmapped")] Mapping),
}

// SAFETY: nobody else has a pointer to the memory; it goes where its owner goes.
unsafe impl<T: Send> Send for Slots<T> {}

impl<T: Zeroable> Slots<T> {
    /// So many, all zero.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        if bytes < HUGE_PAGE_BYTES {
            let mut slots = vec![T::default(); len];
            let first = NonNull::from(slots.as_mut_slice()).cast();
            return Self { first, len, capacity: len, _owner: Owner::Heap(slots) };
        }
        // Where addresses are rationed, there is no room to grow.
        let mapping = Mapping::try_new(ROOM_TO_GROW * bytes + HUGE_PAGE_BYTES);
        let mapping = mapping.unwrap_or_else(|_| Mapping::new(bytes + HUGE_PAGE_BYTES));
        let before = mapping.base().align_offset(HUGE_PAGE_BYTES);
        let first = mapping.base().wrapping_add(before);
        let room = mapping.bytes() - before;
        #[cfg(target_os = "linux")]
        // SAFETY: advice about memory that is ours; whether it is taken changes nothing but speed.
        unsafe {
            libc::madvise(first.cast(), room, libc::MADV_HUGEPAGE)
        };
        let first = NonNull::new(first.cast()).expect("what is mapped is not at address 0");
        Self { first, len, capacity: room / size_of::<T>(), _owner: Owner::System(mapping) }
    }

    /// From now on so many. Those that come after the others are zero.
    ///
    /// # Panics
    /// If they are not more.
    pub(crate) fn grow(&mut self, len: usize) {
        assert!(len > self.len, "slots do not shrink");
        if len > self.capacity {
            let mut more = Self::new(len);
            more[..self.len].copy_from_slice(self);
            *self = more;
        }
        self.len = len;
    }
}

impl<T> Deref for Slots<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the owner lives, and nobody uses it otherwise; its memory holds so many values from there on.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Slots<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut` says that there is no other reference.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_zero_and_keep_what_is_written() {
        for len in [1, 16, HUGE_PAGE_BYTES / 8 - 1, HUGE_PAGE_BYTES / 8, HUGE_PAGE_BYTES / 8 * 3 + 5] {
            let mut slots: Slots<u64> = Slots::new(len);
            assert!(slots.len() == len && slots.iter().all(|&slot| slot == 0));
            (0..).zip(slots.iter_mut()).for_each(|(number, slot)| *slot = number);
            for more in [len + len / 5 + 1, ROOM_TO_GROW * len + HUGE_PAGE_BYTES] {
                let before = slots.len();
                slots.grow(more);
                assert_eq!(slots[..before].iter().sum::<u64>(), (0..len as u64).sum());
                assert!(slots.len() == more && slots[before..].iter().all(|&slot| slot == 0));
            }
            let moved = std::thread::spawn(move || slots.iter().sum::<u64>()).join().expect("it does not panic");
            assert_eq!(moved, (0..len as u64).sum());
        }
    }
}
