//! Address spaces on threads: what faults, maps, unmaps, changes of rights and forks cost by page and by call, and how two threads get on.

mod kernel;
mod linux;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use hosted::{Fences, ThreadCpu};
use machine::{Access, Cpu, CpuId, VirtAddr, Word32};
use mm::{AreaRights, Foll, SpaceId};

use kernel::{CHILD, HALVES, IDLE, Kernel, LARGE_PAGES, PAGES, PARENT, SPACE_OF_ITS_OWN, area};

use crate::cores::pin_to_core;
use crate::page_tables::OURS;
use crate::rounds::{Effort, interleave};
use crate::samples::{Key, Samples, Stopwatch, Unit};

pub(crate) const SPACES: &str = "address spaces";
const FAULT: &str = "fault, one page";
const FAULT_HUGE: &str = "fault, 2 MiB";
const ZAP: &str = "zap 4 MiB, per page";
const MMAP: &str = "mmap and munmap of nothing, per call";
const PROTECT: &str = "mprotect 4 MiB, per page";
const PROTECT_ONE: &str = "mprotect one page, per call";
const FORK: &str = "fork of 4 MiB, per page";
const FORK_EMPTY: &str = "fork and exit of nothing, per call";
const EXIT: &str = "exit of 4 MiB, per page";

pub(crate) const TWO: &str = "two threads beside one";
pub(crate) const TWO_MAP: &str = "map and unmap areas";
pub(crate) const TWO_FAULT: &str = "fault";
pub(crate) const TWO_POPULATE: &str = "populate";
pub(crate) const TWO_ZAP: &str = "zap 4 MiB";
pub(crate) const TWO_ZAP_LARGE: &str = "zap 32 MiB";
pub(crate) const TWO_GUP: &str = "pin and unpin";

/// What each thread works on, in a space of its own or in half of a common one.
pub(crate) const OWN_SPACES: &str = "fastgup, a space each";
pub(crate) const ONE_SPACE: &str = "fastgup, halves of one space";
/// Sections execute fences, and so flushes need no system call.
const OURS_SYMMETRIC: &str = "fastgup, fences on both sides";
pub(crate) const ONE_SPACE_SYMMETRIC: &str = "fastgup, halves of one space, fences on both sides";

const BURSTS: usize = 5;
const START: VirtAddr = HALVES[0];

/// Measures everything about address spaces.
pub(crate) fn measure(effort: Effort, samples: &mut Samples) {
    let kernel = Kernel::build(Fences::best());
    let symmetric = Kernel::build(Fences::Symmetric);
    let samples = RefCell::new(samples);
    let calls = (effort.pages as u64 / 512).max(64);
    let mut turns: Vec<Box<dyn FnMut() + '_>> = vec![
        Box::new(|| one_thread(OURS, &kernel, calls, &mut samples.borrow_mut())),
        Box::new(|| one_thread(OURS_SYMMETRIC, &symmetric, calls, &mut samples.borrow_mut())),
        Box::new(|| two_threads(OWN_SPACES, &kernel, SPACE_OF_ITS_OWN, &mut samples.borrow_mut())),
        Box::new(|| two_threads(ONE_SPACE, &kernel, [PARENT; 2], &mut samples.borrow_mut())),
        Box::new(|| two_threads(ONE_SPACE_SYMMETRIC, &symmetric, [PARENT; 2], &mut samples.borrow_mut())),
        Box::new(|| linux::two_threads(&mut samples.borrow_mut())),
    ];
    interleave("address spaces", effort.rounds, &mut turns);
}

