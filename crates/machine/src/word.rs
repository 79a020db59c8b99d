//! The memory cells that CPUs share.
//!
//! A word says nothing about how it is accessed: that is the machine's business ([`crate::Cpu`]). The engine never
//! touches the atomic inside, only machines do, through the functions of [`Word`].

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// 32 bits of shared memory: a counter, a lock, a flag, or half of a [`Word64`].
#[repr(transparent)]
pub struct Word32(AtomicU32);

/// 64 bits of shared memory, 8-byte aligned: a page-table entry, a set, a generation.
///
/// On x86-64 one instruction reads all of it. A 32-bit CPU reads it in [two halves](Self::low), or with `movq` or `cmpxchg8b`
/// (SDM vol. 3A, 9.1.1): the two accesses are two accesses, and another CPU may come between.
#[repr(C, align(8))]
pub struct Word64 {
    low: Word32,
    high: Word32,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Word32 {}
    impl Sealed for super::Word64 {}
}

/// A word of either width.
///
/// The associated functions are the plain instructions, for machines that implement [`crate::Cpu`] on real memory.
pub trait Word: sealed::Sealed + Sync {
    /// What the word holds.
    type Value: Copy + Eq + Ord + fmt::Debug + fmt::LowerHex + Into<u64> + TryFrom<u64>;

    /// Bytes: 4 or 8.
    const BYTES: usize;

    /// Where the word lies. Machines that simulate memory identify words by it.
    fn address(&self) -> usize {
        core::ptr::from_ref(self).cast::<u8>().addr()
    }

    /// `mov`, or on a 32-bit CPU what reads 8 bytes at once.
    fn atomic_load(&self, order: Ordering) -> Self::Value;
    /// `mov`.
    fn atomic_store(&self, value: Self::Value, order: Ordering);
    /// `xchg`.
    fn atomic_swap(&self, value: Self::Value) -> Self::Value;
    /// `lock cmpxchg`.
    ///
    /// # Errors
    /// The value found, if it was not `old`.
    fn atomic_compare_exchange(&self, old: Self::Value, new: Self::Value) -> Result<Self::Value, Self::Value>;
    /// `lock xadd`.
    fn atomic_fetch_add(&self, addend: Self::Value) -> Self::Value;
    /// `lock and`.
    fn atomic_fetch_and(&self, mask: Self::Value) -> Self::Value;
    /// `lock or`.
    fn atomic_fetch_or(&self, mask: Self::Value) -> Self::Value;
}

impl Word32 {
    /// A word that holds `value`.
    #[inline]
    pub const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    #[inline]
    const fn whole(&self) -> &AtomicU32 {
        &self.0
    }
}

impl Word64 {
    /// A word that holds `value`.
    #[inline]
    pub const fn new(value: u64) -> Self {
        Self { low: Word32::new(value as u32), high: Word32::new((value >> 32) as u32) }
    }

    /// The low half: bits 31:0, at the word's own address.
    #[inline]
    pub const fn low(&self) -> &Word32 {
        &self.low
    }

    /// The high half: bits 63:32, four bytes further on.
    #[inline]
    pub const fn high(&self) -> &Word32 {
        &self.high
    }

    /// All 64 bits as one atomic.
    #[inline]
    const fn whole(&self) -> &AtomicU64 {
        // SAFETY: `Word64` is `repr(C, align(8))` and made of two `u32` atomics without padding, so it has the size and
        // alignment of `AtomicU64` and any bit pattern is valid; all its bytes are inside atomics, so shared
        // mutation through `&self` is allowed. On x86 an aligned access of 8 bytes is atomic against
        // accesses of its 4-byte halves (SDM vol. 3A, 9.1.1; MODEL.md, P2).
        unsafe { &*core::ptr::from_ref(self).cast::<AtomicU64>() }
    }
}

const _: () = assert!(size_of::<Word64>() == size_of::<AtomicU64>());
const _: () = assert!(align_of::<Word64>() >= align_of::<AtomicU64>());
#[cfg(target_endian = "big")]
compile_error!("the halves of a Word64 are those of a little-endian machine");

macro_rules! word {
    ($word:ty, $value:ty, $atomic:expr) => {
        impl Word for $word {
            type Value = $value;
            const BYTES: usize = size_of::<$value>();

            #[inline(always)]
            fn atomic_load(&self, order: Ordering) -> $value {
                $atomic(self).load(order)
            }
            #[inline(always)]
            fn atomic_store(&self, value: $value, order: Ordering) {
                $atomic(self).store(value, order);
            }
            #[inline(always)]
            fn atomic_swap(&self, value: $value) -> $value {
                $atomic(self).swap(value, Ordering::SeqCst)
            }
            #[inline(always)]
            fn atomic_compare_exchange(&self, old: $value, new: $value) -> Result<$value, $value> {
                $atomic(self).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            }
            #[inline(always)]
            fn atomic_fetch_add(&self, addend: $value) -> $value {
                $atomic(self).fetch_add(addend, Ordering::SeqCst)
            }
            #[inline(always)]
            fn atomic_fetch_and(&self, mask: $value) -> $value {
                $atomic(self).fetch_and(mask, Ordering::SeqCst)
            }
            #[inline(always)]
            fn atomic_fetch_or(&self, mask: $value) -> $value {
                $atomic(self).fetch_or(mask, Ordering::SeqCst)
            }
        }
    };
}

word!(Word32, u32, Word32::whole);
word!(Word64, u64, Word64::whole);
