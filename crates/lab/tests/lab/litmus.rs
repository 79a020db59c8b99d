//! The classic shapes of x86-TSO, as ordinary code.

use std::collections::BTreeSet;

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder};
use machine::{Cpu, CpuId, Word32, Word64};

type Words<'a> = &'a [Word64];

/// Runs programs on a few shared words and collects what they reported (slots 0 and 1 of each CPU).
fn outcomes(memory: MemoryOrder, programs: &[fn(&LabCpu, Words<'_>)]) -> BTreeSet<Vec<u64>> {
    let arena = Arena::new();
    let words = arena.alloc_slice(4, |_| Word64::new(0));
    let mut lab = Lab::new(&arena, Machine::new(memory));
    for (number, &program) in programs.iter().enumerate() {
        lab.cpu(format!("P{number}"), move |cpu| program(cpu, words));
    }
    let cpus = programs.len() as u32;
    lab.observe(move |end| {
        let registers = (0..cpus).flat_map(|cpu| [0, 1].map(|slot| end.reported(CpuId::new(cpu), slot)));
        registers.chain(words.iter().map(|word| end.read(word))).collect()
    });
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    report.observations
}

/// Just the registers of one CPU, or the words.
fn has(outcomes: &BTreeSet<Vec<u64>>, wanted: impl Fn(&[u64]) -> bool) -> bool {
    outcomes.iter().any(|outcome| wanted(outcome))
}

fn sb0(cpu: &LabCpu, words: Words<'_>) {
    cpu.store(&words[0], 1);
    cpu.report(0, cpu.load(&words[1]));
}
fn sb1(cpu: &LabCpu, words: Words<'_>) {
    cpu.store(&words[1], 1);
    cpu.report(0, cpu.load(&words[0]));
}

#[test]
fn store_buffering() {
    let both_miss = |o: &[u64]| o[0] == 0 && o[2] == 0;
    let tso = outcomes(MemoryOrder::Tso, &[sb0, sb1]);
    assert!(has(&tso, both_miss));
    assert_eq!(tso.len(), 4);
    let sc = outcomes(MemoryOrder::Sc, &[sb0, sb1]);
    assert!(!has(&sc, both_miss));
    assert_eq!(sc.len(), 3);
    let fenced: [fn(&LabCpu, Words<'_>); 2] = [
        |cpu, words| {
            cpu.store(&words[0], 1);
            cpu.fence();
            cpu.report(0, cpu.load(&words[1]));
        },
        |cpu, words| {
            cpu.store(&words[1], 1);
            cpu.fence();
            cpu.report(0, cpu.load(&words[0]));
        },
    ];
    assert!(!has(&outcomes(MemoryOrder::Tso, &fenced), both_miss));
    let locked: [fn(&LabCpu, Words<'_>); 2] = [
        |cpu, words| {
            cpu.swap(&words[0], 1);
            cpu.report(0, cpu.load(&words[1]));
        },
        |cpu, words| {
            cpu.swap(&words[1], 1);
            cpu.report(0, cpu.load(&words[0]));
        },
    ];
    assert!(!has(&outcomes(MemoryOrder::Tso, &locked), both_miss));
    // One fence is not enough.
    assert!(has(&outcomes(MemoryOrder::Tso, &[fenced[0], sb1]), both_miss));
}

#[test]
fn message_passing_needs_no_fence() {
    let reversed = |o: &[u64]| o[2] == 1 && o[3] == 0;
    let programs: [fn(&LabCpu, Words<'_>); 2] = [
        |cpu, words| {
            cpu.store(&words[0], 1);
            cpu.store(&words[1], 1);
        },
        |cpu, words| {
            cpu.report(0, cpu.load(&words[1]));
            cpu.report(1, cpu.load(&words[0]));
        },
    ];
    let tso = outcomes(MemoryOrder::Tso, &programs);
    assert!(!has(&tso, reversed));
    assert!(has(&tso, |o| o[2] == 1 && o[3] == 1));
}

#[test]
fn load_buffering_does_not_happen() {
    let programs: [fn(&LabCpu, Words<'_>); 2] = [
        |cpu, words| {
            cpu.report(0, cpu.load(&words[0]));
            cpu.store(&words[1], 1);
        },
        |cpu, words| {
            cpu.report(0, cpu.load(&words[1]));
            cpu.store(&words[0], 1);
        },
    ];
    assert!(!has(&outcomes(MemoryOrder::Tso, &programs), |o| o[0] == 1 && o[2] == 1));
}

#[test]
fn writes_become_visible_to_all_others_at_once() {
    let programs: [fn(&LabCpu, Words<'_>); 4] = [
        |cpu, words| cpu.store(&words[0], 1),
        |cpu, words| cpu.store(&words[1], 1),
        |cpu, words| {
            cpu.report(0, cpu.load(&words[0]));
            cpu.report(1, cpu.load(&words[1]));
        },
        |cpu, words| {
            cpu.report(0, cpu.load(&words[1]));
            cpu.report(1, cpu.load(&words[0]));
        },
    ];
    assert!(!has(&outcomes(MemoryOrder::Tso, &programs), |o| o[4..8] == [1, 0, 1, 0]));
}

/// n6 of Sewell et al., "x86-TSO", CACM 2010: both read their own store early.
#[test]
fn own_stores_are_forwarded_n6() {
    let programs: [fn(&LabCpu, Words<'_>); 2] = [
        |cpu, words| {
            cpu.store(&words[0], 1);
            cpu.report(0, cpu.load(&words[0]));
            cpu.report(1, cpu.load(&words[1]));
        },
        |cpu, words| {
            cpu.store(&words[1], 2);
            cpu.store(&words[0], 2);
        },
    ];
    let n6 = |o: &[u64]| o[0] == 1 && o[1] == 0 && o[4] == 1;
    assert!(has(&outcomes(MemoryOrder::Tso, &programs), n6));
    assert!(!has(&outcomes(MemoryOrder::Sc, &programs), n6));
}

/// n5: two CPUs do not see each other's stores in opposite orders.
#[test]
fn one_word_has_one_order_n5() {
    let programs: [fn(&LabCpu, Words<'_>); 2] = [
        |cpu, words| {
            cpu.store(&words[0], 1);
            cpu.report(0, cpu.load(&words[0]));
        },
        |cpu, words| {
            cpu.store(&words[0], 2);
            cpu.report(0, cpu.load(&words[0]));
        },
    ];
    assert!(!has(&outcomes(MemoryOrder::Tso, &programs), |o| o[0] == 2 && o[2] == 1));
}

#[test]
fn halves_tear_and_whole_words_do_not() {
    const OLD: u64 = 0;
    const NEW: u64 = 0x1_0000_0001;
    let writer: fn(&LabCpu, Words<'_>) = |cpu, words| cpu.store(&words[0], NEW);
    let halves: fn(&LabCpu, Words<'_>) = |cpu, words| {
        let low = cpu.load(words[0].low());
        let high = cpu.load(words[0].high());
        cpu.report(0, u64::from(low) | u64::from(high) << 32);
    };
    let whole: fn(&LabCpu, Words<'_>) = |cpu, words| cpu.report(0, cpu.load(&words[0]));
    for memory in [MemoryOrder::Sc, MemoryOrder::Tso] {
        assert!(has(&outcomes(memory, &[writer, halves]), |o| o[2] != OLD && o[2] != NEW));
        assert!(!has(&outcomes(memory, &[writer, whole]), |o| o[2] != OLD && o[2] != NEW));
    }
    // A whole load sees its own half still in the buffer beside the other half from memory (checked byte by byte).
    let mixed: fn(&LabCpu, Words<'_>) = |cpu, words| {
        cpu.store(words[0].low(), 5);
        cpu.report(0, cpu.load(&words[0]));
    };
    let other: fn(&LabCpu, Words<'_>) = |cpu, words| cpu.store(words[0].high(), 7);
    let seen: BTreeSet<u64> = outcomes(MemoryOrder::Tso, &[mixed, other]).iter().map(|o| o[0]).collect();
    assert_eq!(seen, [5, 0x7_0000_0005].into());
}

#[test]
fn words_of_32_bits_work_side_by_side() {
    let arena = Arena::new();
    let pair = arena.alloc([Word32::new(1), Word32::new(2)]);
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.cpu("a", |cpu| {
        cpu.fetch_add(&pair[0], u32::MAX);
    });
    lab.cpu("b", |cpu| {
        cpu.fetch_or(&pair[1], 4);
    });
    lab.observe(|end| vec![end.read(&pair[0]), end.read(&pair[1])]);
    assert_eq!(lab.explore(&Limits::default()).expect_safe().observations, [vec![0, 6]].into());
}

/// Store buffering with something between the store and the load.
#[test]
fn every_locked_or_serialising_operation_empties_the_store_buffer() {
    let both_miss = |o: &[u64]| o[0] == 0 && o[2] == 0;
    fn store_then_load(cpu: &LabCpu, words: Words<'_>, between: fn(&LabCpu, &Word64)) {
        let (mine, theirs) = if cpu.id() == CpuId::new(0) { (0, 1) } else { (1, 0) };
        cpu.store(&words[mine], 1);
        between(cpu, &words[2 + mine]);
        cpu.report(0, cpu.load(&words[theirs]));
    }
    macro_rules! between {
        ($between:expr) => {{
            let program: fn(&LabCpu, Words<'_>) = |cpu, words| store_then_load(cpu, words, $between);
            has(&outcomes(MemoryOrder::Tso, &[program, program]), both_miss)
        }};
    }
    assert!(!between!(|cpu, _| cpu.fence()));
    assert!(!between!(|cpu, other| _ = cpu.swap(other, 1)));
    assert!(!between!(|cpu, other| _ = cpu.compare_exchange(other, 0, 1)));
    assert!(!between!(|cpu, other| _ = cpu.compare_exchange(other, 7, 1)), "also when it fails");
    assert!(!between!(|cpu, other| _ = cpu.fetch_add(other, 1)));
    assert!(!between!(|cpu, other| _ = cpu.fetch_and(other, 1)));
    assert!(!between!(|cpu, other| _ = cpu.fetch_or(other, 1)));
    assert!(!between!(|cpu, other| _ = cpu.await_update(other, |held| Some(held + 1))));
    assert!(!between!(|cpu, _| cpu.tlb_invalidate(machine::Invalidation::All)));
    assert!(!between!(|cpu, _| cpu.tlb_invalidate_paravirtual(machine::CpuSet::EMPTY, machine::Invalidation::All)));
    assert!(!between!(|cpu, _| cpu.tlb_broadcast_sync()));
    assert!(!between!(|cpu, _| cpu.synchronize_rcu()));
    // These do not.
    assert!(between!(|_, _| ()));
    assert!(between!(|cpu, other| cpu.store(other, 1)));
    assert!(between!(|cpu, other| _ = cpu.load(other)));
    assert!(between!(|cpu, other| _ = cpu.await_value(other, |held| held == 0)));
    assert!(between!(|cpu, _| drop(cpu.irq_off())));
    assert!(between!(|cpu, _| cpu.send_ipi(machine::CpuSet::EMPTY, machine::Vector::Synchronise)));
    assert!(between!(|cpu, _| cpu.tlb_broadcast(machine::Invalidation::All)));
    assert!(between!(|cpu, _| {
        cpu.rcu_read_lock();
        cpu.rcu_read_unlock();
    }));
}
