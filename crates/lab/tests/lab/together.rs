//! Threads that explore together come to what one thread comes to.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lab::{Arena, Lab, LabCpu, Limit, Limits, Machine, MemoryOrder, Report, Team, Verdict, rule};
use machine::{Cpu, CpuId, SpinLock, Word64};

struct Words {
    shared: [Word64; 2],
    lock: SpinLock,
    count: Word64,
    constant: Word64,
}

type Program = fn(&LabCpu, &Words, usize);

fn with_lab<R>(cpus: usize, program: Program, search: impl FnOnce(&mut Lab<'_>) -> R) -> R {
    let arena = Arena::new();
    let words = arena.alloc(Words {
        shared: [const { Word64::new(0) }; 2],
        lock: SpinLock::new(),
        count: Word64::new(0),
        constant: Word64::new(3),
    });
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    for number in 0..cpus {
        lab.cpu(format!("p{number}"), move |cpu| program(cpu, words, number));
    }
    lab.observe(move |end| {
        let reported = (0..cpus).map(|cpu| end.reported(CpuId::new(cpu as u32), 0));
        words.shared.iter().chain([&words.count]).map(|word| end.read(word)).chain(reported).collect()
    });
    search(&mut lab)
}

fn alone(cpus: usize, program: Program) -> Report {
    with_lab(cpus, program, |lab| lab.explore(&Limits::default()))
}

fn together(threads: usize, cpus: usize, program: Program, limits: &Limits<'_>) -> Report {
    let team = Team::new(threads);
    let member = || {
        let seat = team.seat();
        with_lab(cpus, program, |lab| lab.explore_in(seat, limits, &mut |_| ()))
    };
    let reports: Vec<Option<Report>> = std::thread::scope(|scope| {
        let members: Vec<_> = (0..threads).map(|_| scope.spawn(member)).collect();
        members.into_iter().map(|member| member.join().expect("no member panics")).collect()
    });
    let mut reports = reports.into_iter().flatten();
    let report = reports.next().expect("one of them has the report");
    assert!(reports.next().is_none(), "only one of them");
    report
}

/// Words that everybody writes, one that nobody does, and a lock.
fn mix(cpu: &LabCpu, words: &Words, number: usize) {
    let mine = &words.shared[number % 2];
    cpu.store(mine, cpu.load(mine) + cpu.load(&words.constant));
    {
        let _held = words.lock.lock(cpu);
        cpu.store(&words.count, cpu.load(&words.count) + 1);
    }
    cpu.report(0, cpu.load(&words.shared[(number + 1) % 2]));
}

/// Both get in if both stores wait.
fn dekker(cpu: &LabCpu, words: &Words, number: usize) {
    cpu.store(&words.shared[number % 2], 1);
    if cpu.load(&words.shared[(number + 1) % 2]) == 0 {
        assert_eq!(cpu.fetch_add(&words.count, 1), 0, "both are inside");
    }
}

#[test]
fn the_same_verdict_and_counts() {
    let one = alone(4, mix);
    assert_eq!(one.verdict, Verdict::Safe);
    assert!(one.states > 10_000, "too small to be shared: {}", one.states);
    for threads in [1, 2, 3, 8] {
        let many = together(threads, 4, mix, &Limits::default());
        assert_eq!(
            (&many.verdict, many.states, many.transitions, many.ends, &many.observations),
            (&one.verdict, one.states, one.transitions, one.ends, &one.observations),
            "{threads} threads"
        );
    }
}

#[test]
fn the_same_shortest_trace() {
    let one = alone(2, dekker);
    for threads in [1, 2, 5] {
        let many = together(threads, 2, dekker, &Limits::default());
        assert_eq!(many.expect_violation(rule::USER), one.expect_violation(rule::USER), "{threads} threads");
    }
}

#[test]
fn limits_are_for_all_of_them() {
    let limits = Limits { states: 5000, ..Limits::default() };
    let report = together(3, 4, mix, &limits);
    assert_eq!(report.verdict, Verdict::Bounded(Limit::States));
    assert!(report.states < 5000 + 3 * 4096, "each looks every 4096 steps: {}", report.states);
}

#[test]
fn who_leaves_before_the_search_is_not_waited_for() {
    let team = Team::new(2);
    drop(team.seat());
    let seat = team.seat();
    let report =
        with_lab(3, mix, |lab| lab.explore_in(seat, &Limits::default(), &mut |_| ())).expect("the only member");
    assert_eq!((report.verdict, report.states), (Verdict::Safe, alone(3, mix).states));
}

#[test]
fn who_goes_away_with_a_part_makes_it_no_answer() {
    let team = Team::new(2);
    let member = |panics: bool| {
        let seat = team.seat();
        let mut ticks = 0;
        with_lab(5, mix, |lab| {
            lab.explore_in(seat, &Limits::default(), &mut |_| {
                ticks += 1;
                assert!(!panics, "the member is lost");
            })
        })
    };
    let report = std::thread::scope(|scope| {
        let lost = scope.spawn(|| catch_unwind(AssertUnwindSafe(|| member(true))).is_err());
        let report = member(false);
        assert!(lost.join().expect("caught"), "long enough to be told of progress");
        report
    });
    if let Some(report) = report {
        assert_eq!(report.verdict, Verdict::Bounded(Limit::MemberLost));
    }
}
