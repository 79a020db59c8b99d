//! Threads that fault, store, pin, zap, split and collapse the same huge pages at random. Every thread knows what its own pages must hold; afterwards every
//! count is exact and every frame is back.

use crate::memory::{CACHED, FILE_PAGES, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{Access, CpuId, VirtAddr};
use mm::{Area, AreaRights, Foll, GupError, Run, SpaceId};

const CPUS: u32 = 4;
const ROUNDS: u64 = 20_000;
const TABLES: u64 = 64;
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
/// Two times 2 MiB.
const PAGES: u64 = 2 * 512;

/// xorshift: the same work in every run.
struct Random(u64);

impl Random {
    fn new(thread: u32) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (u64::from(thread) + 1) << 40)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// One thread at its work: every fourth page is its own.
struct Worker<'k> {
    kernel: &'k Kernel,
    cpu: ThreadCpu,
    thread: u64,
    random: Random,
    /// What its pages hold, by number.
    holds: Vec<u64>,
    /// What it has pinned, with the page.
    pinned: Vec<(u64, Run)>,
    collapsed: u64,
}

impl Worker<'_> {
    fn own(&mut self) -> u64 {
        self.random.below(PAGES / u64::from(CPUS)) * u64::from(CPUS) + self.thread
    }

    fn run(&mut self) {
        let kernel = self.kernel;
        let (mm, space) = (kernel.mm, kernel.space(0));
        for round in 0..ROUNDS {
            let own = self.own();
            match self.random.below(100) {
                0..30 => self.check(own),
                30..60 => {
                    kernel.store(&self.cpu, 0, page(own), round + 1).expect("a page of the area");
                    self.holds[own as usize] = round + 1;
                }
                60..75 => self.pin(own, round),
                75..80 => self.unpin(),
                // Its own pages only: of the huge page around it the others keep theirs.
                80..90 if self.pinned.iter().all(|(pinned, _)| *pinned != own) => {
                    mm.zap(&self.cpu, space, page(own), 1).expect("frames enough");
                    self.holds[own as usize] = 0;
                }
                80..94 => drop(mm.split_leaf(&self.cpu, space, page(own))),
                94..97 => {
                    if let Some(frame) = kernel.frame_at(&self.cpu, 0, page(own)) {
                        let _ = mm.split_folio(&self.cpu, frame);
                    }
                }
                _ => {
                    self.unpin();
                    self.collapsed += u64::from(mm.collapse(&self.cpu, space, page(own), 511).is_ok());
                }
            }
        }
        self.unpin();
        for number in (self.thread..PAGES).step_by(CPUS as usize) {
            self.check(number);
        }
    }

    fn check(&self, own: u64) {
        let found = self.kernel.load(&self.cpu, 0, page(own)).expect("a page of the area");
        assert_eq!(found, self.holds[own as usize], "page {own} of thread {}", self.thread);
    }

    /// A device writes to the page that is pinned, and user code sees it, whatever the others do to the huge page around it.
    fn pin(&mut self, own: u64, round: u64) {
        let Self { kernel, cpu, pinned, holds, .. } = self;
        let got =
            kernel.mm.gup(cpu, kernel.space(0), page(own), 1, Foll::PIN | Foll::WRITE, |run| pinned.push((own, run)));
        match got {
            Ok(pages) => assert_eq!(pages, 1),
            // A folio that is being split cannot be referenced.
            Err(GupError::NotAllowed { .. }) => return,
            Err(error) => panic!("{error:?}"),
        }
        let frame = pinned.last().expect("just taken").1.frame();
        assert_eq!(kernel.data.read(frame, 0), holds[own as usize], "the page that belongs there");
        kernel.data.write(frame, 0, ROUNDS + round);
        holds[own as usize] = ROUNDS + round;
        self.check(own);
    }

    fn unpin(&mut self) {
        for (own, run) in std::mem::take(&mut self.pinned) {
            assert_eq!(self.kernel.data.read(run.frame(), 0), self.holds[own as usize], "a pinned page stays");
            self.kernel.mm.release(&self.cpu, run, Access::Write).expect("held");
        }
    }
}

