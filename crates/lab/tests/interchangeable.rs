//! States that differ by an exchange of CPUs are one; and a declaration that is not true is refused.

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, MisuseKind, Reduction, Replica, Report, Team, Verdict};
use machine::{Cpu, CpuId, CpuSet, Vector, Word32, Word64};

/// Whether the CPUs that run the same code are declared so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cpus {
    Named,
    Interchangeable,
}

fn machine(memory: MemoryOrder) -> Machine {
    Machine { reduction: Reduction::None, ..Machine::new(memory) }
}

/// Each of `n` CPUs goes from 0 to `most` in a word of its own, and sees nobody.
fn counters(n: usize, most: u64, memory: MemoryOrder, cpus: Cpus) -> Report {
    let arena = Arena::new();
    let words = arena.alloc_slice(n, |_| Word64::new(0));
    let mut lab = Lab::new(&arena, machine(memory));
    let mut replicas = Vec::new();
    for (number, word) in words.iter().enumerate() {
        let cpu = lab.cpu(format!("counter {number}"), move |cpu| (1..=most).for_each(|value| cpu.store(word, value)));
        replicas.push(Replica::new([cpu]).word(word));
    }
    if cpus == Cpus::Interchangeable {
        lab.interchangeable(&replicas);
    }
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    report
}

#[test]
fn the_number_of_states_is_that_of_multisets() {
    // Of n CPUs in k states each: k to the power of n, and "n + k - 1 over n".
    assert_eq!(counters(4, 4, MemoryOrder::Sc, Cpus::Named).states, 5_u64.pow(4));
    assert_eq!(counters(4, 4, MemoryOrder::Sc, Cpus::Interchangeable).states, 70);
    // A store that waits in its buffer makes more states of one CPU: after i stores, j of them have reached memory.
    assert_eq!(counters(3, 2, MemoryOrder::Tso, Cpus::Named).states, 6_u64.pow(3));
    assert_eq!(counters(3, 2, MemoryOrder::Tso, Cpus::Interchangeable).states, 56);
}

