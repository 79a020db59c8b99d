//! Address spaces in parts: what an area may not do, what a range over several parts does, and threads that map and unmap in parts with page tables in common.

use std::sync::atomic::{AtomicU32, Ordering};

use hosted::ThreadCpu;
use machine::{CpuId, VirtAddr};
use mm::{
    AddressSpace, Area, AreaError, AreaRights, AreaSlot, FaultError, ForkError, GrowthError, MapError, PartsError,
    SpaceId, SpacePart, StackLimits, Usage,
};
use pagetable::{FourLevel, PhysicalWidth, Root};

use crate::memory::{AREAS, Kernel, SPACES, anonymous};

const ONE: SpaceId = SpaceId::new(0);
const TWO: SpaceId = SpaceId::new(1);
const OTHER: SpaceId = SpaceId::new(2);
const TABLES: u64 = 48;
/// In the middle of a page table: both parts have all tables in common.
const BOUNDARY: VirtAddr = VirtAddr::new(0x40_0010_0000);

/// A page, counted from the boundary.
const fn page(number: i64) -> VirtAddr {
    BOUNDARY.wrapping_add((number * 4096) as u64)
}

const fn area(first: i64, pages: u64) -> Area {
    anonymous(page(first), pages, (first + 0x1000) as u64)
}

/// Two spaces in two parts, and one that is in one.
fn kernel(cpus: u32) -> Kernel {
    let all = VirtAddr::new(0);
    Kernel::build_in_parts(
        cpus,
        TABLES,
        |number| if number == OTHER.number() { vec![all] } else { vec![all, BOUNDARY] },
    )
}

fn alone() -> (Kernel, ThreadCpu) {
    let kernel = kernel(1);
    let cpu = kernel.enter_first();
    (kernel, cpu)
}

