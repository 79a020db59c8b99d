//! What is needed, and what is not: places of the code left out one by one.

use lab::{Arena, Lab, LabCpu, Label, Limits, Machine, MemoryOrder, MisuseKind, Verdict, Weakening, rule};
use machine::{Cpu, CpuSet, IrqState, SeqCount, SpinLock, Vector, Word64};

struct Words {
    words: [Word64; 3],
    lock: SpinLock,
    other_lock: SpinLock,
    sequence: SeqCount,
}

type Program = fn(&LabCpu, &Words, usize);

/// What becomes of a program without these places; all places first.
fn explore(memory: MemoryOrder, program: Program, weakened: &[Label]) -> (Verdict, Vec<Label>) {
    let arena = Arena::new();
    let words = arena.alloc(Words {
        words: [const { Word64::new(0) }; 3],
        lock: SpinLock::new(),
        other_lock: SpinLock::new(),
        sequence: SeqCount::new(),
    });
    let mut lab = Lab::new(&arena, Machine::new(memory));
    for number in 0..2 {
        lab.cpu(format!("p{number}"), move |cpu| program(cpu, words, number));
    }
    lab.interrupt_handler(move |cpu, _| {
        cpu.fetch_add(&words.words[2], 1);
    });
    if weakened.is_empty() {
        lab.note_labels();
    } else {
        lab.weaken(weakened);
    }
    let report = lab.explore(&Limits::default());
    (report.verdict, lab.labels())
}

/// Whether each place is needed, by the rule that is broken without.
fn needs(memory: MemoryOrder, program: Program) -> Vec<(Weakening, u32, Option<String>)> {
    let (verdict, labels) = explore(memory, program, &[]);
    assert_eq!(verdict, Verdict::Safe, "with everything there");
    labels.iter().map(|label| (label.weakening, label.line, broken(&explore(memory, program, &[*label]).0))).collect()
}

fn broken(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Safe => None,
        Verdict::Violated(found) => Some(found.violation.rule.clone()),
        Verdict::Error(misuse) if misuse.kind == MisuseKind::NotOwned => Some("not-owned".to_owned()),
        other => panic!("neither safe nor broken: {other:?}"),
    }
}

fn of(needs: &[(Weakening, u32, Option<String>)], weakening: Weakening) -> Vec<Option<&str>> {
    needs.iter().filter(|need| need.0 == weakening).map(|need| need.2.as_deref()).collect()
}

fn enter(cpu: &LabCpu, words: &Words, number: usize) {
    if cpu.load(&words.words[1 - number]) == 0 {
        assert_eq!(cpu.fetch_add(&words.words[2], 1), 0, "both are inside");
    }
}

fn one_fence_and_one_more(cpu: &LabCpu, words: &Words, number: usize) {
    cpu.store(&words.words[number], 1);
    cpu.fence();
    cpu.fence();
    enter(cpu, words, number);
}

fn one_fence(cpu: &LabCpu, words: &Words, number: usize) {
    cpu.store(&words.words[number], 1);
    cpu.fence();
    enter(cpu, words, number);
}

fn exchange_as_fence(cpu: &LabCpu, words: &Words, number: usize) {
    cpu.swap(&words.words[number], 1);
    enter(cpu, words, number);
}

#[test]
fn a_fence_is_needed_where_stores_wait() {
    assert_eq!(of(&needs(MemoryOrder::Tso, one_fence), Weakening::Fence), [Some(rule::USER)]);
    assert_eq!(of(&needs(MemoryOrder::Sc, one_fence), Weakening::Fence), [None]);
}

#[test]
fn of_two_fences_either_is_enough_and_one_is_needed() {
    let needs = needs(MemoryOrder::Tso, one_fence_and_one_more);
    assert_eq!(of(&needs, Weakening::Fence), [None, None]);
    let (_, labels) = explore(MemoryOrder::Tso, one_fence_and_one_more, &[]);
    let fences: Vec<Label> = labels.into_iter().filter(|label| label.weakening == Weakening::Fence).collect();
    assert_eq!(fences.len(), 2);
    let (both, _) = explore(MemoryOrder::Tso, one_fence_and_one_more, &fences);
    assert_eq!(broken(&both).as_deref(), Some(rule::USER));
}

#[test]
fn a_locked_instruction_may_be_there_as_a_barrier() {
    let needs = needs(MemoryOrder::Tso, exchange_as_fence);
    // By line: the counter that tells who is inside, to which only one of the two comes; then the exchange of a flag of its own.
    assert_eq!(of(&needs, Weakening::Atomicity), [None, None]);
    assert_eq!(of(&needs, Weakening::LockPrefix), [None, Some(rule::USER)]);
}

/// A message, and a locked addition that says that it is there.
fn pass_a_message(cpu: &LabCpu, words: &Words, number: usize) {
    if number == 0 {
        cpu.store(&words.words[0], 1);
        cpu.fetch_add(&words.words[1], 1);
    } else if cpu.load(&words.words[1]) == 1 {
        assert_eq!(cpu.load(&words.words[0]), 1, "no message");
    }
}

#[test]
fn a_locked_instruction_may_be_there_for_the_stores_before_it() {
    let needs = needs(MemoryOrder::Tso, pass_a_message);
    assert_eq!(of(&needs, Weakening::Order), [Some(rule::USER)]);
    assert_eq!(of(&needs, Weakening::LockPrefix), [None], "plain stores stay in order");
    let under_sc = self::needs(MemoryOrder::Sc, pass_a_message);
    assert_eq!(of(&under_sc, Weakening::Order), [] as [Option<&str>; 0], "nothing waits");
}

