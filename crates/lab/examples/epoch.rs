//! An epoch-based reclaimer that is not ours, in the manner of crossbeam-epoch, and two ways to get it wrong.
//!
//! `cargo run -p fastgup-lab --example epoch` prints what the lab finds; `cargo test -p fastgup-lab --example epoch` demands it.
//!
//! A reader says in which epoch it reads; memory that was unlinked in one epoch is freed two epochs later, and an epoch ends only when every reader is in it.

use lab::{Arena, Lab, Limits, Machine, MemoryOrder, Report, Verdict, trace};
use machine::{Cpu, CpuId, Word64};

// --- the reclaimer: generic code, which runs on any machine ---

const IDLE: u64 = 0;
/// What is in memory that was freed.
const POISON: u64 = 0xdead;

struct Epochs {
    /// The epoch that everybody may be in.
    global: Word64,
    /// Of each reader: [`IDLE`], or the epoch in which it reads.
    local: [Word64; 2],
}

/// How a reader says that it reads.
#[derive(Clone, Copy)]
enum Pin {
    /// With a barrier, so that nobody misses it.
    Fenced,
    /// By a store that may wait in the store buffer while the reader reads.
    Unfenced,
}

impl Epochs {
    fn new() -> Self {
        Self { global: Word64::new(1), local: [const { Word64::new(IDLE) }; 2] }
    }

    fn pin<C: Cpu>(&self, cpu: &C, reader: usize, pin: Pin) {
        let epoch = cpu.load(&self.global);
        cpu.store(&self.local[reader], epoch);
        if let Pin::Fenced = pin {
            cpu.fence();
        }
    }

    fn unpin<C: Cpu>(&self, cpu: &C, reader: usize) {
        cpu.store(&self.local[reader], IDLE);
    }

    /// Ends the epoch, if every reader is in it. Returns the epoch that is the present one then.
    fn try_advance<C: Cpu>(&self, cpu: &C) -> u64 {
        let epoch = cpu.load(&self.global);
        cpu.fence();
        let is_late = |local: &Word64| ![IDLE, epoch].contains(&cpu.load(local));
        if self.local.iter().any(is_late) {
            return epoch;
        }
        match cpu.compare_exchange(&self.global, epoch, epoch + 1) {
            Ok(_) => epoch + 1,
            Err(other) => other,
        }
    }
}

/// A node, and which node is linked.
struct List {
    linked: Word64,
    nodes: [Word64; 2],
}

fn read<C: Cpu>(cpu: &C, epochs: &Epochs, list: &List, reader: usize, pin: Pin) {
    epochs.pin(cpu, reader, pin);
    let node = cpu.load(&list.linked);
    assert_ne!(cpu.load(&list.nodes[node as usize]), POISON, "read after it was freed");
    epochs.unpin(cpu, reader);
}

/// Links the other node, and frees the old one `grace` epochs later, if readers let epochs end so soon.
fn replace<C: Cpu>(cpu: &C, epochs: &Epochs, list: &List, grace: u64) {
    let old = cpu.swap(&list.linked, 1);
    let unlinked = cpu.load(&epochs.global);
    let mut now = unlinked;
    for _ in 0..grace {
        now = epochs.try_advance(cpu);
    }
    if now >= unlinked + grace {
        cpu.store(&list.nodes[old as usize], POISON);
    }
}

// --- the questions ---

fn explore(readers: usize, pin: Pin, grace: u64) -> Report {
    let arena = Arena::new();
    let epochs = arena.alloc(Epochs::new());
    let list = arena.alloc(List { linked: Word64::new(0), nodes: [Word64::new(10), Word64::new(11)] });
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.name(&epochs.global, "epoch");
    for (word, name) in epochs.local.iter().zip(["reader 0's epoch", "reader 1's epoch"]) {
        lab.name(word, name);
    }
    lab.name(&list.linked, "linked");
    for (word, name) in list.nodes.iter().zip(["node 0", "node 1"]) {
        lab.name(word, name);
    }
    for reader in 0..readers {
        lab.cpu(format!("reader {reader}"), move |cpu| read(cpu, epochs, list, reader, pin));
    }
    let writer = lab.cpu("writer", move |cpu| {
        replace(cpu, epochs, list, grace);
        cpu.report(0, u64::from(cpu.load(&list.nodes[0]) == POISON));
    });
    assert_eq!(writer, CpuId::new(readers as u32));
    lab.observe(move |end| vec![end.reported(writer, 0)]);
    lab.explore(&Limits::default())
}

fn main() {
    let questions = [
        ("pinned without a barrier", Pin::Unfenced, 2),
        ("freed one epoch later", Pin::Fenced, 1),
        ("pinned with a barrier, freed two epochs later", Pin::Fenced, 2),
    ];
    for (what, pin, grace) in questions {
        let report = explore(2, pin, grace);
        match &report.verdict {
            Verdict::Violated(found) => println!("{what}: {}\n\n{}", found.violation, trace::columns(&found.trace)),
            verdict => println!("{what}: {verdict:?}, {} states\n", report.states),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab::rule;

    #[test]
    fn a_pin_is_seen_before_the_reader_reads() {
        let report = explore(1, Pin::Unfenced, 2);
        let found = report.expect_violation(rule::USER);
        assert!(found.violation.sentence.contains("read after it was freed"));
        assert!(trace::columns(&found.trace).contains("into the store buffer"));
    }

    #[test]
    fn one_epoch_is_too_few() {
        explore(1, Pin::Fenced, 1).expect_violation(rule::USER);
    }

    #[test]
    fn two_epochs_and_a_barrier_are_enough() {
        for readers in [1, 2] {
            let report = explore(readers, Pin::Fenced, 2);
            report.expect_safe();
            assert_eq!(report.observations, [vec![0], vec![1]].into(), "it is freed, or has to wait");
        }
    }
}
