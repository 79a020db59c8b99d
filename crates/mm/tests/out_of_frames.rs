//! Every allocation of every operation is let fail, alone and with all that follow: the operation fails whole or says what it did, every count stays what the
//! entries say, the same operation succeeds when there are frames again, and in the end nothing is lost.

mod audit;
mod memory;

use std::cell::{Cell, RefCell};
use std::fmt::Debug;

use audit::{Account, Behind, Hold, Stretch};
use hosted::ThreadCpu;
use machine::{Access, Frame, VirtAddr, Word};
use memory::{AREAS, CACHED, CACHED_HUGE, FILE_MAPPINGS, FILE_PAGES, Kernel, SPACES, anonymous};
use mm::{Area, AreaRights, FolioFlags, Foll, FrameSource, MapError, MemoryMap, Reference, Run, SpaceId};
use pagetable::{Level, NonPresent, Rights, Swap, SwapFlags};

const ONE: SpaceId = SpaceId::new(0);
const TWO: SpaceId = SpaceId::new(1);
/// Anonymous memory; the second 2 MiB of it can be a huge page.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
/// Where areas are moved to, other tables at every level.
const ELSEWHERE: VirtAddr = VirtAddr::new(0x80_4020_0000);
const TABLES: u64 = 64;
/// 2 MiB in pages.
const HUGE: u64 = 512;

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// What a failed operation leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fails {
    /// What it found. Tables may have been added, and huge leaves split: user code notices neither.
    Whole,
    /// What it found, but that faults must make pages writable again.
    ReadOnly,
    /// Part of what it was to do, as its documentation says.
    InPart,
    /// Less than it could have done, and that is no error: small pages for a huge one.
    WithLess,
}

struct Case {
    name: &'static str,
    fails: Fails,
    prepare: fn(&World),
    operate: fn(&World) -> Result<(), String>,
}

struct World {
    kernel: Kernel,
    cpu: ThreadCpu,
    /// What [`CACHED_HUGE`] has.
    huge_file: Cell<Option<Frame>>,
    /// References that the running operation was given.
    got: RefCell<Vec<Run>>,
}

/// All that must be the same after a failure.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    stretches: Vec<Stretch>,
    contents: Vec<u64>,
    on_swap: u64,
    frames: u64,
}

impl World {
    fn new() -> Self {
        let kernel = Kernel::build(1, TABLES);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.enter(&cpu, kernel.space(0));
        let world = Self { kernel, cpu, huge_file: Cell::default(), got: RefCell::default() };
        world.kernel.fill_file(&world.cpu);
        let huge = world.kernel.fill_huge_file(&world.cpu);
        world.huge_file.set(Some(huge));
        world
    }

    fn map(&self, area: Area) {
        self.kernel.mm.mmap(&self.cpu, ONE, area).expect("a good area");
    }

    fn store(&self, number: u64) {
        self.kernel.store(&self.cpu, 0, page(number), 100 + number).expect("memory");
    }

    fn load(&self, number: u64) {
        self.kernel.load(&self.cpu, 0, page(number)).expect("memory");
    }

    fn frame(&self, number: u64) -> Frame {
        self.kernel.frame_at(&self.cpu, 0, page(number)).expect("mapped")
    }

    fn swap_out(&self, number: u64) {
        self.kernel.mm.swap_out(&self.cpu, self.frame(number)).expect("nobody else uses it");
    }

    /// 2 MiB from `AT` on that a huge page maps, each page filled with its number.
    fn huge(&self) {
        self.map(anonymous(AT, 2 * HUGE, 0).with_huge_pages());
        (0..HUGE).for_each(|number| self.store(number));
        assert_eq!(self.kernel.leaf_at(&self.cpu, 0, AT).map(|leaf| leaf.level), Some(Level::Pmd));
    }

    fn pin(&self, number: u64, pages: u64, flags: Foll) -> Result<(), String> {
        let space = self.kernel.space(0);
        let sink = |run| self.got.borrow_mut().push(run);
        let got = self.kernel.mm.gup(&self.cpu, space, page(number), pages, flags, sink);
        if got == Ok(pages) { Ok(()) } else { Err(format!("{got:?}")) }
    }

    fn release(&self) {
        let runs = self.got.take();
        runs.into_iter().for_each(|run| self.kernel.mm.release(&self.cpu, run, Access::Read).expect("held"));
    }

    fn mark_movable(&self, frame: Frame) {
        let record = MemoryMap::page(self.kernel.data, &self.cpu, frame).expect("a frame with a record");
        record.flags_word().atomic_fetch_or(FolioFlags::MOVABLE.bits());
    }