/// A ticket lock whose word says who has it, by his number plus one.
fn owner_in_a_word(declare: impl FnOnce(&mut Lab<'_>, [CpuId; 2])) -> Report {
    let arena = Arena::new();
    let owner = arena.alloc(Word32::new(0));
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let cpus = [1, 2].map(|number| {
        lab.cpu(format!("CPU {number}"), move |cpu| {
            cpu.await_update(owner, |held| (held == 0).then_some(number));
            cpu.store(owner, 0);
        })
    });
    declare(&mut lab, cpus);
    lab.explore(&Limits::default())
}

#[track_caller]
fn expect_distinguished(report: &Report, why: &str) {
    match &report.verdict {
        Verdict::Error(misuse) if misuse.kind == MisuseKind::Distinguished => {
            assert!(misuse.sentence.contains(why), "{}", misuse.sentence);
        }
        other => panic!("expected that replicas are told apart, found {other:?}"),
    }
}

#[test]
fn a_number_in_a_word_that_nobody_declared_is_found() {
    owner_in_a_word(|_, _| ()).expect_safe();
    let report = owner_in_a_word(|lab, cpus| lab.interchangeable(&cpus.map(|cpu| Replica::new([cpu]))));
    expect_distinguished(&report, "goes another way");
}

#[test]
fn code_that_is_not_the_same_is_found() {
    let arena = Arena::new();
    let word = arena.alloc(Word64::new(0));
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let adds = lab.cpu("adds", |cpu| {
        cpu.fetch_add(word, 1);
    });
    let swaps = lab.cpu("swaps", |cpu| {
        cpu.swap(word, 1);
    });
    lab.interchangeable(&[Replica::new([adds]), Replica::new([swaps])]);
    let report = lab.explore(&Limits::default());
    let Verdict::Error(misuse) = &report.verdict else { panic!("{:?}", report.verdict) };
    assert_eq!(misuse.kind, MisuseKind::HiddenState);
    assert!(misuse.sentence.contains("interchangeable run other code"), "{}", misuse.sentence);
}

/// Two CPUs with a word each, and a third whose code is given.
fn with_a_third(third: impl Fn(&LabCpu, &[Word64]) + Sync) -> Report {
    let arena = Arena::new();
    let words: &[Word64] = arena.alloc_slice(2, |_| Word64::new(0));
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let replicas: Vec<Replica> =
        words.iter().map(|word| Replica::new([lab.cpu("counter", |cpu| cpu.store(word, 1))]).word(word)).collect();
    lab.cpu("third", move |cpu| third(cpu, words));
    lab.interchangeable(&replicas);
    lab.explore(&Limits::default())
}

#[test]
fn who_goes_through_the_words_of_all_in_an_order_is_refused() {
    with_a_third(|_, _| ()).expect_safe();
    let report = with_a_third(|cpu, words| {
        cpu.load(&words[0]);
        cpu.load(&words[1]);
    });
    expect_distinguished(&report, "CPU2 accesses");
    let owned = with_a_third(|cpu, words| {
        cpu.owned_load(&words[0]);
    });
    expect_distinguished(&owned, "CPU2 accesses");
}

#[test]
fn who_sends_interrupts_to_one_is_refused_and_to_all_is_not() {
    let to = |targets: &[u32]| {
        let targets = targets.iter().fold(CpuSet::EMPTY, |set, &cpu| set.with(CpuId::new(cpu)));
        with_a_third(move |cpu, _| cpu.send_ipi(targets, Vector::Synchronise))
    };
    to(&[0, 1]).expect_safe();
    expect_distinguished(&to(&[1]), "names some interchangeable CPUs and not others");
}

#[test]
fn replicas_that_do_not_begin_alike_are_refused() {
    let arena = Arena::new();
    let words: &[Word64] = arena.alloc_slice(2, |number| Word64::new(number as u64));
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let replicas: Vec<Replica> =
        words.iter().map(|word| Replica::new([lab.cpu("counter", |cpu| cpu.store(word, 1))]).word(word)).collect();
    lab.interchangeable(&replicas);
    expect_distinguished(&lab.explore(&Limits::default()), "do not begin alike");
}

#[test]
#[should_panic(expected = "belongs to two replicas")]
fn a_cpu_is_in_one_replica() {
    let arena = Arena::new();
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let cpu = lab.cpu("one", |_| ());
    lab.interchangeable(&[Replica::new([cpu]), Replica::new([cpu])]);
}

/// `n` CPUs raise a bit each, look at all bits, and wait for those that they did not see. Who was told some bits and not others remembers whose.
fn flags(n: u32, cpus: Cpus) -> Report {
    let arena = Arena::new();
    let word = arena.alloc(Word32::new(0));
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let mut replicas = Vec::new();
    for number in 0..n {
        let cpu = lab.cpu(format!("CPU {number}"), move |cpu| {
            cpu.fetch_or(word, 1 << number);
            let missing = ((1 << n) - 1) & !cpu.load(word);
            cpu.await_value(word, |now| now & missing == missing);
        });
        replicas.push(Replica::new([cpu]).bit(word, number));
    }
    if cpus == Cpus::Interchangeable {
        lab.interchangeable(&replicas);
    }
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    report
}

#[test]
fn who_was_told_of_some_may_name_them() {
    let (named, interchangeable) = (flags(3, Cpus::Named), flags(3, Cpus::Interchangeable));
    assert!(interchangeable.states < named.states, "{} of {}", interchangeable.states, named.states);
}

#[test]
fn a_wait_for_one_of_the_others_is_found() {
    let arena = Arena::new();
    let word = arena.alloc(Word32::new(0));
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let replicas = [0, 1, 2].map(|number| {
        let cpu = lab.cpu(format!("CPU {number}"), move |cpu| {
            cpu.fetch_or(word, 1 << number);
            cpu.op_boundary(0);
            // Everybody waits for CPU1.
            cpu.await_value(word, |now| now & 2 != 0);
        });
        Replica::new([cpu]).bit(word, number)
    });
    lab.interchangeable(&replicas);
    let report = lab.explore(&Limits::default());
    assert!(
        matches!(&report.verdict, Verdict::Error(misuse) if misuse.kind == MisuseKind::Distinguished),
        "{:?}",
        report.verdict
    );
}

#[test]
fn threads_together_count_as_many_classes() {
    let team = Team::new(2);
    let member = || {
        let seat = team.seat();
        let arena = Arena::new();
        let words: &[Word64] = arena.alloc_slice(4, |_| Word64::new(0));
        let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
        let replicas: Vec<Replica> = words
            .iter()
            .map(|word| {
                let cpu = lab.cpu("counter", |cpu| (1..=4).for_each(|value| cpu.store(word, value)));
                Replica::new([cpu]).word(word)
            })
            .collect();
        lab.interchangeable(&replicas);
        lab.explore_in(seat, &Limits::default(), &mut |_| ())
    };
    let reports = std::thread::scope(|scope| {
        let other = scope.spawn(member);
        [member(), other.join().expect("nothing panics")]
    });
    let report = reports.into_iter().flatten().next().expect("one has the report");
    report.expect_safe();
    assert_eq!(report.states, 70);
}
