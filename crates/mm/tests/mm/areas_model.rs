//! Random operations on areas, compared with a model that was written page by page: contents, rights, refusals, and which pages were used. Whatever is
//! refused has changed nothing, and whatever runs out of memory neither.

use crate::memory::{ANONYMOUS, CACHED, FILE_PAGES, Kernel};
use crate::naive::{Backing, Naive, Refused, Signal};
use hosted::ThreadCpu;
use machine::{Access, Frame, VirtAddr};
use mm::{
    Area, AreaError, AreaRights, FaultError, FolioFlags, FrameSource, GuardRegionError, MapError, MergeError,
    PopulateError, SpaceId, Unmergeable, Usage,
};
use proptest::prelude::*;

const SPACE: SpaceId = SpaceId::new(0);
const TABLES: u64 = 48;
/// Of a range that lies across the end of a table of each level, without the root.
const TABLES_OF_A_RANGE: u64 = 6;
const SLOTS: usize = 16;

/// Pages are numbered in zones of [`ZONE`], each of which lies across the end of a table: of pages, of 2 MiB entries, of 1 GiB entries.
const ZONES: [u64; 3] = [0x40_0020_0000, 0x50_4000_0000, 0x80_0000_0000];
const ZONE: u64 = 8;
const PAGES: u64 = ZONE * ZONES.len() as u64;

/// The address space has parts that begin at these pages, too: at the end of a table, inside one, and where only the root is common to both sides.
const PARTS: [u64; 4] = [0, ZONE / 2, ZONE + ZONE / 2 + 1, 2 * ZONE + ZONE / 2];

fn address(page: u64) -> VirtAddr {
    VirtAddr::new(ZONES[(page / ZONE) as usize] + (page % ZONE) * 4096 - ZONE / 2 * 4096)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Anonymous,
    Shared,
    Private,
}

#[derive(Clone, Debug)]
enum Op {
    Mmap(Range, Kind, AreaRights, u64),
    Munmap(Range),
    Mprotect(Range, AreaRights),
    Mremap(Range, Range),
    Store(u64, u64),
    Load(u64),
    Zap(Range),
    InstallGuards(Range),
    RemoveGuards(Range),
    WriteProtect(Range),
    Populate(Range, AreaRights),
    ClearSoftDirty(Range),
    ClearOthers(Range),
    SwapOut(u64),
    Migrate(u64),
    Merge(u64, u64),
    Unmerge(Range),
    /// The next operation meets an allocation that fails.
    Fail(u64),
}

/// Pages of one zone.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    count: u64,
}

impl Range {
    fn at(self) -> VirtAddr {
        address(self.start)
    }
}

fn range() -> impl Strategy<Value = Range> {
    // Sometimes empty, often whole, never beyond its zone.
    (0..ZONES.len() as u64, 0..ZONE, prop_oneof![1 => Just(0), 4 => 1..4_u64, 3 => 1..=ZONE])
        .prop_map(|(zone, first, count)| Range { start: zone * ZONE + first, count: count.min(ZONE - first) })
}

fn rights() -> impl Strategy<Value = AreaRights> {
    prop_oneof![1 => Just(AreaRights::None), 1 => Just(AreaRights::Read), 3 => Just(AreaRights::ReadWrite)]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Anonymous), Just(Kind::Shared), Just(Kind::Private)]
}

fn op() -> impl Strategy<Value = Op> {
    let page = || 0..PAGES;
    prop_oneof![
        6 => (range(), kind(), rights(), 0..FILE_PAGES).prop_map(|(range, kind, rights, first)| Op::Mmap(range, kind, rights, first)),
        2 => range().prop_map(Op::Munmap),
        5 => (range(), rights()).prop_map(|(range, rights)| Op::Mprotect(range, rights)),
        5 => (range(), range()).prop_map(|(from, to)| Op::Mremap(from, to)),
        1 => (range(), 0..ZONE).prop_map(|(from, count)| Op::Mremap(from, Range { count: count.min(ZONE - from.start % ZONE), ..from })),
        12 => (page(), 1..u64::MAX).prop_map(|(page, value)| Op::Store(page, value)),
        // Pages that are equal.
        6 => (page(), 1..3_u64).prop_map(|(page, value)| Op::Store(page, value)),
        4 => page().prop_map(Op::Load),
        2 => range().prop_map(Op::Zap),
        2 => range().prop_map(Op::InstallGuards),
        2 => range().prop_map(Op::RemoveGuards),
        2 => range().prop_map(Op::WriteProtect),
        3 => (range(), rights()).prop_map(|(range, rights)| Op::Populate(range, rights)),
        2 => range().prop_map(Op::ClearSoftDirty),
        1 => range().prop_map(Op::ClearOthers),
        2 => page().prop_map(Op::SwapOut),
        2 => page().prop_map(Op::Migrate),
        12 => (page(), page()).prop_map(|(into, from)| Op::Merge(into, from)),
        1 => range().prop_map(Op::Unmerge),
        3 => (1..6_u64).prop_map(Op::Fail),
    ]
}

