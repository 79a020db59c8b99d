//! Fast GUP on threads: pin and unpin, alone and on two cores.

mod hand;
mod kernel;
mod linux;

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use hosted::ThreadCpu;
use machine::{Access, Cpu, CpuId, VirtAddr, Word64};
use mm::Foll;

use hand::{ByHand, Locked};
use kernel::{HUGE, HUGE_PAGES, Kernel, LARGE, PAGES_PER_HUGE, SMALL, SMALL_PAGES};
use linux::{Backing, Memory, Pipe, Ring, Unavailable};

use crate::cores::pin_to_core;
use crate::page_tables::{HAND, OURS};
use crate::rounds::{Effort, interleave};
use crate::samples::{Key, Samples, Stopwatch, Unit};

pub(crate) const SECTIONS: &str = "sections on threads";
pub(crate) const IRQ_OFF: &str = "interrupts off and on";
pub(crate) const RCU: &str = "RCU section";
pub(crate) const GRACE_PERIOD: &str = "grace period";

pub(crate) const FAST_GUP: &str = "fast GUP";
pub(crate) const WALK: &str = "walk only, one hot page";
pub(crate) const HOT: &str = "pin and unpin, one hot page";
pub(crate) const HOT_1_MIB: &str = "pin and unpin 1 MiB, per page";
pub(crate) const ALL: &str = "pin and unpin 256 MiB, per page";
pub(crate) const HUGE_LEAF: &str = "pin and unpin 2 MiB by one leaf";
pub(crate) const LARGE_FOLIO: &str = "pin and unpin 4 KiB leaves of 2 MiB folios, per page";
pub(crate) const LARGE_HOT: &str = "the same, one hot folio";
pub(crate) const TWO_THREADS: &str = "two threads on disjoint ranges";

/// Linux, io_uring registers a buffer and gives it back.
pub(crate) const LINUX_RING: &str = "Linux, io_uring buffer";
/// Linux, vmsplice: takes references only.
pub(crate) const LINUX_PIPE: &str = "Linux, vmsplice (take only)";

/// `x86_64` behind a `Mutex`, with counts.
pub(crate) const LOCKED: &str = "Mutex and x86_64 0.15";

/// Pages of the range for [`HOT_1_MIB`], and of each thread's for [`TWO_THREADS`].
const FEW: u64 = 256;

/// How often each of one and two threads runs per round, and how many pages each time: some milliseconds.
const BURSTS: usize = 6;
const BURST: u64 = 1 << 17;

struct Bench {
    kernel: Kernel,
    by_hand: ByHand,
    locked: Locked,
    operations: u64,
    /// Which page is the hot one: another in every round. Entries, records and stack may lie so that the processor takes a load for
    /// one of an earlier store (their low 12 bits agree), which costs some nanoseconds and depends on nothing but addresses.
    hot_page: AtomicU64,
}

/// Measures everything about GUP.
pub(crate) fn measure(effort: Effort, samples: &mut Samples) {
    let bench = Bench {
        kernel: Kernel::build(),
        by_hand: ByHand::new(),
        locked: Locked::new(),
        operations: effort.pages as u64,
        hot_page: AtomicU64::new(0),
    };
    let mut peers = Peers::new();
    let samples = RefCell::new(samples);
    let mut turns: Vec<Box<dyn FnMut() + '_>> = vec![
        Box::new(|| {
            bench.hot_page.fetch_add(5417, Ordering::Relaxed);
        }),
        Box::new(|| bench.sections(&mut samples.borrow_mut())),
        Box::new(|| bench.ours(&mut samples.borrow_mut())),
        Box::new(|| bench.by_hand(&mut samples.borrow_mut())),
        Box::new(|| bench.locked(&mut samples.borrow_mut())),
        Box::new(|| bench.two_threads(&mut samples.borrow_mut())),
        Box::new(|| kernel_itself(&mut peers, &mut samples.borrow_mut())),
    ];
    interleave("fast GUP", effort.rounds, &mut turns);
}

impl Bench {
    fn cpu(&self, number: u32) -> ThreadCpu {
        self.kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it now")
    }

    fn sections(&self, samples: &mut Samples) {
        let mut watch = Stopwatch::new(samples, SECTIONS, OURS);
        let cpu = self.cpu(0);
        let word = Word64::new(0);
        watch.time(IRQ_OFF, self.operations, || {
            for _ in 0..self.operations {
                let irqs = black_box(&cpu).irq_off();
                black_box(cpu.load(&word));
                drop(irqs);
            }
        });
        watch.time(RCU, self.operations, || {
            for _ in 0..self.operations {
                black_box(&cpu).rcu_read_lock();
                black_box(cpu.load(&word));
                cpu.rcu_read_unlock();
            }
        });
        let periods = self.operations / 4096;
        watch.time(GRACE_PERIOD, periods, || {
            for _ in 0..periods {
                cpu.synchronize_rcu();
            }
        });
    }