fn one_thread(contestant: &'static str, kernel: &Kernel, calls: u64, samples: &mut Samples) {
    let mut watch = Stopwatch::new(samples, SPACES, contestant);
    let cpu = kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it now");
    let (mm, parent) = (kernel.mm, kernel.space(PARENT));
    mm.enter(&cpu, parent);
    mm.mmap(&cpu, PARENT, area(PARENT, START, PAGES, 0)).expect("nothing is there");
    watch.time(FAULT, PAGES, || kernel.touch(&cpu, PARENT, START, PAGES, 1));
    watch.time(PROTECT, 2 * PAGES, || {
        mm.mprotect(&cpu, PARENT, START, PAGES, AreaRights::Read).expect("an area");
        mm.mprotect(&cpu, PARENT, START, PAGES, AreaRights::ReadWrite).expect("an area");
    });
    kernel.touch(&cpu, PARENT, START, PAGES, 1);
    let one = START.wrapping_add(4096 * 77);
    watch.time(PROTECT_ONE, 2 * calls, || {
        for _ in 0..calls {
            mm.mprotect(&cpu, PARENT, one, 1, AreaRights::Read).expect("an area");
            mm.mprotect(&cpu, PARENT, one, 1, AreaRights::ReadWrite).expect("an area");
        }
    });
    watch.time(FORK, PAGES, || mm.fork(&cpu, PARENT, CHILD).expect("there are frames"));
    watch.time(EXIT, PAGES, || mm.exit(&cpu, CHILD).expect("it is there"));
    watch.time(ZAP, PAGES, || mm.zap(&cpu, parent, START, PAGES).expect("tables are whole"));
    mm.munmap(&cpu, PARENT, START, PAGES).expect("an area");
    watch.time(MMAP, 2 * calls, || {
        for _ in 0..calls {
            mm.mmap(&cpu, PARENT, area(PARENT, START, PAGES, 0)).expect("nothing is there");
            mm.munmap(&cpu, PARENT, START, PAGES).expect("an area");
        }
    });
    watch.time(FORK_EMPTY, calls, || {
        for _ in 0..calls {
            mm.fork(&cpu, PARENT, CHILD).expect("nothing to copy");
            mm.exit(&cpu, CHILD).expect("it is there");
        }
    });
    mm.mmap(&cpu, PARENT, area(PARENT, START, PAGES, 0).with_huge_pages()).expect("nothing is there");
    watch.time(FAULT_HUGE, PAGES / 512, || kernel.touch(&cpu, PARENT, START, PAGES, 512));
    mm.exit(&cpu, PARENT).expect("it is there");
    mm.switch(&cpu, parent, kernel.space(IDLE));
}

/// What one thread does again and again with its pages.
type Work = fn(&Kernel, &Turn<'_>) -> Duration;

/// One of the threads that are measured.
struct Turn<'t> {
    cpu: &'t ThreadCpu,
    space: SpaceId,
    start: VirtAddr,
    pages: u64,
    meeting: &'t Meeting,
}

/// Where threads wait for each other. They answer interrupts meanwhile.
struct Meeting {
    arrived: Word32,
    threads: u32,
}

impl Meeting {
    fn of(threads: usize) -> Self {
        Self { arrived: Word32::new(0), threads: threads as u32 }
    }

    /// Returns when every thread has come as often as this one.
    fn join(&self, cpu: &ThreadCpu) {
        let round = cpu.fetch_add(&self.arrived, 1) / self.threads;
        cpu.await_value(&self.arrived, |arrived| arrived / self.threads > round);
    }
}

