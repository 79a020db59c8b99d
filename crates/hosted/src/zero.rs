//! Clearing a table.

use machine::Word64;

/// Writes zero to every word; the stores are ordered among the caller's other stores as one, and atomic word by word.
///
/// `rep stosq` clears a 4 KiB table in about a third of the time of 512 stores. It may perform its own stores in any order, but
/// none of them passes an earlier store or is passed by a later one (SDM vol. 3A, 9.2.4).
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) fn zero(words: &[Word64]) {
    // SAFETY: the destination is exactly the words that the caller lent, all of whose bytes are inside atomics, so shared
    // mutation is allowed. The stores are of aligned quadwords, each atomic (MODEL.md, P2), so a concurrent reader sees 0 or what was there. The direction
    // flag is clear on entry to `asm!` blocks.
    unsafe {
        core::arch::asm!(
            "rep stosq",
            inout("rdi") words.as_ptr() => _,
            inout("rcx") words.len() => _,
            in("rax") 0u64,
            options(nostack, preserves_flags)
        );
    }
}

/// Writes zero to every word.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
pub(crate) fn zero(words: &[Word64]) {
    use machine::Word;
    for word in words {
        word.atomic_store(0, std::sync::atomic::Ordering::Release);
    }
}
