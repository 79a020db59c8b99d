//! Runs that never end, although everybody gets his turn.

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, Report, Verdict, rule, trace};
use machine::{Cpu, CpuSet, Vector, Word64};

type Program = fn(&LabCpu, &[Word64; 3], usize);

fn explore(memory: MemoryOrder, cpus: usize, program: Program) -> Report {
    let arena = Arena::new();
    let words = arena.alloc([const { Word64::new(0) }; 3]);
    let mut lab = Lab::new(&arena, Machine::new(memory));
    for (word, name) in words.iter().zip(["a", "b", "c"]) {
        lab.name(word, name);
    }
    for number in 0..cpus {
        lab.cpu(format!("p{number}"), move |cpu| program(cpu, words, number));
    }
    lab.interrupt_handler(move |cpu, vector| {
        if vector == Vector::Synchronise {
            cpu.store(&words[2], 1);
        }
    });
    lab.explore_livelocks(&Limits::default(), &mut |_| ())
}

fn try_lock(cpu: &LabCpu, word: &Word64) -> bool {
    cpu.compare_exchange(word, 0, 1).is_ok()
}

/// Takes two locks; lets go of the first if the second is taken.
fn take_both(cpu: &LabCpu, first: &Word64, second: &Word64) {
    let head = cpu.loop_head();
    loop {
        cpu.round(&head, 0);
        if !try_lock(cpu, first) {
            continue;
        }
        if try_lock(cpu, second) {
            break;
        }
        cpu.store(first, 0);
    }
    cpu.store(second, 0);
    cpu.store(first, 0);
}

fn in_two_orders(cpu: &LabCpu, words: &[Word64; 3], number: usize) {
    take_both(cpu, &words[number], &words[1 - number]);
}

fn in_one_order(cpu: &LabCpu, words: &[Word64; 3], _: usize) {
    take_both(cpu, &words[0], &words[1]);
}

fn spin_until_set(cpu: &LabCpu, word: &Word64) {
    let head = cpu.loop_head();
    loop {
        cpu.round(&head, 0);
        if cpu.load(word) != 0 {
            break;
        }
    }
}

/// The second sets what the first waits for.
fn wait_for_the_other(cpu: &LabCpu, words: &[Word64; 3], number: usize) {
    if number == 0 {
        spin_until_set(cpu, &words[0]);
    } else {
        cpu.store(&words[1], 1);
        cpu.store(&words[0], 1);
    }
}

/// Nobody sets it.
fn wait_for_nobody(cpu: &LabCpu, words: &[Word64; 3], number: usize) {
    if number == 0 {
        spin_until_set(cpu, &words[0]);
    } else {
        cpu.store(&words[1], 1);
    }
}

/// Waits for what its own interrupt handler sets.
fn wait_for_an_interrupt(cpu: &LabCpu, words: &[Word64; 3], number: usize) {
    if number == 0 {
        spin_until_set(cpu, &words[2]);
    } else {
        cpu.send_ipi(CpuSet::first(1), Vector::Synchronise);
    }
}

/// The same with interrupts off.
fn wait_with_interrupts_off(cpu: &LabCpu, words: &[Word64; 3], number: usize) {
    if number == 0 {
        let state = cpu.irq_save();
        spin_until_set(cpu, &words[2]);
        cpu.irq_restore(state);
    } else {
        wait_for_an_interrupt(cpu, words, number);
    }
}

const ORDERS: [MemoryOrder; 2] = [MemoryOrder::Sc, MemoryOrder::Tso];

#[test]
fn two_that_give_way_to_each_other_may_do_so_for_ever() {
    for memory in ORDERS {
        let report = explore(memory, 2, in_two_orders);
        let found = report.expect_violation(rule::LIVELOCK);
        assert!(found.violation.sentence.starts_with("CPU0 and CPU1 may go on for ever"), "{}", found.violation);
        let text = trace::columns(&found.trace);
        for lock in ["a", "b"] {
            assert!(text.matches(&format!("cmpxchg {lock}")).count() > 1, "each is tried again:\n{text}");
        }
        assert_eq!(explore(memory, 2, in_one_order).verdict, Verdict::Safe, "in one order the holder goes on");
    }
}

#[test]
fn waiting_for_somebody_who_is_never_let_go_on_is_none() {
    for memory in ORDERS {
        assert_eq!(explore(memory, 2, wait_for_the_other).verdict, Verdict::Safe);
        assert_eq!(explore(memory, 2, wait_for_an_interrupt).verdict, Verdict::Safe);
    }
}

#[test]
fn waiting_for_what_never_comes_is_one() {
    for memory in ORDERS {
        explore(memory, 2, wait_for_nobody).expect_violation(rule::LIVELOCK);
        let report = explore(memory, 2, wait_with_interrupts_off);
        let found = report.expect_violation(rule::LIVELOCK);
        assert!(found.violation.sentence.starts_with("CPU0 may"), "{}", found.violation);
    }
}

#[test]
fn a_broken_rule_comes_first() {
    let report = explore(MemoryOrder::Tso, 2, |cpu, words, number| {
        assert_eq!(cpu.fetch_add(&words[2], 1), 0, "the second one");
        wait_for_nobody(cpu, words, number);
    });
    report.expect_violation(rule::USER);
}
