//! Several pages at once, mixed files, and what happens without frames.

use std::sync::{Arc, Mutex};

use crate::driver::{Kernel, MIXED, PFN, RECORDED, RECORDED_SMALL, SPACE, VRAM, VRAM_FRAMES};
use machine::{Access, Frame, VirtAddr};
use mm::{AreaRights, DriverAnswer, FaultError, Foll, GupError, InsertError, Inserted, PfnLeaf};
use pagetable::software::{Softw1, SpecialBit};
use pagetable::{Flags, Level};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);

fn insert(
    kernel: &Kernel,
    cpu: &hosted::ThreadCpu,
    at: VirtAddr,
    leaf: &PfnLeaf,
    access: Access,
) -> Result<Inserted, InsertError> {
    kernel.mm.insert_pfn(cpu, kernel.space, at, leaf, access)
}

#[test]
fn neighbours_are_mapped_ahead() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.map(&cpu, AT, 1000, PFN);
    let at = |page: u64| AT.wrapping_add(page * 4096);
    // Across a table's end; page 512 is there already; there is none for page 700.
    let other = PfnLeaf::new(Level::Pte, VRAM.wrapping_add(9000));
    insert(&kernel, &cpu, at(512), &other, Access::Read).expect("a free place");
    let count = Arc::new(Mutex::new(None));
    let came_to = Arc::clone(&count);
    kernel.on_fault(move |context| match context.level() {
        Level::Pte => {
            let frame_of = |page| (page != 700).then_some(VRAM.wrapping_add(page * 3));
            let result = context.insert_pages(900, &PfnLeaf::new(Level::Pte, VRAM), frame_of);
            *came_to.lock().expect("nobody panicked") = Some(result);
            result.map(|_| Inserted::New).into()
        }
        _ => DriverAnswer::Fallback,
    });
    kernel.fault(&cpu, at(500), Access::Write).expect("a page of the driver");
    assert_eq!(*count.lock().expect("nobody panicked"), Some(Ok(200)));
    for page in 500..700 {
        let (_, entry) = kernel.entry(&cpu, at(page)).expect("mapped");
        let expected = if page == 512 { other.frame } else { VRAM.wrapping_add(page * 3) };
        assert_eq!((entry.leaf_frame(Level::Pte), entry.has(Flags::DIRTY)), (expected, page == 500), "page {page}");
    }
    assert_eq!((kernel.entry(&cpu, at(499)), kernel.entry(&cpu, at(700))), (None, None));
    // Up to the area's end, not further.
    kernel.fault(&cpu, at(900), Access::Read).expect("a page of the driver");
    assert_eq!(*count.lock().expect("nobody panicked"), Some(Ok(100)));
    // The first page decides, and a wrong later one ends the run.
    kernel.on_fault(|context| match context.level() {
        Level::Pte => {
            let frame_of = |page| Some(if page < 710 { VRAM.wrapping_add(page) } else { Frame::new(0x200) });
            context.insert_pages(100, &PfnLeaf::new(Level::Pte, VRAM), frame_of).map(|_| Inserted::New).into()
        }
        _ => DriverAnswer::Fallback,
    });
    kernel.fault(&cpu, at(705), Access::Read).expect("a page of the driver");
    assert!(kernel.entry(&cpu, at(709)).is_some() && kernel.entry(&cpu, at(710)).is_none());
    let refused = InsertError::TableFrame { frame: Frame::new(0x200) };
    assert_eq!(kernel.fault(&cpu, at(720), Access::Read), Err(FaultError::Driver(refused)));
    // Nor is another frame in the first page's place passed over.
    insert(&kernel, &cpu, at(800), &other.with_rights(AreaRights::Read), Access::Read).expect("a free place");
    let found = kernel.entry(&cpu, at(800)).expect("mapped").1;
    kernel.on_fault(|context| match context.level() {
        Level::Pte => {
            let leaf = PfnLeaf::new(Level::Pte, VRAM);
            context.insert_pages(4, &leaf, |page| Some(VRAM.wrapping_add(page))).map(|_| Inserted::New).into()
        }
        _ => DriverAnswer::Fallback,
    });
    let occupied = InsertError::Occupied { address: at(800), found };
    assert_eq!(kernel.fault(&cpu, at(800), Access::Write), Err(FaultError::Driver(occupied)));
    kernel.assert_all_is_back(&cpu);
}

