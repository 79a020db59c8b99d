//! How an entry is written while walkers, in hardware and in software, may read it.
//!
//! # Contract
//!
//! 1. Writers of an entry exclude each other: by the page-table lock of its table, or because there is a single
//!    owner. The hardware does not ask: it reads at any time and sets accessed and dirty by locked
//!    read-modify-writes.
//! 2. **No accessed or dirty bit is lost.** Every operation here that replaces a present entry returns, or
//!    carries over, the bits as they were at the moment of the replacement. After it no CPU sets a bit through
//!    the old value in *memory*; a CPU that holds the translation in its TLB with dirty set already may go on
//!    storing until it is flushed.
//! 3. A hardware walker never sees a present entry that is a mixture of two.
//! 4. Bits of the low half change by locked instructions on the low half only; the high half is not touched.
//!
//! | operation | [`Whole`] (x86-64) | [`TwoStep`] (PAE as Linux does) | [`Xchg64`] (PAE, atomic) |
//! |---|---|---|---|
//! | [`set`](EntryWrite::set), from none | store | high, then low | exchange of 64 bits |
//! | [`get_and_clear`](EntryWrite::get_and_clear) | `xchg` | exchange of 64 bits | exchange of 64 bits |
//! | [`replace`](EntryWrite::replace) | `xchg` | exchange of 64 bits | exchange of 64 bits |
//! | [`update`](EntryWrite::update) | `cmpxchg` | `cmpxchg8b` | `cmpxchg8b` |
//! | [`clear_flags`](EntryWrite::clear_flags), [`set_flags`](EntryWrite::set_flags) | `lock and`, `lock or` | the same on the low half | the same on the low half |
//!
//! Where the machine has shadow stacks, [`crate::SavesDirty`] writes whole entries, too, and takes and gives R/W by `cmpxchg`.
//!
//! A 32-bit CPU has no `xchg` of 64 bits; it loops on `cmpxchg8b`, which is what its [`Cpu::swap`] does.

use machine::{Cpu, SeqCount, Word64};

use crate::entry::Entry;
use crate::level::Level;
use crate::rights::Flags;
use crate::width::{Split, Wide, Width};

/// A protocol for writing entries. `sequence` is the sequence count of the entry's table; only [`Sequenced`] uses it.
///
/// Every method: the caller excludes other software writers of this entry.
pub trait EntryWrite {
    /// Writes an entry where there is none. The cell holds [`Entry::NONE`], or at least nothing present.
    #[track_caller]
    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry);

    /// Empties the entry and returns what it held, with the exact accessed and dirty bits.
    #[track_caller]
    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry;

    /// Replaces the entry and returns what it held, with the exact accessed and dirty bits: `pmdp_establish`.
    #[track_caller]
    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) -> Entry;

    /// Replaces the entry by `change` of it, and returns what it held. `change` sees the accessed and dirty
    /// bits that are replaced: it runs again if the hardware sets one meanwhile. It must be a pure function.
    #[track_caller]
    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry;

    /// Clears flags and returns what the entry held: write-protect, clear young, clear dirty.
    #[track_caller]
    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry;

    /// Sets flags and returns what the entry held.
    #[track_caller]
    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry;

    /// What the entry that a plain load found says. The same, but for writers that keep a flag in another place than the hardware has it ([`crate::SavesDirty`]). Harmless if done twice.
    #[inline(always)]
    fn as_read(&self, entry: Entry) -> Entry {
        entry
    }

    /// The entry as this writer would leave it in memory, for who fills a table that nobody can reach yet. Harmless if done twice.
    #[inline(always)]
    fn as_stored(&self, entry: Entry) -> Entry {
        entry
    }

    /// An entry of `level` that was `old` is `new` now: for who keeps account of entries (Linux: `page_table_check`). By default nothing, at no cost.
    ///
    /// [`LockedTable`](crate::LockedTable) says so of every change that it makes, after it, with the page-table lock held;
    /// [`Table::fill_from_leaf`](crate::Table::fill_from_leaf) of a table that nobody can reach yet. A single owner ([`crate::owner`]) does not. Accessed and dirty may be
    /// out of date by then.
    #[inline(always)]
    #[track_caller]
    fn changed<C: Cpu>(&self, cpu: &C, level: Level, old: Entry, new: Entry) {
        let _ = (cpu, level, old, new);
    }
}

/// `cmpxchg` until the hardware leaves the entry alone for a moment.
#[inline]
#[track_caller]
fn compare_exchange_loop<C: Cpu>(cpu: &C, cell: &Word64, first: Entry, change: impl Fn(Entry) -> Entry) -> Entry {
    let mut seen = first.bits();
    loop {
        match cpu.compare_exchange(cell, seen, change(Entry::from_bits(seen)).bits()) {
            Ok(old) => return Entry::from_bits(old),
            Err(found) => seen = found,
        }
    }
}