    /// Checks every count there is.
    fn audit(&self) -> Account {
        let Kernel { tables, data, swap, .. } = &self.kernel;
        let spaces: Vec<_> = (0..SPACES).map(|number| self.kernel.space(number)).collect();
        let account = Account::of(tables, &spaces);
        let files = (0..FILE_PAGES).filter_map(|page| self.kernel.file_frame(page));
        let files = files.chain(self.huge_file.get());
        let zero = FrameSource::zero_page(*data).expect("the first frame");
        let files: Vec<_> = files.chain([zero]).map(Hold::one).collect();
        // Pins of the zero page are not counted.
        let is_counted = |run: &&Run| run.reference() == Reference::Get || run.frame() != zero;
        let runs: Vec<_> = self.got.borrow().iter().filter(is_counted).map(Hold::of_run).collect();
        let in_use = data.leaks().into_iter().map(|leak| leak.frame);
        account.check_counts(&self.cpu, *data, in_use, files.into_iter().chain(runs));
        assert_eq!((swap.in_use() > 0, swap.counts()), (account.on_swap > 0, account.on_swap), "counts on swap");
        let under_way = self.kernel.shadow.invalidations.word().atomic_load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(under_way as u32, 0, "an invalidation was begun and not ended");
        account
    }

    fn see(&self) -> Seen {
        let Account { stretches, on_swap, .. } = self.audit();
        let contents = stretches.iter().flat_map(|stretch| {
            let frames = match stretch.behind {
                Behind::Frames { first, .. } => (0..stretch.pages).map(|page| first.wrapping_add(page)).collect(),
                Behind::Other(_) => Vec::new(),
            };
            frames.into_iter().map(|frame| self.kernel.data.read(frame, 0))
        });
        let contents = contents.collect();
        Seen { stretches, contents, on_swap, frames: self.kernel.data.in_use() }
    }

    /// Unmaps everything, and checks that only what the files have is left.
    fn tear_down(&self) {
        for space in 0..SPACES {
            self.kernel.mm.munmap(&self.cpu, SpaceId::new(space), VirtAddr::new(0), 1 << 35).expect("whole tables");
        }
        self.audit();
        assert_eq!(self.kernel.data.in_use(), FILE_PAGES + HUGE, "what the files have");
        assert_eq!(self.kernel.tables.arena.in_use(), u64::from(SPACES), "the roots");
    }

    /// No slot is lost: every area and every mapping can be had.
    fn end(self) {
        let mmap = |space: u16, number: u64| {
            let at = AT.wrapping_add(number * 2 * 4096);
            let area = Area::shared(at, 1, AreaRights::Read, CACHED, number);
            self.kernel.mm.mmap(&self.cpu, SpaceId::new(space), area)
        };
        let mapped = (0..SPACES).map(|space| (0..).find(|number| mmap(space, *number).is_err()).unwrap_or(0));
        let mapped: Vec<_> = mapped.collect();
        assert_eq!(mapped.iter().sum::<u64>(), FILE_MAPPINGS as u64, "mappings of the file");
        assert_eq!(mapped[0], AREAS as u64, "areas of the first space");
        assert_eq!(mmap(0, 100), Err(MapError::SpaceFull));
        self.tear_down();
        self.kernel.empty_file(&self.cpu);
        let huge = self.kernel.mm.file(CACHED_HUGE).expect("it is there");
        self.kernel.mm.replace_page(&self.cpu, huge, 0, None).expect("a page of the file");
        self.kernel.assert_all_is_back(TABLES);
    }

    /// Lets each allocation of an operation fail: `fail` says how.
    fn each_fails(&self, case: &Case, fail: impl Fn(u64)) -> u64 {
        let Case { name, fails, prepare, operate } = *case;
        let failures = &self.kernel.failures;
        for number in 1.. {
            prepare(self);
            let before = self.see();
            let failed = failures.failed();
            fail(number);
            let result = operate(self);
            failures.fail_at(0);
            self.audit();
            self.release();
            let after = self.see();
            let has_failed = failures.failed() != failed;
            match (has_failed, fails) {
                (false, _) => assert_eq!(result, Ok(()), "{name} with all frames"),
                (true, Fails::WithLess) => {}
                (true, _) => assert!(result.is_err(), "{name} needs allocation {number}"),
            }
            if result.is_err() {
                match fails {
                    Fails::Whole => assert_eq!(after, before, "{name}, allocation {number}: {result:?}"),
                    Fails::ReadOnly => assert_eq!(
                        after.without_write(),
                        before.without_write(),
                        "{name}, allocation {number}: {result:?}"
                    ),
                    Fails::InPart | Fails::WithLess => {}
                }
                assert_eq!(operate(self), Ok(()), "{name} again, after allocation {number} failed");
                self.audit();
                self.release();
            }
            self.tear_down();
            if !has_failed {
                return number - 1;
            }
        }
        unreachable!("operations have an end")
    }

