//! The protocol as a Rust program on the lab's machine, in plain words. Its CPUs' own places are those at `op_boundary`.

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, Replica};
use machine::{Cpu, Word32, Word64};

use super::size::{Cpus, Graph, Size};

struct Shared<'a> {
    entries: &'a [Word64],
    lock: &'a Word32,
    /// Bit `i`: reader `i` has interrupts off. Bit `8 + i`: an interrupt is pending there.
    interrupts: &'a Word32,
}

/// Explores all of it.
///
/// # Panics
/// If somebody sees a mixture of two entries, or the search is cut.
pub(crate) fn explore(Size { readers, entries, faulters }: Size, cpus: Cpus) -> Graph {
    let arena = Arena::new();
    let shared = arena.alloc(Shared {
        entries: arena.alloc_slice(entries, |_| Word64::new(0x1_0000_0001)),
        lock: arena.alloc(Word32::new(0)),
        interrupts: arena.alloc(Word32::new(0)),
    });
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
    let mut alike = (Vec::new(), Vec::new());
    for number in 0..readers {
        let reader = lab.cpu(format!("reader {number}"), move |cpu| reader(cpu, shared, number));
        let hardware = lab.cpu(format!("hardware {number}"), move |cpu| hardware(cpu, shared, number));
        let replica = Replica::new([reader, hardware]);
        alike.0.push(replica.bit(shared.interrupts, number as u32).bit(shared.interrupts, 8 + number as u32));
    }
    lab.cpu("zapper", move |cpu| zapper(cpu, shared, readers));
    for number in 0..faulters {
        alike.1.push(Replica::new([lab.cpu(format!("faulter {number}"), move |cpu| faulter(cpu, shared))]));
    }
    if cpus == Cpus::Interchangeable {
        lab.interchangeable(&alike.0);
        lab.interchangeable(&alike.1);
    }
    // What it may use is bounded from outside, as it is for the other contestants.
    let report = lab.explore(&Limits { memory: u64::MAX, ..Limits::default() });
    report.expect_safe();
    Graph { states: report.states, transitions: report.transitions }
}

fn reader(cpu: &LabCpu, shared: &Shared<'_>, number: usize) -> ! {
    loop {
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
}

fn hardware(cpu: &LabCpu, shared: &Shared<'_>, number: usize) -> ! {
    let (off, pending) = (1 << number, 0x100 << number);
    loop {
        cpu.op_boundary(0);
        cpu.await_update(shared.interrupts, |now| (now & pending != 0 && now & off == 0).then_some(now & !pending));
    }
}

fn zapper(cpu: &LabCpu, shared: &Shared<'_>, readers: usize) -> ! {
    let all = ((1 << readers) - 1) << 8;
    loop {
        cpu.op_boundary(0);
        cpu.await_update(shared.lock, |held| (held == 0).then_some(1));
        for entry in shared.entries {
            cpu.store(entry.low(), 0);
            cpu.store(entry.high(), 0);
        }
        cpu.fetch_or(shared.interrupts, all);
        cpu.op_boundary(0);
        cpu.await_value(shared.interrupts, |now| now & all == 0);
        cpu.op_boundary(0);
        cpu.store(shared.lock, 0);
    }
}

fn faulter(cpu: &LabCpu, shared: &Shared<'_>) -> ! {
    loop {
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
}
