//! How many steps a second the explorer makes, on a small protocol: fast GUP's reader, a zapper and faulters, as plain words.
//!
//! `cargo run --release -p fastgup-lab --example throughput [READERS ENTRIES FAULTERS [sc|tso]]`

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, Verdict};
use machine::{Cpu, Word32, Word64};

struct Shared<'a> {
    entries: &'a [Word64],
    lock: &'a Word32,
    /// Bit `i`: reader `i` has interrupts off. Bit `8 + i`: an interrupt is pending there.
    interrupts: &'a Word32,
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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default| arguments.get(index).map_or(Ok(default), |text: &String| text.parse::<usize>());
    let (Ok(readers), Ok(entries), Ok(faulters)) = (number(0, 3), number(1, 3), number(2, 2)) else {
        eprintln!("usage: throughput [READERS ENTRIES FAULTERS [sc|tso]]");
        std::process::exit(2);
    };
    let memory = if arguments.get(3).is_some_and(|text| text == "tso") { MemoryOrder::Tso } else { MemoryOrder::Sc };
    let arena = Arena::new();
    let shared = arena.alloc(Shared {
        entries: arena.alloc_slice(entries, |_| Word64::new(0x1_0000_0001)),
        lock: arena.alloc(Word32::new(0)),
        interrupts: arena.alloc(Word32::new(0)),
    });
    let mut lab = Lab::new(&arena, Machine::new(memory));
    for number in 0..readers {
        lab.cpu(format!("reader {number}"), move |cpu| reader(cpu, shared, number));
        lab.cpu(format!("hardware {number}"), move |cpu| hardware(cpu, shared, number));
    }
    lab.cpu("zapper", move |cpu| zapper(cpu, shared, readers));
    for number in 0..faulters {
        lab.cpu(format!("faulter {number}"), move |cpu| faulter(cpu, shared));
    }
    let report = lab.explore(&Limits::default());
    let safe = if report.verdict == Verdict::Safe { "safe" } else { "not safe" };
    let seconds = report.elapsed.as_secs_f64();
    println!(
        "{readers},{entries},{faulters} {memory:?}: {safe}, {} states, {} transitions, {seconds:.2} s, {:.2} M transitions/s",
        report.states,
        report.transitions,
        report.transitions as f64 / seconds / 1e6
    );
}