    /// Pins `pages` pages from `start` on and gives them back.
    #[inline]
    fn pin_and_unpin(&self, cpu: &ThreadCpu, start: VirtAddr, pages: u64) -> u64 {
        let mm = self.kernel.mm;
        let pinned = mm.gup(cpu, self.kernel.space, start, pages, Foll::PIN | Foll::WRITE | Foll::FAST_ONLY, |run| {
            mm.release(cpu, run, Access::Read).expect("pinned a moment ago");
        });
        pinned.expect("valid flags and addresses")
    }

    fn ours(&self, samples: &mut Samples) {
        let mut watch = Stopwatch::new(samples, FAST_GUP, OURS);
        let cpu = self.cpu(0);
        let hot = watch.time(HOT, self.operations, || self.hot(&cpu));
        assert_eq!(hot, self.operations, "every page is mapped");
        let rounds = self.operations / FEW;
        let few = watch
            .time(HOT_1_MIB, rounds * FEW, || (0..rounds).map(|_| self.pin_and_unpin(&cpu, SMALL, FEW)).sum::<u64>());
        assert_eq!(few, rounds * FEW);
        let all = watch.time(ALL, SMALL_PAGES, || self.pin_and_unpin(&cpu, SMALL, SMALL_PAGES));
        assert_eq!(all, SMALL_PAGES);
        let rounds = self.operations / HUGE_PAGES / 16;
        let huge = watch.time(HUGE_LEAF, rounds * HUGE_PAGES, || {
            (0..rounds).map(|_| self.pin_and_unpin(&cpu, HUGE, HUGE_PAGES * PAGES_PER_HUGE)).sum::<u64>()
        });
        assert_eq!(huge, rounds * HUGE_PAGES * PAGES_PER_HUGE);
        let pages = HUGE_PAGES * PAGES_PER_HUGE;
        let large = watch.time(LARGE_FOLIO, pages, || self.pin_and_unpin(&cpu, LARGE, pages));
        assert_eq!(large, pages);
        let rounds = self.operations / PAGES_PER_HUGE;
        let large = watch.time(LARGE_HOT, rounds * PAGES_PER_HUGE, || {
            (0..rounds).map(|_| self.pin_and_unpin(&cpu, LARGE, PAGES_PER_HUGE)).sum::<u64>()
        });
        assert_eq!(large, rounds * PAGES_PER_HUGE);
    }

    fn hot_address(&self) -> VirtAddr {
        SMALL.wrapping_add((self.hot_page.load(Ordering::Relaxed) % SMALL_PAGES) << 12)
    }

    #[inline(never)]
    fn hot(&self, cpu: &ThreadCpu) -> u64 {
        let address = self.hot_address();
        (0..self.operations).map(|_| self.pin_and_unpin(cpu, black_box(address), 1)).sum()
    }

    fn by_hand(&self, samples: &mut Samples) {
        let mut watch = Stopwatch::new(samples, FAST_GUP, HAND);
        let virt = self.hot_address().as_u64();
        let found = watch.time(WALK, self.operations, || {
            (0..self.operations).filter_map(|_| self.by_hand.translate(black_box(virt))).count() as u64
        });
        assert_eq!(found, self.operations);
        let pinned = watch.time(HOT, self.operations, || {
            (0..self.operations).filter_map(|_| self.by_hand.pin_and_unpin(black_box(virt))).count() as u64
        });
        assert_eq!(pinned, self.operations);
        let pinned = watch.time(ALL, SMALL_PAGES, || {
            let page = |page: u64| SMALL.as_u64() + (page << 12);
            (0..SMALL_PAGES).filter_map(|at| self.by_hand.pin_and_unpin(page(at))).count() as u64
        });
        assert_eq!(pinned, SMALL_PAGES);
    }

    fn locked(&self, samples: &mut Samples) {
        let mut watch = Stopwatch::new(samples, FAST_GUP, LOCKED);
        let virt = self.hot_address().as_u64();
        let pinned = watch.time(HOT, self.operations, || {
            (0..self.operations).filter_map(|_| self.locked.pin_and_unpin(black_box(virt))).count() as u64
        });
        assert_eq!(pinned, self.operations);
        let pinned = watch.time(ALL, SMALL_PAGES, || {
            let page = |page: u64| SMALL.as_u64() + (page << 12);
            (0..SMALL_PAGES).filter_map(|at| self.locked.pin_and_unpin(page(at))).count() as u64
        });
        assert_eq!(pinned, SMALL_PAGES);
    }

    /// How many times the pages per second of one thread two threads come to, each on a core and a range of its own.
    fn two_threads(&self, samples: &mut Samples) {
        let ours = |cpu: &ThreadCpu, page: u64| self.pin_and_unpin(cpu, SMALL.wrapping_add(page << 12), 1);
        let by_hand =
            |_: &ThreadCpu, page: u64| u64::from(self.by_hand.pin_and_unpin(SMALL.as_u64() + (page << 12)).is_some());
        let locked =
            |_: &ThreadCpu, page: u64| u64::from(self.locked.pin_and_unpin(SMALL.as_u64() + (page << 12)).is_some());
        for (contestant, ratio) in
            [(OURS, self.scaling(ours)), (HAND, self.scaling(by_hand)), (LOCKED, self.scaling(locked))]
        {
            samples.add(Key { workload: FAST_GUP, operation: TWO_THREADS, contestant }, Unit::Times, ratio);
        }
    }