/// One instruction writes the whole entry: x86-64.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Whole;

impl EntryWrite for Whole {
    #[inline(always)]
    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, new: Entry) {
        cpu.store(cell, new.bits());
    }

    #[inline(always)]
    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount) -> Entry {
        Entry::from_bits(cpu.swap(cell, 0))
    }

    #[inline(always)]
    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, new: Entry) -> Entry {
        Entry::from_bits(cpu.swap(cell, new.bits()))
    }

    #[inline]
    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        compare_exchange_loop(cpu, cell, Wide::load(cpu, cell), change)
    }

    #[inline(always)]
    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, flags: Flags) -> Entry {
        Wide::fetch_clear_low(cpu, cell, flags.bits())
    }

    #[inline(always)]
    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, flags: Flags) -> Entry {
        Wide::fetch_set_low(cpu, cell, flags.bits())
    }
}

/// Ordered stores of the halves where the entry is not present, locked instructions where it is: PAE as Linux writes it
/// (`arch/x86/include/asm/pgtable-3level.h`, v6.12).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TwoStep;

impl EntryWrite for TwoStep {
    #[inline]
    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, new: Entry) {
        // High first: until the low half with its present bit arrives, walkers find nothing. Stores leave in
        // program order on x86-TSO (machine's MODEL.md, P3).
        cpu.store(cell.high(), new.high());
        cpu.store(cell.low(), new.low());
    }

    #[inline]
    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount) -> Entry {
        Entry::from_bits(cpu.swap(cell, 0))
    }

    #[inline]
    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, new: Entry) -> Entry {
        Entry::from_bits(cpu.swap(cell, new.bits()))
    }

    #[inline]
    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        // A torn first guess only costs a round: the compare-exchange takes all 64 bits.
        compare_exchange_loop(cpu, cell, Split::load(cpu, cell), change)
    }

    #[inline]
    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, flags: Flags) -> Entry {
        Split::fetch_clear_low(cpu, cell, flags.bits())
    }

    #[inline]
    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, flags: Flags) -> Entry {
        Split::fetch_set_low(cpu, cell, flags.bits())
    }
}

/// Every store of an entry is one exchange of 64 bits: Linux's `pxx_xchg64` (d4a72e7fe61a), used for every store.
///
/// Makes the *writer* atomic. A reader that reads two halves is torn all the same.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Xchg64;

impl EntryWrite for Xchg64 {
    #[inline]
    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, new: Entry) {
        cpu.swap(cell, new.bits());
    }

    #[inline]
    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount) -> Entry {
        Entry::from_bits(cpu.swap(cell, 0))
    }

    #[inline]
    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, _sequence: &SeqCount, new: Entry) -> Entry {
        Entry::from_bits(cpu.swap(cell, new.bits()))
    }

    #[inline]
    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        TwoStep.update(cpu, cell, sequence, change)
    }

    #[inline]
    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        TwoStep.clear_flags(cpu, cell, sequence, flags)
    }

    #[inline]
    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        TwoStep.set_flags(cpu, cell, sequence, flags)
    }
}

/// Another protocol, with the table's sequence count odd while it writes: the writers' side of
/// [`crate::read::SequenceRead`].
///
/// The count is one per table, so this needs what the page-table lock gives: one writer *per table*, not only
/// per entry.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sequenced<W>(
    /// How the entry is written inside the bracket.
    pub W,
);

impl<W: EntryWrite> EntryWrite for Sequenced<W> {
    #[inline]
    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) {
        sequence.write(cpu, || self.0.set(cpu, cell, sequence, new));
    }

    #[inline]
    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry {
        sequence.write(cpu, || self.0.get_and_clear(cpu, cell, sequence))
    }

    #[inline]
    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) -> Entry {
        sequence.write(cpu, || self.0.replace(cpu, cell, sequence, new))
    }

    #[inline]
    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        sequence.write(cpu, || self.0.update(cpu, cell, sequence, change))
    }

    // The flags change by one locked instruction on one half: no reader can see half of that, so the count may rest.
    #[inline]
    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        self.0.clear_flags(cpu, cell, sequence, flags)
    }

    #[inline]
    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        self.0.set_flags(cpu, cell, sequence, flags)
    }

    #[inline(always)]
    fn as_read(&self, entry: Entry) -> Entry {
        self.0.as_read(entry)
    }

    #[inline(always)]
    fn as_stored(&self, entry: Entry) -> Entry {
        self.0.as_stored(entry)
    }

    #[inline(always)]
    fn changed<C: Cpu>(&self, cpu: &C, level: Level, old: Entry, new: Entry) {
        self.0.changed(cpu, level, old, new);
    }
}
