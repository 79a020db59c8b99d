//! A page moves, and before it is there another CPU does something with its place.

use crate::memory::{CACHED, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{CpuId, Frame, VirtAddr};
use mm::{Area, AreaRights, Event, FaultError, FlushReason, FolioFlags, SpaceId};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 24;
const ONE: SpaceId = SpaceId::new(0);
const TWO: SpaceId = SpaceId::new(1);

/// A page, and what another CPU does when its entry is away already and nothing is flushed yet. Where it is then.
fn migrate_while(kernel: &Kernel, cpu: &ThreadCpu, act: impl FnOnce(&Kernel, &ThreadCpu) + Send + 'static) -> Frame {
    let from = kernel.frame_at(cpu, 0, AT).expect("mapped");
    let other = kernel.clone();
    kernel.recorder.before(
        |event| matches!(event, Event::TlbFlush { reason: FlushReason::LocalShootdown, .. }),
        move || {
            let cpu = other.machine.attach_as(CpuId::new(1)).expect("nobody else has it");
            assert_eq!(other.frame_at(&cpu, 0, AT), None, "it is away");
            act(&other, &cpu);
        },
    );
    let moved = kernel.mm.migrate(cpu, from).expect("nobody else uses it");
    assert!(kernel.recorder.has_acted());
    moved.to.head
}

/// Two CPUs, none of which translates by an address space: so none has to be interrupted.
fn build() -> (Kernel, ThreadCpu) {
    let kernel = Kernel::build(2, TABLES);
    let cpu = kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
    (kernel, cpu)
}

#[test]
fn rights_that_go_while_a_page_moves_are_gone_when_it_is_there() {
    let (kernel, cpu) = build();
    kernel.fill_file(&cpu);
    let of_file = Area::shared(AT, 1, AreaRights::ReadWrite, CACHED, 5);
    for area in [anonymous(AT, 1, 0), of_file] {
        let protect = |rights| {
            move |kernel: &Kernel, cpu: &ThreadCpu| kernel.mm.mprotect(cpu, ONE, AT, 1, rights).expect("an area")
        };
        kernel.mm.mmap(&cpu, ONE, area).expect("a good area");
        kernel.store(&cpu, 0, AT, 41).expect("memory");
        let to = migrate_while(&kernel, &cpu, protect(AreaRights::Read));
        assert_eq!(kernel.frame_at(&cpu, 0, AT), Some(to), "mapped without a fault");
        assert!(matches!(kernel.store(&cpu, 0, AT, 42), Err(FaultError::Forbidden { .. })));
        assert_eq!(kernel.load(&cpu, 0, AT), Ok(41));

        let to = migrate_while(&kernel, &cpu, protect(AreaRights::None));
        assert_eq!(kernel.frame_at(&cpu, 0, AT), None);
        assert!(matches!(kernel.load(&cpu, 0, AT), Err(FaultError::Forbidden { .. })));
        assert_eq!(kernel.counts(&cpu, to).2, 1, "it is there for those who may use it again");

        protect(AreaRights::ReadWrite)(&kernel, &cpu);
        assert_eq!(kernel.load(&cpu, 0, AT), Ok(41));
        kernel.store(&cpu, 0, AT, 43).expect("allowed again");
        assert_eq!(kernel.frame_at(&cpu, 0, AT), Some(to), "no copy was needed");
        kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");
    }
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn rights_that_come_while_a_page_moves_are_there_with_it() {
    let (kernel, cpu) = build();
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 41).expect("memory");
    let to = migrate_while(&kernel, &cpu, |kernel, cpu| {
        for rights in [AreaRights::None, AreaRights::ReadWrite] {
            kernel.mm.mprotect(cpu, ONE, AT, 1, rights).expect("an area");
        }
    });
    assert_eq!(kernel.frame_at(&cpu, 0, AT), Some(to), "mapped without a fault");
    kernel.store(&cpu, 0, AT, 42).expect("allowed");
    assert_eq!(kernel.frame_at(&cpu, 0, AT), Some(to), "it is still this space's alone: no copy");
    kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn a_child_that_comes_while_a_page_moves_shares_it_and_no_stores() {
    let (kernel, cpu) = build();
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 41).expect("memory");
    let to = migrate_while(&kernel, &cpu, |kernel, cpu| kernel.mm.fork(cpu, ONE, TWO).expect("room for a child"));
    assert_eq!([0, 1].map(|space| kernel.frame_at(&cpu, space, AT)), [Some(to), Some(to)]);
    assert_eq!((kernel.counts(&cpu, to), kernel.flags(&cpu, to) & FolioFlags::EXCLUSIVE.bits()), ((2, 0, 2), 0));
    kernel.store(&cpu, 1, AT, 51).expect("a copy");
    kernel.store(&cpu, 0, AT, 42).expect("memory");
    assert_eq!([0, 1].map(|space| kernel.load(&cpu, space, AT)), [Ok(42), Ok(51)]);
    for space in [ONE, TWO] {
        kernel.mm.munmap(&cpu, space, AT, 1).expect("it is mapped");
    }
    kernel.assert_all_is_back(TABLES);
}

/// A page of the file goes from all mappings though it is on its way elsewhere; what belongs to an address space stays.
#[test]
fn what_a_file_loses_while_it_moves_is_not_mapped_again() {
    let (kernel, cpu) = build();
    kernel.fill_file(&cpu);
    let unmap = |kernel: &Kernel, cpu: &ThreadCpu| {
        let file = kernel.mm.file(CACHED).expect("it is there");
        kernel.mm.unmap_mapping(cpu, file, 5, 1).expect("whole tables");
    };
    kernel.mm.mmap(&cpu, ONE, Area::shared(AT, 1, AreaRights::ReadWrite, CACHED, 5)).expect("a good area");
    kernel.load(&cpu, 0, AT).expect("a page of the file");
    migrate_while(&kernel, &cpu, unmap);
    assert_eq!(kernel.frame_at(&cpu, 0, AT), None);
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(5));
    kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");

    kernel.mm.mmap(&cpu, ONE, Area::private(AT, 1, AreaRights::ReadWrite, CACHED, 5)).expect("a good area");
    kernel.store(&cpu, 0, AT, 50).expect("a copy");
    let to = migrate_while(&kernel, &cpu, unmap);
    assert_eq!((kernel.frame_at(&cpu, 0, AT), kernel.load(&cpu, 0, AT)), (Some(to), Ok(50)));
    kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}