    fn run(&self, case: &Case) {
        let failures = &self.kernel.failures;
        let once = self.each_fails(case, |number| failures.fail_at(number));
        let lasting = self.each_fails(case, |number| failures.fail_from(number));
        assert!(once > 0 && lasting > 0, "{} allocates something", case.name);
    }
}

impl Seen {
    /// The same, as if no page could be written without a fault, be it in memory or on swap.
    fn without_write(mut self) -> Self {
        for stretch in &mut self.stretches {
            match &mut stretch.behind {
                Behind::Frames { attributes, .. } => *attributes = attributes.with_rights(Rights::USER),
                Behind::Other(entry) => {
                    if let Ok(Some(NonPresent::Swap(swap))) = entry.non_present(Level::Pte) {
                        let flags = swap.flags.without(SwapFlags::EXCLUSIVE);
                        *entry = NonPresent::Swap(Swap { flags, ..swap }).encode(Level::Pte);
                    }
                }
            }
        }
        self
    }
}

fn said<T, E: Debug>(result: Result<T, E>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| format!("{error:?}"))
}

fn store(world: &World, space: u16, number: u64) -> Result<(), String> {
    said(world.kernel.store(&world.cpu, space, page(number), 7))
}

fn load(world: &World, space: u16, number: u64) -> Result<(), String> {
    said(world.kernel.load(&world.cpu, space, page(number)))
}

fn small(world: &World) {
    world.map(anonymous(AT, 16, 0));
}

fn shared_file(world: &World) {
    world.map(Area::shared(AT, 16, AreaRights::ReadWrite, CACHED, 0));
}

fn private_file(world: &World) {
    world.map(Area::private(AT, 16, AreaRights::ReadWrite, CACHED, 0));
}

fn huge_file(world: &World) {
    world.map(Area::shared(AT, HUGE, AreaRights::ReadWrite, CACHED_HUGE, 0));
}

fn fork(world: &World) -> Result<(), String> {
    said(world.kernel.mm.fork(&world.cpu, ONE, TWO))
}

fn forked(world: &World, prepare: fn(&World)) {
    prepare(world);
    fork(world).expect("enough frames");
}

fn two_small_pages(world: &World) {
    small(world);
    world.store(3);
    world.store(4);
}

