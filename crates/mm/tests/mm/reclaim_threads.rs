//! Pages leave and come back while others use them: nothing that was written is lost, and every count is exact.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory::{CACHED, FILE_PAGES, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{Access, CpuId, Frame, VirtAddr, Word};
use mm::{Area, AreaRights, Foll, SpaceId};

const CPUS: u32 = 4;
const ROUNDS: u64 = 50_000;
const TABLES: u64 = 24;
/// How often a page of the file is replaced.
const REPLACED: u64 = 3000;
const PAGES: u64 = 24;
const PRIVATE: VirtAddr = VirtAddr::new(0x40_0000_0000);
const SHARED: VirtAddr = VirtAddr::new(0x50_0000_0000);
const ONE: SpaceId = SpaceId::new(0);

/// xorshift: the same work in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// How often each page was added to, and what the reclaimers did.
struct Tally {
    private: Vec<AtomicU64>,
    shared: Vec<AtomicU64>,
    swapped: AtomicU64,
    moved: AtomicU64,
}

fn address(start: VirtAddr, page: u64) -> VirtAddr {
    start.wrapping_add(page * 4096)
}

fn work(kernel: &Kernel, cpu: &ThreadCpu, tally: &Tally) {
    kernel.mm.enter(cpu, kernel.space(0));
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (cpu.id_number() + 1) << 40);
    for _ in 0..ROUNDS {
        let page = random.below(PAGES);
        let (start, counts) = if random.below(2) == 0 { (PRIVATE, &tally.private) } else { (SHARED, &tally.shared) };
        let at = address(start, page);
        match random.below(10) {
            0..4 => {
                kernel.increment(cpu, 0, at).expect("memory");
                counts[page as usize].fetch_add(1, Ordering::Relaxed);
            }
            4 => {
                // A device adds to the page while it is pinned.
                let mut got = Vec::new();
                let _ = kernel.mm.gup(cpu, kernel.space(0), at, 1, Foll::PIN | Foll::WRITE, |run| got.push(run));
                for run in got {
                    let words = kernel.data.words(run.frame()).expect("data");
                    std::thread::yield_now();
                    words[0].atomic_fetch_add(1);
                    counts[page as usize].fetch_add(1, Ordering::Relaxed);
                    kernel.mm.release(cpu, run, Access::Write).expect("held");
                }
            }
            5 => {
                let _ = kernel.load(cpu, 0, at).expect("memory");
            }
            6 | 7 => {
                let frames: Vec<Frame> =
                    (0..8).filter_map(|_| frame(kernel, cpu, PRIVATE, random.below(PAGES))).collect();
                kernel.mm.swap_out_many(cpu, &frames, |_, result| {
                    tally.swapped.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
                });
            }
            _ => {
                if let Some(frame) = frame(kernel, cpu, start, page) {
                    let moved = kernel.mm.migrate(cpu, frame).is_ok();
                    tally.moved.fetch_add(u64::from(moved), Ordering::Relaxed);
                }
            }
        }
    }
}

fn frame(kernel: &Kernel, cpu: &ThreadCpu, start: VirtAddr, page: u64) -> Option<Frame> {
    kernel.frame_at(cpu, 0, address(start, page))
}

trait Number {
    fn id_number(&self) -> u64;
}

impl Number for ThreadCpu {
    fn id_number(&self) -> u64 {
        machine::Cpu::id(self).index() as u64
    }
}

#[test]
fn nothing_that_was_written_is_lost() {
    let kernel = Kernel::build(CPUS, TABLES);
    let count = |_| AtomicU64::new(0);
    let tally = Tally {
        private: (0..PAGES).map(count).collect(),
        shared: (0..PAGES).map(count).collect(),
        swapped: AtomicU64::new(0),
        moved: AtomicU64::new(0),
    };
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.fill_file(&cpu);
        kernel.mm.mmap(&cpu, ONE, anonymous(PRIVATE, PAGES, 0)).expect("a good area");
        let area = Area::shared(SHARED, FILE_PAGES, AreaRights::ReadWrite, CACHED, 0);
        kernel.mm.mmap(&cpu, ONE, area).expect("a good area");
    }
    std::thread::scope(|scope| {
        for number in 0..CPUS {
            let (kernel, tally) = (&kernel, &tally);
            scope.spawn(move || {
                let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
                work(kernel, &cpu, tally);
            });
        }
    });
    let cpu = kernel.machine.attach().expect("a free CPU");
    for page in 0..PAGES {
        let added = tally.private[page as usize].load(Ordering::Relaxed);
        assert_eq!(kernel.load(&cpu, 0, address(PRIVATE, page)), Ok(added), "page {page} of the private area");
        let added = tally.shared[page as usize].load(Ordering::Relaxed);
        assert_eq!(kernel.load(&cpu, 0, address(SHARED, page)), Ok(page + added), "page {page} of the file");
    }
    for page in 0..PAGES {
        assert_eq!(kernel.counts(&cpu, frame(&kernel, &cpu, PRIVATE, page).expect("mapped")), (1, 0, 1));
        assert_eq!(kernel.counts(&cpu, frame(&kernel, &cpu, SHARED, page).expect("mapped")), (2, 0, 1));
    }
    let (swapped, moved) = (tally.swapped.into_inner(), tally.moved.into_inner());
    assert!(swapped > 100 && moved > 100, "{swapped} pages were swapped out, {moved} folios moved");
    kernel.mm.munmap(&cpu, ONE, PRIVATE, PAGES).expect("it is mapped");
    kernel.mm.munmap(&cpu, ONE, SHARED, FILE_PAGES).expect("it is mapped");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