struct Pair {
    kernel: Kernel,
    cpu: ThreadCpu,
    naive: Naive,
}

/// What an operation of areas came to.
#[derive(Debug)]
enum Came {
    Done,
    Refused,
    OutOfFrames,
}

impl Came {
    fn of_areas(result: Result<(), AreaError>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(AreaError::OutOfFrames) => Self::OutOfFrames,
            Err(
                AreaError::Range(_)
                | AreaError::NoArea { .. }
                | AreaError::Overlaps(_)
                | AreaError::AcrossParts { .. }
                | AreaError::SpaceFull
                | AreaError::BadArea(_),
            ) => Self::Refused,
            Err(error) => panic!("{error:?}"),
        }
    }
}

impl Came {
    fn of_guards(result: Result<(), GuardRegionError>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(GuardRegionError::OutOfFrames) => Self::OutOfFrames,
            Err(GuardRegionError::NoArea { .. }) => Self::Refused,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn signal(error: FaultError) -> Signal {
    match error {
        FaultError::NoArea { .. } => Signal::NoArea,
        FaultError::Forbidden { .. } => Signal::Forbidden,
        FaultError::NoPage { .. } => Signal::NoPage,
        FaultError::Guarded { .. } => Signal::Guarded,
        error => panic!("{error:?}"),
    }
}

impl Pair {
    fn new() -> Self {
        let start = |page| if page == 0 { VirtAddr::new(0) } else { address(page) };
        let kernel = Kernel::build_in_parts(1, TABLES, |_| PARTS.map(start).to_vec());
        let cpu = kernel.enter_first();
        kernel.fill_file(&cpu);
        Self { kernel, cpu, naive: Naive::new((0..FILE_PAGES).collect(), &PARTS, SLOTS) }
    }

    /// The frames that user code could reach.
    fn frames(&self) -> Vec<Option<Frame>> {
        (0..PAGES).map(|page| self.kernel.frame_at(&self.cpu, 0, address(page))).collect()
    }

    /// Accesses memory, a second time if the first ran out of it.
    fn fault<T>(&self, access: impl Fn(&Kernel, &ThreadCpu) -> T) -> T {
        let failed = self.kernel.failures.failed();
        let result = access(&self.kernel, &self.cpu);
        self.kernel.failures.fail_at(0);
        if self.kernel.failures.failed() == failed { result } else { access(&self.kernel, &self.cpu) }
    }

    /// Runs an operation of areas on both. If it ran out of memory it has changed nothing, and works the second time.
    fn areas(
        &mut self,
        engine: impl Fn(&Kernel, &ThreadCpu) -> Came,
        naive: impl FnOnce(&mut Naive) -> Result<(), Refused>,
    ) {
        let tables = |pair: &Self| pair.kernel.tables.arena.in_use();
        let (frames, in_use) = (self.frames(), tables(self));
        let mut came = engine(&self.kernel, &self.cpu);
        self.kernel.failures.fail_at(0);
        if !matches!(came, Came::Done) {
            assert_eq!(self.frames(), frames, "{came:?}, and yet something changed");
            // A table that was made for a move or a guard stays, empty, where another area reaches into it; `end` sees that it is not lost.
            let more = tables(self) - in_use;
            assert!(
                more == 0 || matches!(came, Came::OutOfFrames) && more < TABLES_OF_A_RANGE,
                "{came:?}: {more} tables"
            );
        }
        if matches!(came, Came::OutOfFrames) {
            came = engine(&self.kernel, &self.cpu);
        }
        match (came, naive(&mut self.naive)) {
            (Came::Done, Ok(())) | (Came::Refused, Err(Refused)) => {}
            (came, model) => panic!("the engine: {came:?}, the model: {model:?}"),
        }
    }

    fn run(&mut self, op: &Op) {
        let space = self.kernel.space(0);
        match *op {
            Op::Mmap(range, kind, rights, first) => self.areas(
                |kernel, cpu| {
                    let Range { count, .. } = range;
                    let area = match kind {
                        Kind::Anonymous => Area::private(range.at(), count, rights, ANONYMOUS, first),
                        Kind::Shared => Area::shared(range.at(), count, rights, CACHED, first),
                        Kind::Private => Area::private(range.at(), count, rights, CACHED, first),
                    };
                    match kernel.mm.mmap(cpu, SPACE, area) {
                        Ok(()) => Came::Done,
                        Err(
                            MapError::BadRange { .. }
                            | MapError::AcrossParts { .. }
                            | MapError::Overlaps(_)
                            | MapError::SpaceFull,
                        ) => Came::Refused,
                        Err(error) => panic!("{error:?}"),
                    }
                },
                |naive| {
                    naive.mmap(range.start, range.count, rights, |page| match kind {
                        Kind::Anonymous => Backing::Anonymous,
                        Kind::Shared => Backing::Shared(first + page),
                        Kind::Private => Backing::Private(first + page),
                    })
                },
            ),
            Op::Munmap(range) => self.areas(
                |kernel, cpu| Came::of_areas(kernel.mm.munmap(cpu, SPACE, range.at(), range.count)),
                |naive| naive.munmap(range.start, range.count),
            ),
            Op::Mprotect(range, rights) => self.areas(
                |kernel, cpu| Came::of_areas(kernel.mm.mprotect(cpu, SPACE, range.at(), range.count, rights)),
                |naive| naive.mprotect(range.start, range.count, rights),
            ),
            Op::Mremap(from, to) => self.areas(
                |kernel, cpu| {
                    Came::of_areas(kernel.mm.mremap(cpu, SPACE, (from.at(), from.count), (to.at(), to.count)))
                },
                |naive| naive.mremap(from.start, from.count, to.start, to.count),
            ),
            Op::Store(page, value) => {
                let store = self.fault(|kernel, cpu| kernel.store(cpu, 0, address(page), value));
                let store = store.map_err(signal);
                assert_eq!(store, self.naive.store(page, value), "store to page {page}");
            }
            Op::Load(page) => self.load(page),
            Op::Zap(range) => {
                self.kernel.mm.zap(&self.cpu, space, range.at(), range.count).expect("whole tables");
                self.naive.zap(range.start, range.count);
            }
            Op::InstallGuards(range) => self.areas(
                |kernel, cpu| Came::of_guards(kernel.mm.install_guards(cpu, space, range.at(), range.count)),
                |naive| naive.install_guards(range.start, range.count),
            ),
            Op::RemoveGuards(range) => self.areas(
                |kernel, cpu| Came::of_guards(kernel.mm.remove_guards(cpu, space, range.at(), range.count)),
                |naive| naive.remove_guards(range.start, range.count),
            ),
            Op::WriteProtect(range) => {
                self.kernel.mm.write_protect(&self.cpu, space, range.at(), range.count).expect("whole tables");
            }
            Op::Merge(into, from) => self.merge(into, from),
            Op::Unmerge(range) => self.unmerge(range),
            Op::Populate(range, rights) => self.populate(range, rights),
            Op::ClearSoftDirty(range) => self.check_use(range, Usage::SOFT_DIRTY),
            Op::ClearOthers(range) => self.check_use(range, Usage::ACCESSED.and(Usage::DIRTY)),
            Op::SwapOut(page) | Op::Migrate(page) => {
                if let Some(frame) = self.kernel.frame_at(&self.cpu, 0, address(page)) {
                    // Whether it can go is not this test's business.
                    let _ = match op {
                        Op::SwapOut(_) => self.kernel.mm.swap_out(&self.cpu, frame).map(|_| ()),
                        _ => self.kernel.mm.migrate(&self.cpu, frame).map(|_| ()),
                    };
                }
                self.kernel.failures.fail_at(0);
            }
            Op::Fail(number) => self.kernel.failures.fail_at(number),
        }
    }

    fn load(&mut self, page: u64) {
        let load = self.fault(|kernel, cpu| kernel.load(cpu, 0, address(page)));
        let load = load.map_err(signal);
        assert_eq!(load, self.naive.load(page), "load from page {page}");
    }

    /// Whether they may be merged is not this test's business. But only what is equal is, and nobody notices.
    fn merge(&mut self, into: u64, from: u64) {
        let place = |page: u64| (SPACE, address(page));
        let mapped = [into, from].map(|page| self.kernel.frame_at(&self.cpu, 0, address(page)));
        let before = mapped.map(|frame| frame.map(|frame| self.kernel.data.read(frame, 0)));
        let merged = self.kernel.mm.merge(&self.cpu, place(into), place(from));
        self.kernel.failures.fail_at(0);
        match merged {
            Ok(frame) => {
                assert_ne!(self.kernel.flags(&self.cpu, frame) & FolioFlags::KSM.bits(), 0);
                assert!(before.iter().flatten().all(|word| *word == self.kernel.data.read(frame, 0)), "{before:?}");
            }
            Err(MergeError::Into(why) | MergeError::From(why)) => {
                assert!(!matches!(why, Unmergeable::Malformed(_) | Unmergeable::Locked | Unmergeable::Pinned), "{why}");
            }
        }
    }

    fn unmerge(&mut self, range: Range) {
        let space = self.kernel.space(0);
        let unmerged = self.fault(|kernel, cpu| kernel.mm.unmerge(cpu, space, range.at(), range.count));
        unmerged.expect("enough frames the second time");
        for page in range.start..range.start + range.count {
            let frame = self.kernel.frame_at(&self.cpu, 0, address(page));
            let is_merged = |frame| self.kernel.flags(&self.cpu, frame) & FolioFlags::KSM.bits() != 0;
            assert!(!frame.is_some_and(is_merged), "page {page} is merged still");
        }
    }

    fn populate(&mut self, range: Range, rights: AreaRights) {
        let access = if rights == AreaRights::ReadWrite { Access::Write } else { Access::Read };
        let result =
            self.fault(|kernel, cpu| kernel.mm.populate(cpu, kernel.space(0), range.at(), range.count, access));
        let result = result.map_err(|error| match error {
            PopulateError::Fault { pages, error } => {
                signal(error);
                pages
            }
            PopulateError::Range(error) => panic!("{error:?}"),
        });
        assert_eq!(result, self.naive.populate(range.start, range.count, access), "populate {range:?}");
    }

    /// Every page that was written is told of, and none that was not touched.
    fn check_use(&mut self, range: Range, clear: Usage) {
        let mut told = Vec::new();
        let space = self.kernel.space(0);
        self.kernel
            .mm
            .harvest(&self.cpu, space, (range.at(), range.count), clear, |page| {
                if page.usage.contains(Usage::SOFT_DIRTY) {
                    told.push(page.address);
                }
            })
            .expect("whole tables");
        for page in range.start..range.start + range.count {
            let is_told = told.contains(&address(page));
            assert!(is_told || !self.naive.written.contains(&page), "page {page} was written, and nobody says so");
            assert!(!is_told || self.naive.touched.contains(&page), "page {page} was not touched");
        }
        if clear.contains(Usage::SOFT_DIRTY) {
            self.naive.clear_soft_dirty(range.start, range.count);
        }
    }

    fn end(mut self) {
        self.kernel.failures.fail_at(0);
        (0..PAGES).for_each(|page| self.load(page));
        // Merged pages stay where they are.
        (0..ZONES.len() as u64).for_each(|zone| self.unmerge(Range { start: zone * ZONE, count: ZONE }));
        (0..PAGES).for_each(|page| self.load(page));
        // Whatever became of the areas, files find their mappings: every page can be taken out of all of them.
        for frame in self.frames().into_iter().flatten() {
            let is_own = self.kernel.flags(&self.cpu, frame) & FolioFlags::ANON.bits() != 0;
            if is_own && self.frames().contains(&Some(frame)) {
                self.kernel.mm.swap_out(&self.cpu, frame).expect("nobody else uses it");
            }
        }
        let file = self.kernel.mm.file(CACHED).expect("it is there");
        self.kernel.mm.unmap_mapping(&self.cpu, file, 0, FILE_PAGES).expect("whole tables");
        let left = self.frames().into_iter().flatten();
        assert_eq!(left.filter(|frame| Some(*frame) != self.kernel.data.zero_page()).count(), 0, "pages are left");
        for page in 0..PAGES {
            self.kernel.mm.munmap(&self.cpu, SPACE, address(page), 1).expect("the first page of what is left");
        }
        // Of all parts at once: now those tables go, too, into which several reach.
        let pages = (address(PAGES - 1).as_u64() - address(0).as_u64()) / 4096 + 1;
        self.kernel.mm.munmap(&self.cpu, SPACE, address(0), pages).expect("nothing is there");
        self.kernel.empty_file(&self.cpu);
        self.kernel.assert_all_is_back(TABLES);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_the_model(ops in proptest::collection::vec(op(), 1..200)) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.run(op);
        }
        pair.end();
    }
}