/// Two counters: one under a lock, one counted by a locked instruction.
fn count(cpu: &LabCpu, words: &Words, _: usize) {
    let under_lock = {
        let _held = words.lock.lock(cpu);
        let before = cpu.owned_load(&words.words[0]);
        cpu.owned_store(&words.words[0], before + 1);
        before
    };
    let counted = cpu.fetch_add(&words.words[1], 1);
    // Whoever comes second to both knows that both were counted.
    if under_lock == 1 {
        assert_eq!(cpu.load(&words.words[0]), 2);
    }
    if counted == 1 {
        assert_eq!(cpu.load(&words.words[1]), 2, "one was lost");
    }
    let after = cpu.fetch_add(&words.words[2], 1);
    assert!(after == 0 || cpu.load(&words.words[1]) == 2, "one was lost");
}

#[test]
fn locks_and_locked_instructions_keep_counts() {
    let needs = needs(MemoryOrder::Tso, count);
    assert_eq!(of(&needs, Weakening::Lock), [Some("not-owned")]);
    assert_eq!(of(&needs, Weakening::Atomicity)[0], Some(rule::USER));
}

/// Two locks around the same: either is enough.
fn two_locks(cpu: &LabCpu, words: &Words, _: usize) {
    let _one = words.lock.lock(cpu);
    let _other = words.other_lock.lock(cpu);
    let before = cpu.owned_load(&words.words[0]);
    cpu.owned_store(&words.words[0], before + 1);
}

#[test]
fn a_lock_that_is_not_taken_is_not_let_go() {
    let (_, labels) = explore(MemoryOrder::Tso, two_locks, &[]);
    let locks: Vec<Label> = labels.into_iter().filter(|label| label.weakening == Weakening::Lock).collect();
    assert_eq!(locks.len(), 2);
    for lock in &locks {
        // If it were let go, the other CPU's hold of it would end, and a third would find it free: the other lock still excludes.
        assert_eq!(broken(&explore(MemoryOrder::Tso, two_locks, &[*lock]).0), None);
    }
    assert_eq!(broken(&explore(MemoryOrder::Tso, two_locks, &locks).0).as_deref(), Some("not-owned"));
}

/// A reader by sequence count.
fn read_between_counts(cpu: &LabCpu, words: &Words, number: usize) {
    if number == 0 {
        words.sequence.write(cpu, || {
            cpu.store(&words.words[0], 1);
            cpu.store(&words.words[1], 1);
        });
    } else {
        let since = words.sequence.begin(cpu);
        let (one, other) = (cpu.load(&words.words[0]), cpu.load(&words.words[1]));
        if !words.sequence.changed(cpu, since) {
            assert_eq!(one, other, "half of a change");
        }
    }
}

#[test]
fn a_reader_looks_again_for_a_reason() {
    let needs = needs(MemoryOrder::Tso, read_between_counts);
    assert_eq!(of(&needs, Weakening::Recheck), [Some(rule::USER)]);
    assert_eq!(of(&needs, Weakening::Wait), [Some(rule::USER)], "it may begin in the middle");
}

/// Counts what its interrupt handler counts, too.
fn count_with_handler(cpu: &LabCpu, words: &Words, number: usize) {
    if number == 0 {
        let state = cpu.irq_save();
        assert_eq!(state, IrqState::On);
        let before = cpu.load(&words.words[2]);
        cpu.store(&words.words[2], before + 1);
        cpu.irq_restore(state);
        cpu.await_value(&words.words[2], |count| count == 2);
    } else {
        cpu.send_ipi(CpuSet::first(1), Vector::Synchronise);
    }
}

#[test]
fn interrupts_are_off_for_a_reason_and_sent_for_one() {
    let needs = needs(MemoryOrder::Sc, count_with_handler);
    assert_eq!(of(&needs, Weakening::InterruptsOff), [Some(rule::DEADLOCK)], "the handler's count is overwritten");
    assert_eq!(of(&needs, Weakening::Ipi), [Some(rule::DEADLOCK)]);
}

/// The second frees what the first reads.
fn read_side(cpu: &LabCpu, words: &Words, number: usize) {
    if number == 0 {
        cpu.rcu_read_lock();
        if cpu.load(&words.words[0]) == 0 {
            assert_eq!(cpu.load(&words.words[1]), 0, "freed under a reader");
        }
        cpu.rcu_read_unlock();
    } else {
        cpu.store(&words.words[0], 1);
        cpu.synchronize_rcu();
        cpu.store(&words.words[1], 1);
    }
}

#[test]
fn both_sides_of_a_grace_period_are_needed() {
    let needs = needs(MemoryOrder::Tso, read_side);
    assert_eq!(of(&needs, Weakening::ReadSection), [Some(rule::USER)]);
    assert_eq!(of(&needs, Weakening::GracePeriod), [Some(rule::USER)]);
}

#[test]
fn places_are_lines_of_the_source() {
    let (_, labels) = explore(MemoryOrder::Tso, one_fence, &[]);
    let fence = labels.iter().find(|label| label.weakening == Weakening::Fence).expect("it is met");
    assert!(fence.file.ends_with("weaken.rs"), "{}", fence.file);
    let source = include_str!("weaken.rs").lines().nth(fence.line as usize - 1).expect("the line is there");
    assert_eq!(source.trim(), "cpu.fence();");
}
