//! Guard regions: what they forget, who is refused, who leaves them, and who takes them along.

use crate::memory::{ANONYMOUS, CACHED, CACHED_HUGE, FILE_PAGES, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{Access, VirtAddr};
use mm::{
    Area, AreaRights, CollapseError, FaultError, Foll, ForkError, GuardRegionError, GupError, PopulateError,
    RangeError, RetractError, ShareError, SpaceId,
};
use pagetable::Level;

const ONE: SpaceId = SpaceId::new(0);
const TWO: SpaceId = SpaceId::new(1);
/// On a boundary of 2 MiB.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const ELSEWHERE: VirtAddr = VirtAddr::new(0x50_0000_0000);
const TABLES: u64 = 48;

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

struct World {
    kernel: Kernel,
    cpu: ThreadCpu,
}

impl World {
    fn new() -> Self {
        let (kernel, cpu) = Kernel::alone(TABLES);
        kernel.fill_file(&cpu);
        Self { kernel, cpu }
    }

    fn map(&self, area: Area) {
        self.kernel.mm.mmap(&self.cpu, ONE, area).expect("a good area");
    }

    fn store(&self, number: u64) {
        self.kernel.store(&self.cpu, 0, page(number), 100 + number).expect("memory");
    }

    fn load(&self, at: VirtAddr) -> Result<u64, FaultError> {
        self.kernel.load(&self.cpu, 0, at)
    }

    fn install(&self, at: VirtAddr, pages: u64) -> Result<(), GuardRegionError> {
        self.kernel.mm.install_guards(&self.cpu, self.kernel.space(0), at, pages)
    }

    fn remove(&self, at: VirtAddr, pages: u64) -> Result<(), GuardRegionError> {
        self.kernel.mm.remove_guards(&self.cpu, self.kernel.space(0), at, pages)
    }

    /// User code of the space is refused at the address, whatever it does.
    fn is_guarded(&self, space: u16, at: VirtAddr) {
        let guarded = FaultError::Guarded { address: at };
        assert_eq!(self.kernel.load(&self.cpu, space, at), Err(guarded), "{at}");
        assert_eq!(self.kernel.store(&self.cpu, space, at, 1), Err(guarded), "{at}");
        assert_eq!(self.kernel.frame_at(&self.cpu, space, at), None, "{at}");
    }

    fn end(self) {
        for space in [ONE, TWO] {
            for at in [AT, ELSEWHERE] {
                self.kernel.mm.munmap(&self.cpu, space, at, 1 << 20).expect("the tables are whole");
            }
        }
        self.kernel.empty_file(&self.cpu);
        self.kernel.assert_all_is_back(TABLES);
    }
}

#[test]
fn what_was_there_is_forgotten_and_nobody_gets_anything_else() {
    let w = World::new();
    let mm = w.kernel.mm;
    w.map(anonymous(AT, 16, 0));
    // A page, one on swap, the zero page, and nothing.
    w.store(3);
    w.store(4);
    mm.swap_out(&w.cpu, w.kernel.frame_at(&w.cpu, 0, page(4)).expect("mapped")).expect("nobody else uses it");
    w.store(8);
    assert_eq!(w.load(page(5)), Ok(0));
    let before = w.kernel.data.in_use();
    w.install(page(3), 4).expect("anonymous memory");
    (3..7).for_each(|number| w.is_guarded(0, page(number)));
    assert_eq!((w.kernel.data.in_use(), w.kernel.swap.in_use()), (before - 1, 0));
    assert_eq!((w.load(page(2)), w.load(page(7)), w.load(page(8))), (Ok(0), Ok(0), Ok(108)), "neighbours");
    w.install(page(3), 4).expect("again: nothing changes");

    let space = w.kernel.space(0);
    for flags in [Foll::GET, Foll::PIN | Foll::WRITE, Foll::GET | Foll::WRITE | Foll::FORCE] {
        let got = mm.gup(&w.cpu, space, page(3), 1, flags, |_| panic!("a page under a guard"));
        assert_eq!(got, Err(GupError::Fault(FaultError::Guarded { address: page(3) })), "{flags:?}");
    }
    assert_eq!(mm.gup(&w.cpu, space, page(3), 1, Foll::PIN | Foll::FAST_ONLY, |_| panic!("a page")), Ok(0));
    let populated = mm.populate(&w.cpu, space, page(2), 4, Access::Write);
    let error = FaultError::Guarded { address: page(3) };
    assert_eq!(populated, Err(PopulateError::Fault { pages: 1, error }));
    // Who passes over guards.
    mm.zap(&w.cpu, space, AT, 16).expect("whole tables");
    mm.mprotect(&w.cpu, ONE, AT, 16, AreaRights::None).expect("an area");
    mm.mprotect(&w.cpu, ONE, AT, 16, AreaRights::ReadWrite).expect("an area");
    mm.write_protect(&w.cpu, space, AT, 16).expect("whole tables");
    mm.harvest(&w.cpu, space, (AT, 16), mm::Usage::SOFT_DIRTY, |_| ()).expect("whole tables");
    let file = mm.file(ANONYMOUS).expect("it is there");
    mm.unmap_mapping(&w.cpu, file, 0, 16).expect("whole tables");
    (3..7).for_each(|number| w.is_guarded(0, page(number)));

    // Removal takes guards and nothing else.
    w.store(2);
    w.remove(page(2), 3).expect("anonymous memory");
    assert_eq!((w.load(page(2)), w.load(page(3)), w.load(page(4))), (Ok(102), Ok(0), Ok(0)));
    w.store(4);
    (5..7).for_each(|number| w.is_guarded(0, page(number)));
    // With the area the guards go.
    mm.munmap(&w.cpu, ONE, AT, 16).expect("an area");
    w.map(anonymous(AT, 16, 0));
    assert_eq!(w.load(page(5)), Ok(0));
    w.end();
}

#[test]
fn a_guard_moves_with_its_page() {
    let w = World::new();
    w.map(anonymous(AT, 4, 0));
    w.store(0);
    w.install(page(1), 1).expect("anonymous memory");
    w.kernel.mm.mremap(&w.cpu, ONE, (AT, 4), (ELSEWHERE, 6)).expect("nothing else is there");
    assert_eq!(w.load(ELSEWHERE), Ok(100));
    w.is_guarded(0, ELSEWHERE.wrapping_add(4096));
    w.map(anonymous(AT, 4, 0));
    assert_eq!(w.load(page(1)), Ok(0), "and is not left behind");
    w.end();
}

#[test]
fn a_child_has_its_parents_guards() {
    let w = World::new();
    let (private, shared) = (ELSEWHERE, ELSEWHERE.wrapping_add(64 * 4096));
    w.map(anonymous(AT, 4, 0));
    w.map(Area::private(private, 4, AreaRights::ReadWrite, CACHED, 0));
    w.map(Area::shared(shared, 4, AreaRights::ReadWrite, CACHED, 0));
    w.store(0);
    let places = [AT, private, shared].map(|start| start.wrapping_add(4096));
    for at in places {
        w.install(at, 2).expect("memory, and files");
    }
    assert_eq!((w.load(private), w.load(shared)), (Ok(0), Ok(0)), "pages of the file");
    w.kernel.mm.fork(&w.cpu, ONE, TWO).expect("enough frames");
    w.kernel.mm.switch(&w.cpu, w.kernel.space(0), w.kernel.space(1));
    for at in places {
        w.is_guarded(1, at);
        w.is_guarded(1, at.wrapping_add(4096));
        assert_eq!(w.kernel.load(&w.cpu, 1, at.wrapping_add(2 * 4096)).map(drop), Ok(()));
    }
    // Each has its own.
    w.kernel.mm.remove_guards(&w.cpu, w.kernel.space(1), places[2], 1).expect("a file");
    assert_eq!(w.kernel.load(&w.cpu, 1, places[2]), Ok(1));
    w.kernel.mm.switch(&w.cpu, w.kernel.space(1), w.kernel.space(0));
    places.into_iter().for_each(|at| w.is_guarded(0, at));
    // A grandchild of an address space that was emptied has none.
    w.kernel.mm.exit(&w.cpu, TWO).expect("whole tables");
    assert_eq!(w.kernel.mm.fork(&w.cpu, TWO, SpaceId::new(2)), Ok::<(), ForkError>(()));
    w.end();
}

#[test]
fn only_where_small_pages_of_memory_or_a_file_can_be() {
    let w = World::new();
    let huge = Area::shared(ELSEWHERE, 512, AreaRights::ReadWrite, CACHED_HUGE, 0);
    w.map(huge);
    w.map(anonymous(AT, 4, 0));
    w.map(anonymous(page(6), 4, 0));
    w.store(0);
    for change in [World::install, World::remove] {
        assert_eq!(change(&w, ELSEWHERE, 1), Err(GuardRegionError::Unsuitable { area: huge }));
        assert_eq!(change(&w, AT, 10), Err(GuardRegionError::NoArea { address: page(4) }), "a hole");
        let odd = AT.wrapping_add(1);
        assert_eq!(change(&w, odd, 1), Err(GuardRegionError::Range(RangeError::Misaligned { address: odd })));
        let endless = change(&w, AT, u64::MAX);
        assert!(matches!(endless, Err(GuardRegionError::Range(RangeError::Overflow { .. }))), "{endless:?}");
        assert_eq!(change(&w, AT, 0), Ok(()), "nothing to do");
    }
    assert_eq!(w.load(AT), Ok(100), "whatever was refused has changed nothing");
    w.end();
}

#[test]
fn part_of_a_huge_page() {
    let w = World::new();
    w.map(anonymous(AT, 1024, 0).with_huge_pages());
    (0..512).for_each(|number| w.store(number));
    assert_eq!(w.kernel.leaf_at(&w.cpu, 0, AT).map(|leaf| leaf.level), Some(Level::Pmd));
    w.install(page(500), 24).expect("anonymous memory");
    (0..500).for_each(|number| assert_eq!(w.load(page(number)), Ok(100 + number)));
    (500..524).for_each(|number| w.is_guarded(0, page(number)));
    assert_eq!(w.load(page(524)), Ok(0));
    // No huge page comes over a guard.
    let collapsed = w.kernel.mm.collapse(&w.cpu, w.kernel.space(0), AT, 512);
    assert!(matches!(collapsed, Err(CollapseError::Busy { .. })), "{collapsed:?}");
    w.is_guarded(0, page(511));
    // A whole one goes whole.
    w.kernel.mm.munmap(&w.cpu, ONE, AT, 1024).expect("an area");
    w.map(anonymous(AT, 512, 0).with_huge_pages());
    w.store(7);
    let frames = w.kernel.data.in_use();
    w.install(AT, 512).expect("anonymous memory");
    assert_eq!(w.kernel.data.in_use(), frames - 512);
    w.is_guarded(0, page(7));
    w.remove(AT, 512).expect("anonymous memory");
    assert_eq!(w.load(page(7)), Ok(0));
    w.end();
}

#[test]
fn a_table_with_guards_is_nobody_elses() {
    let w = World::new();
    let other = Area::shared(ELSEWHERE, 512, AreaRights::ReadWrite, CACHED, 0);
    w.map(Area::shared(AT, 512, AreaRights::ReadWrite, CACHED, 0));
    w.kernel.mm.mmap(&w.cpu, TWO, other).expect("a good area");
    (0..FILE_PAGES).for_each(|number| assert_eq!(w.load(page(number)), Ok(number)));
    let share = || w.kernel.mm.share_table(&w.cpu, (TWO, ELSEWHERE), (ONE, AT));
    share().expect("the same pages of one file");
    // The one who installs leaves the table that it shares. The other keeps all.
    w.install(page(9), 1).expect("a file");
    w.is_guarded(0, page(9));
    assert_eq!(w.load(page(8)), Ok(8));
    assert_eq!(w.kernel.load(&w.cpu, 1, ELSEWHERE.wrapping_add(9 * 4096)), Ok(9));
    w.kernel.mm.munmap(&w.cpu, TWO, ELSEWHERE, 512).expect("an area");
    w.kernel.mm.mmap(&w.cpu, TWO, other).expect("a good area");
    assert_eq!(share(), Err(ShareError::Guarded { address: page(9) }));
    let retract = || w.kernel.mm.retract_table(&w.cpu, w.kernel.space(0), AT);
    assert_eq!(retract(), Err(RetractError::Guarded { address: page(9) }));
    w.is_guarded(0, page(9));
    w.remove(AT, 512).expect("a file");
    retract().expect("a table of a file");
    assert_eq!(w.load(page(9)), Ok(9));
    share().expect("the same pages of one file");
    w.end();
}