const FAULTS: &[Case] = &[
    Case { name: "store to anonymous memory", fails: Fails::Whole, prepare: small, operate: |w| store(w, 0, 3) },
    Case { name: "load from anonymous memory", fails: Fails::Whole, prepare: small, operate: |w| load(w, 0, 3) },
    Case {
        name: "store where the zero page is",
        fails: Fails::Whole,
        prepare: |w| {
            small(w);
            w.load(3);
        },
        operate: |w| store(w, 0, 3),
    },
    Case { name: "load from a shared file", fails: Fails::Whole, prepare: shared_file, operate: |w| load(w, 0, 3) },
    Case { name: "store to a shared file", fails: Fails::Whole, prepare: shared_file, operate: |w| store(w, 0, 3) },
    Case { name: "load from a private file", fails: Fails::Whole, prepare: private_file, operate: |w| load(w, 0, 3) },
    Case { name: "store to a private file", fails: Fails::Whole, prepare: private_file, operate: |w| store(w, 0, 3) },
    Case {
        name: "store to a page of a private file",
        fails: Fails::Whole,
        prepare: |w| {
            private_file(w);
            w.load(3);
        },
        operate: |w| store(w, 0, 3),
    },
    Case { name: "load from a huge file", fails: Fails::Whole, prepare: huge_file, operate: |w| load(w, 0, 3) },
    Case { name: "store to a huge file", fails: Fails::Whole, prepare: huge_file, operate: |w| store(w, 0, 3) },
    Case {
        name: "store to a private page of a huge file",
        fails: Fails::Whole,
        prepare: |w| w.map(Area::private(AT, HUGE, AreaRights::ReadWrite, CACHED_HUGE, 0)),
        operate: |w| store(w, 0, 3),
    },
    Case {
        name: "the parent's store after a fork",
        fails: Fails::Whole,
        prepare: |w| forked(w, two_small_pages),
        operate: |w| store(w, 0, 3),
    },
    Case {
        name: "the child's store after a fork",
        fails: Fails::Whole,
        prepare: |w| forked(w, two_small_pages),
        operate: |w| store(w, 1, 3),
    },
    Case {
        name: "load from swap",
        fails: Fails::Whole,
        prepare: |w| {
            two_small_pages(w);
            w.swap_out(3);
        },
        operate: |w| load(w, 0, 3),
    },
    Case {
        name: "the child's store to what is on swap",
        fails: Fails::Whole,
        prepare: |w| {
            two_small_pages(w);
            w.swap_out(3);
            fork(w).expect("enough frames");
        },
        operate: |w| store(w, 1, 3),
    },
    Case {
        name: "store to anonymous memory in huge pages",
        fails: Fails::WithLess,
        prepare: |w| w.map(anonymous(AT, 2 * HUGE, 0).with_huge_pages()),
        operate: |w| store(w, 0, 3),
    },
    Case {
        name: "load from anonymous memory in huge pages",
        fails: Fails::WithLess,
        prepare: |w| w.map(anonymous(AT, 2 * HUGE, 0).with_huge_pages()),
        operate: |w| load(w, 0, 3),
    },
    Case {
        name: "store to a huge page after a fork",
        fails: Fails::Whole,
        prepare: |w| forked(w, World::huge),
        operate: |w| store(w, 0, 3),
    },
    Case {
        name: "populate anonymous memory",
        fails: Fails::InPart,
        prepare: small,
        operate: |w| said(w.kernel.mm.populate(&w.cpu, w.kernel.space(0), AT, 5, Access::Write)),
    },
    Case {
        name: "populate a private file, across tables",
        fails: Fails::InPart,
        prepare: |w| w.map(Area::private(page(508), 8, AreaRights::ReadWrite, CACHED, 0)),
        operate: |w| said(w.kernel.mm.populate(&w.cpu, w.kernel.space(0), page(508), 8, Access::Write)),
    },
];

const AREA_CHANGES: &[Case] = &[
    Case { name: "fork of small pages", fails: Fails::ReadOnly, prepare: two_small_pages, operate: fork },
    Case {
        name: "fork of two tables, swap, a file's pages and copies",
        fails: Fails::ReadOnly,
        prepare: |w| {
            w.map(anonymous(page(508), 8, 0));
            (508..516).for_each(|number| w.store(number));
            w.swap_out(509);
            w.swap_out(513);
            w.map(Area::private(ELSEWHERE, 4, AreaRights::ReadWrite, CACHED, 4));
            w.kernel.store(&w.cpu, 0, ELSEWHERE, 1).expect("memory");
            w.kernel.load(&w.cpu, 0, ELSEWHERE.wrapping_add(4096)).expect("memory");
        },
        operate: fork,
    },
    Case { name: "fork of a huge page", fails: Fails::ReadOnly, prepare: World::huge, operate: fork },
    Case {
        name: "fork of pinned pages",
        fails: Fails::ReadOnly,
        prepare: two_small_pages,
        operate: |w| {
            w.pin(3, 2, Foll::PIN | Foll::WRITE)?;
            fork(w)
        },
    },
    Case {
        name: "fork of a pinned huge page",
        fails: Fails::ReadOnly,
        prepare: World::huge,
        operate: |w| {
            w.pin(3, 1, Foll::PIN | Foll::WRITE)?;
            fork(w)
        },
    },
    Case {
        name: "mprotect of part of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mprotect(&w.cpu, ONE, page(3), 5, AreaRights::Read)),
    },
    Case {
        name: "mprotect from one huge page into another",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.store(HUGE);
        },
        operate: |w| said(w.kernel.mm.mprotect(&w.cpu, ONE, page(500), 20, AreaRights::None)),
    },
    Case {
        name: "munmap of part of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.munmap(&w.cpu, ONE, page(3), 5)),
    },
    Case {
        name: "munmap from one huge page into another",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.store(HUGE);
        },
        operate: |w| said(w.kernel.mm.munmap(&w.cpu, ONE, page(500), 20)),
    },
    Case {
        name: "madvise(dontneed) of part of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.zap(&w.cpu, w.kernel.space(0), page(3), 5)),
    },
    Case {
        name: "madvise(dontneed) from one huge page into another",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.store(HUGE);
        },
        operate: |w| said(w.kernel.mm.zap(&w.cpu, w.kernel.space(0), page(500), 20)),
    },
    Case {
        name: "mremap of small pages",
        fails: Fails::Whole,
        prepare: two_small_pages,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (page(1), 8), (ELSEWHERE.wrapping_add(4096 * 507), 8))),
    },
    Case {
        name: "mremap of a huge page as it is",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (AT, HUGE), (ELSEWHERE, HUGE))),
    },
    Case {
        name: "mremap of a huge page to where it cannot be one",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (AT, HUGE), (ELSEWHERE.wrapping_add(4096), HUGE))),
    },
    Case {
        name: "mremap of part of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (page(100), 100), (ELSEWHERE, 50))),
    },
    Case {
        name: "mremap that cuts a huge page off",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (AT, 2 * HUGE), (AT, 100))),
    },
];

