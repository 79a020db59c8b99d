//! Searches that do not exhaust: random schedules, and runs with few preemptions.

use std::collections::BTreeSet;
use std::time::Duration;

use lab::{
    Arena, Lab, LabCpu, Limit, Limits, Machine, MemoryOrder, Report, Sampled, Sampling, Schedule, Verdict, rule,
};
use machine::{Cpu, CpuId, Word64};

const SCHEDULES: [Schedule; 3] = [Schedule::Pos, Schedule::Pct { depth: 3 }, Schedule::Uniform];

type Program = fn(&LabCpu, &[Word64; 3], usize);

/// Two CPUs run the program; afterwards the words are what is observed.
fn with_lab<R>(memory: MemoryOrder, program: Program, search: impl FnOnce(&mut Lab<'_>) -> R) -> R {
    let arena = Arena::new();
    let words = arena.alloc([const { Word64::new(0) }; 3]);
    let mut lab = Lab::new(&arena, Machine::new(memory));
    for number in 0..2 {
        lab.cpu(format!("p{number}"), move |cpu| program(cpu, words, number));
    }
    lab.observe(move |end| {
        let reported = (0..2).map(|cpu| end.reported(CpuId::new(cpu), 0));
        words.iter().map(|word| end.read(word)).chain(reported).collect()
    });
    search(&mut lab)
}

fn sample(memory: MemoryOrder, program: Program, sampling: &Sampling) -> Report {
    with_lab(memory, program, |lab| lab.sample(sampling, &Limits::default(), &mut |_| ()))
}

fn preempt(memory: MemoryOrder, program: Program, most: u32) -> Report {
    with_lab(memory, program, |lab| lab.explore_preempting(most, &Limits::default(), &mut |_| ()))
}

fn exhaust(memory: MemoryOrder, program: Program) -> Report {
    with_lab(memory, program, |lab| lab.explore(&Limits::default()))
}

/// Dekker's entry without fences: on x86 both may get in, if both stores wait.
fn dekker(cpu: &LabCpu, words: &[Word64; 3], number: usize) {
    cpu.store(&words[number], 1);
    if cpu.load(&words[1 - number]) == 0 {
        assert_eq!(cpu.fetch_add(&words[2], 1), 0, "both are inside");
    }
}

/// Adds one without a lock, twice.
fn add(cpu: &LabCpu, words: &[Word64; 3], number: usize) {
    for _ in 0..2 {
        let seen = cpu.load(&words[0]);
        cpu.store(&words[0], seen + 1);
    }
    cpu.report(0, number as u64);
}

/// Fails only if the other CPU's two additions come between the load and the store.
fn lose_two(cpu: &LabCpu, words: &[Word64; 3], number: usize) {
    if number == 0 {
        let seen = cpu.load(&words[0]);
        cpu.store(&words[0], seen + 1);
        assert_ne!((seen, cpu.load(&words[1])), (0, 1), "the other came and went in between");
    } else {
        cpu.fetch_add(&words[0], 1);
        cpu.store(&words[1], 1);
    }
}

/// The first waits by looking again and again.
fn spin(cpu: &LabCpu, words: &[Word64; 3], number: usize) {
    if number == 0 {
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            if cpu.load(&words[0]) != 0 {
                break;
            }
        }
    } else {
        cpu.store(&words[1], 1);
        cpu.store(&words[0], 1);
    }
}

fn sampled(report: &Report) -> &Sampled {
    report.sampled.as_ref().expect("random schedules say what they have shown")
}

#[test]
fn every_schedule_finds_what_store_buffers_do() {
    for schedule in SCHEDULES {
        let sampling = Sampling { schedule, runs: 2000, ..Sampling::default() };
        let report = sample(MemoryOrder::Tso, dekker, &sampling);
        let found = report.expect_violation(rule::USER);
        assert!(found.shortest, "{schedule}");
        assert_eq!(found.trace, exhaust(MemoryOrder::Tso, dekker).expect_violation(rule::USER).trace, "{schedule}");
        let report = sample(MemoryOrder::Sc, dekker, &sampling);
        assert_eq!(report.verdict, Verdict::Bounded(Limit::Runs), "{schedule}");
        assert_eq!(sampled(&report).runs, 2000);
    }
}

