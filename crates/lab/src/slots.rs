//! Zeroed memory for a table that is looked up at random.
//!
//! Of a large one each look-up would miss the TLB, too, so it asks for huge pages before it is touched, and begins where one does.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::mapping::Mapping;

const HUGE_PAGE_BYTES: usize = 2 << 20;

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
            return Self { first, len, _owner: Owner::Heap(slots) };
        }
        let mapping = Mapping::new(bytes + HUGE_PAGE_BYTES);
        let first = mapping.base().wrapping_add(mapping.base().align_offset(HUGE_PAGE_BYTES));
        #[cfg(target_os = "linux")]
        // SAFETY: advice about memory that is ours; whether it is taken changes nothing but speed.
        unsafe {
            libc::madvise(first.cast(), bytes.next_multiple_of(HUGE_PAGE_BYTES), libc::MADV_HUGEPAGE)
        };
        let first = NonNull::new(first.cast()).expect("what is mapped is not at address 0");
        Self { first, len, _owner: Owner::System(mapping) }
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
            let moved = std::thread::spawn(move || slots.iter().sum::<u64>()).join().expect("it does not panic");
            assert_eq!(moved, (0..len as u64).sum());
        }
    }
}
