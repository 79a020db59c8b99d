//! Threads that the scheduler moves while they run.

use lab::{
    Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, MisuseKind, Reduction, Replica, Report, Sampling, Schedule,
    Threads, Verdict, rule, trace,
};
use machine::{Cpu, CpuId, CpuSet, SpinLock, Vector, Word32, Word64};

const BOTH: [MemoryOrder; 2] = [MemoryOrder::Sc, MemoryOrder::Tso];

fn moving(memory: MemoryOrder) -> Machine {
    Machine { threads: Threads::Move, ..Machine::new(memory) }
}

/// Where a thread may find itself when it asks twice, with one idle CPU beside its own: `10 * first + second`.
fn asked_twice(machine: Machine, ask: impl Fn(&LabCpu) -> (CpuId, CpuId) + Sync) -> Vec<u64> {
    let arena = Arena::new();
    let mut lab = Lab::new(&arena, machine);
    let thread = lab.cpu("thread", |cpu| {
        let (first, second) = ask(cpu);
        cpu.report(0, 10 * first.index() as u64 + second.index() as u64);
    });
    lab.cpu("idle", |_| ());
    lab.observe(move |end| vec![end.reported(thread, 0)]);
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    report.observations.iter().flatten().copied().collect()
}

#[test]
fn who_asks_twice_may_be_elsewhere_the_second_time() {
    let ask = |cpu: &LabCpu| (cpu.id(), cpu.id());
    for memory in BOTH {
        assert_eq!(asked_twice(moving(memory), ask), [0, 1, 10, 11]);
        assert_eq!(asked_twice(Machine::new(memory), ask), [0]);
    }
}

/// Each of these keeps the thread where it is, and only as long as it lasts.
#[test]
fn sections_keep_a_thread_on_its_cpu() {
    type Ask = fn(&LabCpu) -> (CpuId, CpuId);
    let sections: [(&str, Ask); 5] = [
        ("preemption off", |cpu| {
            let _stays = cpu.preempt_off();
            (cpu.id(), cpu.id())
        }),
        ("nested", |cpu| {
            let _stays = cpu.preempt_off();
            cpu.preempt_off().end();
            (cpu.id(), cpu.id())
        }),
        ("interrupts off", |cpu| {
            let _off = cpu.irq_off();
            (cpu.id(), cpu.id())
        }),
        ("RCU section", |cpu| {
            cpu.rcu_read_lock();
            let answers = (cpu.id(), cpu.id());
            cpu.rcu_read_unlock();
            answers
        }),
        ("after a section", |cpu| {
            let first = cpu.id();
            cpu.preempt_off().end();
            (first, cpu.id())
        }),
    ];
    for memory in BOTH {
        for (name, section) in sections {
            let expected: &[u64] = if name == "after a section" { &[0, 1, 10, 11] } else { &[0, 11] };
            assert_eq!(asked_twice(moving(memory), section), expected, "{name}");
        }
    }
}

#[test]
fn who_holds_a_spin_lock_stays() {
    for memory in BOTH {
        let arena = Arena::new();
        let lock = arena.alloc(SpinLock::new());
        let mut lab = Lab::new(&arena, moving(memory));
        let thread = lab.cpu("thread", |cpu| {
            let guard = lock.lock(cpu);
            let (first, second) = (cpu.id(), cpu.id());
            guard.unlock();
            let tried = lock.try_lock(cpu).expect("it is free");
            let (third, fourth) = (cpu.id(), cpu.id());
            tried.unlock();
            cpu.report(0, u64::from(first == second && third == fourth) + 2 * u64::from(second == third));
        });
        lab.cpu("idle", |_| ());
        lab.observe(move |end| vec![end.reported(thread, 0)]);
        let report = lab.explore(&Limits::default());
        report.expect_safe();
        // Between the two sections it may be moved.
        assert_eq!(report.observations.iter().flatten().copied().collect::<Vec<_>>(), [1, 3]);
    }
}

/// What a thread does next is remembered where it only computes (`foresee.rs`), and not where it looks how deep in sections it is: that is another depth by the time its code is run.
#[test]
fn sections_begin_where_they_did_before() {
    for memory in BOTH {
        let sums = [Reduction::QuietAccesses, Reduction::None].map(|reduction| {
            let arena = Arena::new();
            let word = arena.alloc(Word64::new(0));
            let mut lab = Lab::new(&arena, Machine { reduction, ..moving(memory) });
            for name in ["one", "other"] {
                lab.cpu(name, |cpu| {
                    for _ in 0..2 {
                        cpu.fetch_add(word, 1);
                        let stays = cpu.preempt_off();
                        cpu.fetch_add(word, 1);
                        stays.end();
                    }
                });
            }
            lab.cpu("idle", |_| ());
            lab.observe(|end| vec![end.read(word)]);
            let report = lab.explore(&Limits::default());
            report.expect_safe();
            report.observations
        });
        assert_eq!(sums, [[vec![8]].into(), [vec![8]].into()]);
    }
}

