//! Quiet accesses change counts and traces, never answers.

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, Reduction, Report, Verdict};
use machine::{Cpu, CpuId, SpinLock, Word64};

/// What the reduction must leave as it is: the verdict, the rule, and what was observed.
fn answer(report: &Report) -> (String, Vec<Vec<u64>>) {
    let verdict = match &report.verdict {
        Verdict::Safe => "safe".to_owned(),
        Verdict::Violated(found) => found.violation.rule.clone(),
        other => format!("{other:?}"),
    };
    (verdict, report.observations.iter().cloned().collect())
}

/// Words that programs share, words of one program only, words that nobody writes, and a lock.
struct Words {
    shared: [Word64; 2],
    private: [Word64; 3],
    constant: Word64,
    lock: SpinLock,
}

type Program = fn(&LabCpu, &Words, usize);

fn explore(reduction: Reduction, memory: MemoryOrder, program: Program, cpus: usize) -> Report {
    let arena = Arena::new();
    let words = arena.alloc(Words {
        shared: [const { Word64::new(0) }; 2],
        private: [const { Word64::new(0) }; 3],
        constant: Word64::new(7),
        lock: SpinLock::new(),
    });
    let mut lab = Lab::new(&arena, Machine { reduction, ..Machine::new(memory) });
    for number in 0..cpus {
        lab.cpu(format!("p{number}"), move |cpu| program(cpu, words, number));
    }
    lab.observe(move |end| {
        let reported = (0..cpus).flat_map(|cpu| [0, 1].map(|slot| end.reported(CpuId::new(cpu as u32), slot)));
        reported.chain(words.shared.iter().map(|word| end.read(word))).collect()
    });
    lab.explore(&Limits::default())
}

/// Store buffering, with private and constant accesses in between: plain stores to a private word must not act as fences.
fn store_buffering(cpu: &LabCpu, words: &Words, me: usize) {
    let addend = cpu.load(&words.constant);
    cpu.store(&words.shared[me % 2], addend);
    cpu.store(&words.private[me], addend);
    let mine = cpu.load(&words.private[me]);
    let seen = cpu.load(&words.shared[(me + 1) % 2]);
    cpu.report(0, seen);
    cpu.report(1, mine);
}

/// The same with a locked operation on a private word, which *is* a fence.
fn fenced_by_private(cpu: &LabCpu, words: &Words, me: usize) {
    cpu.store(&words.shared[me % 2], 1);
    cpu.fetch_add(&words.private[me], 1);
    cpu.report(0, cpu.load(&words.shared[(me + 1) % 2]) + 1);
}

/// A lock and a counter, and a load of a word that is constant until the last CPU writes it.
fn late_write(cpu: &LabCpu, words: &Words, me: usize) {
    let early = cpu.load(&words.constant);
    let guard = words.lock.lock(cpu);
    let count = cpu.owned_load(&words.shared[0]);
    cpu.owned_store(&words.shared[0], count + 1);
    if count == 2 {
        cpu.store(&words.constant, 8);
    }
    guard.unlock();
    cpu.report(0, early);
    cpu.report(1, cpu.load(&words.constant) + me as u64);
}

/// A private word that turns out to be shared, on one path only.
fn shared_after_all(cpu: &LabCpu, words: &Words, me: usize) {
    cpu.fetch_add(&words.private[me], 1);
    cpu.store(&words.shared[me % 2], 1);
    if me == 0 && cpu.load(&words.shared[1]) == 1 {
        cpu.report(0, cpu.fetch_add(&words.private[1], 10) + 1);
    }
    assert!(cpu.load(&words.private[1]) != 11 || me != 1, "somebody else was here");
}

#[test]
fn answers_are_the_same() {
    let programs: [(Program, usize); 4] =
        [(store_buffering, 2), (fenced_by_private, 2), (late_write, 3), (shared_after_all, 2)];
    for memory in [MemoryOrder::Sc, MemoryOrder::Tso] {
        for (number, (program, cpus)) in programs.into_iter().enumerate() {
            let full = explore(Reduction::None, memory, program, cpus);
            let reduced = explore(Reduction::QuietAccesses, memory, program, cpus);
            assert_eq!(answer(&full), answer(&reduced), "program {number}, {memory:?}");
            assert!(reduced.states <= full.states, "program {number}, {memory:?}");
        }
    }
}

#[test]
fn it_reduces() {
    let full = explore(Reduction::None, MemoryOrder::Tso, store_buffering, 2);
    let reduced = explore(Reduction::QuietAccesses, MemoryOrder::Tso, store_buffering, 2);
    assert!(2 * reduced.states < full.states, "{} of {}", reduced.states, full.states);
    assert!(full.observations.iter().any(|seen| seen[0] == 0 && seen[2] == 0), "x86-TSO has this outcome");
}