const PINS: &[Case] = &[
    Case {
        name: "pin with faults",
        fails: Fails::InPart,
        prepare: |w| w.map(anonymous(page(508), 8, 0)),
        operate: |w| w.pin(508, 8, Foll::PIN | Foll::WRITE),
    },
    Case { name: "get of one page", fails: Fails::Whole, prepare: small, operate: |w| w.pin(3, 1, Foll::GET) },
    Case {
        name: "pin for reading of pages that a fork shared",
        fails: Fails::InPart,
        prepare: |w| forked(w, two_small_pages),
        operate: |w| w.pin(3, 2, Foll::PIN),
    },
    Case {
        name: "pin for reading, for long, of the zero page and a file's page",
        fails: Fails::InPart,
        prepare: |w| {
            w.map(anonymous(AT, 4, 0));
            w.map(Area::private(page(4), 4, AreaRights::ReadWrite, CACHED, 0));
            w.load(3);
            w.load(4);
        },
        operate: |w| w.pin(3, 2, Foll::PIN | Foll::LONGTERM),
    },
    Case {
        name: "pin for long of movable pages",
        fails: Fails::InPart,
        prepare: |w| {
            two_small_pages(w);
            [3, 4].into_iter().for_each(|number| w.mark_movable(w.frame(number)));
        },
        operate: |w| w.pin(3, 2, Foll::PIN | Foll::WRITE | Foll::LONGTERM),
    },
    Case {
        name: "pin for long of a movable huge page",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.mark_movable(w.frame(0));
        },
        operate: |w| w.pin(3, 2, Foll::PIN | Foll::WRITE | Foll::LONGTERM),
    },
    Case {
        name: "forced write into an area that may be read",
        fails: Fails::InPart,
        prepare: |w| w.map(Area::private(AT, 8, AreaRights::Read, CACHED, 0)),
        operate: |w| w.pin(3, 2, Foll::PIN | Foll::WRITE | Foll::FORCE),
    },
    Case {
        name: "get of pages that have entries of their own",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| w.pin(3, 2, Foll::GET | Foll::SPLIT_PMD),
    },
    Case {
        name: "remote pin",
        fails: Fails::InPart,
        prepare: small,
        operate: |w| {
            let sink = |run| w.got.borrow_mut().push(run);
            let signal = || mm::Signal::None;
            let flags = Foll::PIN | Foll::WRITE;
            let got = w.kernel.mm.gup_remote(&w.cpu, w.kernel.space(0), (page(3), 2), flags, signal, sink);
            if got == Ok(2) { Ok(()) } else { Err(format!("{got:?}")) }
        },
    },
    Case {
        name: "pin of movable pages of a file",
        fails: Fails::InPart,
        prepare: |w| {
            shared_file(w);
            w.load(3);
            (3..5).for_each(|page| w.mark_movable(w.kernel.file_frame(page).expect("filled")));
        },
        operate: |w| {
            let file = w.kernel.mm.file(CACHED).expect("it is there");
            let got = w.kernel.mm.pin_file(&w.cpu, file, (3, 2), |run| w.got.borrow_mut().push(run));
            if got == Ok(2) { Ok(()) } else { Err(format!("{got:?}")) }
        },
    },
];

