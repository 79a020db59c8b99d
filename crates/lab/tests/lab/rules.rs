//! What the lab refuses, notices, and counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lab::{
    Arena, End, Event, Ghost, Lab, LabCpu, Limit, Limits, Machine, MemoryOrder, MisuseKind, Monitor, Reduction, Report,
    Verdict, Violation, rule, trace,
};
use machine::{Cpu, CpuId, SpinLock, Word32, Word64};

/// A machine on which every access is a step: what these tests are about happens at steps.
fn every_step(memory: MemoryOrder) -> Machine {
    Machine { reduction: Reduction::None, ..Machine::new(memory) }
}

fn misuse(report: &Report, kind: MisuseKind) -> &str {
    match &report.verdict {
        Verdict::Error(misuse) if misuse.kind == kind => &misuse.sentence,
        other => panic!("expected {kind:?}, not {other:?}"),
    }
}

fn alone(program: impl Fn(&LabCpu) + Sync) -> Report {
    let arena = Arena::new();
    let mut lab = Lab::new(&arena, every_step(MemoryOrder::Tso));
    lab.cpu("alone", program);
    lab.explore(&Limits::default())
}

#[test]
fn words_outside_the_arena_are_refused() {
    let outside = Word64::new(0);
    let report = alone(|cpu| cpu.store(&outside, 1));
    assert!(misuse(&report, MisuseKind::OutsideArena).contains("rules.rs:"));
    let report = alone(|cpu| cpu.owned_store(&outside, 1));
    assert!(misuse(&report, MisuseKind::OutsideArena).contains("rules.rs:"));
    assert_eq!(outside.low().atomic(), 0);
}

trait Peek {
    fn atomic(&self) -> u32;
}
impl Peek for Word32 {
    fn atomic(&self) -> u32 {
        machine::Word::atomic_load(self, Ordering::Relaxed)
    }
}

#[test]
fn guards_are_dropped_quietly_when_a_panic_unwinds() {
    let arena = Arena::new();
    let word = arena.alloc(Word64::new(0));
    let lock = arena.alloc(SpinLock::new());
    let mut lab = Lab::new(&arena, every_step(MemoryOrder::Sc));
    lab.name(word, "count");
    lab.name(lock.word(), "lock");
    lab.cpu("a", |cpu| {
        cpu.mark("a begins");
        let seen = cpu.load(word);
        cpu.store(word, seen + 1);
        cpu.mark("a is done");
    });
    lab.cpu("b", |cpu| {
        let _off = cpu.irq_off();
        let _guard = lock.lock(cpu);
        assert_ne!(cpu.load(word), 1, "b saw it");
    });
    let report = lab.explore(&Limits::default());
    let found = report.expect_violation(rule::USER);
    assert!(found.violation.sentence.contains("b saw it"), "{}", found.violation.sentence);
    assert!(found.violation.sentence.contains("rules.rs:"), "{}", found.violation.sentence);
    assert!(found.shortest);
    assert_eq!((found.trace.steps.len(), found.trace.context_switches()), (5, 1));
    let text = trace::columns(&found.trace);
    for part in [
        "CPU0 a",
        "CPU1 b",
        "~ a begins",
        "~ a is done",
        "store count: 0 -> 1",
        "acquire lock: 0 -> 1",
        "load count = 1",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    // The lab can be used again, and says the same.
    assert_eq!(lab.explore(&Limits::default()).verdict, report.verdict);
}

#[test]
fn hidden_state_is_noticed() {
    let arena = Arena::new();
    let words = arena.alloc_slice(2, |_| Word64::new(0));
    let hidden = AtomicU64::new(0);
    let mut lab = Lab::new(&arena, every_step(MemoryOrder::Sc));
    lab.cpu("hides", |cpu| {
        cpu.load(&words[0]);
        let index = hidden.fetch_add(1, Ordering::Relaxed) as usize % 2;
        cpu.load(&words[index]);
    });
    lab.cpu("other", |cpu| {
        cpu.load(&words[0]);
    });
    let report = lab.explore(&Limits::default());
    assert!(misuse(&report, MisuseKind::HiddenState).contains("rules.rs:"));
}

#[test]
fn a_digest_that_forgets_is_noticed() {
    let arena = Arena::new();
    let words = arena.alloc_slice(2, |_| Word64::new(0));
    let forgetful = |digest: fn(u64) -> u64| {
        let mut lab = Lab::new(&arena, every_step(MemoryOrder::Sc));
        lab.cpu("forgets", move |cpu| {
            let seen = cpu.load(&words[0]);
            cpu.op_boundary(digest(seen));
            cpu.load(&words[seen as usize]);
        });
        lab.cpu("other", |cpu| cpu.store(&words[0], 1));
        lab.explore(&Limits::default())
    };
    misuse(&forgetful(|_| 0), MisuseKind::HiddenState);
    forgetful(|seen| seen).expect_safe();
}

/// Retry loops end: their rounds are forgotten, what was read before the loop is not.
#[test]
fn rounds_are_forgotten_but_not_what_came_before() {
    let arena = Arena::new();
    let [before, turn, sink] = [0, 0, 0].map(|zero| arena.alloc(Word64::new(zero)));
    let mut lab = Lab::new(&arena, every_step(MemoryOrder::Sc));
    lab.cpu("spins", |cpu| {
        let held = cpu.load(before);
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            if cpu.load(turn) == 1 {
                break;
            }
        }
        cpu.store(sink, held + 10);
    });
    lab.cpu("writes", |cpu| {
        cpu.store(before, 1);
        cpu.store(turn, 1);
    });
    lab.observe(|end| vec![end.read(sink)]);
    let report = lab.explore(&Limits::default());
    // Would be endless without that; and both values of `before` survive the loop.
    assert_eq!(report.expect_safe().observations, [vec![10], vec![11]].into());
}

