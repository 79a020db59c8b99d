//! Interrupts, IPIs and RCU.

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, MisuseKind, Report, Verdict, rule, trace};
use machine::{Cpu, CpuId, CpuSet, IrqState, Vector, Word64};

const BOTH: [MemoryOrder; 2] = [MemoryOrder::Sc, MemoryOrder::Tso];

/// Sends an IPI to the other CPU and waits until it is acknowledged.
fn shoot_down(cpu: &LabCpu, waiting: &Word64) {
    let others = CpuSet::first(2).without(cpu.id());
    cpu.store(waiting, others.bits());
    cpu.fence();
    cpu.send_ipi(others, Vector::TlbShootdown);
    cpu.await_value(waiting, |left| left == 0);
}

fn two_shootdowns(memory: MemoryOrder, program: impl Fn(&LabCpu, &Word64) + Sync) -> Report {
    let arena = Arena::new();
    let waiting = arena.alloc_slice(2, |_| Word64::new(0));
    let mut lab = Lab::new(&arena, Machine::new(memory));
    lab.name_range(std::ptr::from_ref(waiting).addr(), 16, "waiting", None);
    for (number, waiting) in waiting.iter().enumerate() {
        let program = &program;
        lab.cpu(format!("cpu {number}"), move |cpu| program(cpu, waiting));
    }
    lab.interrupt_handler(move |cpu, _| {
        let other = 1 - cpu.id().index();
        cpu.fetch_and(&waiting[other], !CpuSet::only(cpu.id()).bits());
    });
    lab.explore(&Limits::default())
}

#[test]
fn waiting_with_interrupts_on_is_right() {
    for memory in BOTH {
        let report = two_shootdowns(memory, shoot_down);
        assert!(report.expect_safe().ends > 0);
    }
}

#[test]
fn two_cpus_that_wait_with_interrupts_off_are_stuck() {
    for memory in BOTH {
        let report = two_shootdowns(memory, |cpu, waiting| {
            let _off = cpu.irq_off();
            shoot_down(cpu, waiting);
        });
        let found = report.expect_violation(rule::DEADLOCK);
        assert!(found.shortest);
        let sentence = &found.violation.sentence;
        assert!(
            sentence.contains("CPU0 waits in await of waiting[0]") && sentence.contains("with interrupts off"),
            "{sentence}"
        );
        let text = trace::columns(&found.trace);
        assert!(text.contains("send IPI TLB shootdown to CPU1"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() < 120), "{text}");
    }
}

/// An x2APIC send may pass earlier stores: the target finds the request not yet written.
#[test]
fn an_ipi_may_overtake_a_store() {
    let overtaken = |memory: MemoryOrder, fence: fn(&LabCpu)| {
        let arena = Arena::new();
        let request = arena.alloc(Word64::new(0));
        let mut lab = Lab::new(&arena, Machine::new(memory));
        lab.cpu("sender", move |cpu| {
            cpu.store(request, 1);
            fence(cpu);
            cpu.send_ipi(CpuSet::only(CpuId::new(1)), Vector::Synchronise);
        });
        lab.cpu("target", |_| ());
        lab.interrupt_handler(|cpu, vector| {
            assert_eq!(vector, Vector::Synchronise);
            assert_eq!(cpu.load(request), 1, "nothing was asked");
        });
        lab.explore(&Limits::default())
    };
    overtaken(MemoryOrder::Tso, |_| ()).expect_violation(rule::USER);
    overtaken(MemoryOrder::Tso, |cpu| cpu.fence()).expect_safe();
    overtaken(MemoryOrder::Sc, |_| ()).expect_safe();
}

#[test]
fn interrupts_wait_until_they_are_on() {
    let arena = Arena::new();
    let [flag, seen] = [0, 0].map(|zero| arena.alloc(Word64::new(zero)));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.cpu("masked", |cpu| {
        let outer = cpu.irq_save();
        let inner = cpu.irq_save();
        assert_eq!((outer, inner), (IrqState::On, IrqState::Off));
        let before = cpu.load(seen);
        cpu.irq_restore(inner);
        assert_eq!(cpu.load(seen), before, "interrupted with interrupts off");
        cpu.irq_restore(outer);
        cpu.store(flag, 1);
    });
    lab.cpu("sender", |cpu| cpu.send_ipi(CpuSet::only(CpuId::new(0)), Vector::TlbShootdown));
    lab.interrupt_handler(|cpu, _| {
        // Nested sections in a handler leave interrupts off, as the hardware turned them off.
        let state = cpu.irq_save();
        assert_eq!(state, IrqState::Off);
        cpu.fetch_add(seen, 1);
        cpu.irq_restore(state);
    });
    lab.observe(|end| vec![end.read(seen)]);
    assert_eq!(lab.explore(&Limits::default()).expect_safe().observations, [vec![1]].into());
}