fn end(kernel: &Kernel, cpu: &ThreadCpu) {
    kernel.mm.exit(cpu, ONE).expect("whole tables");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn parts_follow_each_other_from_the_first_address_on() {
    let root = || Root::new(&FourLevel::new(PhysicalWidth::MAX), machine::PhysAddr::new(0x1000)).expect("aligned");
    let refused = |starts: &[u64]| {
        let slots = [const { AreaSlot::new() }; 1];
        let parts: Vec<_> = starts.iter().map(|start| SpacePart::new(VirtAddr::new(*start), &slots)).collect();
        AddressSpace::in_parts(root(), &parts).err()
    };
    assert_eq!(refused(&[0]), None);
    assert_eq!(refused(&[0, 0x1000, 0x8000_0000]), None);
    assert_eq!(refused(&[]), Some(PartsError::First(None)));
    assert_eq!(refused(&[0x1000]), Some(PartsError::First(Some(VirtAddr::new(0x1000)))));
    assert_eq!(refused(&[0, 0x2000, 0x1000]), Some(PartsError::Order(VirtAddr::new(0x1000))));
    assert_eq!(refused(&[0, 0x2000, 0x2000]), Some(PartsError::Order(VirtAddr::new(0x2000))));
    assert_eq!(refused(&[0, 0x1800]), Some(PartsError::Misaligned(VirtAddr::new(0x1800))));
    assert_eq!(
        PartsError::Order(VirtAddr::new(0x1000)).to_string(),
        "the part that begins at 0x1000 comes too late: parts are sorted by address"
    );
}

#[test]
fn an_area_lies_in_one_part() {
    let (kernel, cpu) = alone();
    let across = |area| (area, BOUNDARY);
    let refused = kernel.mm.mmap(&cpu, ONE, area(-1, 2));
    assert_eq!(
        refused.map_err(|error| match error {
            MapError::AcrossParts { area, boundary } => (area, boundary),
            error => panic!("{error:?}"),
        }),
        Err(across(area(-1, 2)))
    );
    // Up to the boundary, and from it on.
    kernel.mm.mmap(&cpu, ONE, area(-2, 2)).expect("in the first");
    kernel.mm.mmap(&cpu, ONE, area(0, 2)).expect("in the second");
    kernel.mm.munmap(&cpu, ONE, page(0), 2).expect("whole tables");
    let grown = kernel.mm.mremap(&cpu, ONE, (page(-2), 2), (page(-2), 3));
    assert_eq!(grown, Err(AreaError::AcrossParts { area: area(-2, 3), boundary: BOUNDARY }));
    let moved = kernel.mm.mremap(&cpu, ONE, (page(-2), 2), (page(-1), 2));
    assert!(matches!(moved, Err(AreaError::Range(_) | AreaError::AcrossParts { .. })), "{moved:?}");
    kernel.mm.mremap(&cpu, ONE, (page(-2), 2), (page(4), 2)).expect("from one part into the other");
    end(&kernel, &cpu);
}

#[test]
fn each_part_has_slots_of_its_own() {
    let (kernel, cpu) = alone();
    let every_other = |number: usize| 2 * number as i64;
    for number in 0..AREAS {
        kernel.mm.mmap(&cpu, ONE, area(every_other(number), 1)).expect("a free slot");
    }
    assert_eq!(kernel.mm.mmap(&cpu, ONE, area(every_other(AREAS), 1)), Err(MapError::SpaceFull));
    kernel.mm.mmap(&cpu, ONE, area(-2, 1)).expect("the first part has slots");
    let into_the_full = kernel.mm.mremap(&cpu, ONE, (page(-2), 1), (page(every_other(AREAS)), 1));
    assert_eq!(into_the_full, Err(AreaError::SpaceFull));
    kernel.mm.mremap(&cpu, ONE, (page(0), 1), (page(-5), 1)).expect("out of it");
    end(&kernel, &cpu);
}

#[test]
fn a_range_over_both_parts_is_one_range() {
    let (kernel, cpu) = alone();
    let mm = kernel.mm;
    let map = || {
        mm.mmap(&cpu, ONE, area(-3, 3)).expect("nothing is there");
        mm.mmap(&cpu, ONE, area(0, 3)).expect("nothing is there");
        (-3..3).for_each(|number| kernel.store(&cpu, 0, page(number), number as u64).expect("an area"));
    };
    map();
    mm.mprotect(&cpu, ONE, page(-1), 2, AreaRights::Read).expect("areas everywhere");
    let stores = (-3..3).map(|number| kernel.store(&cpu, 0, page(number), 7).is_ok());
    assert_eq!(stores.collect::<Vec<_>>(), [true, true, false, false, true, true]);
    let mut used = Vec::new();
    let harvest = mm.harvest(&cpu, kernel.space(0), (page(-3), 6), Usage::NONE, |page| used.push(page.address));
    harvest.expect("whole tables");
    assert_eq!(used, (-3..3).map(page).collect::<Vec<_>>());
    mm.zap(&cpu, kernel.space(0), page(-2), 4).expect("whole tables");
    assert_eq!(
        (-3..3).map(|number| kernel.load(&cpu, 0, page(number))).collect::<Vec<_>>(),
        [7, 0, 0, 0, 0, 7].map(Ok)
    );
    mm.fork(&cpu, ONE, TWO).expect("the same parts");
    assert_eq!(kernel.load(&cpu, 1, page(-3)), Ok(7));
    assert_eq!(kernel.load(&cpu, 1, page(2)), Ok(7));
    mm.exit(&cpu, TWO).expect("whole tables");
    // Tables that the parts have in common go with the last area, if one call takes the areas of both.
    let tables = || kernel.tables.arena.in_use() - u64::from(SPACES);
    assert_eq!(tables(), 3);
    mm.munmap(&cpu, ONE, page(-3), 6).expect("whole tables");
    assert_eq!(tables(), 0);
    // Else they stay.
    map();
    mm.munmap(&cpu, ONE, page(-3), 3).expect("whole tables");
    mm.munmap(&cpu, ONE, page(0), 3).expect("whole tables");
    assert_eq!(tables(), 3);
    end(&kernel, &cpu);
}

#[test]
fn a_child_has_the_parts_of_its_parent() {
    let (kernel, cpu) = alone();
    kernel.mm.mmap(&cpu, ONE, area(0, 1)).expect("nothing is there");
    assert_eq!(kernel.mm.fork(&cpu, ONE, OTHER), Err(ForkError::PartsDiffer(OTHER)));
    end(&kernel, &cpu);
}

#[test]
fn a_stack_sees_what_is_near_it_in_another_part_and_stays_in_its_own() {
    let (kernel, cpu) = alone();
    let gap = StackLimits::DEFAULT.gap as i64;
    let stack = area(gap / 2, 4).as_stack();
    kernel.mm.mmap(&cpu, ONE, stack).expect("nothing is there");
    let in_the_gap = kernel.mm.mmap(&cpu, ONE, area(-1, 1));
    assert_eq!(in_the_gap, Err(MapError::InGuardGap(stack)), "the gap reaches into the first part");
    let below = area(gap / 2 - gap - 2, 2);
    kernel.mm.mmap(&cpu, ONE, below).expect("as near as may be");
    let address = page(gap / 2 - 1);
    let error = GrowthError::Gap(below);
    assert_eq!(kernel.store(&cpu, 0, address, 1), Err(FaultError::NotGrown { address, error }));
    kernel.mm.munmap(&cpu, ONE, below.start, below.pages).expect("whole tables");
    kernel.store(&cpu, 0, page(0), 1).expect("it grows as far as its part reaches");
    let address = page(-1);
    assert_eq!(kernel.store(&cpu, 0, address, 1), Err(FaultError::NoArea { address }));
    end(&kernel, &cpu);
}

#[test]
fn threads_map_and_unmap_beside_each_other_in_tables_that_both_use() {
    const ROUNDS: u64 = 2000;
    let kernel = &kernel(2);
    let ready = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for (number, first) in [(0, -8_i64), (1, 4)] {
            let ready = &ready;
            scope.spawn(move || {
                let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
                kernel.mm.enter(&cpu, kernel.space(0));
                ready.fetch_add(1, Ordering::SeqCst);
                while ready.load(Ordering::SeqCst) < 2 {
                    std::hint::spin_loop();
                }
                for round in 0..ROUNDS {
                    kernel.mm.mmap(&cpu, ONE, area(first, 4)).expect("nothing is there");
                    for at in first..first + 4 {
                        kernel.store(&cpu, 0, page(at), round).expect("an area");
                    }
                    kernel.mm.mprotect(&cpu, ONE, page(first + 1), 2, AreaRights::Read).expect("an area");
                    for at in first..first + 4 {
                        assert_eq!(kernel.load(&cpu, 0, page(at)), Ok(round));
                    }
                    kernel.mm.munmap(&cpu, ONE, page(first), 4).expect("whole tables");
                }
            });
        }
    });
    let cpu = kernel.machine.attach().expect("all are free again");
    end(kernel, &cpu);
}