const HUGE_PAGES_AND_RECLAIM: &[Case] = &[
    Case {
        name: "split of a leaf",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.split_leaf(&w.cpu, w.kernel.space(0), AT)),
    },
    Case {
        name: "split of a leaf of a file",
        fails: Fails::Whole,
        prepare: |w| {
            huge_file(w);
            w.load(3);
        },
        operate: |w| said(w.kernel.mm.split_leaf(&w.cpu, w.kernel.space(0), AT)),
    },
    Case {
        name: "split of a folio",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.split_folio(&w.cpu, w.frame(9))),
    },
    Case {
        name: "split of a folio of two address spaces",
        fails: Fails::Whole,
        prepare: |w| forked(w, World::huge),
        operate: |w| said(w.kernel.mm.split_folio(&w.cpu, w.frame(9))),
    },
    Case {
        name: "collapse",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.kernel.mm.split_folio(&w.cpu, w.frame(9)).expect("nobody else uses it");
        },
        operate: |w| said(w.kernel.mm.collapse(&w.cpu, w.kernel.space(0), AT, 0)),
    },
    Case {
        name: "sharing of a table",
        fails: Fails::Whole,
        prepare: |w| {
            for space in [ONE, TWO] {
                let area = Area::shared(AT, HUGE, AreaRights::ReadWrite, CACHED, 0);
                w.kernel.mm.mmap(&w.cpu, space, area).expect("a good area");
            }
            w.load(3);
        },
        operate: |w| said(w.kernel.mm.share_table(&w.cpu, (TWO, AT), (ONE, AT))),
    },
    Case {
        name: "a fault after a shared table was left",
        fails: Fails::Whole,
        prepare: |w| {
            for space in [ONE, TWO] {
                let area = Area::shared(AT, HUGE, AreaRights::ReadWrite, CACHED, 0);
                w.kernel.mm.mmap(&w.cpu, space, area).expect("a good area");
            }
            w.load(3);
            w.kernel.mm.share_table(&w.cpu, (TWO, AT), (ONE, AT)).expect("the same pages");
            w.kernel.mm.zap(&w.cpu, w.kernel.space(1), page(3), 1).expect("whole tables");
        },
        operate: |w| load(w, 1, 3),
    },
    Case {
        name: "swap-out",
        fails: Fails::Whole,
        prepare: two_small_pages,
        operate: |w| said(w.kernel.mm.swap_out(&w.cpu, w.frame(3))),
    },
    Case {
        name: "swap-out of a page of two address spaces",
        fails: Fails::Whole,
        prepare: |w| forked(w, two_small_pages),
        operate: |w| said(w.kernel.mm.swap_out(&w.cpu, w.frame(3))),
    },
    Case {
        name: "swap-out of many",
        fails: Fails::InPart,
        prepare: two_small_pages,
        operate: |w| {
            let frames: Vec<_> = [3, 4].into_iter().filter_map(|n| w.kernel.frame_at(&w.cpu, 0, page(n))).collect();
            let mut result = Ok(());
            w.kernel.mm.swap_out_many(&w.cpu, &frames, |_, out| result = result.clone().and(said(out)));
            result
        },
    },
    Case {
        name: "migration",
        fails: Fails::Whole,
        prepare: two_small_pages,
        operate: |w| said(w.kernel.mm.migrate(&w.cpu, w.frame(3))),
    },
    Case {
        name: "migration of a page of a file",
        fails: Fails::Whole,
        prepare: |w| {
            shared_file(w);
            w.load(3);
        },
        operate: |w| said(w.kernel.mm.migrate(&w.cpu, w.kernel.file_frame(3).expect("filled"))),
    },
    Case {
        name: "migration of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.migrate(&w.cpu, w.frame(0))),
    },
    Case {
        name: "migration of a range",
        fails: Fails::InPart,
        prepare: two_small_pages,
        operate: |w| {
            let moved = w.kernel.mm.migrate_range(&w.cpu, w.kernel.space(0), page(3), 2);
            if moved == Ok(2) { Ok(()) } else { Err(format!("{moved:?}")) }
        },
    },
    Case {
        name: "a driver's folio",
        fails: Fails::Whole,
        prepare: |_| (),
        operate: |w| {
            let frame = w.kernel.mm.allocate_folio(&w.cpu, 3);
            frame.map(|frame| said(w.kernel.mm.free_folio(&w.cpu, frame))).map_err(|error| format!("{error:?}"))?
        },
    },
];

fn run(cases: &[Case]) {
    let world = World::new();
    cases.iter().for_each(|case| world.run(case));
    world.end();
}

#[test]
fn faults_and_populate() {
    run(FAULTS);
}

#[test]
fn fork_and_changes_of_areas() {
    run(AREA_CHANGES);
}

#[test]
fn pins() {
    run(PINS);
}

#[test]
fn huge_pages_and_reclaim() {
    run(HUGE_PAGES_AND_RECLAIM);
}
