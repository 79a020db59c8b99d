//! Whether TLBs must forget an entry that has changed.
//!
//! One rule for everybody who changes entries that stay: mprotect, write-protection, fork, harvest. What a TLB may still do by the old entry is held against what a walk finds in
//! the new one:
//!
//! | from, to | flush | because |
//! |---|---|---|
//! | not present, anything | no | no TLB holds it (MODEL.md, P6); it was flushed when it became so, or is about to be by somebody who counts as a gather |
//! | present, not present | yes | a TLB translates on |
//! | another frame, another size, a table instead of a leaf | yes | a TLB leads to the old one |
//! | writing, user access, execution taken | yes | a TLB allows it still |
//! | writing, user access, execution given | no | at worst a CPU faults once more (P9), and the fault forgets (P11) |
//! | dirty taken | yes | a TLB that holds dirty stores again without setting it (P7) |
//! | dirty given | no | a store through a TLB that does not hold it walks, and finds it set |
//! | accessed taken or given | no | a hint: who clears it may miss uses through TLBs |
//! | caching, global, protection key changed | yes | a TLB holds the old one |
//! | software bits changed | no | the hardware does not know them |
//!
//! If several are true of a change, one that needs a flush decides.
//!
//! **An entry that is not accessed needs a flush like any other.** A TLB caches nothing whose accessed bit is clear (SDM vol. 3A, 4.10.2.3), but the bit may have been cleared since,
//! without a flush: the table above allows it.
//!
//! Linux: `pte_needs_flush` and `huge_pmd_needs_flush` (`arch/x86/include/asm/tlbflush.h`, c9fe66560bf2). It flushes as well where rights are given, to save the fault.

use crate::entry::{Entry, bits};

/// What a TLB may go on doing if it is taken.
const FLUSH_IF_TAKEN: u64 = bits::PRESENT | bits::WRITE | bits::USER | bits::DIRTY;
/// What it may go on doing if it is given.
const FLUSH_IF_GIVEN: u64 = bits::NO_EXECUTE;
/// What it holds besides.
const FLUSH_IF_CHANGED: u64 =
    bits::ADDRESS | bits::HUGE | bits::WRITE_THROUGH | bits::CACHE_DISABLE | bits::GLOBAL | bits::PROTECTION_KEY;

impl Entry {
    /// Whether TLBs must forget this entry when it becomes `new`, an entry of the same table: see [the table](self).
    ///
    /// `self` is what the change took out, not what somebody read before: the hardware may have set bits in between.
    #[inline]
    pub const fn needs_flush(self, new: Self) -> bool {
        let (old, new) = (self.bits(), new.bits());
        let (taken, given) = (old & !new, new & !old);
        self.is_present() && (taken & FLUSH_IF_TAKEN | given & FLUSH_IF_GIVEN | (taken | given) & FLUSH_IF_CHANGED) != 0
    }
}