#[test]
fn whole_areas_in_the_largest_leaves_that_fit() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    // 3 pages, a pud, a pmd, 2 pages: as the frames are aligned as the addresses are.
    let pages = 3 + Level::Pud.frames() + 512 + 2;
    let start = AT.wrapping_add(Level::Pud.size() - 3 * 4096);
    let frame = VRAM.wrapping_add(Level::Pud.frames() - 3);
    kernel.map(&cpu, start, pages, PFN);
    let first = PfnLeaf::new(Level::Pud, frame);
    kernel.mm.remap_pfn_range(&cpu, kernel.space, (start, pages), &first).expect("nothing is there");
    let levels: Vec<(u64, Level)> = [
        (0, Level::Pte),
        (2, Level::Pte),
        (3, Level::Pud),
        (3 + Level::Pud.frames(), Level::Pmd),
        (pages - 2, Level::Pte),
        (pages - 1, Level::Pte),
    ]
    .into();
    for (page, expected) in levels {
        let at = start.wrapping_add(page * 4096);
        let (level, entry) = kernel.entry(&cpu, at).expect("mapped");
        assert_eq!((level, entry.leaf_frame(level)), (expected, frame.wrapping_add(page)), "page {page}");
    }
    // Nothing is inserted over what is there, not even the same.
    let again = kernel.mm.remap_pfn_range(&cpu, kernel.space, (start, pages), &first);
    assert!(matches!(again, Err(InsertError::Occupied { .. })), "{again:?}");
    assert!(kernel.entry(&cpu, start).is_some(), "what was there stays");
    kernel.mm.munmap(&cpu, SPACE, start, pages).expect("mapped");

    // Small pages where frames are not aligned as addresses are, and where larger ones are not wanted.
    for (frame, level) in [(VRAM.wrapping_add(1), Level::Pud), (VRAM, Level::Pte)] {
        kernel.map(&cpu, AT, 1024, PFN);
        let first = PfnLeaf::new(level, frame);
        kernel.mm.remap_pfn_range(&cpu, kernel.space, (AT, 1024), &first).expect("nothing is there");
        for page in [0, 511, 512, 1023] {
            let (level, entry) = kernel.entry(&cpu, AT.wrapping_add(page * 4096)).expect("mapped");
            assert_eq!((level, entry.leaf_frame(level)), (Level::Pte, frame.wrapping_add(page)));
        }
        kernel.mm.munmap(&cpu, SPACE, AT, 1024).expect("mapped");
    }

    // Whole or not at all: a page in the middle is there, a frame in the middle is not the driver's, or the range ends behind the area.
    let area = kernel.map(&cpu, AT, 1024, PFN);
    for (start, pages) in [(AT, 1025), (AT.wrapping_add(1023 * 4096), 2), (AT.wrapping_add(8), 1)] {
        let misplaced = InsertError::Misplaced { address: start, level: Level::Pte, area };
        let result = kernel.mm.remap_pfn_range(&cpu, kernel.space, (start, pages), &PfnLeaf::new(Level::Pmd, VRAM));
        assert_eq!(result, Err(misplaced), "{pages} pages from {start}");
    }
    let there = AT.wrapping_add(700 * 4096);
    insert(&kernel, &cpu, there, &PfnLeaf::new(Level::Pte, VRAM), Access::Read).expect("a free place");
    for (frame, pages) in [(VRAM, 1024), (VRAM.wrapping_add(VRAM_FRAMES - 600), 700), (VRAM, 1025)] {
        for level in [Level::Pte, Level::Pmd] {
            let first = PfnLeaf::new(level, frame);
            let result = kernel.mm.remap_pfn_range(&cpu, kernel.space, (AT, pages), &first);
            assert!(result.is_err(), "{frame} {pages}");
            for page in (0..1024).filter(|page| *page != 700) {
                assert_eq!(kernel.entry(&cpu, AT.wrapping_add(page * 4096)), None, "{frame} {pages} {level}");
            }
            assert!(kernel.entry(&cpu, there).is_some(), "what was there before stays");
        }
    }
    kernel.assert_all_is_back(&cpu);
}