    /// The best burst of two threads beside the best of one. Bursts are short, so that some fall between the time slices of other processes.
    fn scaling(&self, pin_and_unpin: impl Fn(&ThreadCpu, u64) -> u64 + Sync) -> f64 {
        let (mut alone, mut together) = (0.0_f64, 0.0_f64);
        for _ in 0..BURSTS {
            alone = alone.max(self.rate(1, &pin_and_unpin));
            together = together.max(self.rate(2, &pin_and_unpin));
        }
        together / alone
    }

    /// Pages per second of `threads` threads together, by the clock on the wall.
    fn rate(&self, threads: u32, pin_and_unpin: &(impl Fn(&ThreadCpu, u64) -> u64 + Sync)) -> f64 {
        let (ready, pinned) = (AtomicU32::new(0), AtomicU64::new(0));
        let times = std::thread::scope(|scope| {
            let spawn = |number| {
                let (ready, pinned) = (&ready, &pinned);
                scope.spawn(move || {
                    pin_to_core(number as usize);
                    let cpu = self.cpu(number);
                    // Half of the pages apart: other tables, other records.
                    let first = u64::from(number) * SMALL_PAGES / 2;
                    let some = |count| (0..count).map(|at| pin_and_unpin(&cpu, first + at % FEW)).sum::<u64>();
                    some(FEW);
                    // All begin at once: a barrier that sleeps would wake one long after the other.
                    ready.fetch_add(1, Ordering::SeqCst);
                    while ready.load(Ordering::SeqCst) < threads {
                        std::hint::spin_loop();
                    }
                    let began = Instant::now();
                    pinned.fetch_add(some(BURST), Ordering::Relaxed);
                    (began, Instant::now())
                })
            };
            let running: Vec<_> = (0..threads).map(spawn).collect();
            running.into_iter().map(|thread| thread.join().expect("no panics")).collect::<Vec<_>>()
        });
        let began = times.iter().map(|(began, _)| *began).min();
        let ended = times.iter().map(|(_, ended)| *ended).max();
        let seconds = began.zip(ended).map_or(f64::NAN, |(began, ended)| (ended - began).as_secs_f64());
        pinned.load(Ordering::Relaxed) as f64 / seconds
    }
}

/// The kernel that runs us, and the same memory three times.
struct Peers {
    ring: Option<Ring>,
    pipe: Option<Pipe>,
    memories: Vec<(Memory, Backing)>,
}

impl Peers {
    fn new() -> Self {
        let bytes = |pages: u64| (pages << 12) as usize;
        let sizes = [
            (bytes(SMALL_PAGES), Backing::Small),
            (bytes(HUGE_PAGES * PAGES_PER_HUGE), Backing::Huge),
            (bytes(HUGE_PAGES * PAGES_PER_HUGE), Backing::HugeSplit),
        ];
        let mut memories = Vec::new();
        for (bytes, backing) in sizes {
            let Some(memory) = or_say(Memory::new(bytes, backing)) else { continue };
            let wanted = if backing == Backing::Huge { bytes } else { 0 };
            let huge = memory.huge_bytes();
            if huge == wanted {
                memories.push((memory, backing));
            } else {
                eprintln!("Linux mapped {huge} bytes by huge leaves, and not {wanted}: left out");
            }
        }
        Self { ring: or_say(Ring::new()), pipe: or_say(Pipe::new()), memories }
    }
}

/// Says why something is missing from the comparison.
fn or_say<T>(result: Result<T, Unavailable>) -> Option<T> {
    result.inspect_err(|why| eprintln!("{why}")).ok()
}

/// What the kernel takes for the same pages. What failed once is not tried again.
fn kernel_itself(peers: &mut Peers, samples: &mut Samples) {
    let Peers { ring, pipe, memories } = peers;
    for (memory, backing) in memories {
        let (operation, count) = match backing {
            Backing::Small => (ALL, SMALL_PAGES),
            Backing::Huge => (HUGE_LEAF, HUGE_PAGES),
            Backing::HugeSplit => (LARGE_FOLIO, HUGE_PAGES * PAGES_PER_HUGE),
        };
        if let Some(time) = ring.as_ref().map(|ring| ring.pin_and_unpin(memory)) {
            match or_say(time) {
                Some(time) => Stopwatch::new(samples, FAST_GUP, LINUX_RING).add(operation, count, time),
                None => *ring = None,
            }
        }
        if let Some(time) = pipe.as_mut().map(|pipe| pipe.take(memory)) {
            match or_say(time) {
                Some(time) => Stopwatch::new(samples, FAST_GUP, LINUX_PIPE).add(operation, count, time),
                None => *pipe = None,
            }
        }
    }
}
