//! Code that is written against `std::sync`, explored as it stands: the same files are compiled with the types of `std` and with those of the lab.

use std::collections::BTreeSet;

use lab::sync::Mutex;
use lab::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use lab::sync::cell::Cell;
use lab::sync::hint::spin_loop;
use lab::{Arena, Lab, Limits, Machine, MemoryOrder, MisuseKind, Report, Team, Verdict, rule, trace};
use machine::CpuId;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fences {
    Kept,
    LeftOut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publication {
    /// Before the value.
    First,
    /// After it.
    Last,
}

mod on_std {
    use std::hint::spin_loop;
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

    use super::{Fences, Publication};

    include!("drop_in/peterson.rs");
    include!("drop_in/spin_lock.rs");
    include!("drop_in/ring.rs");
}

mod in_lab {
    use lab::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
    use lab::sync::hint::spin_loop;

    use super::{Fences, Publication};

    include!("drop_in/peterson.rs");
    include!("drop_in/spin_lock.rs");
    include!("drop_in/ring.rs");
}

/// Two CPUs take Peterson's lock and look whether they are alone.
fn peterson(order: MemoryOrder, fences: Fences) -> Report {
    let arena = Arena::new();
    let lock = arena.alloc(in_lab::Peterson::new());
    let inside = arena.alloc(AtomicU32::new(0));
    let mut lab = Lab::new(&arena, Machine::new(order));
    lab.name(lock.wants[0].word(), "0 wants");
    lab.name(lock.wants[1].word(), "1 wants");
    lab.name(lock.turn.word(), "turn");
    lab.name(inside.word(), "inside");
    for me in [0, 1] {
        lab.cpu(format!("CPU{me}"), move |_| {
            lock.lock(me, fences);
            assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "both are inside");
            inside.fetch_sub(1, Ordering::Relaxed);
            lock.unlock(me);
        });
    }
    lab.explore(&Limits::default())
}

#[test]
fn a_lock_without_its_fence_is_broken_under_tso_and_mended_by_it() {
    peterson(MemoryOrder::Sc, Fences::LeftOut).expect_safe();
    let report = peterson(MemoryOrder::Tso, Fences::LeftOut);
    let found = report.expect_violation(rule::USER);
    assert!(found.violation.sentence.contains("both are inside"), "{}", found.violation.sentence);
    let text = trace::columns(&found.trace);
    assert!(text.contains("store 0 wants := 1, into the store buffer"), "{text}");
    let places: Vec<_> = found.trace.steps.iter().filter_map(|step| step.place.as_ref()).collect();
    assert!(places.iter().any(|place| place.file.ends_with("drop_in/peterson.rs")), "their lines: {places:?}");
    assert!(places.iter().all(|place| !place.file.contains("src/sync")), "not ours: {places:?}");
    peterson(MemoryOrder::Tso, Fences::Kept).expect_safe();
}

#[test]
fn a_spin_lock_waits_and_loses_nothing() {
    for order in [MemoryOrder::Sc, MemoryOrder::Tso] {
        let arena = Arena::new();
        let lock = arena.alloc(in_lab::SpinLock::new());
        let sum = arena.alloc(AtomicU64::new(0));
        let mut lab = Lab::new(&arena, Machine::new(order));
        for number in [1, 10, 100] {
            lab.cpu(format!("adds {number}"), move |_| {
                lock.lock();
                sum.store(sum.load(Ordering::Relaxed) + number, Ordering::Relaxed);
                lock.unlock();
            });
        }
        lab.observe(|end| vec![end.read(sum.word())]);
        let report = lab.explore(&Limits::default());
        report.expect_safe();
        assert_eq!(report.observations, [vec![111]].into());
    }
}

#[test]
fn who_spins_for_what_never_comes_is_stuck() {
    let arena = Arena::new();
    let lock = arena.alloc(in_lab::SpinLock::new());
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    for name in ["one", "other"] {
        lab.cpu(name, |_| lock.lock());
    }
    lab.explore(&Limits::default()).expect_violation(rule::DEADLOCK);
}