#[test]
fn areas_are_moved_to_any_page_and_leaves_that_cannot_be_there_are_split() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let (to, pages) = (AT.wrapping_add(3 * Level::Pud.size() + 5 * 4096), 1024);
    kernel.map(&cpu, AT, pages, PFN);
    let first = PfnLeaf::new(Level::Pmd, VRAM);
    kernel.mm.remap_pfn_range(&cpu, kernel.space, (AT, pages), &first).expect("nothing is there");
    let mapped = |start: VirtAddr, page: u64| kernel.entry(&cpu, start.wrapping_add(page * 4096));
    // A part of a huge leaf, and a whole one, to where no huge leaf can be.
    kernel.mm.mremap(&cpu, SPACE, (AT.wrapping_add(100 * 4096), pages - 100), (to, pages - 100)).expect("free");
    for page in [0, 99, 100, 1023] {
        let (moved, left) = (page >= 100, mapped(AT, page));
        assert_eq!(left.is_none(), moved, "page {page}");
        let (level, entry) = if moved { mapped(to, page - 100) } else { left }.expect("mapped");
        let expected = (Level::Pte, VRAM.wrapping_add(page), true);
        assert_eq!((level, entry.leaf_frame(level), entry.is_marked(Softw1.mark())), expected, "page {page}");
    }
    kernel.assert_all_is_back(&cpu);
}

