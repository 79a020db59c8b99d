//! The seed's protocol (a reader with interrupts off, a zapper that waits for acknowledgements, a faulter) as plain words, against the numbers of
//! states that four other model checkers count for it (SPIN, TLC, Stateright and Rumur agree on them).

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, Replica, Report};
use machine::{Cpu, Word32, Word64};

struct Shared<'a> {
    entries: &'a [Word64],
    lock: &'a Word32,
    /// Bit `i`: reader `i` has interrupts off. Bit `8 + i`: an interrupt is pending at reader `i`.
    interrupts: &'a Word32,
}

#[derive(Clone, Copy)]
struct Size {
    readers: usize,
    entries: usize,
    faulters: usize,
}

/// Whether everybody starts again when done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    Once,
    ForEver,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unlock {
    BeforeFlush,
    AfterFlush,
}

fn reader(cpu: &LabCpu, shared: &Shared<'_>, number: usize) {
    cpu.op_boundary(0);
    cpu.fetch_or(shared.interrupts, 1 << number);
    for (index, entry) in shared.entries.iter().enumerate() {
        loop {
            cpu.op_boundary(index as u64);
            let low = cpu.load(entry.low());
            if low == 0 {
                break;
            }
            let high = cpu.load(entry.high());
            if cpu.load(entry.low()) == low {
                assert_eq!(high, 1, "a mixture of two entries");
                break;
            }
        }
    }
    cpu.op_boundary(1);
    cpu.fetch_and(shared.interrupts, !(1 << number));
}

fn interrupt_hardware(cpu: &LabCpu, shared: &Shared<'_>, number: usize) {
    cpu.op_boundary(0);
    let (off, pending) = (1 << number, 0x100 << number);
    cpu.await_update(shared.interrupts, |state| (state & pending != 0 && state & off == 0).then_some(state & !pending));
}

fn zapper(cpu: &LabCpu, shared: &Shared<'_>, readers: usize, unlock: Unlock) {
    cpu.op_boundary(0);
    cpu.await_update(shared.lock, |held| (held == 0).then_some(1));
    for entry in shared.entries {
        cpu.store(entry.low(), 0);
        cpu.store(entry.high(), 0);
    }
    if unlock == Unlock::BeforeFlush {
        cpu.store(shared.lock, 0);
    }
    let all = ((1 << readers) - 1) << 8;
    cpu.fetch_or(shared.interrupts, all);
    cpu.op_boundary(0);
    cpu.await_value(shared.interrupts, |state| state & all == 0);
    cpu.op_boundary(0);
    if unlock == Unlock::AfterFlush {
        cpu.store(shared.lock, 0);
    }
}

fn faulter(cpu: &LabCpu, shared: &Shared<'_>) {
    for (index, entry) in shared.entries.iter().enumerate() {
        cpu.op_boundary(index as u64);
        cpu.await_update(shared.lock, |held| (held == 0).then_some(1));
        if cpu.load(entry.low()) == 0 {
            cpu.store(entry.high(), 1);
            cpu.store(entry.low(), 1);
        }
        cpu.op_boundary(index as u64);
        cpu.store(shared.lock, 0);
    }
}

fn repeat(runs: Runs, program: impl Fn(&LabCpu)) -> impl Fn(&LabCpu) {
    move |cpu| {
        loop {
            program(cpu);
            if runs == Runs::Once {
                break;
            }
        }
    }
}

/// Whether states that differ only in which reader or which faulter does what are one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cpus {
    Named,
    Interchangeable,
}

fn explore(size: Size, runs: Runs, unlock: Unlock, memory: MemoryOrder) -> Report {
    explore_with(size, runs, unlock, memory, Cpus::Named)
}

