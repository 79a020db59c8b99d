//! What drivers may map, and how: insertion at every level, and fault handlers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::driver::{CACHED, Kernel, MIXED, PFN, SLOTTED, SPACE, TABLES, VRAM, VRAM_FRAMES, WILD};
use machine::{Access, Frame, VirtAddr};
use mm::{
    Area, AreaRights, DriverAnswer, FaultError, FolioFlags, FolioMapping, Foll, GupError, Harvested, InsertError,
    Inserted, MemoryMap, PfnLeaf, Usage,
};
use pagetable::software::{Softw1, SpecialBit};
use pagetable::{Cache, Flags, Level, Rights};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const LEVELS: [Level; 3] = [Level::Pte, Level::Pmd, Level::Pud];

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
fn every_level_is_special_and_refused_to_gup() {
    for level in LEVELS {
        let kernel = Kernel::build(1);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.enter(&cpu, kernel.space);
        kernel.map(&cpu, AT, level.frames(), PFN);
        let leaf = PfnLeaf::new(level, VRAM).with_cache(Cache::UNCACHED);
        assert_eq!(insert(&kernel, &cpu, AT, &leaf, Access::Read), Ok(Inserted::New), "{level}");
        let (found, entry) = kernel.entry(&cpu, AT).expect("mapped");
        assert_eq!((found, entry.leaf_frame(level)), (level, VRAM));
        assert!(entry.is_marked(SpecialBit::mark(&Softw1)), "{level}");
        assert_eq!(entry.attributes(level).cache(), Cache::UNCACHED, "{level}");
        assert!(entry.has(Flags::ACCESSED) && !entry.has(Flags::DIRTY), "{level}");
        assert_eq!(entry.rights(), Rights::USER.and(Rights::WRITE), "{level}");
        let gup = |flags| kernel.mm.gup(&cpu, kernel.space, AT, 1, flags, |_| panic!("a driver's page"));
        assert_eq!(gup(Foll::PIN | Foll::FAST_ONLY), Ok(0), "{level}");
        assert_eq!(gup(Foll::GET), Err(GupError::Special { address: AT }), "{level}");
        kernel.assert_all_is_back(&cpu);
    }
}

#[test]
fn inserting_again_upgrades_and_does_nothing_else() {
    for level in LEVELS {
        let kernel = Kernel::build(1);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.map(&cpu, AT, level.frames(), PFN);
        let leaf = PfnLeaf::new(level, VRAM);
        let read_only = leaf.with_rights(AreaRights::Read);
        assert_eq!(insert(&kernel, &cpu, AT, &read_only, Access::Read), Ok(Inserted::New));
        let before = kernel.entry(&cpu, AT).expect("mapped").1;
        assert!(!before.has(Flags::WRITE));
        // The same, for reading, allows nothing more, whatever it would allow were it new.
        assert_eq!(insert(&kernel, &cpu, AT, &leaf, Access::Read), Ok(Inserted::Already));
        assert_eq!(kernel.entry(&cpu, AT).expect("mapped").1, before, "{level}");
        assert_eq!(insert(&kernel, &cpu, AT, &leaf, Access::Write), Ok(Inserted::Already));
        let after = kernel.entry(&cpu, AT).expect("mapped").1;
        assert_eq!(after, before.with(Flags::WRITE.and(Flags::DIRTY).and(Flags::soft_dirty(level))), "{level}");
        // Another frame is not put in its place.
        let other = PfnLeaf::new(level, VRAM.wrapping_add(level.frames()));
        for access in [Access::Read, Access::Write] {
            assert_eq!(
                insert(&kernel, &cpu, AT, &other, access),
                Err(InsertError::Occupied { address: AT, found: after }),
                "{level}"
            );
        }
        assert_eq!(kernel.entry(&cpu, AT).expect("mapped").1, after, "{level}");
        kernel.assert_all_is_back(&cpu);
    }
}