#[test]
fn mixed_files_count_what_has_records() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.map(&cpu, AT, 1024, MIXED);
    let at = |page: u64| AT.wrapping_add(page * 4096);
    let special = PfnLeaf::new(Level::Pte, VRAM.wrapping_add(3));
    let counted = PfnLeaf::new(Level::Pte, RECORDED_SMALL.wrapping_add(4));
    let huge = PfnLeaf::new(Level::Pmd, RECORDED);
    insert(&kernel, &cpu, at(3), &special, Access::Read).expect("a free place");
    insert(&kernel, &cpu, at(4), &counted, Access::Write).expect("a free place");
    insert(&kernel, &cpu, at(512), &huge, Access::Read).expect("a free place");
    assert_eq!(insert(&kernel, &cpu, at(4), &counted, Access::Read), Ok(Inserted::Already));
    assert_eq!(kernel.counts(&cpu, counted.frame), (2, 0, 1), "the device's reference and the mapping's");
    assert_eq!(kernel.counts(&cpu, RECORDED), (2, 0, 1));
    let marked = |page| kernel.entry(&cpu, at(page)).expect("mapped").1.is_marked(SpecialBit::mark(&Softw1));
    assert_eq!((marked(3), marked(4), marked(512)), (true, false, false));
    // Small folios do not make a huge leaf.
    let several = PfnLeaf::new(Level::Pmd, RECORDED_SMALL);
    let fallback = Err(InsertError::Fallback { level: Level::Pmd });
    assert_eq!(insert(&kernel, &cpu, at(0), &several, Access::Read), fallback);

    let gup = |page, runs: &mut Vec<mm::Run>| {
        kernel.mm.gup(&cpu, kernel.space, at(page), 1, Foll::PIN | Foll::WRITE, |run| runs.push(run))
    };
    let mut runs = Vec::new();
    assert_eq!(gup(3, &mut runs), Err(GupError::Special { address: at(3) }));
    assert_eq!((gup(4, &mut runs), gup(512, &mut runs)), (Ok(1), Ok(1)));
    assert_eq!(kernel.counts(&cpu, RECORDED), (3, 1, 1));
    // A page that is not there yet: the handler brings it.
    kernel.on_fault(|context| match context.level() {
        Level::Pte => context.insert(&PfnLeaf::new(Level::Pte, RECORDED_SMALL.wrapping_add(context.page()))).into(),
        _ => DriverAnswer::Fallback,
    });
    assert_eq!(gup(9, &mut runs), Ok(1));
    // Pages with records ahead of the fault are counted like others, new ones and those that are there.
    kernel.on_fault(|context| match context.level() {
        Level::Pte => {
            let frame_of = |page| Some(RECORDED_SMALL.wrapping_add(page));
            context.insert_pages(4, &PfnLeaf::new(Level::Pte, RECORDED_SMALL), frame_of).map(|_| Inserted::New).into()
        }
        _ => DriverAnswer::Fallback,
    });
    for first in [22, 20] {
        kernel.fault(&cpu, at(first), Access::Read).expect("a page of the driver");
    }
    let ahead = [20, 21, 22, 23, 24, 25].map(|page| kernel.counts(&cpu, RECORDED_SMALL.wrapping_add(page)));
    assert_eq!(ahead, [(2, 0, 1); 6]);
    let file = kernel.mm.file(MIXED).expect("it is there");
    kernel.mm.unmap_mapping(&cpu, file, 0, 1024).expect("whole tables");
    assert_eq!(kernel.counts(&cpu, RECORDED), (2, 1, 0), "the pin stays");
    runs.into_iter().for_each(|run| kernel.mm.release(&cpu, run, Access::Read).expect("held"));
    for frame in [RECORDED, counted.frame, RECORDED_SMALL.wrapping_add(9)] {
        assert_eq!(kernel.counts(&cpu, frame), (1, 0, 0));
    }
    kernel.assert_all_is_back(&cpu);
}

/// Out of frames at every allocation: nothing is mapped, and nothing leaks.
#[test]
fn without_frames_nothing_is_mapped() {
    for number in 1.. {
        let kernel = Kernel::build(1);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.map(&cpu, AT, 2048, PFN);
        kernel.map(&cpu, VirtAddr::new(0x50_0000_0000), 4, MIXED);
        kernel.failures.fail_at(number);
        let leaf = PfnLeaf::new(Level::Pte, VRAM.wrapping_add(1));
        let remapped = kernel.mm.remap_pfn_range(&cpu, kernel.space, (AT, 2048), &leaf);
        let counted = PfnLeaf::new(Level::Pte, RECORDED_SMALL);
        let inserted = insert(&kernel, &cpu, VirtAddr::new(0x50_0000_0000), &counted, Access::Read);
        let out_of_frames = kernel.failures.failed();
        assert_eq!(kernel.counts(&cpu, RECORDED_SMALL).0, 1 + u32::from(inserted.is_ok()));
        for page in [0, 511, 512, 2047] {
            assert_eq!(
                kernel.entry(&cpu, AT.wrapping_add(page * 4096)).is_some(),
                remapped.is_ok(),
                "allocation {number}"
            );
        }
        kernel.assert_all_is_back(&cpu);
        match (remapped, inserted) {
            (Ok(()), Ok(_)) => {
                assert_eq!(out_of_frames, 0);
                return;
            }
            (Err(InsertError::OutOfFrames), Ok(_)) | (Ok(()), Err(InsertError::OutOfFrames)) => {
                assert_eq!(out_of_frames, 1, "allocation {number}");
            }
            other => panic!("allocation {number}: {other:?}"),
        }
    }
}