/// Two halves are written with interrupts off; what looks at them on the same CPU finds both or neither, unless it is an NMI.
fn halves(memory: MemoryOrder, sender: impl Fn(&LabCpu) + Sync, write: impl Fn(&LabCpu, &Word64) + Sync) -> Report {
    let arena = Arena::new();
    let [word, taken] = [0, 0].map(|zero| arena.alloc(Word64::new(zero)));
    let mut lab = Lab::new(&arena, Machine::new(memory));
    lab.cpu("writer", |cpu| {
        let _off = cpu.irq_off();
        write(cpu, word);
    });
    lab.cpu("sender", sender);
    lab.interrupt_handler(|cpu, _| {
        cpu.fetch_add(taken, 1);
        assert!([0, 1 << 32 | 1].contains(&cpu.load(word)), "half written");
    });
    lab.nmi_handler(|cpu| {
        cpu.fetch_add(taken, 1);
        let _off = cpu.irq_off();
        assert!([0, 1 << 32 | 1].contains(&cpu.load(word)), "half written");
    });
    lab.observe(|end| vec![end.read(taken)]);
    lab.explore(&Limits::default())
}

#[test]
fn an_nmi_is_taken_with_interrupts_off() {
    let by_halves = |cpu: &LabCpu, word: &Word64| {
        cpu.store(word.high(), 1);
        cpu.store(word.low(), 1);
    };
    let owned = |cpu: &LabCpu, word: &Word64| {
        cpu.fence();
        cpu.owned_store(word.high(), 1);
        cpu.owned_store(word.low(), 1);
    };
    let target = CpuSet::only(CpuId::new(0));
    for memory in BOTH {
        let ipi = |cpu: &LabCpu| cpu.send_ipi(target, Vector::TlbShootdown);
        assert_eq!(halves(memory, ipi, by_halves).expect_safe().observations, [vec![1]].into());
        let nmi = |cpu: &LabCpu| cpu.send_nmi(target);
        let found = halves(memory, nmi, by_halves);
        assert!(trace::columns(&found.expect_violation(rule::USER).trace).contains("takes interrupt NMI"));
        halves(memory, nmi, owned).expect_violation(rule::USER);
        let whole = |cpu: &LabCpu, word: &Word64| cpu.store(word, 1 << 32 | 1);
        assert_eq!(halves(memory, nmi, whole).expect_safe().observations, [vec![1]].into());
    }
}

/// An NMI comes inside an interrupt handler, too, but not inside another NMI; a second one is taken afterwards.
#[test]
fn an_nmi_interrupts_handlers_but_not_itself() {
    let arena = Arena::new();
    let [inside, nested, taken] = [0, 0, 0].map(|zero| arena.alloc(Word64::new(zero)));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    let target = CpuSet::only(CpuId::new(0));
    lab.cpu("target", |_| ());
    lab.cpu("sender", move |cpu| {
        cpu.send_ipi(target, Vector::TlbShootdown);
        cpu.send_nmi(target);
    });
    lab.interrupt_handler(|cpu, _| {
        cpu.fetch_add(inside, 1);
        cpu.fetch_add(inside, u64::MAX);
    });
    lab.nmi_handler(|cpu| {
        assert_eq!(cpu.fetch_add(taken, 1) >> 32, 0, "an NMI inside an NMI");
        if cpu.load(inside) != 0 {
            cpu.fetch_or(nested, 1);
        }
        cpu.fetch_add(taken, 1 << 32);
        cpu.fetch_add(taken, (1_u64 << 32).wrapping_neg());
    });
    lab.nmi(CpuId::new(0));
    lab.observe(|end| vec![end.read(nested), end.read(taken)]);
    let report = lab.explore(&Limits::default());
    // Two that are pending at once are one.
    assert_eq!(report.expect_safe().observations, [vec![0, 1], vec![0, 2], vec![1, 1], vec![1, 2]].into());
}

/// A reader that another CPU's `synchronize_rcu` must wait for.
fn rcu(memory: MemoryOrder, enter: fn(&LabCpu) -> IrqState, leave: fn(&LabCpu, IrqState)) -> Report {
    let arena = Arena::new();
    let [pointer, object] = [1, 1].map(|one| arena.alloc(Word64::new(one)));
    let mut lab = Lab::new(&arena, Machine::new(memory));
    lab.cpu("reader", move |cpu| {
        let state = enter(cpu);
        if cpu.load(pointer) != 0 {
            assert_eq!(cpu.load(object), 1, "used after it was freed");
        }
        leave(cpu, state);
    });
    lab.cpu("writer", |cpu| {
        cpu.store(pointer, 0);
        cpu.synchronize_rcu();
        cpu.store(object, 0);
    });
    lab.explore(&Limits::default())
}