/// Rights that an area loses and gets back: a driver's page that was written may be written again without a fault, one that was not waits for one.
#[test]
fn rights_come_back_at_once_where_the_page_was_written() {
    for level in LEVELS {
        let kernel = Kernel::build(1);
        let cpu = kernel.machine.attach().expect("a free CPU");
        // A 1 GiB leaf has no bit that says so.
        let is_told = Flags::soft_dirty(level) != Flags::NONE;
        for (access, comes_back) in [(Access::Write, true), (Access::Read, false)] {
            kernel.map(&cpu, AT, level.frames(), PFN);
            insert(&kernel, &cpu, AT, &PfnLeaf::new(level, VRAM), access).expect("a free place");
            let protect = |rights| kernel.mm.mprotect(&cpu, SPACE, AT, level.frames(), rights).expect("an area");
            let may_write = || kernel.entry(&cpu, AT).expect("mapped").1.has(Flags::WRITE);
            let mut harvested = Vec::new();
            let harvest = |found: Harvested| harvested.push((found.level, found.usage.contains(Usage::SOFT_DIRTY)));
            kernel.mm.harvest(&cpu, kernel.space, (AT, 1), Usage::NONE, harvest).expect("whole tables");
            assert_eq!(harvested, [(level, is_told || access == Access::Write)], "what can be written is soft-dirty");
            protect(AreaRights::Read);
            assert!(!may_write(), "{level}");
            protect(AreaRights::ReadWrite);
            assert_eq!(may_write(), comes_back, "{level} {access:?}");
            protect(AreaRights::None);
            assert_eq!(kernel.entry(&cpu, AT), None, "{level}");
            protect(AreaRights::ReadWrite);
            assert_eq!(may_write(), comes_back, "{level} {access:?}");
            kernel.mm.munmap(&cpu, SPACE, AT, level.frames()).expect("the tables are whole");
        }
        kernel.assert_all_is_back(&cpu);
    }
}

#[test]
fn the_zero_page_is_no_drivers() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let zero = VRAM.wrapping_add(5);
    kernel.memory.zero_page.set(zero).expect("set once");
    for (number, file) in [PFN, MIXED].into_iter().enumerate() {
        let at = AT.wrapping_add(number as u64 * Level::Pud.size());
        kernel.map(&cpu, at, 512, file);
        for leaf in [PfnLeaf::new(Level::Pte, zero), PfnLeaf::new(Level::Pmd, VRAM)] {
            let inserted = insert(&kernel, &cpu, at, &leaf, Access::Write);
            assert_eq!(inserted, Err(InsertError::Foreign { frame: zero }), "although the file declares it");
        }
        let beside = PfnLeaf::new(Level::Pte, zero.wrapping_add(1));
        assert_eq!(insert(&kernel, &cpu, at, &beside, Access::Write), Ok(Inserted::New));
    }
    kernel.assert_all_is_back(&cpu);
    assert_eq!(kernel.space.merged_zeros(&cpu), 0);
}

#[test]
fn leaves_and_tables_in_the_way() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.map(&cpu, AT, Level::Pud.frames(), PFN);
    let third = AT.wrapping_add(2 * Level::Pmd.size());
    let small = PfnLeaf::new(Level::Pte, VRAM.wrapping_add(7));
    assert_eq!(insert(&kernel, &cpu, AT.wrapping_add(7 * 4096), &small, Access::Read), Ok(Inserted::New));
    // Tables are in the place of larger leaves.
    for level in [Level::Pmd, Level::Pud] {
        let huge = PfnLeaf::new(level, VRAM);
        assert_eq!(insert(&kernel, &cpu, AT, &huge, Access::Read), Err(InsertError::Fallback { level }));
    }
    // A larger leaf that maps the same frame is as good, if it allows the access.
    let huge = PfnLeaf::new(Level::Pmd, VRAM.wrapping_add(1024)).with_rights(AreaRights::Read);
    assert_eq!(insert(&kernel, &cpu, third, &huge, Access::Read), Ok(Inserted::New));
    let within = third.wrapping_add(5 * 4096);
    let same = PfnLeaf::new(Level::Pte, VRAM.wrapping_add(1024 + 5));
    let found = kernel.entry(&cpu, third).expect("mapped").1;
    let occupied = Err(InsertError::Occupied { address: within, found });
    assert_eq!(insert(&kernel, &cpu, within, &same, Access::Read), Ok(Inserted::Already));
    assert_eq!(insert(&kernel, &cpu, within, &same, Access::Write), occupied);
    let other = PfnLeaf::new(Level::Pte, VRAM.wrapping_add(1024 + 6));
    assert_eq!(insert(&kernel, &cpu, within, &other, Access::Read), occupied);
    kernel.assert_all_is_back(&cpu);
}