fn two_threads(contestant: &'static str, kernel: &Kernel, spaces: [SpaceId; 2], samples: &mut Samples) {
    let works: [(&'static str, u64, Work); 6] = [
        (TWO_MAP, PAGES, map),
        (TWO_FAULT, PAGES, fault),
        (TWO_POPULATE, PAGES, populate),
        (TWO_ZAP, PAGES, zap),
        (TWO_ZAP_LARGE, LARGE_PAGES, zap),
        (TWO_GUP, PAGES, gup),
    ];
    for (operation, pages, work) in works {
        let (mut alone, mut together) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..BURSTS {
            alone = alone.min(run(kernel, &spaces[..1], pages, work));
            together = together.min(run(kernel, &spaces, pages, work));
        }
        samples.add(Key { workload: TWO, operation, contestant }, Unit::Times, 2.0 * alone / together);
    }
}

/// How long the slowest thread takes for its share.
fn run(kernel: &Kernel, spaces: &[SpaceId], pages: u64, work: Work) -> f64 {
    let meeting = Meeting::of(spaces.len());
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(spaces)
            .map(|(number, &space)| {
                let meeting = &meeting;
                scope.spawn(move || {
                    pin_to_core(number as usize);
                    let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it now");
                    let start = HALVES[number as usize];
                    kernel.mm.enter(&cpu, kernel.space(space));
                    kernel
                        .mm
                        .mmap(&cpu, space, area(space, start, pages, u64::from(number) << 20))
                        .expect("nothing is there");
                    kernel.touch(&cpu, space, start, pages, 1);
                    meeting.join(&cpu);
                    let spent = work(kernel, &Turn { cpu: &cpu, space, start, pages, meeting });
                    kernel.mm.munmap(&cpu, space, start, pages).expect("an area");
                    // Out of the set of those that are flushed, or who is measured next would wait for this CPU.
                    kernel.mm.switch(&cpu, kernel.space(space), kernel.space(IDLE));
                    spent
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panics")).collect()
    });
    times.into_iter().max().unwrap_or_default().as_secs_f64()
}

const TIMES: usize = 8;

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// Areas come and go beside one that stays.
fn map(kernel: &Kernel, turn: &Turn<'_>) -> Duration {
    let &Turn { cpu, space, start, pages, .. } = turn;
    let beside = start.wrapping_add(pages << 12);
    timed(|| {
        for _ in 0..TIMES * 256 {
            kernel.mm.mmap(cpu, space, area(space, beside, 16, 1 << 19)).expect("nothing is there");
            kernel.mm.munmap(cpu, space, beside, 16).expect("an area");
        }
    })
}

/// A fault for each page.
fn fault(kernel: &Kernel, turn: &Turn<'_>) -> Duration {
    mapped_again(kernel, turn, || kernel.touch(turn.cpu, turn.space, turn.start, turn.pages, 1))
}

/// All pages by one call.
fn populate(kernel: &Kernel, turn: &Turn<'_>) -> Duration {
    let &Turn { cpu, space, start, pages, .. } = turn;
    let space = kernel.space(space);
    mapped_again(kernel, turn, || kernel.mm.populate(cpu, space, start, pages, Access::Write).expect("an area"))
}

/// Nobody unmaps meanwhile: `work` is what is measured, not the interrupts of the other thread's flushes.
fn mapped_again(kernel: &Kernel, turn: &Turn<'_>, work: impl Fn()) -> Duration {
    let &Turn { cpu, space, start, pages, meeting } = turn;
    let once = |_| {
        kernel.mm.zap(cpu, kernel.space(space), start, pages).expect("tables are whole");
        meeting.join(cpu);
        let spent = timed(&work);
        meeting.join(cpu);
        spent
    };
    (0..TIMES).map(once).sum()
}

fn zap(kernel: &Kernel, turn: &Turn<'_>) -> Duration {
    let &Turn { cpu, space, start, pages, .. } = turn;
    let once = |_| {
        let spent = timed(|| kernel.mm.zap(cpu, kernel.space(space), start, pages).expect("tables are whole"));
        kernel.touch(cpu, space, start, pages, 1);
        spent
    };
    (0..TIMES).map(once).sum()
}

fn gup(kernel: &Kernel, turn: &Turn<'_>) -> Duration {
    let &Turn { cpu, space, start, pages, .. } = turn;
    timed(|| {
        for _ in 0..TIMES * 8 {
            let flags = Foll::PIN | Foll::WRITE | Foll::FAST_ONLY;
            let got = kernel.mm.gup(cpu, kernel.space(space), start, pages, flags, |run| {
                kernel.mm.release(cpu, run, Access::Read).expect("pinned a moment ago");
            });
            assert_eq!(got, Ok(pages), "every page is there");
        }
    })
}
