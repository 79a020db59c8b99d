//! Dirty, kept where the hardware does not look: what a machine with shadow stacks asks of who takes the right to write away.
//!
//! Where user shadow stacks are enabled (CR4.CET), a user leaf that is dirty and not writable *is* a shadow-stack page, if all entries above allow writing: CALL, RET and WRSS may store to it, and
//! ordinary stores may not (SDM vol. 3A, 4.6 and 4.7; vol. 1, the chapter on CET). A page that was written and then write-protected would be one by accident. So dirty moves to a software bit
//! ([`crate::software::SAVED_DIRTY`]) when the right to write goes, and back when it comes (Linux: `pte_mksaveddirty`, `pte_clear_saveddirty`, since 6.6).
//!
//! That is a matter of how entries lie in memory, and of nothing else. [`SavesDirty`] is therefore a way of writing entries: who uses it says and hears [`Flags::DIRTY`], and the entry in memory has
//! one bit or the other. What is read without it, by a plain load of the cell, is put right by [`EntryWrite::as_read`].
//!
//! | in memory | means |
//! |---|---|
//! | W=1, D=1 | writable and dirty |
//! | W=0, D=0, saved | not writable, and dirty |
//! | W=0, D=1 | a shadow-stack page: [`Entry::is_shadow_stack`]. Nothing here writes one |
//!
//! **The move is one compare-exchange with the loss of the right.** The hardware sets D at any time while the entry is writable: after a look that finds D clear, and before a `lock and` that takes W. And
//! between a `lock and` and a move of D behind it, the entry is a shadow-stack page for everybody. A processor that has shadow stacks sets D in no entry without W (SDM vol. 3A, 4.8), so that nothing
//! happens to the entry afterwards.
//!
//! Only for 64-bit modes: it writes entries [whole](Whole). A kernel of 32 bits has no shadow stacks in user mode (Linux: `X86_USER_SHADOW_STACK` needs `X86_64`), and nobody needs the bit there.

use machine::{Cpu, SeqCount, Word64};

use crate::entry::{Entry, bits};
use crate::rights::Flags;
use crate::software;
use crate::write::{EntryWrite, Whole};

const SAVED: u64 = software::LONG_MODE.mark(software::SAVED_DIRTY).bits();

/// What moves when the other changes.
const MOVES: Flags = Flags::WRITE.and(Flags::DIRTY);

impl Entry {
    /// Whether a machine that has shadow stacks takes this *leaf* for a page of one, as far as the leaf decides: present, for user code, dirty, not writable (SDM vol. 3A, 4.6). Of an entry as it
    /// lies in memory.
    #[inline]
    pub const fn is_shadow_stack(self) -> bool {
        self.bits() & (bits::PRESENT | bits::WRITE | bits::USER | bits::DIRTY)
            == bits::PRESENT | bits::USER | bits::DIRTY
    }
}

/// The entry, with dirty where the hardware may find it. Only present entries have a hardware to hide it from.
#[inline(always)]
const fn to_memory(entry: Entry) -> Entry {
    let set = entry.bits();
    Entry::from_bits(match set & (bits::PRESENT | bits::WRITE) {
        bits::PRESENT if set & bits::DIRTY != 0 => set & !bits::DIRTY | SAVED,
        WRITABLE if set & SAVED != 0 => set & !SAVED | bits::DIRTY,
        _ => set,
    })
}

const WRITABLE: u64 = bits::PRESENT | bits::WRITE;

/// The entry, with dirty in the one place where software looks for it.
#[inline(always)]
const fn from_memory(entry: Entry) -> Entry {
    let set = entry.bits();
    Entry::from_bits(if set & (bits::PRESENT | SAVED) == bits::PRESENT | SAVED {
        set & !SAVED | bits::DIRTY
    } else {
        set
    })
}

/// One instruction writes the whole entry, and no entry that it writes is dirty without being writable: x86-64 with shadow stacks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SavesDirty;

impl EntryWrite for SavesDirty {
    #[inline(always)]
    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) {
        Whole.set(cpu, cell, sequence, to_memory(new));
    }

    #[inline(always)]
    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry {
        from_memory(Whole.get_and_clear(cpu, cell, sequence))
    }

    #[inline(always)]
    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) -> Entry {
        from_memory(Whole.replace(cpu, cell, sequence, to_memory(new)))
    }

    #[inline]
    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        from_memory(Whole.update(cpu, cell, sequence, |entry| to_memory(change(from_memory(entry)))))
    }

    #[inline]
    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        if flags.intersect(MOVES) {
            self.update(cpu, cell, sequence, |entry| entry.without(flags))
        } else {
            from_memory(Whole.clear_flags(cpu, cell, sequence, flags))
        }
    }

    #[inline]
    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        if flags.intersect(MOVES) {
            self.update(cpu, cell, sequence, |entry| entry.with(flags))
        } else {
            from_memory(Whole.set_flags(cpu, cell, sequence, flags))
        }
    }

    #[inline(always)]
    fn as_read(&self, entry: Entry) -> Entry {
        from_memory(entry)
    }

    #[inline(always)]
    fn as_stored(&self, entry: Entry) -> Entry {
        to_memory(entry)
    }
}