/// Counts of each CPU, which only code on that CPU changes, and its interrupt handler: `this_cpu_inc` by hand.
fn counts_of_cpus(memory: MemoryOrder, threads: Threads, increment: impl Fn(&LabCpu, &[Word32]) + Sync) -> Report {
    let arena = Arena::new();
    let counts = arena.alloc_slice(3, |_| Word32::new(0));
    let counts: &[Word32] = counts;
    let mut lab = Lab::new(&arena, Machine { threads, ..Machine::new(memory) });
    let increment = &increment;
    for name in ["one", "other"] {
        lab.cpu(name, move |cpu| increment(cpu, counts));
    }
    lab.cpu("idle", |_| ());
    lab.observe(move |end| vec![counts.iter().map(|count| end.read(count)).sum()]);
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    report
}

#[test]
fn a_count_of_each_cpu_needs_its_thread_to_stay() {
    let without = |cpu: &LabCpu, counts: &[Word32]| {
        let count = &counts[cpu.id().index()];
        cpu.store(count, cpu.load(count) + 1);
    };
    let staying = move |cpu: &LabCpu, counts: &[Word32]| {
        let stays = cpu.preempt_off();
        without(cpu, counts);
        stays.end();
    };
    let sums = |report: Report| report.observations.iter().flatten().copied().collect::<Vec<_>>();
    for memory in BOTH {
        assert_eq!(sums(counts_of_cpus(memory, Threads::Move, without)), [1, 2], "an increment is lost");
        assert_eq!(sums(counts_of_cpus(memory, Threads::Move, staying)), [2]);
        assert_eq!(sums(counts_of_cpus(memory, Threads::Stay, without)), [2]);
    }
}

/// Asks the CPUs that are not this one to acknowledge. Who is moved after it has asked who they are waits for itself.
fn shoot_down(cpu: &LabCpu, waiting: &Word64) {
    let others = CpuSet::first(2).without(cpu.id());
    cpu.store(waiting, others.bits());
    cpu.fence();
    cpu.send_ipi(others, Vector::TlbShootdown);
    cpu.await_value(waiting, |left| left == 0);
}

fn one_shootdown(memory: MemoryOrder, program: impl Fn(&LabCpu, &Word64) + Sync) -> Report {
    let arena = Arena::new();
    let waiting = arena.alloc(Word64::new(0));
    let mut lab = Lab::new(&arena, moving(memory));
    lab.cpu("thread", |cpu| program(cpu, waiting));
    lab.cpu("idle", |_| ());
    lab.interrupt_handler(|cpu, _| {
        cpu.fetch_and(waiting, !CpuSet::only(cpu.id()).bits());
    });
    lab.explore(&Limits::default())
}

#[test]
fn a_shootdown_by_a_thread_that_moves_waits_for_itself() {
    for memory in BOTH {
        let report = one_shootdown(memory, shoot_down);
        let found = report.expect_violation(rule::DEADLOCK);
        let text = trace::columns(&found.trace);
        assert!(text.contains("(scheduler) moves from CPU0 to CPU1"), "{text}");
        // The interrupt finds the CPU that was asked for, not the program that began there.
        one_shootdown(memory, |cpu, waiting| {
            let stays = cpu.preempt_off();
            shoot_down(cpu, waiting);
            stays.end();
        })
        .expect_safe();
    }
}

#[test]
fn interchangeable_cpus_that_threads_leave_are_refused() {
    let arena = Arena::new();
    let mut lab = Lab::new(&arena, moving(MemoryOrder::Sc));
    lab.cpu("thread", |cpu| cpu.fence());
    let cpus = ["one", "other"].map(|name| lab.cpu(name, |_| ()));
    lab.interchangeable(&cpus.map(|cpu| Replica::new([cpu])));
    let Verdict::Error(misuse) = lab.explore(&Limits::default()).verdict else { panic!("it was not refused") };
    assert_eq!(misuse.kind, MisuseKind::Setup);
}

/// Random schedules of a thread on the last CPU, which is the only one that can be moved: it asks twice where it is.
#[test]
fn random_schedules_move_threads() {
    // By PCT a scheduler that has begun to move the thread does so until it is back, and then falls behind.
    let schedules: [(_, &[u64]); 3] = [
        (Schedule::Pos, &[0, 1, 10, 11]),
        (Schedule::Pct { depth: 3 }, &[0, 11]),
        (Schedule::Uniform, &[0, 1, 10, 11]),
    ];
    for (schedule, expected) in schedules {
        let arena = Arena::new();
        let mut lab = Lab::new(&arena, moving(MemoryOrder::Sc));
        lab.cpu("idle", |_| ());
        let thread = lab.cpu("thread", |cpu| {
            let (first, second) = (cpu.id(), cpu.id());
            cpu.report(0, 10 * first.index() as u64 + second.index() as u64);
        });
        lab.observe(move |end| vec![end.reported(thread, 0)]);
        let sampling = Sampling { schedule, runs: 1000, ..Sampling::default() };
        let report = lab.sample(&sampling, &Limits::default(), &mut |_| ());
        let met: Vec<u64> = report.observations.iter().flatten().copied().collect();
        assert_eq!(met, expected, "{schedule}");
        // The code of each CPU, its interrupts, its store buffer, its broadcasts, its walker, and the scheduler that takes threads off it.
        assert_eq!(report.sampled.expect("it sampled").sources, 2 * 6);
    }
}