#[test]
fn huge_pages_keep_their_contents_while_they_split_and_collapse() {
    let kernel = Kernel::build(CPUS, TABLES);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.mmap(&cpu, SpaceId::new(0), anonymous(AT, PAGES, 0).with_huge_pages()).expect("a good area");
    }
    let collapsed: u64 = std::thread::scope(|scope| {
        let work = |thread: u32| {
            let kernel = &kernel;
            move || {
                let cpu = kernel.machine.attach_as(CpuId::new(thread)).expect("nobody else has it");
                kernel.mm.enter(&cpu, kernel.space(0));
                let mut worker = Worker {
                    kernel,
                    cpu,
                    thread: u64::from(thread),
                    random: Random::new(thread),
                    holds: vec![0; PAGES as usize],
                    pinned: Vec::new(),
                    collapsed: 0,
                };
                worker.run();
                worker.collapsed
            }
        };
        let threads: Vec<_> = (0..CPUS).map(|thread| scope.spawn(work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no assertion failed")).sum()
    });
    assert!(collapsed > 0, "collapse has its moments");
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.munmap(&cpu, SpaceId::new(0), AT, PAGES).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}

/// Two address spaces come to share a table again and again, and leave it.
#[test]
fn a_shared_table_is_left_by_one_at_a_time() {
    const SHARED: [VirtAddr; 2] = [VirtAddr::new(0x40_0000_0000), VirtAddr::new(0x50_0020_0000)];
    let kernel = Kernel::build(CPUS, TABLES);
    let spaces = [SpaceId::new(0), SpaceId::new(1)];
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.fill_file(&cpu);
        for index in [0, 1] {
            let area = Area::shared(SHARED[index], 512, AreaRights::ReadWrite, CACHED, 0);
            kernel.mm.mmap(&cpu, spaces[index], area).expect("a good area");
        }
    }
    let shared: u64 = std::thread::scope(|scope| {
        let work = |thread: u32| {
            let kernel = &kernel;
            move || {
                let cpu = kernel.machine.attach_as(CpuId::new(thread)).expect("nobody else has it");
                let mine = thread as usize % 2;
                kernel.mm.enter(&cpu, kernel.space(mine as u16));
                let mut random = Random::new(thread);
                let mut holds: Vec<u64> = (0..FILE_PAGES).collect();
                let mut shared = 0;
                for round in 0..ROUNDS {
                    let own = random.below(FILE_PAGES / u64::from(CPUS)) * u64::from(CPUS) + u64::from(thread);
                    let at = SHARED[mine].wrapping_add(own * 4096);
                    match random.below(10) {
                        0..4 => assert_eq!(kernel.load(&cpu, mine as u16, at), Ok(holds[own as usize])),
                        4..6 => {
                            kernel.store(&cpu, mine as u16, at, round).expect("a page of the file");
                            holds[own as usize] = round;
                        }
                        6 => {
                            let frame = kernel.file_frame(own).expect("files keep their pages");
                            let got = kernel.mm.gup(&cpu, kernel.space(mine as u16), at, 1, Foll::PIN, |run| {
                                assert_eq!(run.frame(), frame, "the file's page");
                                kernel.mm.release(&cpu, run, Access::Read).expect("just taken");
                            });
                            assert_eq!(got, Ok(1));
                        }
                        7 => kernel.mm.zap(&cpu, kernel.space(mine as u16), at, 1).expect("the tables are whole"),
                        8 => {
                            let file = kernel.mm.file(CACHED).expect("it is there");
                            kernel.mm.unmap_mapping(&cpu, file, own, 1).expect("the tables are whole");
                        }
                        _ => {
                            let other = 1 - mine;
                            // Until the table that it has is gone, it cannot use another.
                            let _ = kernel.mm.retract_table(&cpu, kernel.space(mine as u16), at);
                            let done = kernel.mm.share_table(&cpu, (spaces[mine], at), (spaces[other], SHARED[other]));
                            shared += u64::from(done.is_ok());
                        }
                    }
                }
                shared
            }
        };
        let threads: Vec<_> = (0..CPUS).map(|thread| scope.spawn(work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no assertion failed")).sum()
    });
    assert!(shared > 0, "tables are shared now and then");
    let cpu = kernel.machine.attach().expect("a free CPU");
    for index in [0, 1] {
        kernel.mm.munmap(&cpu, spaces[index], SHARED[index], 512).expect("it is mapped");
    }
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}