/// One CPU takes a page out of its file and puts another in, while others move, drop and read what is there.
#[test]
fn what_a_file_lost_does_not_come_back() {
    let kernel = Kernel::build(3, TABLES);
    let area = Area::shared(SHARED, 1, AreaRights::ReadWrite, CACHED, 0);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.mmap(&cpu, ONE, area).expect("a good area");
    }
    let done = AtomicU64::new(0);
    let moved = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (kernel, done, moved) = (&kernel, &done, &moved);
        let file = kernel.mm.file(CACHED).expect("it is there");
        scope.spawn(move || {
            let cpu = kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
            let is_enough = |round| round >= REPLACED && moved.load(Ordering::Relaxed) > 0;
            for round in (0..).take_while(|round| !is_enough(*round)) {
                let frame = kernel.new_file_page(&cpu, 0, round);
                kernel.mm.replace_page(&cpu, file, 0, Some(frame)).expect("a page of the file");
                if round % 4 != 0 {
                    std::thread::yield_now();
                }
                kernel.mm.replace_page(&cpu, file, 0, None).expect("a page of the file");
                assert_eq!(kernel.file_frame(0), None, "round {round}");
            }
            done.store(1, Ordering::Relaxed);
        });
        for number in 1..3 {
            scope.spawn(move || {
                let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
                kernel.mm.enter(&cpu, kernel.space(0));
                while done.load(Ordering::Relaxed) == 0 {
                    if let Some(frame) = kernel.file_frame(0) {
                        moved.fetch_add(u64::from(kernel.mm.migrate(&cpu, frame).is_ok()), Ordering::Relaxed);
                    }
                    match number {
                        1 => drop(kernel.load(&cpu, 0, SHARED)),
                        _ => drop(kernel.mm.drop_page(&cpu, file, 0)),
                    }
                }
            });
        }
    });
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.munmap(&cpu, ONE, SHARED, 1).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}

/// One CPU forks, and the child must see memory stand still, while others add to the parent's and reclaim both.
#[test]
fn a_child_sees_memory_stand_still() {
    const FORKS: u64 = 100;
    const OF_PARENT: u64 = 8;
    let child = SpaceId::new(1);
    let kernel = Kernel::build(3, 2 * TABLES);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.mmap(&cpu, ONE, anonymous(PRIVATE, OF_PARENT, 0)).expect("a good area");
    }
    let added: Vec<_> = (0..OF_PARENT).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicU64::new(0);
    let gone = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (kernel, done, gone, added) = (&kernel, &done, &gone, &added);
        scope.spawn(move || {
            let cpu = kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
            kernel.mm.enter(&cpu, kernel.space(0));
            let is_enough = |round| round >= FORKS && gone.load(Ordering::Relaxed) > 0;
            for _ in (0..).take_while(|round| !is_enough(*round)) {
                kernel.mm.fork(&cpu, ONE, child).expect("room for a child");
                kernel.mm.switch(&cpu, kernel.space(0), kernel.space(1));
                let read = || (0..OF_PARENT).map(|page| kernel.load(&cpu, 1, address(PRIVATE, page)).expect("memory"));
                let first: Vec<u64> = read().collect();
                kernel.increment(&cpu, 1, PRIVATE).expect("memory");
                std::thread::yield_now();
                let mut second: Vec<u64> = read().collect();
                second[0] -= 1;
                assert_eq!(first, second, "nobody but the child writes to its memory");
                kernel.mm.switch(&cpu, kernel.space(1), kernel.space(0));
                kernel.mm.exit(&cpu, child).expect("it is there");
            }
            done.store(1, Ordering::Relaxed);
        });
        for number in 1..3 {
            scope.spawn(move || {
                let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
                kernel.mm.enter(&cpu, kernel.space(0));
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(number) << 40);
                while done.load(Ordering::Relaxed) == 0 {
                    let page = random.below(OF_PARENT);
                    let at = address(PRIVATE, page);
                    // Of either space: by chance also of a child that is going away.
                    let frame = kernel.frame_at(&cpu, random.below(2) as u16, at);
                    match (random.below(4), frame) {
                        (0, Some(frame)) => {
                            gone.fetch_add(u64::from(kernel.mm.swap_out(&cpu, frame).is_ok()), Ordering::Relaxed);
                        }
                        (1, Some(frame)) => {
                            gone.fetch_add(u64::from(kernel.mm.migrate(&cpu, frame).is_ok()), Ordering::Relaxed);
                        }
                        _ => {
                            kernel.increment(&cpu, 0, at).expect("memory");
                            added[page as usize].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let cpu = kernel.machine.attach().expect("a free CPU");
    for (page, added) in (0..).zip(added) {
        assert_eq!(kernel.load(&cpu, 0, address(PRIVATE, page)), Ok(added.into_inner()), "page {page} of the parent");
    }
    kernel.mm.exit(&cpu, ONE).expect("it is there");
    kernel.assert_all_is_back(2 * TABLES);
}
