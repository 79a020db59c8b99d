//! Threads that the scheduler moves while they run.

use lab::{
    Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, MisuseKind, Replica, Report, Threads, Verdict, rule, trace,
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
fn what_has_no_meaning_where_threads_move_is_refused() {
    let is_setup = |report: &Report| match &report.verdict {
        Verdict::Error(misuse) => misuse.kind == MisuseKind::Setup,
        _ => false,
    };
    let arena = Arena::new();
    let mut lab = Lab::new(&arena, moving(MemoryOrder::Sc));
    lab.cpu("thread", |cpu| cpu.fence());
    assert!(is_setup(&lab.explore_livelocks(&Limits::default(), &mut |_| ())));
    let cpus = ["one", "other"].map(|name| lab.cpu(name, |_| ()));
    lab.interchangeable(&cpus.map(|cpu| Replica::new([cpu])));
    assert!(is_setup(&lab.explore(&Limits::default())));
}
