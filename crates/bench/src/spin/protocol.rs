//! A small protocol of the seed's shape as plain words, explored by the lab and, as a model of the same steps, by SPIN: the graphs are equal to the
//! last state, so that the two can be timed against each other.

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder};
use machine::{Cpu, Word32, Word64};

use super::pan::{Built, Problem, Spin};
use crate::page_tables::OURS;
use crate::samples::{Key, Samples, Unit, thread_time};

const MODEL: &str = include_str!("protocol.pml");
const SPIN: &str = "SPIN, exact, depth first";
const SPEED: &str = "steps per second of one core";
const TIME: &str = "decide";

/// How large the protocol is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    workload: &'static str,
    readers: usize,
    entries: usize,
    faulters: usize,
}

pub(crate) const SMALL: Size = size("protocol, 3 readers, 3 entries, 2 faulters", 3, 3);
pub(crate) const LARGE: [Size; 3] = [
    size("protocol, 4 readers, 3 entries, 2 faulters", 4, 3),
    size("protocol, 4 readers, 4 entries, 2 faulters", 4, 4),
    size("protocol, 5 readers, 3 entries, 2 faulters", 5, 3),
];

const fn size(workload: &'static str, readers: usize, entries: usize) -> Size {
    Size { workload, readers, entries, faulters: 2 }
}

/// What a checker made of the graph.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Graph {
    states: u64,
    transitions: u64,
    /// Of processor time.
    seconds: f64,
}

/// Explores the protocol by both, and prints what they found.
///
/// # Errors
/// If SPIN has no answer, or if the graphs differ.
pub(crate) fn measure(spin: &Spin, size: Size, samples: &mut Samples) -> Result<(), Problem> {
    let ours = by_lab(size);
    let theirs = by_spin(spin, size)?;
    let Size { workload, .. } = size;
    eprintln!(
        "{workload}: {} states and {} steps by the lab, {} and {} by SPIN",
        ours.states, ours.transitions, theirs.states, theirs.transitions
    );
    if (ours.states, ours.transitions) != (theirs.states, theirs.transitions) {
        return Err(Problem::GraphsDiffer {
            workload,
            lab: (ours.states, ours.transitions),
            spin: (theirs.states, theirs.transitions),
        });
    }
    for (contestant, graph) in [(OURS, ours), (SPIN, theirs)] {
        let key = |operation| Key { workload, operation, contestant };
        samples.add(key(SPEED), Unit::PerSecond, graph.transitions as f64 / graph.seconds);
        samples.add(key(TIME), Unit::Seconds, graph.seconds);
    }
    Ok(())
}

fn by_spin(spin: &Spin, Size { readers, entries, faulters, .. }: Size) -> Result<Graph, Problem> {
    let all_taken: Vec<String> = (0..readers).map(|reader| format!("!pending[{reader}]")).collect();
    let definitions = format!(
        "#define READERS {readers}\n#define ENTRIES {entries}\n#define FAULTERS {faulters}\n#define ALL_TAKEN ({})\n",
        all_taken.join(" && ")
    );
    let found = spin.decide(Built::ForSpeed, &definitions, MODEL)?;
    // SPIN counts the step into the initial state.
    Ok(Graph { states: found.states, transitions: found.transitions - 1, seconds: found.processor_seconds })
}

struct Shared<'a> {
    entries: &'a [Word64],
    lock: &'a Word32,
    /// Bit `i`: reader `i` has interrupts off. Bit `8 + i`: an interrupt is pending there.
    interrupts: &'a Word32,
}

fn by_lab(Size { readers, entries, faulters, .. }: Size) -> Graph {
    let arena = Arena::new();
    let shared = arena.alloc(Shared {
        entries: arena.alloc_slice(entries, |_| Word64::new(0x1_0000_0001)),
        lock: arena.alloc(Word32::new(0)),
        interrupts: arena.alloc(Word32::new(0)),
    });
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
    for number in 0..readers {
        lab.cpu(format!("reader {number}"), move |cpu| reader(cpu, shared, number));
        lab.cpu(format!("hardware {number}"), move |cpu| hardware(cpu, shared, number));
    }
    lab.cpu("zapper", move |cpu| zapper(cpu, shared, readers));
    for number in 0..faulters {
        lab.cpu(format!("faulter {number}"), move |cpu| faulter(cpu, shared));
    }
    let began = thread_time();
    let report = lab.explore(&Limits::default());
    let seconds = (thread_time() - began).as_secs_f64();
    report.expect_safe();
    Graph { states: report.states, transitions: report.transitions, seconds }
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