#[test]
fn places_that_cannot_be() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let area = kernel.map(&cpu, AT, 600, PFN);
    let wrong_place = |address, level| Err(InsertError::Misplaced { address, level, area });
    let leaf = |level| PfnLeaf::new(level, VRAM);
    let behind = AT.wrapping_add(512 * 4096);
    let skew = AT.wrapping_add(4096);
    let try_at = |at, leaf: &PfnLeaf| insert(&kernel, &cpu, at, leaf, Access::Read);
    assert_eq!(try_at(behind, &leaf(Level::Pmd)), wrong_place(behind, Level::Pmd), "reaches out of the area");
    assert_eq!(try_at(AT, &leaf(Level::Pud)), wrong_place(AT, Level::Pud), "reaches out of the area");
    assert_eq!(try_at(skew, &leaf(Level::Pmd)), wrong_place(skew, Level::Pmd), "not aligned");
    let odd = AT.wrapping_add(1);
    assert_eq!(try_at(odd, &leaf(Level::Pte)), wrong_place(odd, Level::Pte), "not aligned");
    let nowhere = AT.wrapping_add(600 * 4096);
    assert_eq!(try_at(nowhere, &leaf(Level::Pte)), Err(InsertError::NoArea { address: nowhere }));

    let read_only = VirtAddr::new(0x50_0000_0000);
    let private = VirtAddr::new(0x51_0000_0000);
    let area = Area::shared(read_only, 1, AreaRights::Read, PFN, 0);
    kernel.mm.mmap(&cpu, SPACE, area).expect("a good area");
    assert_eq!(
        insert(&kernel, &cpu, read_only, &leaf(Level::Pte), Access::Write),
        Err(InsertError::Forbidden { address: read_only, access: Access::Write })
    );
    assert_eq!(try_at(read_only, &leaf(Level::Pte)), Ok(Inserted::New));
    assert!(!kernel.entry(&cpu, read_only).expect("mapped").1.has(Flags::WRITE), "no more than the area allows");
    for (number, file) in [PFN, MIXED].into_iter().enumerate() {
        let at = private.wrapping_add(number as u64 * 4096);
        let area = Area::private(at, 1, AreaRights::ReadWrite, file, 0);
        kernel.mm.mmap(&cpu, SPACE, area).expect("a good area");
        assert_eq!(try_at(at, &leaf(Level::Pte)), Err(InsertError::CopyOnWrite { area }));
    }
    for (number, file) in [SLOTTED, CACHED].into_iter().enumerate() {
        let at = VirtAddr::new(0x52_0000_0000 + number as u64 * 4096);
        let area = kernel.map(&cpu, at, 1, file);
        assert_eq!(try_at(at, &leaf(Level::Pte)), Err(InsertError::NotSpecial { area }));
    }
    kernel.assert_all_is_back(&cpu);
}

