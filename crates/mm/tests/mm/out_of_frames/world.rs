//! One kernel and CPU, what can be done with them, and what must be the same after a failure.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;

use crate::audit::{Account, Behind, Hold, Stretch};
use crate::memory::{AREAS, CACHED, CACHED_HUGE, FILE_MAPPINGS, FILE_PAGES, Kernel, SPACES, anonymous};
use hosted::ThreadCpu;
use machine::{Access, Frame, VirtAddr, Word};
use mm::{Area, AreaRights, FolioFlags, Foll, FrameSource, MapError, MemoryMap, Reference, Run, SpaceId, UffdModes};
use pagetable::{Level, Rights};

pub(crate) const ONE: SpaceId = SpaceId::new(0);
pub(crate) const TWO: SpaceId = SpaceId::new(1);
/// Anonymous memory; the second 2 MiB of it can be a huge page.
pub(crate) const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
/// Where areas are moved to, other tables at every level.
pub(crate) const ELSEWHERE: VirtAddr = VirtAddr::new(0x80_4020_0000);
pub(crate) const TABLES: u64 = 64;
/// 2 MiB in pages.
pub(crate) const HUGE: u64 = 512;

pub(crate) const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// What a failed operation leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fails {
    /// What it found. Tables may have been added, and huge leaves split: user code notices neither.
    Whole,
    /// What it found, but that faults must make pages writable again.
    ReadOnly,
    /// Part of what it was to do, as its documentation says.
    InPart,
    /// Less than it could have done, and that is no error: small pages for a huge one.
    WithLess,
}

pub(crate) struct Case {
    pub name: &'static str,
    pub fails: Fails,
    pub prepare: fn(&World),
    pub operate: fn(&World) -> Result<(), String>,
}

pub(crate) struct World {
    pub kernel: Kernel,
    pub cpu: ThreadCpu,
    /// What [`CACHED_HUGE`] has.
    pub huge_file: Cell<Option<Frame>>,
    /// References that the running operation was given.
    pub got: RefCell<Vec<Run>>,
}

/// All that must be the same after a failure.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub stretches: Vec<Stretch>,
    pub contents: Vec<u64>,
    pub on_swap: u64,
    pub frames: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let (kernel, cpu) = Kernel::alone(TABLES);
        let world = Self { kernel, cpu, huge_file: Cell::default(), got: RefCell::default() };
        world.kernel.fill_file(&world.cpu);
        let huge = world.kernel.fill_huge_file(&world.cpu);
        world.huge_file.set(Some(huge));
        world
    }

    pub(crate) fn map(&self, area: Area) {
        self.kernel.mm.mmap(&self.cpu, ONE, area).expect("a good area");
    }

    pub(crate) fn register(&self, area: Area, modes: UffdModes) {
        self.map(area);
        self.kernel.mm.uffd_register(&self.cpu, ONE, area.start, area.pages, modes).expect("memory, or a file");
    }

    pub(crate) fn store(&self, number: u64) {
        self.kernel.store(&self.cpu, 0, page(number), 100 + number).expect("memory");
    }

    pub(crate) fn load(&self, number: u64) {
        self.kernel.load(&self.cpu, 0, page(number)).expect("memory");
    }

    pub(crate) fn frame(&self, number: u64) -> Frame {
        self.kernel.frame_at(&self.cpu, 0, page(number)).expect("mapped")
    }

    pub(crate) fn swap_out(&self, number: u64) {
        self.kernel.mm.swap_out(&self.cpu, self.frame(number)).expect("nobody else uses it");
    }

    /// 2 MiB from `AT` on that a huge page maps, each page filled with its number.
    pub(crate) fn huge(&self) {
        self.map(anonymous(AT, 2 * HUGE, 0).with_huge_pages());
        (0..HUGE).for_each(|number| self.store(number));
        assert_eq!(self.kernel.leaf_at(&self.cpu, 0, AT).map(|leaf| leaf.level), Some(Level::Pmd));
    }

    pub(crate) fn pin(&self, number: u64, pages: u64, flags: Foll) -> Result<(), String> {
        let space = self.kernel.space(0);
        let sink = |run| self.got.borrow_mut().push(run);
        let got = self.kernel.mm.gup(&self.cpu, space, page(number), pages, flags, sink);
        if got == Ok(pages) { Ok(()) } else { Err(format!("{got:?}")) }
    }

    pub(crate) fn release(&self) {
        let runs = self.got.take();
        runs.into_iter().for_each(|run| self.kernel.mm.release(&self.cpu, run, Access::Read).expect("held"));
    }

    pub(crate) fn mark_movable(&self, frame: Frame) {
        let record = MemoryMap::page(self.kernel.data, &self.cpu, frame).expect("a frame with a record");
        record.flags_word().atomic_fetch_or(FolioFlags::MOVABLE.bits());
    }

    /// Checks every count there is.
    pub(crate) fn audit(&self) -> Account {
        let Kernel { tables, data, swap, .. } = &self.kernel;
        let spaces: Vec<_> = (0..SPACES).map(|number| self.kernel.space(number)).collect();
        let zero = FrameSource::zero_page(*data).expect("the first frame");
        let account = Account::of(tables, zero, &spaces);
        let files = (0..FILE_PAGES).filter_map(|page| self.kernel.file_frame(page));
        let files = files.chain(self.huge_file.get());
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

    pub(crate) fn see(&self) -> Seen {
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
    pub(crate) fn tear_down(&self) {
        for space in 0..SPACES {
            self.kernel.mm.munmap(&self.cpu, SpaceId::new(space), VirtAddr::new(0), 1 << 35).expect("whole tables");
        }
        self.audit();
        assert_eq!(self.kernel.data.in_use(), FILE_PAGES + HUGE, "what the files have");
        assert_eq!(self.kernel.tables.arena.in_use(), u64::from(SPACES), "the roots");
    }

    /// No slot is lost: every area and every mapping can be had.
    pub(crate) fn end(self) {
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
    pub(crate) fn each_fails(&self, case: &Case, fail: impl Fn(u64)) -> u64 {
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

    pub(crate) fn run(&self, case: &Case) {
        let failures = &self.kernel.failures;
        let once = self.each_fails(case, |number| failures.fail_at(number));
        let lasting = self.each_fails(case, |number| failures.fail_from(number));
        assert!(once > 0 && lasting > 0, "{} allocates something", case.name);
    }
}

impl Seen {
    /// The same, as if no page could be written without a fault.
    pub(crate) fn without_write(mut self) -> Self {
        for stretch in &mut self.stretches {
            if let Behind::Frames { attributes, .. } = &mut stretch.behind {
                *attributes = attributes.with_rights(Rights::USER);
            }
        }
        self
    }
}
