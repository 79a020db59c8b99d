//! Stacks: how far they grow, what keeps away from them, and what becomes of their pages.

use hosted::ThreadCpu;
use machine::user::FaultCause;
use machine::{Access, CpuId, PageFault, VirtAddr};
use mm::{
    Area, AreaError, AreaRights, FaultError, Foll, GrowthError, GupError, MapError, PopulateError, SpaceId, StackLimits,
};

use crate::memory::{CACHED, Kernel, LIMITED, anonymous};

const ONE: SpaceId = SpaceId::new(0);
/// On a boundary of 2 MiB.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 48;
const GAP: u64 = StackLimits::DEFAULT.gap;
/// Where stacks begin, in pages from [`AT`] on.
const TOP: u64 = 4096;

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// A stack of `pages` pages that ends at page [`TOP`], and can have as many as lie between that and [`AT`].
const fn stack(pages: u64) -> Area {
    anonymous(page(TOP - pages), pages, TOP - pages).as_stack()
}

const fn not_grown(number: u64, error: GrowthError) -> FaultError {
    FaultError::NotGrown { address: page(number), error }
}

struct World {
    kernel: Kernel,
    cpu: ThreadCpu,
}

impl World {
    fn new() -> Self {
        let (kernel, cpu) = Kernel::alone(TABLES);
        Self { kernel, cpu }
    }

    fn mmap(&self, area: Area) -> Result<(), MapError> {
        self.kernel.mm.mmap(&self.cpu, ONE, area)
    }

    fn store(&self, number: u64) -> Result<(), FaultError> {
        self.kernel.store(&self.cpu, 0, page(number), number)
    }

    fn load(&self, number: u64) -> Result<u64, FaultError> {
        self.kernel.load(&self.cpu, 0, page(number))
    }

    fn munmap(&self, first: u64, pages: u64) {
        self.kernel.mm.munmap(&self.cpu, ONE, page(first), pages).expect("the tables are whole");
    }

    fn end(self) {
        self.munmap(0, 2 * TOP);
        self.kernel.assert_all_is_back(TABLES);
    }
}

#[test]
fn a_stack_reaches_down_to_what_was_touched_and_keeps_its_pages() {
    let w = World::new();
    w.mmap(stack(2)).expect("a good area");
    for number in [TOP - 1, TOP - 2, TOP - 5, TOP - 700] {
        assert_eq!(w.store(number), Ok(()));
    }
    // What was there is found by rmap, too: it goes to swap and comes back.
    for number in [TOP - 1, TOP - 700] {
        let frame = w.kernel.frame_at(&w.cpu, 0, page(number)).expect("mapped");
        w.kernel.mm.swap_out(&w.cpu, frame).expect("nobody else has it");
        assert_eq!(w.kernel.frame_at(&w.cpu, 0, page(number)), None);
        assert_eq!(w.load(number), Ok(number));
    }
    assert_eq!(w.load(TOP - 6), Ok(0), "between the two");
    // In the middle of a page: the whole page is the stack's.
    let fault =
        PageFault { address: page(TOP - 800).wrapping_add(0x123), access: Access::Read, cause: FaultCause::NotPresent };
    assert_eq!(w.kernel.mm.handle_fault(&w.cpu, w.kernel.space(0), fault), Ok(()));
    assert!(w.kernel.frame_at(&w.cpu, 0, page(TOP - 800)).is_some());
    w.end();
}

#[test]
fn only_a_fault_of_user_code_makes_it_grow() {
    let w = World::new();
    w.mmap(stack(1)).expect("a good area");
    let (mm, space) = (w.kernel.mm, w.kernel.space(0));
    let address = page(TOP - 2);
    let no_area = FaultError::NoArea { address };
    assert_eq!(mm.gup(&w.cpu, space, address, 1, Foll::PIN, |_| ()), Err(GupError::Fault(no_area)));
    let populated = mm.populate(&w.cpu, space, address, 1, Access::Read);
    assert_eq!(populated, Err(PopulateError::Fault { pages: 0, error: no_area }));
    assert_eq!(w.store(TOP - 2), Ok(()));
    assert_eq!(mm.populate(&w.cpu, space, address, 1, Access::Read), Ok(()));
    // Above a stack nothing grows, nor below an area that is none.
    assert_eq!(w.load(TOP), Err(FaultError::NoArea { address: page(TOP) }));
    w.mmap(anonymous(page(TOP + 8), 1, 0)).expect("a good area");
    assert_eq!(w.load(TOP + 7), Err(FaultError::NoArea { address: page(TOP + 7) }));
    w.end();
}

