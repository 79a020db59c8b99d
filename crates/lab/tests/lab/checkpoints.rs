//! Searches that are left and gone on with.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use lab::{
    Arena, Checkpoint, CheckpointError, Lab, LabCpu, Limit, Limits, Machine, MemoryOrder, MisuseKind, Report, Team,
    Verdict,
};
use machine::{Cpu, CpuId, SpinLock, Word64};

struct Words {
    shared: [Word64; 2],
    lock: SpinLock,
    count: Word64,
}

/// Words that everybody writes, and a lock. `first` is what the count begins with.
fn with_lab<R>(cpus: usize, first: u64, search: impl FnOnce(&mut Lab<'_>) -> R) -> R {
    let arena = Arena::new();
    let words =
        arena.alloc(Words { shared: [const { Word64::new(0) }; 2], lock: SpinLock::new(), count: Word64::new(0) });
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    let program = move |cpu: &LabCpu, number: usize| {
        let mine = &words.shared[number % 2];
        cpu.store(mine, cpu.load(mine) + first);
        {
            let _held = words.lock.lock(cpu);
            cpu.store(&words.count, cpu.load(&words.count) + 1);
        }
        cpu.report(0, cpu.load(&words.shared[(number + 1) % 2]));
    };
    for number in 0..cpus {
        lab.cpu(format!("p{number}"), move |cpu| program(cpu, number));
    }
    lab.observe(move |end| {
        let reported = (0..cpus).map(|cpu| end.reported(CpuId::new(cpu as u32), 0));
        words.shared.iter().chain([&words.count]).map(|word| end.read(word)).chain(reported).collect()
    });
    search(&mut lab)
}

fn explore(team: &Team<'_>, threads: usize, limits: &Limits<'_>) -> Report {
    let member = || {
        let seat = team.seat();
        with_lab(4, 1, |lab| lab.explore_in(seat, limits, &mut |_| ()))
    };
    std::thread::scope(|scope| {
        let members: Vec<_> = (0..threads).map(|_| scope.spawn(member)).collect();
        let reports = members.into_iter().map(|member| member.join().expect("no member panics"));
        reports.collect::<Vec<_>>().into_iter().flatten().next().expect("one of them has the report")
    })
}

type Counts<'r> = (&'r Verdict, u64, u64, u64, &'r std::collections::BTreeSet<Vec<u64>>);

fn counts(report: &Report) -> Counts<'_> {
    (&report.verdict, report.states, report.transitions, report.ends, &report.observations)
}

fn whole() -> Report {
    with_lab(4, 1, |lab| lab.explore(&Limits::default()))
}

const LABEL: &[u8] = b"which question this is";

/// The files that a search by so many threads leaves, one at each look at the clock.
fn files(threads: usize, limits: &Limits<'_>) -> (Report, Vec<Vec<u8>>) {
    let files = Mutex::new(Vec::new());
    let team = Team::new(threads).saving(Duration::ZERO, |snapshot| {
        let mut file = Vec::new();
        snapshot.write(LABEL, &mut file)?;
        files.lock().expect("nobody panics").push(file);
        Ok(())
    });
    let report = explore(&team, threads, limits);
    drop(team);
    (report, files.into_inner().expect("nobody panics"))
}

#[test]
fn pauses_change_nothing() {
    let whole = whole();
    for threads in [1, 3] {
        let (report, files) = files(threads, &Limits::default());
        assert_eq!(counts(&report), counts(&whole), "{threads} threads");
        assert!(files.len() > 3, "{} checkpoints", files.len());
    }
}

#[test]
fn every_checkpoint_leads_to_the_same_end() {
    let whole = whole();
    let (_, files) = files(2, &Limits::default());
    for (number, file) in files.iter().enumerate() {
        let checkpoint = Checkpoint::read(&file[..]).expect("it was written whole");
        assert_eq!(checkpoint.label, LABEL);
        assert!(checkpoint.states() <= whole.states);
        for threads in [1, 3] {
            let team = Team::new(threads).resuming(checkpoint.clone());
            let report = explore(&team, threads, &Limits::default());
            assert_eq!(counts(&report), counts(&whole), "checkpoint {number}, {threads} threads");
        }
    }
}

#[test]
fn what_a_limit_ended_is_kept() {
    let limits = Limits { states: 5000, ..Limits::default() };
    let (report, files) = files(2, &limits);
    assert_eq!(report.verdict, Verdict::Bounded(Limit::States));
    let last = Checkpoint::read(&files.last().expect("the last")[..]).expect("whole");
    assert_eq!(last.states(), report.states);
    let report = explore(&Team::new(1).resuming(last), 1, &Limits::default());
    assert_eq!(counts(&report), counts(&whole()));
}

#[test]
fn a_full_disk_ends_the_search_and_says_so() {
    let team = Team::new(2).saving(Duration::ZERO, |_| Err(io::Error::from(io::ErrorKind::StorageFull)));
    let report = explore(&team, 2, &Limits::default());
    assert_eq!(report.verdict, Verdict::Bounded(Limit::Unsaved));
    assert!(report.states > 0);
}

#[test]
fn a_lab_that_was_built_otherwise_is_refused() {
    let (_, files) = files(1, &Limits::default());
    let checkpoint = Checkpoint::read(&files[0][..]).expect("whole");
    let team = Team::new(1).resuming(checkpoint);
    let seat = team.seat();
    let report = with_lab(3, 1, |lab| lab.explore_in(seat, &Limits::default(), &mut |_| ())).expect("the only member");
    let Verdict::Error(misuse) = report.verdict else { panic!("not refused: {:?}", report.verdict) };
    assert_eq!(misuse.kind, MisuseKind::OtherCode);
}

#[test]
fn files_that_are_cut_or_edited_are_refused() {
    let (_, files) = files(1, &Limits { states: 4000, ..Limits::default() });
    let file = files.last().expect("the last");
    let step = file.len() / 97 + 1;
    for length in (0..file.len()).step_by(step) {
        let cut = Checkpoint::read(&file[..length]);
        assert!(matches!(cut, Err(CheckpointError::Truncated)), "cut to {length}: {cut:?}");
    }
    for place in (8..file.len()).step_by(step) {
        let mut edited = file.clone();
        edited[place] ^= 0x10;
        let read = Checkpoint::read(&edited[..]);
        assert!(matches!(read, Err(CheckpointError::Truncated | CheckpointError::Damaged)), "edited at {place}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(matches!(Checkpoint::read(&longer[..]), Err(CheckpointError::Damaged)));
    let mut other = file.clone();
    other[7] += 1;
    assert!(matches!(Checkpoint::read(&other[..]), Err(CheckpointError::OtherVersion(3))));
    assert!(matches!(Checkpoint::read(&b"#!/bin/sh\necho\n"[..]), Err(CheckpointError::NotACheckpoint)));
}