#[test]
fn enough_runs_meet_every_final_state() {
    for schedule in SCHEDULES {
        let all = exhaust(MemoryOrder::Tso, add);
        let report = sample(MemoryOrder::Tso, add, &Sampling { schedule, runs: 20_000, ..Sampling::default() });
        assert_eq!(report.observations, all.observations, "{schedule}");
        assert_eq!(report.ends, all.ends, "{schedule}");
        assert_eq!(sampled(&report).met_once, 0, "{schedule}");
    }
}

#[test]
fn a_seed_gives_the_same_runs_again() {
    let runs = |seed| {
        let report = sample(MemoryOrder::Tso, add, &Sampling { seed, runs: 3, ..Sampling::default() });
        Report { elapsed: Duration::ZERO, ..report }
    };
    assert_eq!(runs(7), runs(7));
    let different: BTreeSet<Vec<Vec<u64>>> =
        (0..10).map(|seed| runs(seed).observations.into_iter().collect()).collect();
    assert!(different.len() > 1, "ten seeds all met {different:?}");
}

#[test]
fn whoever_spins_lets_others_go_first() {
    for schedule in SCHEDULES {
        let sampling = Sampling { schedule, runs: 500, steps: 10_000, ..Sampling::default() };
        let report = sample(MemoryOrder::Tso, spin, &sampling);
        assert_eq!((sampled(&report).runs, sampled(&report).cut), (500, 0), "{schedule}");
        assert!(sampled(&report).came_back, "{schedule}");
        assert_eq!(sampled(&report).pct_chance(), None, "a guarantee for runs that do not come back");
    }
}

#[test]
fn a_run_that_is_too_long_is_cut_off() {
    let report = sample(MemoryOrder::Sc, add, &Sampling { runs: 10, steps: 3, ..Sampling::default() });
    assert_eq!((sampled(&report).runs, sampled(&report).cut), (0, 10));
    assert_eq!(sampled(&report).most_missed().to_bits(), 1.0_f64.to_bits(), "nothing was shown");
}

#[test]
fn what_is_stated_follows_from_the_runs() {
    let sampling = Sampling { schedule: Schedule::Pct { depth: 2 }, runs: 3000, ..Sampling::default() };
    let report = sample(MemoryOrder::Sc, add, &sampling);
    let sampled = sampled(&report);
    let missed = (1.0 - sampled.most_missed()).powi(3000);
    assert!((missed - 0.05).abs() < 1e-9, "{missed}");
    let ways = (sampled.sources * sampled.longest) as f64;
    let chance = 1.0 - (1.0 - 1.0 / ways).powf(sampled.settled as f64);
    assert_eq!(sampled.pct_chance(), Some(chance));
    assert!(chance > 0.99, "{chance}");
    // What is said of the chance must be true of a bug of that depth. A first run is taken to have 64 steps.
    let ways = (sampled.sources * 64) as f64;
    let met = (0..400)
        .filter(|&seed| {
            let one = Sampling { runs: 1, seed, ..sampling };
            matches!(sample(MemoryOrder::Sc, lose_two, &one).verdict, Verdict::Violated(_))
        })
        .count();
    assert!(met as f64 / 400.0 >= 1.0 / ways, "met {met} times of 400");
}

#[test]
fn few_preemptions_are_a_bound_that_is_said() {
    let none = preempt(MemoryOrder::Sc, lose_two, 0);
    assert_eq!(none.verdict, Verdict::Bounded(Limit::Preemptions(0)));
    let one = preempt(MemoryOrder::Sc, lose_two, 1);
    assert_eq!(
        one.expect_violation(rule::USER).trace,
        exhaust(MemoryOrder::Sc, lose_two).expect_violation(rule::USER).trace
    );
}

#[test]
fn enough_preemptions_are_all_runs() {
    for memory in [MemoryOrder::Sc, MemoryOrder::Tso] {
        let all = exhaust(memory, add);
        let enough = preempt(memory, add, 100);
        assert_eq!(enough.verdict, Verdict::Safe);
        assert_eq!((enough.states, enough.ends, &enough.observations), (all.states, all.ends, &all.observations));
        let mut before = BTreeSet::new();
        for most in 0..4 {
            let some = preempt(memory, add, most).observations;
            assert!(some.is_superset(&before) && some.is_subset(&all.observations), "{most}");
            before = some;
        }
        assert_eq!(before, all.observations, "three preemptions reach every result");
    }
    // Under TSO waiting stores do the same without any preemption.
    assert_eq!(preempt(MemoryOrder::Sc, add, 0).observations.len(), 1, "one after the other");
}
