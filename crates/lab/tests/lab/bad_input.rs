//! Code that the lab cannot explore is found out and named; code that panics has found something.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, Misuse, MisuseKind, Report, Team, Verdict, rule, trace};
use machine::{Cpu, Word64};

/// Explores a CPU that stores what `number` says, between other steps of its own and of another CPU.
fn explore(number: impl Fn(&LabCpu) -> u64 + Sync) -> Report {
    let arena = Arena::new();
    let words = arena.alloc_slice(2, |_| Word64::new(0));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.cpu("guilty", |cpu| {
        cpu.fetch_add(&words[1], 1);
        cpu.store(&words[0], number(cpu));
        cpu.fetch_add(&words[1], 1);
    });
    lab.cpu("other", |cpu| {
        cpu.fetch_add(&words[1], 1);
        cpu.load(&words[0]);
    });
    lab.explore(&Limits::default())
}

#[track_caller]
fn hidden(report: &Report) -> &Misuse {
    match &report.verdict {
        Verdict::Error(misuse) if misuse.kind == MisuseKind::HiddenState => misuse,
        other => panic!("not found out: {other:?}"),
    }
}

/// The code, and its line, are named.
#[track_caller]
fn expect_named(report: &Report) {
    let misuse = hidden(report);
    assert!(misuse.sentence.starts_with("guilty does store at "), "{}", misuse.sentence);
    assert!(misuse.sentence.contains("bad_input.rs:"), "{}", misuse.sentence);
    assert!(misuse.sentence.contains("keeps state outside"), "{}", misuse.sentence);
}

#[test]
fn code_that_behaves_is_safe() {
    explore(|cpu| cpu.id().index() as u64).expect_safe();
}

#[test]
fn code_that_reads_the_time_is_found_out() {
    let start = Instant::now();
    expect_named(&explore(|_| start.elapsed().as_nanos() as u64));
}

#[test]
fn code_that_allocates_by_address_is_found_out() {
    expect_named(&explore(|_| Box::leak(Box::new(7_u64)) as *const u64 as u64));
}

#[test]
fn code_that_throws_dice_is_found_out() {
    expect_named(&explore(|_| RandomState::new().hash_one(1)));
}

#[test]
fn code_that_shares_state_outside_the_machine_is_found_out() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    expect_named(&explore(|_| COUNTER.fetch_add(1, Ordering::Relaxed)));
    let list = Mutex::new(Vec::new());
    expect_named(&explore(|cpu| {
        let mut list = list.lock().expect("nobody panics");
        list.push(cpu.id());
        list.len() as u64
    }));
    thread_local! {
        static CALLS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }
    expect_named(&explore(|_| {
        CALLS.set(CALLS.get() + 1);
        CALLS.get()
    }));
}

/// What is different in each thread of a team is, too.
#[test]
fn members_of_a_team_that_see_different_things_are_found_out() {
    let team = Team::new(2);
    let calls = AtomicU64::new(0);
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let member = |_| {
            let (seat, calls) = (team.seat(), &calls);
            scope.spawn(move || {
                let arena = Arena::new();
                let word = arena.alloc(Word64::new(0));
                let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
                for name in ["guilty", "too"] {
                    lab.cpu(name, |cpu| {
                        for _ in 0..3 {
                            cpu.store(word, calls.fetch_add(1, Ordering::Relaxed));
                        }
                    });
                }
                lab.explore_in(seat, &Limits::default(), &mut |_| ())
            })
        };
        let members: Vec<_> = (0..2).map(member).collect();
        members.into_iter().filter_map(|member| member.join().expect("the lab does not panic")).collect()
    });
    let verdicts: Vec<&Verdict> = reports.iter().map(|report| &report.verdict).collect();
    assert!(matches!(verdicts[..], [Verdict::Error(misuse)] if misuse.kind == MisuseKind::HiddenState), "{verdicts:?}");
}

/// The words of a panic, and code that panics if it is given 1.
type Way = (&'static str, fn(u64));

/// Every way to panic is a verdict: the rule, the words and the line of the code, and the shortest way there.
#[test]
fn a_panic_is_a_verdict_with_its_trace() {
    let ways: [Way; 6] = [
        ("seen is 1", |seen| assert_ne!(seen, 1, "seen is {seen}")),
        ("index out of bounds", |seen| assert_eq!([0_u8][seen as usize], 0)),
        ("attempt to divide by zero", |seen| assert_eq!(1 / (1 - seen), 1)),
        ("called `Option::unwrap()` on a `None` value", |seen| (seen == 0).then_some(()).unwrap()),
        ("explicit panic", |seen| {
            if seen == 1 {
                panic!()
            }
        }),
        // Whatever is thrown.
        ("panic", |seen| {
            if seen == 1 {
                std::panic::panic_any(7_u8)
            }
        }),
    ];
    for (words, way) in ways {
        let arena = Arena::new();
        let word = arena.alloc(Word64::new(0));
        let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
        lab.name(word, "word");
        lab.cpu("writes", |cpu| cpu.store(word, 1));
        lab.cpu("looks", move |cpu| way(cpu.load(word)));
        let report = lab.explore(&Limits::default());
        let found = report.expect_violation(rule::USER);
        let sentence = &found.violation.sentence;
        assert!(sentence.contains(words) && sentence.contains("bad_input.rs:"), "{words}: {sentence}");
        assert!(found.shortest);
        assert_eq!(found.trace.steps.len(), 2, "{words}");
        let text = trace::columns(&found.trace);
        assert!(text.contains("store word: 0 -> 1") && text.contains("load word = 1"), "{text}");
    }
}
