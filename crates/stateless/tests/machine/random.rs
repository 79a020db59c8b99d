//! Random runs.

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use machine::{Access, Cpu, UserAccess, Word, Word64};
use stateless::{Config, Memory, Order, RandomEnd, Simulator};

use crate::paged::{PAGE, Tables, UNUSED, boot, machine};

struct Counter<'w>(&'w Word64);

// SAFETY: one atomic, which stays where it is while it is borrowed.
unsafe impl Memory for Counter<'_> {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(self.0).cast()
    }

    fn bytes(&self) -> usize {
        size_of::<Word64>()
    }
}

/// Two CPUs that add to a counter, in two steps.
fn two_that_add(counter: &Word64) -> Simulator<'_> {
    let mut simulator = Simulator::new(Config::new(Order::TotalStore), Counter(counter), Vec::new());
    for _ in 0..2 {
        simulator.cpu(|cpu| {
            let before = cpu.load(counter);
            cpu.store(counter, before + 1);
        });
    }
    simulator.observe(|_| vec![counter.atomic_load(Ordering::Relaxed)]);
    simulator
}

#[test]
fn they_end_in_all_ways_and_the_same_seed_in_the_same() {
    let counter = Word64::new(0);
    let mut simulator = two_that_add(&counter);
    let mut end = |seed| match simulator.random_run(seed, 100) {
        RandomEnd::Rest { observation } => observation,
        other => panic!("{other:?}"),
    };
    let ends: Vec<_> = (0..20).map(&mut end).collect();
    assert_eq!(ends.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&Some(vec![1]), &Some(vec![2])]));
    assert_eq!(ends, (0..20).map(end).collect::<Vec<_>>());
    // Two loads, two stores, and both reach memory.
    assert_eq!(simulator.random_run_in_words(1, 100).len(), 6);
    assert_eq!(counter.atomic_load(Ordering::Relaxed), 0, "the start is left as it was");
}

#[test]
fn long_ones_are_cut_off() {
    let counter = Word64::new(0);
    assert_eq!(two_that_add(&counter).random_run(1, 3), RandomEnd::Cut);
}

#[test]
fn rules_are_kept_or_broken() {
    let counter = Word64::new(0);
    let mut simulator = two_that_add(&counter);
    simulator.cpu(|cpu| cpu.violate("user", "as it is meant to"));
    assert!(matches!(simulator.random_run(1, 100), RandomEnd::Broken(violation) if violation.rule == "user"));
    let mut simulator = two_that_add(&counter);
    simulator.cpu(|cpu| {
        cpu.await_value(&counter, |held| held == 3);
    });
    assert!(matches!(simulator.random_run(1, 100), RandomEnd::Broken(violation) if violation.rule == "deadlock"));
}

#[test]
fn walkers_cache_what_somebody_takes_away() {
    let tables = Tables::new();
    let mut simulator = machine(&tables);
    simulator.cpu(|cpu| {
        cpu.fetch_or(tables.entry(), 0x20);
        cpu.store(tables.entry(), 0);
    });
    simulator.cpu(|cpu| cpu.report(0, u64::from(cpu.user_access(PAGE, Access::Read).is_ok())));
    boot(&mut simulator, &tables, 2);
    simulator
        .observe(|end| vec![end.reported(machine::CpuId::new(1), 0), tables.entry().atomic_load(Ordering::Relaxed)]);
    let ends: BTreeSet<_> = (0..100)
        .map(|seed| match simulator.random_run(seed, 100) {
            RandomEnd::Rest { observation } => observation.expect("it is observed"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ends, BTreeSet::from([vec![0, 0], vec![1, 0]]));
    assert_ne!(tables.entry().atomic_load(Ordering::Relaxed) & UNUSED, 0, "the start is left as it was");
}