fn explore_with(size: Size, runs: Runs, unlock: Unlock, memory: MemoryOrder, cpus: Cpus) -> Report {
    let arena = Arena::new();
    let shared = arena.alloc(Shared {
        entries: arena.alloc_slice(size.entries, |_| Word64::new(0x1_0000_0001)),
        lock: arena.alloc(Word32::new(0)),
        interrupts: arena.alloc(Word32::new(0)),
    });
    let mut lab = Lab::new(&arena, Machine::new(memory));
    let mut readers = Vec::new();
    for number in 0..size.readers {
        let reader = lab.cpu(format!("reader {number}"), repeat(runs, move |cpu| reader(cpu, shared, number)));
        let hardware =
            lab.cpu(format!("hardware {number}"), repeat(runs, move |cpu| interrupt_hardware(cpu, shared, number)));
        let replica = Replica::new([reader, hardware]);
        readers.push(replica.bit(shared.interrupts, number as u32).bit(shared.interrupts, 8 + number as u32));
    }
    lab.cpu("zapper", repeat(runs, move |cpu| zapper(cpu, shared, size.readers, unlock)));
    let faulters: Vec<Replica> = (0..size.faulters)
        .map(|number| {
            Replica::new([lab.cpu(format!("faulter {number}"), repeat(runs, move |cpu| faulter(cpu, shared)))])
        })
        .collect();
    if cpus == Cpus::Interchangeable {
        lab.interchangeable(&readers);
        lab.interchangeable(&faulters);
    }
    lab.explore(&Limits::default())
}

const fn size(readers: usize, entries: usize, faulters: usize) -> Size {
    Size { readers, entries, faulters }
}

#[test]
fn the_numbers_of_states_are_those_of_other_checkers() {
    let once = [
        ((1, 1, 1), 124),
        ((1, 2, 1), 385),
        ((2, 1, 1), 812),
        ((2, 2, 1), 3_589),
        ((2, 2, 2), 14_501),
        ((3, 2, 2), 140_315),
    ];
    for ((readers, entries, faulters), states) in once {
        let size = size(readers, entries, faulters);
        let report = explore(size, Runs::Once, Unlock::AfterFlush, MemoryOrder::Sc);
        report.expect_safe();
        assert_eq!(report.states, states, "{readers} readers, {entries} entries, {faulters} faulters");
    }
    let report = explore(size(3, 3, 2), Runs::ForEver, Unlock::AfterFlush, MemoryOrder::Sc);
    report.expect_safe();
    assert_eq!((report.states, report.transitions), (443_768, 1_782_581));
}

#[test]
fn with_interchangeable_cpus_the_numbers_are_those_of_scalarsets() {
    let explore = |size, runs, memory| explore_with(size, runs, Unlock::AfterFlush, memory, Cpus::Interchangeable);
    // Rumur, with scalarsets of readers and of faulters, counts the last two as well.
    for ((readers, entries, faulters), runs, states) in
        [((2, 1, 1), Runs::Once, 468), ((4, 3, 2), Runs::ForEver, 206_672), ((5, 3, 2), Runs::ForEver, 674_640)]
    {
        let report = explore(size(readers, entries, faulters), runs, MemoryOrder::Sc);
        report.expect_safe();
        assert_eq!(report.states, states, "{readers} readers, {entries} entries, {faulters} faulters");
    }
    explore(size(2, 1, 1), Runs::ForEver, MemoryOrder::Tso).expect_safe();
}

#[test]
fn interchangeable_cpus_find_what_named_ones_find() {
    for memory in [MemoryOrder::Sc, MemoryOrder::Tso] {
        let find = |cpus| explore_with(size(2, 1, 1), Runs::Once, Unlock::BeforeFlush, memory, cpus);
        let (named, interchangeable) = (find(Cpus::Named), find(Cpus::Interchangeable));
        let (named, interchangeable) = (named.expect_violation("user"), interchangeable.expect_violation("user"));
        assert_eq!(named.trace, interchangeable.trace);
    }
}

#[test]
fn dropping_the_lock_before_the_flush_is_found_in_twelve_steps() {
    let report = explore(size(1, 1, 1), Runs::Once, Unlock::BeforeFlush, MemoryOrder::Sc);
    let found = report.expect_violation("user");
    assert!(found.shortest);
    assert!(found.violation.sentence.contains("a mixture of two entries"), "{}", found.violation.sentence);
    assert_eq!((found.trace.steps.len(), found.trace.context_switches()), (12, 4));
}

#[test]
fn holding_the_lock_is_right_under_tso_too() {
    explore(size(1, 2, 2), Runs::ForEver, Unlock::AfterFlush, MemoryOrder::Tso).expect_safe();
    explore(size(1, 2, 2), Runs::ForEver, Unlock::BeforeFlush, MemoryOrder::Tso).expect_violation("user");
}
