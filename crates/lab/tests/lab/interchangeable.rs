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
fn counters<'a>(lab: &mut Lab<'a>, arena: &'a Arena, n: usize, most: u64) -> Vec<Replica> {
    let words = arena.alloc_slice(n, |_| Word64::new(0));
    let counter = |word: &'a Word64| move |cpu: &LabCpu| (1..=most).for_each(|value| cpu.store(word, value));
    words.iter().map(|word| Replica::new([lab.cpu("counter", counter(word))]).word(word)).collect()
}

fn states_of_counters(n: usize, most: u64, memory: MemoryOrder, cpus: Cpus) -> u64 {
    let arena = Arena::new();
    let mut lab = Lab::new(&arena, machine(memory));
    let replicas = counters(&mut lab, &arena, n, most);
    if cpus == Cpus::Interchangeable {
        lab.interchangeable(&replicas);
    }
    lab.explore(&Limits::default()).expect_safe().states
}

#[test]
fn the_number_of_states_is_that_of_multisets() {
    // Of n CPUs in k states each: k to the power of n, and "n + k - 1 over n".
    assert_eq!(states_of_counters(4, 4, MemoryOrder::Sc, Cpus::Named), 5_u64.pow(4));
    assert_eq!(states_of_counters(4, 4, MemoryOrder::Sc, Cpus::Interchangeable), 70);
    // A store that waits in its buffer makes more states of one CPU: after i stores, j of them have reached memory.
    assert_eq!(states_of_counters(3, 2, MemoryOrder::Tso, Cpus::Named), 6_u64.pow(3));
    assert_eq!(states_of_counters(3, 2, MemoryOrder::Tso, Cpus::Interchangeable), 56);
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
        let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
        let replicas = counters(&mut lab, &arena, 4, 4);
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

/// Three CPUs raise a bit each and look at all; each may then act by whom it saw, in `then`.
fn who_saw_whom(cpus: Cpus, then: impl Fn(&LabCpu, u32) + Copy + Sync) -> Report {
    let arena = Arena::new();
    let word = arena.alloc(Word32::new(0));
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let replicas = [0, 1, 2].map(|number| {
        let cpu = lab.cpu(format!("CPU {number}"), move |cpu| {
            cpu.fetch_or(word, 1 << number);
            cpu.op_boundary(0);
            then(cpu, cpu.load(word) & !(1 << number));
            cpu.fetch_and(word, !(1 << number));
        });
        Replica::new([cpu]).bit(word, number)
    });
    if cpus == Cpus::Interchangeable {
        lab.interchangeable(&replicas);
    }
    lab.observe(|end| (0..3).map(|cpu| end.reported(CpuId::new(cpu), 0)).collect());
    lab.explore(&Limits::default())
}

/// The observations, and those that differ from them by an exchange of CPUs: whom each reports is exchanged as well.
fn closed(report: &Report) -> std::collections::BTreeSet<Vec<u64>> {
    let permutations = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let exchanged = |seen: &Vec<u64>, to: [usize; 3]| {
        let mut other = vec![0; 3];
        for cpu in 0..3 {
            other[to[cpu]] = (0..3).filter(|bit| seen[cpu] >> bit & 1 != 0).fold(0, |mask, bit| mask | 1 << to[bit]);
        }
        other
    };
    report.observations.iter().flat_map(|seen| permutations.map(|to| exchanged(seen, to))).collect()
}

#[test]
fn what_a_digest_or_a_report_says_of_others_is_not_forgotten() {
    let then = |cpu: &LabCpu, seen: u32| {
        let alone = if seen.count_ones() == 1 { u64::from(seen) } else { 0 };
        cpu.op_boundary(alone);
        cpu.report(0, alone);
    };
    let (named, interchangeable) = (who_saw_whom(Cpus::Named, then), who_saw_whom(Cpus::Interchangeable, then));
    named.expect_safe();
    interchangeable.expect_safe();
    assert!(interchangeable.states < named.states);
    assert!(named.observations.len() > 1 && named.observations == closed(&named));
    assert_eq!(closed(&interchangeable), named.observations);
}

/// Whoever comes first watches the other two, which begin, raise their bits, lower them, and are done. If it sees one of them before the other has begun, it looks again when one is done, and says whom
/// it sees then: the other (1), or the same (2). The two states differ only in which of the two is done, and that means something only to the watcher.
fn watcher(cpus: Cpus) -> Report {
    let arena = Arena::new();
    let [turn, word, begun, done] = [(); 4].map(|()| arena.alloc(Word32::new(0)));
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let replicas = [0, 1, 2].map(|number| {
        let cpu = lab.cpu(format!("CPU {number}"), move |cpu| {
            if cpu.fetch_add(turn, 1) == 0 {
                let seen = cpu.load(word);
                if seen.count_ones() == 1 && cpu.load(begun) == 1 && cpu.load(done) == 1 {
                    let now = cpu.load(word);
                    cpu.report(0, if now == seen { 2 } else { u64::from(now != 0) });
                }
            } else {
                cpu.op_boundary(0);
                cpu.fetch_add(begun, 1);
                cpu.op_boundary(0);
                cpu.fetch_or(word, 1 << number);
                cpu.op_boundary(0);
                cpu.fetch_and(word, !(1 << number));
                cpu.op_boundary(0);
                cpu.fetch_add(done, 1);
            }
        });
        Replica::new([cpu]).bit(word, number)
    });
    if cpus == Cpus::Interchangeable {
        lab.interchangeable(&replicas);
    }
    lab.observe(|end| vec![(0..3).map(|cpu| end.reported(CpuId::new(cpu), 0)).sum()]);
    lab.explore(&Limits::default())
}

#[test]
fn while_somebody_remembers_one_of_the_others_these_have_names() {
    let (named, interchangeable) = (watcher(Cpus::Named), watcher(Cpus::Interchangeable));
    named.expect_safe();
    interchangeable.expect_safe();
    assert_eq!(named.observations, [vec![0], vec![1], vec![2]].into());
    assert_eq!(interchangeable.observations, named.observations);
    assert!(interchangeable.states < named.states);
}

#[test]
fn a_report_of_all_others_is_refused_because_it_names_them_all() {
    let report = who_saw_whom(Cpus::Interchangeable, |cpu, seen| cpu.report(0, seen.into()));
    expect_distinguished(&report, "goes another way");
}

/// Two CPUs with two words each take turns; who comes second zeroes his words, and sees that.
#[test]
fn words_of_a_replica_may_be_zeroed_together() {
    let arena = Arena::new();
    let turn = arena.alloc(Word64::new(0));
    let words: &[Word64] = arena.alloc_slice(4, |_| Word64::new(7));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    let replicas: Vec<Replica> = words
        .chunks(2)
        .map(|mine| {
            let cpu = lab.cpu("zeroes", move |cpu| {
                if cpu.fetch_add(turn, 1) == 1 {
                    cpu.zero(mine);
                    assert_eq!((cpu.load(&mine[0]), cpu.load(&mine[1])), (0, 0), "a load passes the zeroes");
                }
            });
            Replica::new([cpu]).word(&mine[0]).word(&mine[1])
        })
        .collect();
    lab.interchangeable(&replicas);
    lab.explore(&Limits::default()).expect_safe();
}

/// Accesses that only one CPU makes are no steps; those that only one *kind* of CPU makes are.
#[test]
fn a_word_that_only_interchangeable_cpus_access_is_not_private_to_one() {
    let arena = Arena::new();
    let count = arena.alloc(Word64::new(0));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
    let replicas = [0, 1].map(|number| {
        let cpu = lab.cpu(format!("CPU {number}"), |cpu| cpu.store(count, cpu.load(count) + 1));
        Replica::new([cpu])
    });
    lab.interchangeable(&replicas);
    lab.observe(|end| vec![end.read(count)]);
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    assert_eq!(report.observations, [vec![1], vec![2]].into(), "an update may be lost");
}

/// Among runs in which CPUs have no names, one of the others' steps would look like one's own: no switch at all.
#[test]
fn the_run_that_is_shown_is_one_that_can_be_done_with_the_fewest_switches() {
    let find = |cpus| {
        let arena = Arena::new();
        let count = arena.alloc(Word64::new(0));
        let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
        let replicas = [0, 1].map(|number| {
            let cpu = lab.cpu(format!("CPU {number}"), |cpu| {
                for _ in 0..2 {
                    assert!(cpu.fetch_add(count, 1) < 2, "the third");
                }
            });
            Replica::new([cpu])
        });
        if cpus == Cpus::Interchangeable {
            lab.interchangeable(&replicas);
        }
        lab.explore(&Limits::default())
    };
    let (named, interchangeable) = (find(Cpus::Named), find(Cpus::Interchangeable));
    let found = interchangeable.expect_violation("user");
    assert_eq!(found.trace, named.expect_violation("user").trace);
    assert_eq!((found.trace.steps.len(), found.trace.context_switches()), (3, 1));
}

#[test]
fn who_stores_a_name_as_owner_without_having_been_told_is_refused() {
    let arena = Arena::new();
    let word = arena.alloc(Word32::new(0));
    let mut lab = Lab::new(&arena, machine(MemoryOrder::Sc));
    let replicas = [0, 1].map(|number| Replica::new([lab.cpu("idle", |cpu| cpu.fence())]).bit(word, number));
    lab.cpu("owner", |cpu| cpu.owned_store(word, 2));
    lab.interchangeable(&replicas);
    expect_distinguished(&lab.explore(&Limits::default()), "names some interchangeable CPUs and not others");
}
