//! A small machine to explore, and checkpoints in memory.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use cluster::{Cluster, ClusterError, Ended, Hosts, Keeper, Lost, Member, Place, Terms};
use lab::{Arena, Checkpoint, Lab, LabCpu, Limits, Machine, MemoryOrder, Report, Snapshot};
use machine::{Cpu, CpuId, SpinLock, Word64};

pub(crate) struct Words {
    shared: [Word64; 2],
    lock: SpinLock,
    count: Word64,
    constant: Word64,
}

pub(crate) type Program = fn(&LabCpu, &Words, usize);

pub(crate) fn with_lab<R>(cpus: usize, program: Program, search: impl FnOnce(&mut Lab<'_>) -> R) -> R {
    let arena = Arena::new();
    let words = arena.alloc(Words {
        shared: [const { Word64::new(0) }; 2],
        lock: SpinLock::new(),
        count: Word64::new(0),
        constant: Word64::new(3),
    });
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    for number in 0..cpus {
        lab.cpu(format!("p{number}"), move |cpu| program(cpu, words, number));
    }
    lab.observe(move |end| {
        let reported = (0..cpus).map(|cpu| end.reported(CpuId::new(cpu as u32), 0));
        words.shared.iter().chain([&words.count]).map(|word| end.read(word)).chain(reported).collect()
    });
    search(&mut lab)
}

/// Words that everybody writes, one that nobody does, and a lock.
pub(crate) fn mix(cpu: &LabCpu, words: &Words, number: usize) {
    let mine = &words.shared[number % 2];
    cpu.store(mine, cpu.load(mine) + cpu.load(&words.constant));
    {
        let _held = words.lock.lock(cpu);
        cpu.store(&words.count, cpu.load(&words.count) + 1);
    }
    cpu.report(0, cpu.load(&words.shared[(number + 1) % 2]));
}

/// Both get in if both stores wait.
pub(crate) fn dekker(cpu: &LabCpu, words: &Words, number: usize) {
    cpu.store(&words.shared[number % 2], 1);
    if cpu.load(&words.shared[(number + 1) % 2]) == 0 {
        assert_eq!(cpu.fetch_add(&words.count, 1), 0, "both are inside");
    }
}

pub(crate) fn whole(cpus: usize, program: Program) -> Report {
    with_lab(cpus, program, |lab| lab.explore(&Limits::default()))
}

pub(crate) fn assert_same(report: &Report, whole: &Report, what: &str) {
    assert_eq!(
        (&report.verdict, report.states, report.transitions, report.ends, &report.observations),
        (&whole.verdict, whole.states, whole.transitions, whole.ends, &whole.observations),
        "{what}"
    );
}

/// So many addresses of this machine that were free a moment ago.
pub(crate) fn hosts(processes: usize) -> Hosts {
    let listeners: Vec<_> = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free")).collect();
    let lines: Vec<String> =
        listeners.iter().map(|listener| listener.local_addr().expect("it is bound").to_string()).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("hosts");
    std::fs::write(&path, lines.join("\n")).expect("a file can be written");
    Hosts::read(&path).expect("these are hosts")
}

pub(crate) fn place(hosts: &Hosts, process: usize, threads: usize) -> Place {
    let threads = NonZeroUsize::new(threads).expect("at least one");
    Place { hosts: hosts.clone(), process, threads, patience: Duration::from_secs(60) }
}

pub(crate) fn terms(code: &str) -> Terms {
    Terms(vec![("the code".to_owned(), code.to_owned())])
}

/// Each of these processes, in threads of this one.
pub(crate) fn in_processes<R: Send>(
    processes: usize,
    threads: usize,
    work: impl Fn(usize, &mut Member) -> Result<R, Lost> + Sync,
) -> Vec<Result<Vec<R>, ClusterError>> {
    let hosts = hosts(processes);
    std::thread::scope(|scope| {
        let processes: Vec<_> = (0..processes)
            .map(|process| {
                let (work, place) = (&work, place(&hosts, process, threads));
                scope.spawn(move || {
                    Cluster::join(place, terms("the same"), None)?.run("try again", |member| work(process, member))
                })
            })
            .collect();
        processes.into_iter().map(|process| process.join().expect("its panics are caught")).collect()
    })
}

/// The reports of a search by so many processes of so many threads; one, if all is well.
pub(crate) fn search(
    (processes, threads): (usize, usize),
    (cpus, program): (usize, Program),
    limits: &Limits<'_>,
    shelf: Option<&Shelf>,
) -> Vec<Ended> {
    let ended = in_processes(processes, threads, |_, member| {
        let keeper = shelf.map(|shelf| Shelved { shelf, member: member.index() });
        let keeper = keeper.as_ref().map(|keeper| keeper as &dyn Keeper);
        with_lab(cpus, program, |lab| lab.explore_apart(limits, &mut |_| (), |apart| member.search(apart, keeper)))
    });
    ended.into_iter().flat_map(|process| process.expect("nobody is lost")).collect()
}

pub(crate) fn report(ended: Vec<Ended>) -> Report {
    let mut reports = ended.into_iter().filter_map(|ended| match ended {
        Ended::Report(report, _) => Some(*report),
        Ended::Elsewhere(_) => None,
        Ended::Refused(why) => panic!("{why}"),
    });
    let report = reports.next().expect("one has the report");
    assert!(reports.next().is_none(), "only one has the report");
    report
}

/// Checkpoints of all members, by member and number.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) files: Mutex<BTreeMap<(usize, u64), Vec<u8>>>,
    /// All that ever were.
    pub(crate) history: Mutex<BTreeMap<(usize, u64), Vec<u8>>>,
    pub(crate) every: Duration,
}

struct Shelved<'s> {
    shelf: &'s Shelf,
    member: usize,
}

impl Keeper for Shelved<'_> {
    fn every(&self) -> Duration {
        self.shelf.every
    }

    fn present(&self) -> Result<Vec<u64>, String> {
        let files = self.shelf.files.lock().expect("nobody panics");
        Ok(files.keys().filter(|(member, _)| *member == self.member).map(|(_, number)| *number).collect())
    }

    fn read(&self, number: u64) -> Result<Checkpoint, String> {
        let files = self.shelf.files.lock().expect("nobody panics");
        Checkpoint::read(&files[&(self.member, number)][..]).map_err(|error| error.to_string())
    }

    fn write(&self, number: u64, snapshot: &Snapshot<'_>) -> Result<(), String> {
        let mut file = Vec::new();
        snapshot.write(b"", &mut file).map_err(|error| error.to_string())?;
        self.shelf.history.lock().expect("nobody panics").insert((self.member, number), file.clone());
        self.shelf.files.lock().expect("nobody panics").insert((self.member, number), file);
        Ok(())
    }

    fn keep_only(&self, kept: Option<u64>) {
        let is_kept = |(member, number): &(usize, u64)| *member != self.member || Some(*number) == kept;
        self.shelf.files.lock().expect("nobody panics").retain(|key, _| is_kept(key));
    }
}

pub(crate) fn write_hosts(path: &Path, lines: &str) {
    std::fs::write(path, lines).expect("a file can be written");
}
