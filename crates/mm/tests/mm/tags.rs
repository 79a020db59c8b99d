//! Addresses with tags, as user code hands them to the kernel.

use crate::memory::{Kernel, SPACES, TAGGED, anonymous};
use hosted::ThreadCpu;
use machine::{Access, Frame, VirtAddr};
use mm::harvest::Usage;
use mm::{AreaError, AreaRights, Foll, GupError, MapError, RangeError, Signal, SpaceId, ZapError};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
/// The same place, as a program writes it that keeps something in bits 62 to 57.
const WITH_TAG: VirtAddr = VirtAddr::new(AT.as_u64() | 0x2a << 57);
const ELSEWHERE: VirtAddr = VirtAddr::new(0x50_0000_0000);
const PAGES: u64 = 4;
const TABLES: u64 = 48;

struct World {
    kernel: Kernel,
    cpu: ThreadCpu,
}

impl World {
    /// Every address space has memory at the place, and something in its first page.
    fn new() -> Self {
        let kernel = Kernel::build(1, TABLES);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.enter(&cpu, kernel.space(TAGGED));
        for number in 0..SPACES {
            kernel.mm.mmap(&cpu, SpaceId::new(number), anonymous(AT, PAGES, 0)).expect("nothing is there");
            kernel.store(&cpu, number, AT, 7).expect("memory");
        }
        Self { kernel, cpu }
    }

    /// The frames behind a page, by `get` on the way that `remote` says.
    fn get(&self, number: u16, at: VirtAddr, way: Way) -> Result<Frame, GupError> {
        let (mm, space) = (self.kernel.mm, self.kernel.space(number));
        let mut found = None;
        let sink = |run: mm::Run| {
            found = Some(run.frame());
            mm.release(&self.cpu, run, Access::Read).expect("held");
        };
        match way {
            Way::Fast => mm.gup(&self.cpu, space, at, 1, Foll::GET | Foll::FAST_ONLY, sink),
            Way::Slow => mm.gup_remote(&self.cpu, space, (at, 1), Foll::GET, || Signal::None, sink),
        }
        .map(|_| found.expect("one page"))
    }

    fn end(self) {
        for number in 0..SPACES {
            self.kernel.mm.munmap(&self.cpu, SpaceId::new(number), AT, PAGES).expect("the tables are whole");
        }
        self.kernel.assert_all_is_back(TABLES);
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Fast,
    Slow,
}

#[test]
fn what_counts_is_the_address_space_that_they_are_of() {
    let w = World::new();
    for way in [Way::Fast, Way::Slow] {
        let without = w.get(TAGGED, AT, way).expect("mapped");
        assert_eq!(w.get(TAGGED, WITH_TAG, way), Ok(without), "{way:?}");
        let outside = RangeError::OutsideUser { address: WITH_TAG, pages: 1 };
        assert_eq!(w.get(0, WITH_TAG, way), Err(outside.into()), "{way:?}: no tags there");
        // Bit 63 is none of them, nor is bit 56.
        for bit in [63, 56] {
            let address = VirtAddr::new(AT.as_u64() | 1 << bit);
            let outside = RangeError::OutsideUser { address, pages: 1 };
            assert_eq!(w.get(TAGGED, address, way), Err(outside.into()), "{way:?}");
        }
    }
    w.end();
}

#[test]
fn every_operation_on_a_range_takes_them() {
    let w = World::new();
    let (mm, cpu, space, id) = (w.kernel.mm, &w.cpu, w.kernel.space(TAGGED), SpaceId::new(TAGGED));
    let mapped = |page: u64| w.kernel.frame_at(cpu, TAGGED, AT.wrapping_add(page * 4096)).is_some();
    mm.populate(cpu, space, WITH_TAG, 2, Access::Write).expect("memory");
    assert!(mapped(1), "populate");
    let mut told = Vec::new();
    mm.harvest(cpu, space, (WITH_TAG, PAGES), Usage::NONE, |page| told.push(page.address)).expect("whole tables");
    assert_eq!(told, [AT, AT.wrapping_add(4096)], "addresses that are told have no tag");
    mm.mprotect(cpu, id, WITH_TAG, PAGES, AreaRights::Read).expect("an area");
    assert!(w.kernel.store(cpu, TAGGED, AT, 1).is_err(), "mprotect");
    mm.mprotect(cpu, id, WITH_TAG, PAGES, AreaRights::ReadWrite).expect("an area");
    mm.zap(cpu, space, WITH_TAG, 1).expect("whole tables");
    assert!(!mapped(0) && mapped(1), "zap");
    mm.install_guards(cpu, space, WITH_TAG, 1).expect("memory");
    assert!(w.kernel.load(cpu, TAGGED, AT).is_err(), "install_guards");
    mm.remove_guards(cpu, space, WITH_TAG, 1).expect("memory");
    assert_eq!(w.kernel.load(cpu, TAGGED, AT), Ok(0), "remove_guards");
    mm.mremap(cpu, id, (WITH_TAG, PAGES), (ELSEWHERE, PAGES)).expect("nothing is there");
    assert_eq!(w.kernel.load(cpu, TAGGED, ELSEWHERE), Ok(0), "mremap");
    mm.munmap(cpu, id, VirtAddr::new(ELSEWHERE.as_u64() | 1 << 62), PAGES).expect("an area");
    assert!(w.kernel.load(cpu, TAGGED, ELSEWHERE).is_err(), "munmap");
    w.end();
}

#[test]
fn where_something_new_is_placed_they_are_refused() {
    let w = World::new();
    let (mm, cpu, id) = (w.kernel.mm, &w.cpu, SpaceId::new(TAGGED));
    let new = VirtAddr::new(ELSEWHERE.as_u64() | 1 << 60);
    assert!(matches!(mm.mmap(cpu, id, anonymous(new, 1, 0)), Err(MapError::BadRange { .. })));
    let outside = RangeError::OutsideUser { address: new, pages: PAGES };
    assert_eq!(mm.mremap(cpu, id, (AT, PAGES), (new, PAGES)), Err(AreaError::Range(outside)));
    let far = mm.zap(cpu, w.kernel.space(0), WITH_TAG, 1);
    assert_eq!(far, Err(ZapError::Range(RangeError::OutsideUser { address: WITH_TAG, pages: 1 })));
    w.end();
}