#[test]
fn it_has_a_limit() {
    let w = World::new();
    w.mmap(stack(1)).expect("a good area");
    let pages = StackLimits::DEFAULT.pages;
    assert_eq!(w.load(TOP - pages - 1), Err(not_grown(TOP - pages - 1, GrowthError::Limit { pages })));
    assert_eq!(w.load(TOP - pages), Ok(0));
    w.munmap(TOP - pages, pages);
    // Each page has a name of its own; the first one of the file is the last that it can have.
    w.mmap(anonymous(page(TOP - 1), 1, 2).as_stack()).expect("a good area");
    assert_eq!(w.load(TOP - 4), Err(not_grown(TOP - 4, GrowthError::Offset { offset: 2 })));
    assert_eq!(w.load(TOP - 3), Ok(0));
    w.end();
}

#[test]
fn limits_are_an_address_space_s_own() {
    let w = World::new();
    let (mm, space) = (w.kernel.mm, SpaceId::new(LIMITED.0));
    let StackLimits { gap, pages } = LIMITED.1;
    let load = |number| w.kernel.load(&w.cpu, LIMITED.0, page(number));
    mm.mmap(&w.cpu, space, stack(1)).expect("a good area");
    assert_eq!(load(TOP - pages - 1), Err(not_grown(TOP - pages - 1, GrowthError::Limit { pages })));
    let below = anonymous(page(TOP - pages), 1, 0);
    mm.mmap(&w.cpu, space, below).expect("outside the gap");
    assert_eq!(load(TOP - pages + gap), Err(not_grown(TOP - pages + gap, GrowthError::Gap(below))));
    assert_eq!(load(TOP - pages + gap + 1), Ok(0));
    mm.munmap(&w.cpu, space, AT, TOP).expect("the tables are whole");
    w.end();
}

#[test]
fn it_comes_no_nearer_to_others_than_the_gap() {
    let w = World::new();
    w.mmap(stack(1)).expect("a good area");
    let below = anonymous(page(1000), 24, 0);
    w.mmap(below).expect("far away");
    assert_eq!(w.load(1023 + GAP), Err(not_grown(1023 + GAP, GrowthError::Limit { pages: 2048 })));
    w.munmap(1000, 24);
    let below = anonymous(page(3000), 24, 0);
    w.mmap(below).expect("far away");
    assert_eq!(w.load(3023 + GAP), Err(not_grown(3023 + GAP, GrowthError::Gap(below))));
    assert_eq!(w.load(3024 + GAP), Ok(0));
    // What nobody can access is a guard, and may be as near as it likes; so may another stack.
    w.munmap(3000, 24);
    w.mmap(Area { rights: AreaRights::None, ..below }).expect("a guard");
    assert_eq!(w.load(3024), Ok(0));
    assert!(matches!(w.load(3023), Err(FaultError::Forbidden { .. })));
    w.munmap(3000, 24);
    assert_eq!(w.load(2900), Ok(0));
    w.end();
}

#[test]
fn nothing_that_can_be_accessed_comes_into_the_gap() {
    let w = World::new();
    let (mm, cpu) = (w.kernel.mm, &w.cpu);
    let own = stack(1);
    w.mmap(own).expect("a good area");
    let end = TOP - 1 - GAP;
    assert_eq!(w.mmap(anonymous(page(end), 1, 0)), Err(MapError::InGuardGap(own)));
    assert_eq!(w.mmap(anonymous(page(end - 7), 8, 0)), Err(MapError::InGuardGap(own)));
    assert_eq!(w.mmap(anonymous(page(TOP - 2), 1, 0)), Err(MapError::InGuardGap(own)));
    w.mmap(Area { rights: AreaRights::None, ..anonymous(page(end), 1, 0) }).expect("a guard");
    w.munmap(end, 1);
    let below = anonymous(page(end - 8), 8, 0);
    w.mmap(below).expect("outside the gap");
    // Nor does it by growing at its end, or by moving there.
    assert_eq!(mm.mremap(cpu, ONE, (page(end - 8), 8), (page(end - 8), 9)), Err(AreaError::InGuardGap(own)));
    assert_eq!(mm.mremap(cpu, ONE, (page(end - 8), 1), (page(end + 5), 1)), Err(AreaError::InGuardGap(own)));
    w.store(end - 1).expect("nothing has changed");
    assert_eq!(mm.mremap(cpu, ONE, (page(end - 1), 1), (page(end - 32), 1)), Ok(()));
    assert_eq!(w.load(end - 32), Ok(end - 1));
    // Above it there is no gap.
    w.mmap(anonymous(page(TOP), 1, 0)).expect("a good area");
    w.end();
}