/// What the consumer may get of two numbers.
fn ring(publication: Publication) -> BTreeSet<Vec<u64>> {
    let arena = Arena::new();
    let ring = arena.alloc(in_lab::Ring::new());
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.cpu("producer", |_| {
        assert!(ring.push(7, publication) && ring.push(8, publication), "there is room for two");
    });
    lab.cpu("consumer", |cpu| {
        for slot in 0..2 {
            cpu.report(slot, ring.pop().unwrap_or(u64::MAX));
        }
    });
    lab.observe(|end| (0..2).map(|slot| end.reported(CpuId::new(1), slot)).collect());
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    report.observations
}

#[test]
fn a_ring_publishes_what_it_holds() {
    const NONE: u64 = u64::MAX;
    let right = [vec![NONE, NONE], vec![NONE, 7], vec![7, NONE], vec![7, 8]];
    assert_eq!(ring(Publication::Last), right.into());
    assert!(ring(Publication::First).contains(&vec![0, NONE]), "a slot that is not filled yet");
}

#[test]
fn a_mutex_protects_its_cells() {
    let arena = Arena::new();
    let sum = arena.alloc(Mutex::new(Cell::new(0_u32)));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.cpu("one", |_| {
        let sum = sum.lock().expect("never poisoned");
        sum.set(sum.get() + 1);
    });
    lab.cpu("other", |_| {
        if let Ok(sum) = sum.try_lock() {
            sum.set(sum.get() + 10);
        }
    });
    let guarded = sum;
    lab.boot(CpuId::new(0), |_| assert_eq!(guarded.lock().expect("free").get(), 0));
    lab.explore(&Limits::default()).expect_safe();
}

#[test]
fn a_cell_that_nothing_protects_is_found_out() {
    let arena = Arena::new();
    let sum = arena.alloc(Cell::new(0_u32));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    let turn = arena.alloc(AtomicBool::new(false));
    for name in ["one", "other"] {
        lab.cpu(name, |_| {
            turn.swap(true, Ordering::AcqRel);
            sum.set(sum.get() + 1);
        });
    }
    let Verdict::Error(misuse) = lab.explore(&Limits::default()).verdict else { panic!("not found") };
    assert_eq!(misuse.kind, MisuseKind::NotOwned);
}

#[test]
fn members_of_a_team_are_cpus_of_their_own() {
    let team = Team::new(2);
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let member = |_| {
            let seat = team.seat();
            scope.spawn(move || {
                let arena = Arena::new();
                let lock = arena.alloc(in_lab::SpinLock::new());
                let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
                for name in ["one", "other"] {
                    lab.cpu(name, move |_| {
                        lock.lock();
                        lock.unlock();
                    });
                }
                lab.explore_in(seat, &Limits::default(), &mut |_| ())
            })
        };
        let members: Vec<_> = (0..2).map(member).collect();
        members.into_iter().filter_map(|member| member.join().expect("no panic")).collect()
    });
    assert_eq!(reports.len(), 1, "one report for all");
    reports[0].expect_safe();
}

#[test]
fn every_operation_is_what_std_does() {
    let arena = Arena::new();
    let (number, flag) = (arena.alloc(AtomicU64::new(5)), arena.alloc(AtomicBool::new(false)));
    let size = arena.alloc(AtomicUsize::new(usize::MAX));
    let by_std = std::sync::atomic::AtomicU64::new(5);
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    macro_rules! both {
        ($($call:tt)*) => { assert_eq!(number.$($call)*, by_std.$($call)*) };
    }
    lab.cpu("CPU0", move |_| {});
    lab.boot(CpuId::new(0), |_| {
        use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
        both!(load(Acquire));
        both!(swap(9, SeqCst));
        both!(fetch_add(u64::MAX, Relaxed));
        both!(fetch_sub(3, Relaxed));
        both!(fetch_and(0b1101, AcqRel));
        both!(fetch_or(0b0010, AcqRel));
        both!(fetch_xor(0xff, AcqRel));
        both!(fetch_max(1000, AcqRel));
        both!(fetch_min(7, AcqRel));
        both!(compare_exchange(7, 8, SeqCst, Relaxed));
        both!(compare_exchange(7, 8, SeqCst, Relaxed));
        both!(compare_exchange_weak(9, 8, SeqCst, Acquire));
        both!(fetch_update(SeqCst, SeqCst, |old| (old > 100).then_some(1)));
        both!(fetch_update(SeqCst, SeqCst, |old| Some(old * 3)));
        number.store(1, SeqCst);
        by_std.store(1, SeqCst);
        both!(load(Relaxed));
        assert!(!flag.swap(true, SeqCst) && flag.load(Acquire));
        assert_eq!(flag.compare_exchange(false, true, SeqCst, Relaxed), Err(true));
        assert!(flag.fetch_and(false, SeqCst) && !flag.fetch_or(true, SeqCst));
        flag.store(false, Release);
        assert!(!flag.load(Relaxed));
        assert_eq!(size.fetch_add(1, Relaxed), usize::MAX);
        assert_eq!(size.load(Relaxed), 0);
        fence(SeqCst);
        fence(Acquire);
    });
}

