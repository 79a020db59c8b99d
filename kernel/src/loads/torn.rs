//! One CPU reads an entry by each reader in turn, while the others zap it and fault it in again. A reader that returns a present entry that never
//! was in the table returned a mixture of two.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::{Cpu, SeqCount, SpinGuard, Word64};
use pagetable::{
    Cmpxchg8b, Entry, EntryRead, EntryWrite, LowHighLow, ReadOnce, SequenceRead, Sequenced, Slot, TableMemory,
    TableSource,
};

use crate::arch::{BareCpu, Plain, Write};
use crate::command_line::Request;
use crate::crew;
use crate::report::{self, Verdict};
use crate::system::System;

/// The same page without and with the right to execute and 4 GiB apart: the low halves are equal, as after a zap and a refault, or not.
const ENTRIES: [Entry; 3] = [
    Entry::from_bits(0x8000_0001_2345_6867),
    Entry::from_bits(0x8000_0002_2345_6867),
    Entry::from_bits(0x0000_0003_3456_7867),
];

/// [`Cmpxchg8b`] by the instruction itself. What this machine loads whole words with is `movq`.
struct Locked;

impl EntryRead for Locked {
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, _: &SeqCount) -> Entry {
        Entry::from_bits(match cpu.compare_exchange(cell, 0, 0) {
            Ok(found) | Err(found) => found,
        })
    }
}

const READERS: u64 = 5;

struct Tally {
    name: &'static str,
    mixtures: u64,
}

pub(crate) fn run(cpu: &BareCpu, system: &System, request: &Request) -> Verdict {
    if BareCpu::online().iter().count() < 2 {
        report::refuse("the load torn needs two CPUs at least (qemu -smp 2)");
    }
    let frame = system.tables.allocate_table(cpu).expect("a free frame");
    let table = system.tables.table(frame).expect("a frame for tables");
    cpu.zero(table.cells());
    let slot = Slot::new(&table.cells()[0], table.meta());
    let each = request.operations / READERS;
    let changes = AtomicU64::new(0);
    let mut done = 0;
    let mut of = |name, count: u64| {
        done += each;
        report::progress("torn", done, request.operations);
        Tally { name, mixtures: count }
    };
    let tallies = [
        of("read_once", against(cpu, slot, &ReadOnce::<Plain>::new(), each, &changes)),
        of("low_high_low", against(cpu, slot, &LowHighLow, each, &changes)),
        of("cmpxchg8b", against(cpu, slot, &Locked, each, &changes)),
        of("movq", against(cpu, slot, &Cmpxchg8b, each, &changes)),
        of("sequence", against(cpu, slot, &SequenceRead, each, &changes)),
    ];
    cpu.store(slot.cell(), 0);
    system.tables.free_table(cpu, frame);
    let count = |index: usize| (tallies[index].name, tallies[index].mixtures);
    // On a 64-bit CPU a plain read is whole.
    let sound = if cfg!(target_arch = "x86") { &tallies[2..] } else { &tallies[..] };
    let holds = sound.iter().all(|tally| tally.mixtures == 0);
    let changes = ("changes", changes.load(Ordering::Relaxed));
    let counts = [("reads_each", each), changes, count(0), count(1), count(2), count(3), count(4)];
    report::result("torn", Verdict::of(holds), &counts)
}

/// Reads so many times by one reader, on this CPU, while all others write. How many mixtures came of it.
fn against<R: EntryRead + Sync>(cpu: &BareCpu, slot: Slot<'_>, reader: &R, reads: u64, changes: &AtomicU64) -> u64 {
    let over = AtomicBool::new(false);
    let mixtures = AtomicU64::new(0);
    crew::all(cpu, |cpu, number| {
        if number == 0 {
            let is_mixture = |entry: Entry| entry.is_present() && !ENTRIES.contains(&entry);
            let count = (0..reads).filter(|_| is_mixture(slot.read(cpu, reader))).count();
            mixtures.store(count as u64, Ordering::Relaxed);
            over.store(true, Ordering::Release);
        } else {
            let mut turn = number;
            while !over.load(Ordering::Acquire) {
                change(cpu, slot, ENTRIES[turn % ENTRIES.len()]);
                turn += 1;
            }
            changes.fetch_add((turn - number) as u64, Ordering::Relaxed);
        }
    });
    mixtures.load(Ordering::Relaxed)
}

/// Zaps what is there, or faults something in where nothing is, as the engine does: under the page-table lock, by its writer.
fn change(cpu: &BareCpu, slot: Slot<'_>, new: Entry) {
    let writer = Sequenced(Write::default());
    let sequence = &slot.meta().sequence;
    let lock: SpinGuard<'_, BareCpu> = slot.meta().lock.lock(cpu);
    let held = writer.get_and_clear(cpu, slot.cell(), sequence);
    lock.unlock();
    if held.is_none() || new.low() == held.low() {
        let lock = slot.meta().lock.lock(cpu);
        if cpu.owned_load(slot.cell()) == 0 {
            writer.set(cpu, slot.cell(), sequence, new);
        }
        lock.unlock();
    }
}
