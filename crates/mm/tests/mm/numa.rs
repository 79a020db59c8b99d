//! NUMA hints: what has one, what the next access makes of it, and what becomes of rights, counts and contents.

use crate::memory::{CACHED, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{Access, Frame, VirtAddr};
use mm::{Area, AreaRights, FaultError, Foll, GupError, Run, SpaceId};
use pagetable::{Entry, Flags, Level};

const SPACE: SpaceId = SpaceId::new(0);
const CHILD: SpaceId = SpaceId::new(1);
/// On a boundary of 2 MiB.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 64;

fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// A kernel with a private, writable area at [`AT`], whose pages hold 70, 71, ...
fn with_pages(pages: u64) -> (Kernel, ThreadCpu) {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, pages, 0)).expect("a good area");
    for number in 0..pages {
        kernel.store(&cpu, 0, page(number), 70 + number).expect("memory");
    }
    (kernel, cpu)
}

fn hint(kernel: &Kernel, cpu: &ThreadCpu, pages: u64) -> u64 {
    kernel.mm.hint_numa(cpu, kernel.space(0), AT, pages).expect("a good range")
}

fn frame(kernel: &Kernel, cpu: &ThreadCpu, number: u64) -> Option<Frame> {
    kernel.frame_at(cpu, 0, page(number))
}

fn leaf(kernel: &Kernel, cpu: &ThreadCpu) -> Entry {
    kernel.leaf_at(cpu, 0, AT).expect("present").entry
}

fn end(kernel: &Kernel, cpu: &ThreadCpu) {
    kernel.mm.munmap(cpu, SPACE, AT, 1 << 20).expect("whole tables");
    kernel.empty_file(cpu);
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn the_next_access_finds_the_page_where_it_was() {
    let (kernel, cpu) = with_pages(3);
    let frames = [0, 1, 2].map(|number| frame(&kernel, &cpu, number).expect("mapped"));
    let before = leaf(&kernel, &cpu);
    assert_eq!(hint(&kernel, &cpu, 2), 2);
    assert_eq!([0, 1, 2].map(|number| frame(&kernel, &cpu, number)), [None, None, Some(frames[2])]);
    assert_eq!(hint(&kernel, &cpu, 3), 1, "two have one already");
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(70));
    assert_eq!(leaf(&kernel, &cpu), before, "with all that it said");
    kernel.store(&cpu, 0, page(1), 8).expect("allowed");
    assert_eq!(frame(&kernel, &cpu, 1), Some(frames[1]), "no copy");
    assert_eq!(kernel.load(&cpu, 0, page(2)), Ok(72));
    assert_eq!(frames.map(|frame| kernel.counts(&cpu, frame)), [(1, 0, 1); 3]);
    assert_eq!(kernel.nodes.asked(), 3, "each fault asks, once");
    end(&kernel, &cpu);
}

#[test]
fn a_page_that_had_better_be_elsewhere_moves_once() {
    let (kernel, cpu) = with_pages(1);
    let from = frame(&kernel, &cpu, 0).expect("mapped");
    let before = leaf(&kernel, &cpu);
    assert_eq!(hint(&kernel, &cpu, 1), 1);
    // Wherever it goes, it is not right.
    kernel.nodes.let_all_move(true);
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(70));
    let to = frame(&kernel, &cpu, 0).expect("mapped");
    assert_ne!(to, from);
    assert_eq!(
        leaf(&kernel, &cpu).with(Flags::ACCESSED),
        Entry::leaf(Level::Pte, to, before.attributes(Level::Pte)).expect("a frame")
    );
    assert_eq!((kernel.counts(&cpu, from).0, kernel.counts(&cpu, to)), (0, (1, 0, 1)));
    assert_eq!(kernel.nodes.asked(), 1, "of where it is now nobody asks");
    end(&kernel, &cpu);
}