fn counter<'a>(arena: &'a Arena, second: impl Fn(&LabCpu, &SpinLock, &Word64) + Sync + 'a) -> Report {
    let lock = arena.alloc(SpinLock::new());
    let word = arena.alloc(Word64::new(0));
    let mut lab = Lab::new(arena, every_step(MemoryOrder::Tso));
    lab.name(word, "guarded");
    lab.cpu("first", move |cpu| {
        let _guard = lock.lock(cpu);
        let held = cpu.owned_load(word);
        cpu.owned_store(word, held + 1);
    });
    lab.cpu("second", move |cpu| second(cpu, lock, word));
    lab.observe(|end| vec![end.read(word)]);
    lab.explore(&Limits::default())
}

#[test]
fn owned_accesses_need_a_lock_in_common() {
    let arena = Arena::new();
    let report = counter(&arena, |cpu, lock, word| {
        let _guard = lock.lock(cpu);
        cpu.owned_store(word, cpu.owned_load(word) + 1);
    });
    assert_eq!(report.expect_safe().observations, [vec![2]].into());
    let without: [fn(&LabCpu, &SpinLock, &Word64); 4] = [
        |cpu, _, word| cpu.owned_store(word, 5),
        |cpu, _, word| {
            cpu.owned_load(word);
        },
        |cpu, _, word| {
            cpu.load(word);
        },
        |cpu, _, word| {
            cpu.fetch_add(word, 1);
        },
    ];
    for second in without {
        let report = counter(&arena, second);
        let sentence = misuse(&report, MisuseKind::NotOwned);
        assert!(sentence.contains("guarded") && sentence.matches("rules.rs:").count() == 2, "{sentence}");
    }
}

#[test]
fn private_words_may_be_given_away() {
    let arena = Arena::new();
    let [object, pointer] = [0, 0].map(|zero| arena.alloc(Word64::new(zero)));
    let mut lab = Lab::new(&arena, every_step(MemoryOrder::Tso));
    lab.cpu("maker", |cpu| {
        cpu.owned_store(object, 7);
        cpu.store(pointer, 1);
    });
    lab.cpu("user", |cpu| {
        if cpu.load(pointer) == 1 {
            assert_eq!(cpu.load(object), 7);
            cpu.owned_store(object, 8);
        }
    });
    lab.explore(&Limits::default()).expect_safe();
}

/// An owned store must not overtake a plain store to the same word that still waits.
#[test]
fn owned_stores_stay_behind_buffered_ones() {
    let arena = Arena::new();
    let word = arena.alloc(Word64::new(0));
    let mut lab = Lab::new(&arena, every_step(MemoryOrder::Tso));
    lab.cpu("a", |cpu| {
        cpu.store(word, 1);
        cpu.owned_store(word.low(), 2);
        assert_eq!(cpu.owned_load(word), 2);
    });
    lab.observe(|end| vec![end.read(word)]);
    assert_eq!(lab.explore(&Limits::default()).expect_safe().observations, [vec![2]].into());
}

fn many_states(arena: &Arena) -> Lab<'_> {
    let words = arena.alloc_slice(3, |_| Word64::new(0));
    let mut lab = Lab::new(arena, every_step(MemoryOrder::Tso));
    for number in 0..3 {
        lab.cpu(format!("cpu {number}"), move |cpu| {
            for round in 0..4 {
                cpu.store(&words[number], round);
                cpu.load(&words[(number + 1) % 3]);
            }
        });
    }
    lab
}

#[test]
fn limits_end_the_search_and_are_named() {
    let arena = Arena::new();
    let mut lab = many_states(&arena);
    let limited = |lab: &mut Lab<'_>, limits: Limits<'_>| lab.explore(&limits).verdict;
    let limits = Limits { states: 1000, ..Limits::default() };
    assert_eq!(limited(&mut lab, limits), Verdict::Bounded(Limit::States));
    let limits = Limits { depth: 10, ..Limits::default() };
    assert_eq!(limited(&mut lab, limits), Verdict::Bounded(Limit::Depth));
    let limits = Limits { time: Duration::ZERO, ..Limits::default() };
    assert_eq!(limited(&mut lab, limits), Verdict::Bounded(Limit::Time));
    let limits = Limits { memory: 1 << 16, ..Limits::default() };
    assert_eq!(limited(&mut lab, limits), Verdict::Bounded(Limit::Memory));
    let cancel = AtomicBool::new(true);
    let limits = Limits { cancel: Some(&cancel), ..Limits::default() };
    assert_eq!(limited(&mut lab, limits), Verdict::Bounded(Limit::Cancelled));
}