/// What is said, and the code that it is said of.
type Wrong<'w> = (&'static str, &'w (dyn Fn() + Sync));

#[test]
fn orders_that_std_refuses_are_refused() {
    let arena = Arena::new();
    let number = arena.alloc(AtomicU64::new(0));
    let wrong: [Wrong<'_>; 4] = [
        ("load with `Release`", &|| assert_eq!(number.load(Ordering::Release), 0)),
        ("store with `Acquire`", &|| number.store(1, Ordering::Acquire)),
        ("load with `Release`", &|| {
            assert_eq!(number.compare_exchange(0, 1, Ordering::SeqCst, Ordering::AcqRel), Ok(0))
        }),
        ("relaxed fence", &|| fence(Ordering::Relaxed)),
    ];
    for (expected, act) in wrong {
        let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
        lab.cpu("CPU0", |_| act());
        let report = lab.explore(&Limits::default());
        let found = report.expect_violation(rule::USER);
        assert!(found.violation.sentence.contains(expected), "{}", found.violation.sentence);
    }
}

#[test]
#[should_panic(expected = "no CPU of a lab runs here")]
fn outside_a_lab_there_is_no_cpu() {
    AtomicU64::new(0).load(Ordering::Relaxed);
}

#[test]
fn a_loop_that_counts_its_rounds_is_not_taken_for_one_that_waits() {
    let arena = Arena::new();
    let (flag, gave_up) = (arena.alloc(AtomicBool::new(false)), arena.alloc(AtomicBool::new(false)));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
    lab.cpu("looks three times", |_| {
        for _ in 0..3 {
            if flag.load(Ordering::Acquire) {
                return;
            }
            spin_loop();
        }
        gave_up.store(true, Ordering::Release);
    });
    lab.cpu("tells", |_| flag.store(true, Ordering::Release));
    lab.observe(|end| vec![end.read(gave_up.word())]);
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    assert_eq!(report.observations, [vec![0], vec![1]].into());
}

#[test]
fn what_was_read_between_two_waits_is_known() {
    let arena = Arena::new();
    let flags = arena.alloc([AtomicBool::new(false), AtomicBool::new(false)]);
    let data = arena.alloc(AtomicU32::new(0));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
    lab.cpu("waits", |cpu| {
        let wait = |flag: &AtomicBool| {
            while !flag.load(Ordering::Acquire) {
                spin_loop();
            }
        };
        wait(&flags[0]);
        let seen = data.load(Ordering::Relaxed);
        wait(&flags[1]);
        cpu.report(0, seen.into());
    });
    lab.cpu("tells", |_| {
        flags[0].store(true, Ordering::Release);
        data.store(1, Ordering::Relaxed);
        data.store(2, Ordering::Relaxed);
        flags[1].store(true, Ordering::Release);
    });
    lab.observe(|end| vec![end.reported(CpuId::new(0), 0)]);
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    assert_eq!(report.observations, [vec![0], vec![1], vec![2]].into());
}

/// The files say what they say on threads, too.
#[test]
fn the_same_files_run_on_threads() {
    let (lock, spin, ring) = (on_std::Peterson::new(), on_std::SpinLock::new(), on_std::Ring::new());
    let sum = std::sync::atomic::AtomicU64::new(0);
    let add = || sum.store(sum.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for me in [0, 1] {
            scope.spawn({
                let (lock, add) = (&lock, &add);
                move || {
                    for _ in 0..100 {
                        lock.lock(me, Fences::Kept);
                        add();
                        lock.unlock(me);
                    }
                }
            });
        }
    });
    assert_eq!(sum.load(Ordering::Relaxed), 200);
    spin.lock();
    spin.unlock();
    assert!(ring.push(3, Publication::Last));
    assert_eq!(ring.pop(), Some(3));
}