#[test]
fn a_page_that_cannot_move_is_used_where_it_is() {
    let (kernel, cpu) = with_pages(2);
    let frames = [0, 1].map(|number| frame(&kernel, &cpu, number));
    let mut pins: Vec<Run> = Vec::new();
    kernel.mm.gup(&cpu, kernel.space(0), AT, 1, Foll::PIN | Foll::WRITE, |run| pins.push(run)).expect("a page");
    assert_eq!(hint(&kernel, &cpu, 2), 2);
    kernel.nodes.let_all_move(true);
    kernel.store(&cpu, 0, AT, 5).expect("allowed");
    assert_eq!(frame(&kernel, &cpu, 0), frames[0], "a device has it");
    kernel.failures.fail_from(1);
    assert_eq!(kernel.load(&cpu, 0, page(1)), Ok(71));
    assert!(kernel.failures.failed() > 0);
    kernel.failures.fail_at(0);
    assert_eq!(frame(&kernel, &cpu, 1), frames[1], "there is no other");
    pins.into_iter().for_each(|run| kernel.mm.release(&cpu, run, Access::Write).expect("held"));
    assert_eq!(frames.map(|frame| kernel.counts(&cpu, frame.expect("mapped"))), [(1, 0, 1); 2]);
    end(&kernel, &cpu);
}

#[test]
fn a_huge_page_has_one_hint_and_moves_whole() {
    for moves in [false, true] {
        let (kernel, cpu) = Kernel::alone(TABLES);
        kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 512, 0).with_huge_pages()).expect("a good area");
        kernel.store(&cpu, 0, page(7), 77).expect("memory");
        let from = frame(&kernel, &cpu, 0).expect("mapped");
        assert_eq!(kernel.mm.hint_numa(&cpu, kernel.space(0), page(100), 1), Ok(1), "of the leaf that reaches there");
        assert_eq!(frame(&kernel, &cpu, 7), None);
        kernel.nodes.let_all_move(moves);
        kernel.store(&cpu, 0, page(300), 78).expect("allowed");
        let now = kernel.leaf_at(&cpu, 0, AT).expect("present");
        assert_eq!((now.level, now.frame != from), (Level::Pmd, moves));
        assert_eq!([7, 300].map(|number| kernel.load(&cpu, 0, page(number))), [Ok(77), Ok(78)]);
        assert_eq!(kernel.counts(&cpu, now.frame), (1, 0, 1));
        end(&kernel, &cpu);
    }
}

#[test]
fn a_page_of_a_file_moves_for_all_who_map_it() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    for (at, pages) in [(AT, 2), (page(8), 2)] {
        kernel.mm.mmap(&cpu, SPACE, Area::shared(at, pages, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
        kernel.store(&cpu, 0, at, 3).expect("a page of the file");
    }
    let from = kernel.file_frame(0);
    assert_eq!(hint(&kernel, &cpu, 1), 1);
    kernel.nodes.let_all_move(true);
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(3));
    let to = kernel.file_frame(0);
    assert_ne!(to, from);
    assert_eq!([0, 8].map(|number| frame(&kernel, &cpu, number)), [to; 2]);
    assert!(leaf(&kernel, &cpu).has(Flags::WRITE.and(Flags::DIRTY)), "as it was");
    end(&kernel, &cpu);
}

#[test]
fn what_nobody_may_use_and_what_must_stay_has_no_hint() {
    let (kernel, cpu) = with_pages(1);
    let forbid = |rights| kernel.mm.mprotect(&cpu, SPACE, AT, 1, rights).expect("a whole area");
    let was = frame(&kernel, &cpu, 0);
    forbid(AreaRights::None);
    assert_eq!(hint(&kernel, &cpu, 1), 0);
    kernel.nodes.let_all_move(true);
    assert!(matches!(kernel.load(&cpu, 0, AT), Err(FaultError::Forbidden { .. })), "that is not what a hint is");
    assert_eq!(kernel.nodes.asked(), 0);
    forbid(AreaRights::ReadWrite);
    assert_eq!(frame(&kernel, &cpu, 0), was);
    // mprotect comes upon a hint, and says what may be done from now on.
    assert_eq!(hint(&kernel, &cpu, 1), 1);
    forbid(AreaRights::Read);
    assert_eq!((frame(&kernel, &cpu, 0), leaf(&kernel, &cpu).has(Flags::WRITE)), (was, false));
    assert_eq!(hint(&kernel, &cpu, 1), 1);
    assert!(matches!(kernel.store(&cpu, 0, AT, 1), Err(FaultError::Forbidden { .. })));
    kernel.mm.munmap(&cpu, SPACE, AT, 1).expect("a whole area");
    // The zero page belongs to nobody.
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 1, 0)).expect("a good area");
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(0));
    assert_eq!(hint(&kernel, &cpu, 1), 0);
    end(&kernel, &cpu);
}

