//! Pages leave memory and come back: contents, rights and every count are what they were.

mod memory;

use hosted::ThreadCpu;
use machine::{Access, Frame, VirtAddr};
use memory::{CACHED, Kernel, anonymous};
use mm::{Area, AreaRights, FolioFlags, Foll, MemoryMap, ReclaimError, Run, SpaceId};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 24;
const ONE: SpaceId = SpaceId::new(0);

fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

fn build() -> (Kernel, ThreadCpu) {
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space(0));
    (kernel, cpu)
}

fn pin(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr) -> Run {
    let mut got = None;
    let pinned = kernel.mm.gup(cpu, kernel.space(0), at, 1, Foll::PIN | Foll::WRITE, |run| got = Some(run));
    assert_eq!(pinned, Ok(1));
    got.expect("one run")
}

const EXCLUSIVE: u32 = FolioFlags::EXCLUSIVE.bits();

#[test]
fn a_page_goes_to_swap_and_comes_back() {
    let (kernel, cpu) = build();
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 4, 0)).expect("a good area");
    kernel.store(&cpu, 0, page(1), 77).expect("memory");
    let frame = kernel.frame_at(&cpu, 0, page(1)).expect("mapped");
    assert_eq!(kernel.counts(&cpu, frame), (1, 0, 1));

    assert_eq!(kernel.mm.swap_out(&cpu, frame), Ok(()));
    assert_eq!(kernel.data.leaks(), [], "the frame is free");
    assert_eq!(kernel.swap.counts(), 1);
    assert_eq!(kernel.frame_at(&cpu, 0, page(1)), None);
    assert_eq!(kernel.load(&cpu, 0, page(1)), Ok(77));
    assert_eq!(kernel.swap.counts(), 0, "the place is free");
    let frame = kernel.frame_at(&cpu, 0, page(1)).expect("mapped");
    assert_eq!(kernel.counts(&cpu, frame), (1, 0, 1));
    assert_eq!(kernel.flags(&cpu, frame) & EXCLUSIVE, EXCLUSIVE, "it is still this space's alone");
    kernel.store(&cpu, 0, page(1), 78).expect("no copy is needed");
    assert_eq!(kernel.frame_at(&cpu, 0, page(1)), Some(frame));

    // What is on swap goes with the area.
    kernel.mm.swap_out(&cpu, frame).expect("nobody else uses it");
    kernel.mm.munmap(&cpu, ONE, AT, 4).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn who_is_pinned_or_referenced_stays_whole() {
    let (kernel, cpu) = build();
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 5).expect("memory");
    let frame = kernel.frame_at(&cpu, 0, AT).expect("mapped");
    let run = pin(&kernel, &cpu, AT);
    let before = (kernel.counts(&cpu, frame), kernel.flags(&cpu, frame));
    assert_eq!(kernel.mm.swap_out(&cpu, frame), Err(ReclaimError::Pinned));
    assert_eq!(kernel.mm.migrate(&cpu, frame), Err(ReclaimError::Pinned));
    assert_eq!((kernel.counts(&cpu, frame), kernel.flags(&cpu, frame)), before);
    kernel.mm.release(&cpu, run, Access::Read).expect("held");

    let mut got = Vec::new();
    kernel.mm.gup(&cpu, kernel.space(0), AT, 1, Foll::GET, |run| got.push(run)).expect("it is mapped");
    let before = kernel.counts(&cpu, frame);
    let referenced = ReclaimError::Referenced { expected: 1, references: 2 };
    assert_eq!(kernel.mm.swap_out(&cpu, frame), Err(referenced));
    assert_eq!(kernel.mm.migrate(&cpu, frame), Err(referenced));
    assert_eq!(kernel.counts(&cpu, frame), before);
    assert_eq!(kernel.flags(&cpu, frame) & EXCLUSIVE, EXCLUSIVE, "given back with the entry");
    assert_eq!(kernel.frame_at(&cpu, 0, AT), Some(frame));
    kernel.store(&cpu, 0, AT, 6).expect("no copy is needed");
    assert_eq!(kernel.frame_at(&cpu, 0, AT), Some(frame));
    for run in got {
        kernel.mm.release(&cpu, run, Access::Read).expect("held");
    }
    kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn a_folio_moves_with_contents_rights_and_counts() {
    let (kernel, cpu) = build();
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 2, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 41).expect("memory");
    let from = kernel.frame_at(&cpu, 0, AT).expect("mapped");
    let moved = kernel.mm.migrate(&cpu, from).expect("nobody else uses it");
    let to = moved.to.head;
    assert_eq!(moved.from.head, from);
    assert_eq!(kernel.frame_at(&cpu, 0, AT), Some(to), "mapped without a fault");
    assert_eq!(kernel.counts(&cpu, to), (1, 0, 1));
    assert_eq!(kernel.flags(&cpu, to) & EXCLUSIVE, EXCLUSIVE);
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(41));
    kernel.store(&cpu, 0, AT, 42).expect("it is writable");
    assert_eq!(kernel.frame_at(&cpu, 0, AT), Some(to), "still writable: no copy");
    assert_eq!(kernel.data.in_use(), 1, "the old frame is free");
    kernel.mm.munmap(&cpu, ONE, AT, 2).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn a_page_of_a_file_moves_wherever_it_is_mapped() {
    let (kernel, cpu) = build();
    kernel.fill_file(&cpu);
    let area = |rights| Area::shared(AT, 8, rights, CACHED, 2);
    kernel.mm.mmap(&cpu, ONE, area(AreaRights::ReadWrite)).expect("a good area");
    kernel.mm.mmap(&cpu, SpaceId::new(1), area(AreaRights::Read)).expect("a good area");
    assert_eq!(kernel.load(&cpu, 0, page(1)), Ok(3));
    assert_eq!(kernel.load(&cpu, 1, page(1)), Ok(3));
    kernel.store(&cpu, 0, page(1), 33).expect("a shared area");
    let from = kernel.file_frame(3).expect("a page");
    assert_eq!(kernel.counts(&cpu, from), (3, 0, 2));
    let to = kernel.mm.migrate(&cpu, from).expect("nobody else uses it").to.head;
    assert_eq!(kernel.file_frame(3), Some(to));
    assert_eq!(kernel.counts(&cpu, to), (3, 0, 2));
    for space in [0, 1] {
        assert_eq!(kernel.frame_at(&cpu, space, page(1)), Some(to));
        assert_eq!(kernel.load(&cpu, space, page(1)), Ok(33));
    }
    assert!(kernel.store(&cpu, 1, page(1), 0).is_err(), "the second may still not write");
    let record = MemoryMap::page(kernel.data, &cpu, to).expect("it has a record");
    let flags = machine::Cpu::load(&cpu, record.flags_word());
    assert_eq!(flags & FolioFlags::DIRTY.bits(), FolioFlags::DIRTY.bits(), "the store is remembered");
    kernel.mm.munmap(&cpu, ONE, AT, 8).expect("it is mapped");
    kernel.mm.munmap(&cpu, SpaceId::new(1), AT, 8).expect("it is mapped");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

/// Every allocation, count, write and read is let fail once: the operation fails whole, the next one succeeds, and nothing is lost.
#[test]
fn whatever_fails_nothing_leaks() {
    let (kernel, cpu) = build();
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 4, 0)).expect("a good area");
    for number in 0..4 {
        kernel.store(&cpu, 0, page(number), 100 + number).expect("memory");
    }
    let frames = |kernel: &Kernel, cpu: &ThreadCpu| -> Vec<Frame> {
        (0..4).filter_map(|number| kernel.frame_at(cpu, 0, page(number))).collect()
    };
    for failing in 1.. {
        let before = frames(&kernel, &cpu);
        let failed = kernel.failures.failed();
        kernel.failures.fail_at(failing);
        let mut results = Vec::new();
        kernel.mm.swap_out_many(&cpu, &before, |_, result| results.push(result));
        assert_eq!(results.len(), 4);
        let moved = frames(&kernel, &cpu).first().map(|&frame| kernel.mm.migrate(&cpu, frame).map(drop));
        let back: Vec<_> = (0..4).map(|number| kernel.load(&cpu, 0, page(number))).collect();
        let failures = kernel.failures.failed() - failed;
        kernel.failures.fail_at(0);
        let errors = results.iter().filter(|result| result.is_err()).count()
            + usize::from(moved.is_some_and(|moved| moved.is_err()))
            + back.iter().filter(|result| result.is_err()).count();
        assert_eq!(errors as u64, failures, "one failure is one error: {results:?} {moved:?} {back:?}");
        for number in 0..4 {
            assert_eq!(kernel.load(&cpu, 0, page(number)), Ok(100 + number));
        }
        assert_eq!((kernel.data.in_use(), kernel.swap.counts()), (4, 0));
        for frame in frames(&kernel, &cpu) {
            assert_eq!(kernel.counts(&cpu, frame), (1, 0, 1));
        }
        if failures == 0 {
            assert!(failing > 12, "each of four pages allocates a place, is written and read, and gets a frame");
            break;
        }
    }
    kernel.mm.munmap(&cpu, ONE, AT, 4).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}