/// A driver that names a wrong frame: nothing is mapped, and the error says what is wrong.
#[test]
fn frames_that_are_not_the_drivers() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let record = |frame| kernel.memory.page(&cpu, frame).expect("a frame with a record");
    let own = kernel.mm.allocate_folio(&cpu, 0).expect("a frame");
    let huge = kernel.mm.allocate_folio(&cpu, 9).expect("frames");
    let mark = |frame, flag: FolioFlags| machine::Cpu::fetch_or(&cpu, record(frame).flags_word(), flag.bits());
    let with_flag = |flag| {
        let frame = kernel.mm.allocate_folio(&cpu, 0).expect("a frame");
        mark(frame, flag);
        frame
    };
    let anonymous = with_flag(FolioFlags::ANON);
    let truncated = with_flag(FolioFlags::TRUNCATED);
    let poisoned = with_flag(FolioFlags::POISONED);
    let with_file = |file| {
        let head = kernel.mm.allocate_folio(&cpu, 0).expect("a frame");
        let page = mm::Page::new(mm::Membership { head, order: 0 }, 1, FolioFlags::FILE);
        let page = page.of_file(FolioMapping { file, page: 0 });
        let word = machine::Word::atomic_load(page.mapping_word(), Ordering::SeqCst);
        machine::Cpu::store(&cpu, record(head).mapping_word(), word);
        head
    };
    let of_file = with_file(CACHED);
    let of_mixed = with_file(MIXED);
    let free = kernel.mm.allocate_folio(&cpu, 0).expect("a frame");
    kernel.mm.free_folio(&cpu, free).expect("held");
    let zero = Frame::new(1 << 20);
    let table = Frame::new(0x200 + TABLES - 1);
    let far = Frame::new(1 << 39);
    let vram_end = VRAM.wrapping_add(VRAM_FRAMES);
    let foreign = |frame| Err(InsertError::Foreign { frame });
    let (pte, pmd, pud) = (Level::Pte, Level::Pmd, Level::Pud);
    for (file, frame, level, expected) in [
        (PFN, own, pte, Ok(Inserted::New)),
        (PFN, huge, pmd, Ok(Inserted::New)),
        (WILD, own, pte, Ok(Inserted::New)),
        (WILD, far, pte, Ok(Inserted::New)),
        (PFN, VRAM.wrapping_add(512), pmd, Ok(Inserted::New)),
        (PFN, far, pte, Err(InsertError::OutsideDeclared { frame: far })),
        (PFN, vram_end, pte, Err(InsertError::OutsideDeclared { frame: vram_end })),
        (MIXED, far, pte, Err(InsertError::OutsideDeclared { frame: far })),
        (PFN, anonymous, pte, foreign(anonymous)),
        (WILD, truncated, pte, foreign(truncated)),
        (WILD, poisoned, pte, foreign(poisoned)),
        (WILD, of_file, pte, foreign(of_file)),
        (MIXED, of_file, pte, foreign(of_file)),
        (WILD, of_mixed, pte, foreign(of_mixed)),
        (MIXED, of_mixed, pte, Ok(Inserted::New)),
        (PFN, free, pte, foreign(free)),
        (MIXED, free, pte, foreign(free)),
        (MIXED, anonymous, pte, foreign(anonymous)),
        (PFN, zero, pte, foreign(zero)),
        (PFN, table, pte, Err(InsertError::TableFrame { frame: table })),
        (WILD, table, pte, Err(InsertError::TableFrame { frame: table })),
        (MIXED, table, pte, Err(InsertError::TableFrame { frame: table })),
        // Tables lie within the first huge frame.
        (WILD, Frame::new(0), pud, Err(InsertError::TableFrame { frame: Frame::new(0) })),
        // Its first folio is a good one, another in it is not.
        (WILD, Frame::new(1 << 20), pmd, foreign(Frame::new(1 << 20))),
        (PFN, VRAM.wrapping_add(1), pmd, Err(InsertError::BadFrame { frame: VRAM.wrapping_add(1), level: pmd })),
        (PFN, VRAM.wrapping_add(512), pud, Err(InsertError::BadFrame { frame: VRAM.wrapping_add(512), level: pud })),
        // The last frame that the machine has.
        (WILD, Frame::new((1 << 40) - 1), pte, Ok(Inserted::New)),
        (WILD, Frame::new(1 << 40), pte, Err(InsertError::BadFrame { frame: Frame::new(1 << 40), level: pte })),
        (WILD, Frame::new(u64::MAX), pte, Err(InsertError::BadFrame { frame: Frame::new(u64::MAX), level: pte })),
        (PFN, VRAM, Level::P4d, Err(InsertError::BadFrame { frame: VRAM, level: Level::P4d })),
    ] {
        kernel.map(&cpu, VirtAddr::new(0x80_0000_0000), Level::P4d.frames(), file);
        let leaf = PfnLeaf::new(level, frame);
        let at = VirtAddr::new(0x80_0000_0000);
        assert_eq!(insert(&kernel, &cpu, at, &leaf, Access::Read), expected, "{frame} {level} {file:?}");
        assert_eq!(kernel.entry(&cpu, at).is_some(), expected.is_ok(), "{frame} {level}");
        // The same from a fault handler.
        kernel.mm.zap(&cpu, kernel.space, at, Level::Pud.frames()).expect("whole tables");
        kernel.mm.munmap(&cpu, SPACE, at, Level::P4d.frames()).expect("mapped");
        kernel.map(&cpu, at, Level::P4d.frames(), file);
        kernel.on_fault(move |context| match context.insert(&leaf) {
            Ok(_) => DriverAnswer::Mapped,
            Err(error) => DriverAnswer::Failed(error),
        });
        let expected = expected.map(|_| ()).map_err(FaultError::Driver);
        assert_eq!(kernel.fault(&cpu, at, Access::Read), expected, "{frame} {level}");
        assert_eq!(kernel.entry(&cpu, at).is_some(), expected.is_ok(), "{frame} {level}");
        kernel.mm.munmap(&cpu, SPACE, at, Level::P4d.frames()).expect("mapped");
    }
    for frame in [own, huge, anonymous, truncated, poisoned, of_file, of_mixed] {
        assert_eq!(kernel.counts(&cpu, frame), (1, 0, 0), "{frame}: the driver's reference");
        kernel.mm.free_folio(&cpu, frame).expect("held");
    }
    kernel.assert_all_is_back(&cpu);
}

