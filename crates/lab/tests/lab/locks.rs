//! The locks of `machine` keep apart whom they should, in every interleaving.

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, Reduction, rule};
use machine::{Cpu, CpuId, PerCpuRwLock, ReaderLock, Word64};

/// CPU 2 writes two words under a lock, CPUs 0 and 1 read them under it, and no reader may see one without the other.
fn readers_and_a_writer(memory: MemoryOrder, locks: usize) {
    let arena = Arena::new();
    let words = arena.alloc([const { Word64::new(0) }; 2]);
    let readers = arena.alloc_slice(locks, |_| ReaderLock::new());
    let lock = arena.alloc(PerCpuRwLock::new(readers));
    let mut lab = Lab::new(&arena, Machine { reduction: Reduction::None, ..Machine::new(memory) });
    for name in ["reader 0", "reader 1"] {
        lab.cpu(name, |cpu: &LabCpu| {
            let held = lock.read(cpu);
            let seen = words.each_ref().map(|word| cpu.load(word));
            held.unlock();
            if seen[0] != seen[1] {
                cpu.violate(rule::USER, format_args!("half of a write was seen: {seen:?}"))
            }
        });
    }
    let writer = lab.cpu("writer", |cpu: &LabCpu| {
        let held = lock.write(cpu);
        words.iter().for_each(|word| cpu.store(word, 1));
        held.unlock();
    });
    assert_eq!(writer, CpuId::new(2), "a CPU whose lock for readers is nobody else's, where there are three");
    lab.explore(&Limits::default()).expect_safe();
}

#[test]
fn a_writer_waits_for_the_readers_of_all_cpus() {
    for memory in [MemoryOrder::Sc, MemoryOrder::Tso] {
        // One lock for all; one that two CPUs share; one for each.
        for locks in [0, 2, 3] {
            readers_and_a_writer(memory, locks);
        }
    }
}
