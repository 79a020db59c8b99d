//! Protocols that kernels followed and that turned out wrong, or that were proposed and would not have helped. They implement the engine's own traits.

mod saved_dirty;
pub(super) mod steps;

use machine::{Cpu, CpuSet, SeqCount, Word64};
use mm::lifetime::TableLifetime;
use mm::shootdown::Shootdown;
use pagetable::table::{Slot, Table};
use pagetable::{Entry, EntryRead, EntryWrite, Flags, Publish, Recheck, Rechecked, TwoStep};

pub(super) use saved_dirty::SavesApart;

/// The high half first, then the low one: what a compiler may make of a plain read on a 32-bit CPU (CVE-2012-2373).
#[derive(Clone, Copy, Debug)]
pub(super) struct HighLow;

impl EntryRead for HighLow {
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, _: &SeqCount) -> Entry {
        let high = cpu.load(cell.high());
        let low = cpu.load(cell.low());
        Entry::from_halves(low, high)
    }
}

/// The low half, and the high half only if the low one is not null: `pmd_read_atomic` from 2012 to 2022 (Linux 26c191788f18, e4eed03fd065).
#[derive(Clone, Copy, Debug)]
pub(super) struct LowThenHigh;

impl EntryRead for LowThenHigh {
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, _: &SeqCount) -> Entry {
        match cpu.load(cell.low()) {
            0 => Entry::NONE,
            low => Entry::from_halves(low, cpu.load(cell.high())),
        }
    }
}

/// The low half, the high half, and then both again so many times, until all agree: "surely reading it more often helps".
#[derive(Clone, Copy, Debug)]
pub(super) struct Reread {
    /// How often both halves are read again.
    pub(super) times: u32,
}

impl EntryRead for Reread {
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, _: &SeqCount) -> Entry {
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let low = cpu.load(cell.low());
            let high = cpu.load(cell.high());
            let agrees = |_| cpu.load(cell.low()) == low && cpu.load(cell.high()) == high;
            if (0..self.times).all(agrees) {
                return Entry::from_halves(low, high);
            }
        }
    }
}

/// As the engine's two-step writer, but an entry that is replaced by one that is not present is exchanged by halves: the low one, which has the accessed and
/// dirty bits, by an `xchg`. So does Linux on PAE (`pmdp_establish`, `arch/x86/include/asm/pgtable-3level.h`). Not wrong; the engine has 64 bits at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct EstablishHalves;

impl EntryWrite for EstablishHalves {
    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) -> Entry {
        if new.is_present() {
            return TwoStep.replace(cpu, cell, sequence, new);
        }
        let low = cpu.swap(cell.low(), new.low());
        let high = cpu.load(cell.high());
        cpu.store(cell.high(), new.high());
        Entry::from_halves(low, high)
    }

    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) {
        TwoStep.set(cpu, cell, sequence, new);
    }

    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry {
        TwoStep.get_and_clear(cpu, cell, sequence)
    }

    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        TwoStep.update(cpu, cell, sequence, change)
    }

    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        TwoStep.clear_flags(cpu, cell, sequence, flags)
    }

    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        TwoStep.set_flags(cpu, cell, sequence, flags)
    }
}

/// No re-check after the pin: x86 until 2014, when fast GUP leaned on the flush IPI alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotAtAll;

impl Recheck for NotAtAll {
    fn recheck<C: Cpu>(&self, _: &C, _: &Word64, _: &SeqCount, _: Entry) -> Rechecked {
        Rechecked::Unchanged
    }
}

/// The re-check is two loads, the low half first: a plain read of a 64-bit object on a 32-bit CPU (`ptep_get`).
#[derive(Clone, Copy, Debug)]
pub(super) struct TornLowHigh;

impl Recheck for TornLowHigh {
    fn recheck<C: Cpu>(&self, cpu: &C, cell: &Word64, _: &SeqCount, seen: Entry) -> Rechecked {
        let low = cpu.load(cell.low());
        let high = cpu.load(cell.high());
        Rechecked::compare(seen, Entry::from_halves(low, high))
    }
}

/// The re-check is two loads, the high half first.
#[derive(Clone, Copy, Debug)]
pub(super) struct TornHighLow;

impl Recheck for TornHighLow {
    fn recheck<C: Cpu>(&self, cpu: &C, cell: &Word64, _: &SeqCount, seen: Entry) -> Rechecked {
        let high = cpu.load(cell.high());
        let low = cpu.load(cell.low());
        Rechecked::compare(seen, Entry::from_halves(low, high))
    }
}

/// Links the table first and empties it second.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkThenZero;

impl Publish for LinkThenZero {
    fn publish<C: Cpu, W: EntryWrite>(&self, cpu: &C, writer: &W, parent: Slot<'_>, table: Table<'_>, link: Entry) {
        parent.set(cpu, writer, link);
        cpu.zero(table.cells());
    }
}

/// Frees a detached table as soon as TLBs are flushed, whoever may still be walking it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtOnce;

impl TableLifetime for AtOnce {
    fn wait<C: Cpu>(&self, _: &C, _: &Shootdown, _: CpuSet) {}
}