/// The driver is asked for the largest leaf whose place is inside the area, then for smaller ones.
#[test]
fn the_driver_is_asked_level_by_level() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    kernel.on_fault(move |context| {
        log.lock().expect("nobody panicked").push((context.level(), context.leaf_page()));
        match context.level() {
            Level::Pud => DriverAnswer::Fallback,
            // The third piece only in small pages.
            Level::Pmd if context.leaf_page() == 1024 => DriverAnswer::Fallback,
            level => context.insert(&PfnLeaf::new(level, VRAM.wrapping_add(context.leaf_page()))).into(),
        }
    });
    kernel.map(&cpu, AT, Level::Pud.frames(), PFN);
    let asked_for = |page: u64| {
        let at = AT.wrapping_add(page * 4096 + 8);
        assert_eq!(kernel.fault(&cpu, at, Access::Write), Ok(()));
        let (level, entry) = kernel.entry(&cpu, at).expect("mapped");
        let frame = VRAM.wrapping_add(page - page % level.frames());
        assert_eq!((entry.leaf_frame(level), entry.has(Flags::DIRTY)), (frame, true));
        (level, std::mem::take(&mut *asked.lock().expect("nobody panicked")))
    };
    assert_eq!(asked_for(5), (Level::Pmd, vec![(Level::Pud, 0), (Level::Pmd, 0)]));
    let levels = vec![(Level::Pud, 0), (Level::Pmd, 1024), (Level::Pte, 1029)];
    assert_eq!(asked_for(1029), (Level::Pte, levels.clone()));
    // Even a driver that would like a huge leaf now gets a table's leaf: the table is in the way.
    kernel.on_fault(|context| {
        context.insert(&PfnLeaf::new(context.level(), VRAM.wrapping_add(context.leaf_page()))).into()
    });
    assert_eq!(asked_for(1030).0, Level::Pte);
    // An area that is smaller than the leaf.
    let small = VirtAddr::new(0x50_0000_0000);
    kernel.map(&cpu, small, 3, PFN);
    kernel.fault(&cpu, small.wrapping_add(4096), Access::Read).expect("a page of the driver");
    assert_eq!(kernel.entry(&cpu, small.wrapping_add(4096)).expect("mapped").0, Level::Pte);
    kernel.on_fault(|_| DriverAnswer::Fallback);
    assert_eq!(kernel.fault(&cpu, small, Access::Read), Err(FaultError::NoPage { file: PFN, page: 0 }));
    kernel.on_fault(|_| DriverAnswer::NoPage);
    assert_eq!(kernel.fault(&cpu, small, Access::Read), Err(FaultError::NoPage { file: PFN, page: 0 }));
    kernel.assert_all_is_back(&cpu);
}

/// Dirty tracking: a huge leaf for reading makes way for small ones at the first store.
#[test]
fn a_huge_leaf_makes_way_for_small_ones() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.on_fault(|context| match (context.access(), context.level()) {
        (_, Level::Pud) | (Access::Write, Level::Pmd) => DriverAnswer::Fallback,
        (Access::Read, level) => {
            let leaf = PfnLeaf::new(level, VRAM.wrapping_add(context.leaf_page()));
            context.insert(&leaf.with_rights(AreaRights::Read)).into()
        }
        (Access::Write, level) => context.insert(&PfnLeaf::new(level, VRAM.wrapping_add(context.leaf_page()))).into(),
    });
    kernel.map(&cpu, AT, 512, PFN);
    let page = AT.wrapping_add(9 * 4096);
    kernel.fault(&cpu, page, Access::Read).expect("a page of the driver");
    assert_eq!(kernel.entry(&cpu, page).expect("mapped").0, Level::Pmd);
    *kernel.listener.entry.lock().expect("nobody panicked") = Some((AT, VRAM));
    kernel.fault(&cpu, page, Access::Write).expect("a page of the driver");
    let (level, entry) = kernel.entry(&cpu, page).expect("mapped");
    assert_eq!((level, entry.has(Flags::WRITE.and(Flags::DIRTY))), (Level::Pte, true));
    assert_eq!(kernel.entry(&cpu, AT), None, "its neighbours come back by faults");
    assert_eq!(*kernel.listener.entry.lock().expect("nobody panicked"), None, "secondary TLBs were told");
    kernel.assert_all_is_back(&cpu);
}