/// Who has taken the right to write away learns of the next store, a hint in between or not.
#[test]
fn a_hint_brings_the_right_to_write_back_to_nobody() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let of_file = Area::shared(AT, 1, AreaRights::ReadWrite, CACHED, 5);
    for area in [anonymous(AT, 1, 0), of_file] {
        kernel.mm.mmap(&cpu, SPACE, area).expect("a good area");
        for hint_first in [false, true] {
            kernel.store(&cpu, 0, AT, 9).expect("memory");
            if hint_first {
                assert_eq!(hint(&kernel, &cpu, 1), 1);
            }
            kernel.mm.write_protect(&cpu, kernel.space(0), AT, 1).expect("a good range");
            if !hint_first {
                assert_eq!(hint(&kernel, &cpu, 1), 1);
            }
            assert_eq!(kernel.load(&cpu, 0, AT), Ok(9));
            assert!(!leaf(&kernel, &cpu).has(Flags::WRITE));
        }
        kernel.store(&cpu, 0, AT, 10).expect("the area allows it");
        if area == of_file {
            assert_eq!(hint(&kernel, &cpu, 1), 1);
            let file = kernel.mm.file(CACHED).expect("it is there");
            assert_eq!(kernel.mm.write_protect_mapping(&cpu, file, 5, 1), Ok(1));
            assert_eq!(kernel.load(&cpu, 0, AT), Ok(10));
            assert!(!leaf(&kernel, &cpu).has(Flags::WRITE));
        }
        kernel.mm.munmap(&cpu, SPACE, AT, 1).expect("a whole area");
    }
    end(&kernel, &cpu);
}

#[test]
fn gup_follows_a_hint_or_faults_first() {
    let (kernel, cpu) = with_pages(1);
    let from = frame(&kernel, &cpu, 0).expect("mapped");
    kernel.nodes.let_all_move(true);
    assert_eq!(hint(&kernel, &cpu, 1), 1);
    let gup = |flags| {
        let mut runs: Vec<Run> = Vec::new();
        let got = kernel.mm.gup(&cpu, kernel.space(0), AT, 1, flags, |run| runs.push(run));
        let frames: Vec<Frame> = runs.iter().map(Run::frame).collect();
        runs.into_iter().for_each(|run| kernel.mm.release(&cpu, run, Access::Read).expect("held"));
        got.map(|_| frames)
    };
    assert_eq!(gup(Foll::PIN | Foll::FAST_ONLY), Ok(vec![]), "the lockless path has no area to ask");
    assert_eq!(gup(Foll::PIN | Foll::WRITE), Ok(vec![from]));
    assert_eq!((kernel.nodes.asked(), frame(&kernel, &cpu, 0)), (0, None), "the entry is as it was");
    let nofault = Foll::PIN | Foll::HONOR_NUMA_FAULT | Foll::NOFAULT;
    assert_eq!(gup(nofault), Err(GupError::NotMapped { address: AT }));
    let honoured = gup(Foll::PIN | Foll::WRITE | Foll::HONOR_NUMA_FAULT).expect("a page");
    assert_eq!((kernel.nodes.asked(), frame(&kernel, &cpu, 0)), (1, Some(honoured[0])));
    assert_ne!(honoured[0], from);
    end(&kernel, &cpu);
}

#[test]
fn a_child_inherits_hints_and_shares_the_page() {
    let (kernel, cpu) = with_pages(1);
    let from = frame(&kernel, &cpu, 0).expect("mapped");
    assert_eq!(hint(&kernel, &cpu, 1), 1);
    kernel.mm.fork(&cpu, SPACE, CHILD).expect("memory");
    assert_eq!(kernel.frame_at(&cpu, 1, AT), None);
    kernel.store(&cpu, 0, AT, 1).expect("memory");
    assert_eq!(kernel.load(&cpu, 1, AT), Ok(70), "what the parent writes is the parent's");
    assert_eq!(kernel.frame_at(&cpu, 1, AT), Some(from));
    assert_ne!(frame(&kernel, &cpu, 0), Some(from));
    kernel.mm.munmap(&cpu, CHILD, AT, 1).expect("a whole area");
    end(&kernel, &cpu);
}