#[test]
fn the_same_search_gives_the_same_numbers() {
    let arena = Arena::new();
    let mut lab = many_states(&arena);
    let first = lab.explore(&Limits::default());
    let again = lab.explore(&Limits::default());
    let elsewhere = std::thread::spawn(|| {
        let arena = Arena::new();
        many_states(&arena).explore(&Limits::default())
    });
    let elsewhere = elsewhere.join().expect("the other search ends");
    first.expect_safe();
    for other in [&again, &elsewhere] {
        assert_eq!((first.states, first.transitions, first.depth), (other.states, other.transitions, other.depth));
    }
    assert_eq!((first.ends, again.ends), (elsewhere.ends, elsewhere.ends));
}

/// Allows a word to grow only, and sums up at rest.
struct OnlyGrows {
    address: usize,
}

impl Monitor for OnlyGrows {
    fn on_event(&self, ghost: &mut Ghost<'_>, event: &Event<'_>) -> Result<(), Violation> {
        match *event {
            Event::Written { address, old, new, .. } if address == self.address => {
                ghost.set(0, ghost.get(0) + 1);
                if new < old {
                    return Err(Violation::new("shrinks", format!("{old} became {new}")));
                }
            }
            Event::Emitted { kind: 3, args: [expected], .. } => ghost.set(1, *expected),
            _ => (),
        }
        Ok(())
    }

    fn at_rest(&self, ghost: &Ghost<'_>, end: &End<'_>) -> Result<(), Violation> {
        if ghost.get(0) != ghost.get(1) {
            return Err(Violation::new("count", format!("{} writes, not {}", ghost.get(0), ghost.get(1))));
        }
        assert_eq!(end.is_allocated(machine::Frame::new(1)), None);
        Ok(())
    }
}

#[test]
fn monitors_see_writes_and_remember_along_each_run() {
    let watched = |second: fn(&LabCpu, &Word64)| {
        let arena = Arena::new();
        let word = arena.alloc(Word64::new(0));
        let mut lab = Lab::new(&arena, every_step(MemoryOrder::Tso));
        lab.monitor(2, OnlyGrows { address: machine::Word::address(word) });
        lab.cpu("a", |cpu| {
            cpu.emit(3, &[2]);
            cpu.store(word, 1);
        });
        lab.cpu("b", move |cpu| second(cpu, word));
        lab.explore(&Limits::default())
    };
    watched(|cpu, word| {
        cpu.fetch_add(word, 2);
    })
    .expect_violation("shrinks");
    watched(|cpu, word| {
        cpu.await_value(word, |seen| seen == 1);
        cpu.store(word, 2);
    })
    .expect_safe();
    watched(|_, _| ()).expect_violation("count");
}

#[test]
fn code_can_break_a_rule_by_name() {
    let report = alone(|cpu| {
        cpu.fence();
        cpu.violate("wrong-page", "frame 3 is not what was mapped")
    });
    let found = report.expect_violation("wrong-page");
    assert_eq!(found.violation.sentence, "frame 3 is not what was mapped");
    assert_eq!(found.trace.steps.len(), 1);
}

#[test]
fn reports_are_told_apart_by_cpu_and_slot() {
    let arena = Arena::new();
    let mut lab = Lab::new(&arena, every_step(MemoryOrder::Tso));
    lab.cpu("a", |cpu| cpu.report(15, 1));
    lab.cpu("b", |cpu| cpu.report(0, 2));
    lab.observe(|end| {
        vec![end.reported(CpuId::new(0), 15), end.reported(CpuId::new(1), 0), end.reported(CpuId::new(1), 1)]
    });
    assert_eq!(lab.explore(&Limits::default()).expect_safe().observations, [vec![1, 2, 0]].into());
}

/// State that shows only when a program starts again: a search goes on from copies of stacks, and starts each once.
#[test]
fn what_changes_from_start_to_start_is_hidden_state() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let counter = AtomicU64::new(0);
    let began = std::time::Instant::now();
    let hidden: [&(dyn Fn() -> u64 + Sync); 2] =
        [&|| counter.fetch_add(1, Ordering::Relaxed), &|| began.elapsed().as_nanos() as u64];
    for source in hidden {
        let arena = Arena::new();
        let word = arena.alloc(Word64::new(0));
        let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
        lab.cpu("reads it", |cpu| cpu.store(word, source()));
        lab.cpu("other", |cpu| cpu.store(word, 1));
        let Verdict::Error(misuse) = lab.explore(&Limits::default()).verdict else { panic!("not found") };
        assert_eq!(misuse.kind, MisuseKind::HiddenState);
        assert!(misuse.sentence.contains("reads it does store"), "{}", misuse.sentence);
    }
}