/// What need not make way stays: small leaves beside the one that a store wants, a huge one that allows the store, or that a load comes to.
#[test]
fn only_a_huge_leaf_that_forbids_the_store_makes_way() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.on_fault(|context| match context.level() {
        Level::Pte => context.insert(&PfnLeaf::new(Level::Pte, VRAM.wrapping_add(context.page()))).into(),
        _ => DriverAnswer::Fallback,
    });
    kernel.map(&cpu, AT, 3 * 512, PFN);
    let at = |page: u64| AT.wrapping_add(page * 4096);
    for page in [5, 6] {
        let leaf = PfnLeaf::new(Level::Pte, VRAM.wrapping_add(page)).with_rights(AreaRights::Read);
        insert(&kernel, &cpu, at(page), &leaf, Access::Read).expect("a free place");
    }
    kernel.fault(&cpu, at(5), Access::Write).expect("a page of the driver");
    assert!(kernel.entry(&cpu, at(5)).expect("mapped").1.has(Flags::WRITE));
    assert!(kernel.entry(&cpu, at(6)).is_some(), "the page beside it stays");
    for (page, rights, access) in
        [(512, AreaRights::ReadWrite, Access::Write), (2 * 512, AreaRights::Read, Access::Read)]
    {
        let leaf = PfnLeaf::new(Level::Pmd, VRAM.wrapping_add(page)).with_rights(rights);
        insert(&kernel, &cpu, at(page), &leaf, Access::Read).expect("a free place");
        kernel.fault(&cpu, at(page + 7), access).expect("it is there");
        assert_eq!(kernel.entry(&cpu, at(page + 7)).expect("mapped").0, Level::Pmd, "{access:?}");
    }
    kernel.assert_all_is_back(&cpu);
}

#[test]
fn walkers_of_small_pages_take_a_drivers_huge_leaf_away() {
    for level in LEVELS {
        let kernel = Kernel::build(1);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.enter(&cpu, kernel.space);
        kernel.map(&cpu, AT, level.frames(), PFN);
        let walk = |at| kernel.mm.small_entry(&cpu, kernel.space, at).expect("well-formed tables");
        assert_eq!(walk(AT), None, "{level}");
        insert(&kernel, &cpu, AT, &PfnLeaf::new(level, VRAM), Access::Read).expect("a free place");
        let found = walk(AT.wrapping_add((level.frames() - 1) * 4096)).map(|entry| entry.leaf_frame(Level::Pte));
        // A page is what was looked for; a huge leaf comes back by a fault.
        assert_eq!(found, (level == Level::Pte).then_some(VRAM), "{level}");
        assert_eq!(kernel.entry(&cpu, AT).map(|(level, _)| level), (level == Level::Pte).then_some(level));
        kernel.assert_all_is_back(&cpu);
    }
}

/// A busy driver is waited for with no lock: the one who holds it up may even unmap the area.
#[test]
fn a_busy_driver_is_waited_for_without_locks() {
    let kernel = Kernel::build(2);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.map(&cpu, AT, 1, PFN);
    let waits = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&waits);
    kernel.on_fault(move |context| {
        if seen.load(Ordering::SeqCst) < 3 {
            return DriverAnswer::Retry;
        }
        context.insert(&PfnLeaf::new(Level::Pte, VRAM)).into()
    });
    let (mm, machine, waiting) = (kernel.mm, Arc::clone(&kernel.machine), Arc::clone(&waits));
    kernel.on_wait(move |file, page| {
        assert_eq!((file, page), (PFN, 0));
        // Takes the mmap lock for writing: nobody holds it.
        let other = machine.attach().expect("a free CPU");
        let elsewhere = Area::shared(VirtAddr::new(0x60_0000_0000), 1, AreaRights::Read, PFN, 0);
        mm.mmap(&other, SPACE, elsewhere).expect("a good area");
        mm.munmap(&other, SPACE, elsewhere.start, 1).expect("mapped");
        waiting.fetch_add(1, Ordering::SeqCst);
    });
    kernel.fault(&cpu, AT, Access::Read).expect("a page of the driver");
    assert_eq!(waits.load(Ordering::SeqCst), 3);
    // Gone when the wait is over.
    waits.store(0, Ordering::SeqCst);
    let (machine, waiting) = (Arc::clone(&kernel.machine), Arc::clone(&waits));
    kernel.mm.zap(&cpu, kernel.space, AT, 1).expect("whole tables");
    kernel.on_wait(move |_, _| {
        let other = machine.attach().expect("a free CPU");
        let _ = mm.munmap(&other, SPACE, AT, 1);
        waiting.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(kernel.fault(&cpu, AT, Access::Read), Err(FaultError::NoArea { address: AT }));
    kernel.assert_all_is_back(&cpu);
}