#[test]
fn only_private_anonymous_memory_can_be_a_stack() {
    let w = World::new();
    for area in [
        Area::shared(page(0), 1, AreaRights::ReadWrite, CACHED, 0).as_stack(),
        Area::private(page(0), 1, AreaRights::ReadWrite, CACHED, 0).as_stack(),
    ] {
        assert_eq!(w.mmap(area), Err(MapError::NotAStack { area }));
    }
    w.end();
}

#[test]
fn what_a_stack_is_cut_into_and_its_child_are_stacks() {
    let w = World::new();
    w.mmap(stack(8)).expect("a good area");
    w.store(TOP - 1).expect("memory");
    // A hole in the middle: both sides are stacks, and the upper one grows until it meets the lower one.
    w.munmap(TOP - 5, 2);
    assert_eq!(w.load(TOP - 4), Ok(0));
    assert_eq!(w.load(TOP - 5), Ok(0));
    w.kernel.mm.mprotect(&w.cpu, ONE, page(TOP - 8), 1, AreaRights::Read).expect("areas");
    assert_eq!(w.load(TOP - 9), Ok(0));
    let forbidden = w.store(TOP - 9);
    assert!(matches!(forbidden, Err(FaultError::Forbidden { access: Access::Write, .. })), "as the piece above it");
    let child = SpaceId::new(1);
    w.kernel.mm.fork(&w.cpu, ONE, child).expect("an empty space");
    assert_eq!(w.kernel.load(&w.cpu, 1, page(TOP - 1)), Ok(TOP - 1));
    assert_eq!(w.kernel.load(&w.cpu, 1, page(TOP - 20)), Ok(0));
    w.kernel.mm.munmap(&w.cpu, child, AT, TOP).expect("the tables are whole");
    // It moves as a stack.
    w.kernel.mm.mremap(&w.cpu, ONE, (page(TOP - 3), 3), (page(2 * TOP - 3), 3)).expect("room");
    assert_eq!(w.load(2 * TOP - 1), Ok(TOP - 1));
    assert_eq!(w.load(2 * TOP - 9), Ok(0));
    w.end();
}

const ROUNDS: u64 = 4_000;
/// How far below its end a stack may be touched: far more than the gap, in which others try to map something.
const REACH: u64 = 3 * GAP;

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

/// Two touch a stack, a third takes it away, maps something below it, and looks whether that keeps its distance.
#[test]
fn whoever_comes_first_has_the_gap() {
    let kernel = Kernel::build(3, TABLES);
    let (mut mapped, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        for number in 1..3 {
            let kernel = &kernel;
            scope.spawn(move || {
                let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
                kernel.mm.enter(&cpu, kernel.space(0));
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(number) << 40);
                for _ in 0..ROUNDS {
                    match kernel.increment(&cpu, 0, page(TOP - 1 - random.below(REACH))) {
                        Ok(_) | Err(FaultError::NoArea { .. } | FaultError::NotGrown { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let cpu = kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
        kernel.mm.enter(&cpu, kernel.space(0));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for round in 0..ROUNDS {
            kernel.mm.mmap(&cpu, ONE, stack(1)).expect("there is none");
            if round % 2 == 0 {
                // The others have not got far by now.
                kernel.increment(&cpu, 0, page(TOP - random.below(REACH) - 1)).expect("nothing is in the way");
            }
            let at = TOP - 2 - GAP - random.below(REACH - GAP);
            match kernel.mm.mmap(&cpu, ONE, anonymous(page(at), 1, 0)) {
                Ok(()) => {
                    mapped += 1;
                    for near in [at + 1, at + GAP] {
                        let touched = kernel.increment(&cpu, 0, page(near));
                        assert!(matches!(touched, Err(FaultError::NotGrown { .. })), "{touched:?} in the gap");
                    }
                }
                Err(MapError::InGuardGap(_) | MapError::Overlaps(_)) => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
            kernel.mm.munmap(&cpu, ONE, AT, TOP).expect("the tables are whole");
        }
    });
    assert!(mapped > 0 && refused > 0, "{mapped} mapped, {refused} refused");
    kernel.assert_all_is_back(TABLES);
}