/// Goes around until the thread has what it wants.
fn again_until(cpu: &LabCpu, has: impl Fn() -> bool) {
    let head = cpu.loop_head();
    loop {
        cpu.round(&head, 0);
        if has() {
            break;
        }
    }
}

/// What is said of runs of a thread that never end, where there is an idle CPU beside its own, and what happens in the one that is shown.
fn endless(memory: MemoryOrder, program: impl Fn(&LabCpu) + Sync) -> Option<String> {
    let arena = Arena::new();
    let mut lab = Lab::new(&arena, moving(memory));
    lab.cpu("thread", program);
    lab.cpu("idle", |_| ());
    shown(&lab.explore_livelocks(&Limits::default(), &mut |_| ()))
}

fn shown(report: &Report) -> Option<String> {
    if report.verdict == Verdict::Safe {
        return None;
    }
    let found = report.expect_violation(rule::LIVELOCK);
    let sentence = &found.violation.sentence;
    assert!(sentence.contains("gets his turn and nobody is moved any more:"), "{sentence}");
    Some(trace::columns(&found.trace))
}

const ANY: usize = 3;
const MOVES: &str = "(scheduler) moves from CPU0 to CPU1";

#[test]
fn a_thread_that_spins_does_so_wherever_it_is() {
    for memory in BOTH {
        let arena = Arena::new();
        let never = arena.alloc(Word64::new(0));
        let mut lab = Lab::new(&arena, moving(memory));
        lab.cpu("thread", |cpu| again_until(cpu, || cpu.load(never) != 0));
        lab.cpu("idle", |_| ());
        // Somebody writes the word, so that loading it is a step.
        lab.cpu("other", |cpu| cpu.store(never, 0));
        assert!(shown(&lab.explore_livelocks(&Limits::default(), &mut |_| ())).is_some());
    }
}

/// Who looks twice until he is where he was goes around as long as he is moved between the two looks.
#[test]
fn a_loop_that_only_moves_keep_up_is_no_livelock() {
    for memory in BOTH {
        assert_eq!(endless(memory, |cpu| again_until(cpu, || cpu.id() == cpu.id())), None);
    }
}

/// The scheduler may move a thread, and owes it to nobody.
#[test]
fn waiting_to_be_moved_is_a_livelock() {
    for memory in BOTH {
        let text =
            endless(memory, |cpu| again_until(cpu, || cpu.id() == CpuId::new(1))).expect("nobody has to move it");
        assert!(!text.contains(MOVES), "{text}");
    }
}

/// A thread waits for what the handler of an interrupt writes down: for each CPU that takes it, and that one has ([`ANY`]).
fn wait_for_a_handler(memory: MemoryOrder, look: impl Fn(&LabCpu, &[Word64]) -> bool + Sync) -> Option<String> {
    let arena = Arena::new();
    let taken: &[Word64] = arena.alloc_slice(ANY + 1, |_| Word64::new(0));
    let mut lab = Lab::new(&arena, moving(memory));
    lab.cpu("thread", |cpu| again_until(cpu, || look(cpu, taken)));
    lab.cpu("idle", |_| ());
    // It may be moved to one of the two, which gets none then.
    lab.cpu("sender", |cpu| cpu.send_ipi(CpuSet::first(2), Vector::Synchronise));
    lab.interrupt_handler(move |cpu, _| {
        cpu.store(&taken[cpu.id().index()], 1);
        cpu.store(&taken[ANY], 1);
    });
    shown(&lab.explore_livelocks(&Limits::default(), &mut |_| ()))
}

/// What is pending stays pending where it is, and is taken in the end, whoever runs there then.
#[test]
fn interrupts_that_a_thread_leaves_behind_are_taken_all_the_same() {
    for memory in BOTH {
        assert_eq!(wait_for_a_handler(memory, |cpu, taken| cpu.load(&taken[ANY]) != 0), None);
    }
}

/// The thread is moved after its CPU has taken the interrupt, or before it comes, and then no more: its new CPU takes none.
#[test]
fn a_move_may_come_before_a_livelock() {
    for memory in BOTH {
        let text = wait_for_a_handler(memory, |cpu, taken| cpu.load(&taken[cpu.id().index()]) != 0);
        let text = text.expect("what it looks for, another CPU is told");
        assert!(text.contains("(scheduler) moves from"), "{text}");
    }
}