#[test]
fn a_grace_period_waits_for_sections_and_for_interrupts_off() {
    for memory in BOTH {
        let enter = |cpu: &LabCpu| {
            cpu.rcu_read_lock();
            IrqState::On
        };
        rcu(memory, enter, |cpu, _| cpu.rcu_read_unlock()).expect_safe();
        rcu(memory, |cpu| cpu.irq_save(), |cpu, state| cpu.irq_restore(state)).expect_safe();
        rcu(memory, |_| IrqState::On, |_, _| ()).expect_violation(rule::USER);
    }
}

#[test]
fn a_grace_period_does_not_wait_for_later_sections() {
    let arena = Arena::new();
    let done = arena.alloc(Word64::new(0));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
    lab.cpu("reader", |cpu| {
        cpu.rcu_read_lock();
        cpu.rcu_read_unlock();
        cpu.rcu_read_lock();
        cpu.report(0, cpu.load(done));
        cpu.rcu_read_unlock();
    });
    lab.cpu("writer", |cpu| {
        cpu.synchronize_rcu();
        cpu.store(done, 1);
    });
    lab.observe(|end| vec![end.reported(CpuId::new(0), 0)]);
    // The writer may begin in the first section and be done within the second.
    assert_eq!(lab.explore(&Limits::default()).expect_safe().observations, [vec![0], vec![1]].into());
}

fn context(program: fn(&LabCpu), handler: fn(&LabCpu, Vector)) -> Report {
    let arena = Arena::new();
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.cpu("first", program);
    lab.cpu("second", |cpu| cpu.send_ipi(CpuSet::only(CpuId::new(0)), Vector::TlbShootdown));
    lab.interrupt_handler(handler);
    lab.explore(&Limits::default())
}

#[test]
fn operations_in_the_wrong_context_are_errors_of_the_test() {
    let wrong = |program: fn(&LabCpu), handler: fn(&LabCpu, Vector)| match context(program, handler).verdict {
        Verdict::Error(misuse) => {
            assert_eq!(misuse.kind, MisuseKind::Context, "{}", misuse.sentence);
            misuse.sentence
        }
        other => panic!("{other:?}"),
    };
    let nothing: fn(&LabCpu, Vector) = |_, _| ();
    assert!(wrong(|cpu| _ = cpu.irq_save(), nothing).contains("ends with interrupts off"));
    assert!(wrong(|cpu| cpu.rcu_read_lock(), nothing).contains("ends with an RCU section open"));
    assert!(wrong(|cpu| cpu.rcu_read_unlock(), nothing).contains("outside a section"));
    let sentence = wrong(
        |cpu| {
            cpu.rcu_read_lock();
            cpu.synchronize_rcu();
            cpu.rcu_read_unlock();
        },
        nothing,
    );
    assert!(sentence.contains("interrupts.rs:"), "{sentence}");
    assert!(wrong(|_| (), |cpu, _| cpu.irq_restore(IrqState::On)).contains("handler turns interrupts on"));
    assert!(wrong(|_| (), |cpu, _| _ = cpu.irq_save()).contains("returns with interrupts turned off"));
}

/// Taking an interrupt, and returning from it, empties the store buffer.
#[test]
fn interrupts_are_barriers() {
    type Part = fn(&LabCpu, &[Word64]);
    let run = |program: Part, handler: Part| {
        let arena = Arena::new();
        let words = arena.alloc_slice(2, |_| Word64::new(0));
        let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
        lab.cpu("interrupted", move |cpu| program(cpu, words));
        lab.cpu("interrupts", |cpu| {
            cpu.send_ipi(CpuSet::only(CpuId::new(0)), Vector::Synchronise);
            cpu.store(&words[1], 1);
            cpu.fence();
            cpu.report(0, cpu.load(&words[0]));
        });
        lab.interrupt_handler(move |cpu, _| handler(cpu, words));
        lab.observe(|end| {
            let report = |cpu, slot| end.reported(CpuId::new(cpu), slot);
            vec![report(0, 0), report(0, 1), report(1, 0)]
        });
        lab.explore(&Limits::default()).expect_safe().observations.clone()
    };
    // The handler sees the store made, but not the other CPU's: then the other CPU sees it, too.
    let entered = run(
        |cpu, words| cpu.store(&words[0], 1),
        |cpu, words| {
            cpu.report(0, cpu.load(&words[0]));
            cpu.report(1, cpu.load(&words[1]));
        },
    );
    assert!(entered.contains(&vec![1, 0, 1]));
    assert!(!entered.contains(&vec![1, 0, 0]));
    // The same for a store of the handler, and a load after its return.
    let left = run(
        |cpu, words| {
            cpu.report(0, cpu.await_value(&words[0], |held| held == 1));
            cpu.report(1, cpu.load(&words[1]));
        },
        |cpu, words| cpu.store(&words[0], 1),
    );
    assert!(left.contains(&vec![1, 0, 1]));
    assert!(!left.contains(&vec![1, 0, 0]));
}
