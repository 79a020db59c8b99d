//! Pages leave memory and come back: contents, rights and every count are what they were.

use crate::memory::{CACHED, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::user::FaultCause;
use machine::{Access, Frame, PageFault, VirtAddr, Word};
use mm::reclaim::{Contents, Failure};
use mm::{Area, AreaRights, FaultError, FolioFlags, Foll, GupError, MemoryMap, ReclaimError, Run, SpaceId, Usage};
use pagetable::{Flags, Level};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 24;
const ONE: SpaceId = SpaceId::new(0);

fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
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
    let (kernel, cpu) = Kernel::alone(TABLES);
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
    let leaf = kernel.leaf_at(&cpu, 0, page(1)).expect("mapped");
    assert!(leaf.entry.has(Flags::WRITE), "it was written before, so that no store needs to be noticed");
    let frame = leaf.frame;
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
fn who_finds_a_folio_locked_leaves_it_locked() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 5).expect("memory");
    let frame = kernel.frame_at(&cpu, 0, AT).expect("mapped");
    let flags = MemoryMap::page(kernel.data, &cpu, frame).expect("a record").flags_word();
    let before = flags.atomic_fetch_or(FolioFlags::LOCKED.bits()) | FolioFlags::LOCKED.bits();
    for _ in 0..2 {
        assert_eq!(kernel.mm.swap_out(&cpu, frame), Err(ReclaimError::Locked));
        assert_eq!(kernel.mm.migrate_range(&cpu, kernel.space(0), AT, 1), Ok(0));
        assert_eq!((kernel.flags(&cpu, frame), kernel.counts(&cpu, frame)), (before, (1, 0, 1)));
    }
    flags.atomic_fetch_and(!FolioFlags::LOCKED.bits());
    assert_eq!(kernel.mm.swap_out(&cpu, frame), Ok(()));
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(5));
    kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn who_is_pinned_or_referenced_stays_whole() {
    let (kernel, cpu) = Kernel::alone(TABLES);
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
    let (kernel, cpu) = Kernel::alone(TABLES);
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
    let (kernel, cpu) = Kernel::alone(TABLES);
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
    let (kernel, cpu) = Kernel::alone(TABLES);
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

#[test]
fn a_range_moves_but_for_what_is_pinned() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    const PAGES: u64 = 40;
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, PAGES, 0)).expect("a good area");
    for number in 0..PAGES {
        kernel.store(&cpu, 0, page(number), number).expect("memory");
    }
    let before: Vec<_> = (0..PAGES).map(|number| kernel.frame_at(&cpu, 0, page(number))).collect();
    let run = pin(&kernel, &cpu, page(20));
    assert_eq!(kernel.mm.migrate_range(&cpu, kernel.space(0), AT, PAGES), Ok(PAGES - 1));
    for number in 0..PAGES {
        let now = kernel.frame_at(&cpu, 0, page(number)).expect("mapped without a fault");
        assert_eq!(Some(now) == before[number as usize], number == 20, "page {number}");
        assert_eq!(kernel.load(&cpu, 0, page(number)), Ok(number));
        let pinned = if number == 20 { 1024 } else { 0 };
        assert_eq!(kernel.counts(&cpu, now), (1 + pinned, 0, 1), "page {number}");
        assert_eq!(kernel.flags(&cpu, now) & EXCLUSIVE, EXCLUSIVE);
    }
    kernel.mm.release(&cpu, run, Access::Read).expect("held");
    // Without frames for them, pages stay.
    kernel.failures.fail_at(1);
    assert_eq!(kernel.mm.migrate_range(&cpu, kernel.space(0), AT, 2), Ok(1));
    assert_eq!((kernel.load(&cpu, 0, page(0)), kernel.load(&cpu, 0, page(1))), (Ok(0), Ok(1)));
    assert!(kernel.mm.migrate_range(&cpu, kernel.space(0), AT.wrapping_add(8), 1).is_err(), "no page begins there");
    // Pages of a file are not the range's alone.
    kernel.fill_file(&cpu);
    let file = Area::shared(page(PAGES), 4, AreaRights::ReadWrite, CACHED, 0);
    kernel.mm.mmap(&cpu, ONE, file).expect("a good area");
    kernel.store(&cpu, 0, page(PAGES), 7).expect("a shared area");
    let before = kernel.frame_at(&cpu, 0, page(PAGES));
    assert_eq!(kernel.mm.migrate_range(&cpu, kernel.space(0), page(PAGES), 4), Ok(0));
    assert_eq!(kernel.frame_at(&cpu, 0, page(PAGES)), before);
    kernel.mm.munmap(&cpu, ONE, AT, PAGES + 4).expect("it is mapped");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn clean_pages_of_a_file_are_dropped_and_dirty_ones_written_first() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let file = kernel.mm.file(CACHED).expect("it is there");
    kernel.mm.mmap(&cpu, ONE, Area::shared(AT, 8, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    assert_eq!(kernel.load(&cpu, 0, page(2)), Ok(2));
    kernel.store(&cpu, 0, page(3), 33).expect("a shared area");

    // A page that somebody has a reference to, one that was written, and one that is clean.
    let run = pin(&kernel, &cpu, page(4));
    let held = ReclaimError::Referenced { expected: 2, references: 2 + 1024 };
    let dropped = kernel.mm.drop_page(&cpu, file, 4);
    assert!(dropped == Err(held) || dropped == Err(ReclaimError::Dirty), "{dropped:?}");
    kernel.mm.release(&cpu, run, Access::Read).expect("held");
    let frame = kernel.file_frame(3).expect("a page");
    assert_eq!(kernel.mm.drop_page(&cpu, file, 3), Err(ReclaimError::Dirty));
    assert_eq!((kernel.frame_at(&cpu, 0, page(3)), kernel.counts(&cpu, frame)), (Some(frame), (2, 0, 1)));
    assert_eq!(kernel.mm.drop_page(&cpu, file, 2), Ok(()));
    assert_eq!(kernel.file_frame(2), None);
    let look = kernel.mm.gup(&cpu, kernel.space(0), page(2), 1, Foll::PIN | Foll::NOFAULT | Foll::NOWAIT, drop);
    assert_eq!(look, Err(GupError::NotMapped { address: page(2) }), "nobody would wait for it");
    assert!(kernel.load(&cpu, 0, page(2)).is_err(), "a hole, until the file's owner fills it");
    assert_eq!(kernel.mm.drop_page(&cpu, file, 2), Err(ReclaimError::NoPage { page: 2 }));

    let written = kernel.mm.write_back(&cpu, file, 3, |frame| kernel.data.read(frame, 0));
    assert_eq!(written, Ok(Some(33)));
    assert_eq!(kernel.mm.write_back(&cpu, file, 3, |_| ()), Ok(None), "it is clean");
    kernel.store(&cpu, 0, page(3), 34).expect("the fault gives the right back");
    assert_eq!(kernel.mm.write_back(&cpu, file, 3, |frame| kernel.data.read(frame, 0)), Ok(Some(34)));
    kernel.mm.redirty(&cpu, frame);
    assert_eq!(kernel.mm.write_back(&cpu, file, 3, |_| ()), Ok(Some(())), "it could not be written the first time");
    assert_eq!(kernel.mm.drop_page(&cpu, file, 3), Ok(()));
    kernel.mm.munmap(&cpu, ONE, AT, 8).expect("it is mapped");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

/// Each of the eight is a bit that no flag of the engine is.
#[test]
fn flags_of_the_platform_are_nobody_elses() {
    let engine = [
        FolioFlags::SHMEM,
        FolioFlags::SECRET,
        FolioFlags::ZERO,
        FolioFlags::MOVABLE,
        FolioFlags::TRUNCATED,
        FolioFlags::DIRTY,
        FolioFlags::REFERENCED,
        FolioFlags::ANON,
        FolioFlags::EXCLUSIVE,
        FolioFlags::PEER_TO_PEER,
        FolioFlags::POISONED,
        FolioFlags::LOCKED,
        FolioFlags::SWAP_BACKED,
        FolioFlags::KSM,
    ];
    let mut seen = FolioFlags::FILE;
    for flag in engine.into_iter().chain((0..8).map(FolioFlags::platform)) {
        assert_eq!(flag.bits().count_ones(), 1, "{flag:?}");
        assert!(!seen.intersects(flag), "{flag:?} is another one, too");
        seen = seen.and(flag);
    }
}

/// Where a page table is malformed, what lies behind it is not cleaned. Nothing is forgotten: the page is as dirty as it was, whether an entry said so or its record.
#[test]
fn a_page_that_cannot_be_cleaned_stays_dirty() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let file = kernel.mm.file(CACHED).expect("it is there");
    let broken = VirtAddr::new(0x50_0000_0000);
    for at in [AT, broken] {
        kernel.mm.mmap(&cpu, ONE, Area::shared(at, 2, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
        assert_eq!([kernel.load(&cpu, 0, at), kernel.load(&cpu, 0, at.wrapping_add(4096))], [Ok(0), Ok(1)]);
    }
    let frames = [0, 1].map(|number| kernel.file_frame(number).expect("a page"));
    let is_dirty = |number: usize| kernel.flags(&cpu, frames[number]) & FolioFlags::DIRTY.bits() != 0;
    let tables = kernel.page_tables(0);
    let link = tables.find(&cpu, broken, Level::Pmd).expect("a table").slot().cell();
    let write_back = |number| {
        let table = link.atomic_swap(0xdead_0000_0007);
        let failed = kernel.mm.write_back(&cpu, file, number, |_| panic!("an entry may be dirty still"));
        link.atomic_swap(table);
        assert!(matches!(failed, Err(ReclaimError::Table(_))), "{failed:?}");
    };
    write_back(0);
    assert!(!is_dirty(0), "nobody has written to it");
    kernel.store(&cpu, 0, AT, 100).expect("a shared area");
    assert!(!is_dirty(0), "the entry says so");
    write_back(0);
    assert!(is_dirty(0), "what the entry said is not lost with its dirty bit");
    kernel.mm.redirty(&cpu, frames[1]);
    write_back(1);
    assert!(is_dirty(1), "what the record said is not lost");
    for (number, contents) in [(0, 100), (1, 1)] {
        let written = kernel.mm.write_back(&cpu, file, number, |frame| kernel.data.read(frame, 0));
        assert_eq!(written, Ok(Some(contents)), "later it can be written");
    }
    for at in [AT, broken] {
        kernel.mm.munmap(&cpu, ONE, at, 2).expect("it is mapped");
    }
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

/// Who harvests may leave an entry writable and clean. The file's owner hears of the next store only if write-back takes the right to write all the same.
#[test]
fn write_back_takes_the_right_to_write_from_clean_entries_too() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let file = kernel.mm.file(CACHED).expect("it is there");
    kernel.mm.mmap(&cpu, ONE, Area::shared(AT, 1, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 1).expect("a shared area");
    kernel.mm.harvest(&cpu, kernel.space(0), (AT, 1), Usage::DIRTY, drop).expect("whole tables");
    let flags = |cpu| {
        let entry = kernel.leaf_at(cpu, 0, AT).expect("mapped").entry;
        (entry.has(Flags::WRITE), entry.has(Flags::DIRTY))
    };
    assert_eq!(flags(&cpu), (true, false));
    kernel.mm.write_back(&cpu, file, 0, drop).expect("a page of the file");
    assert_eq!(flags(&cpu), (false, false));
    kernel.store(&cpu, 0, AT, 2).expect("the fault gives the right back");
    assert_eq!(kernel.mm.write_back(&cpu, file, 0, |frame| kernel.data.read(frame, 0)), Ok(Some(2)));
    kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

/// A file whose slot holds a frame that is free is an error, not a reason to look again for ever.
#[test]
fn a_file_that_holds_a_free_frame_is_a_bad_frame() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, Area::shared(AT, 1, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    let frame = kernel.new_file_page(&cpu, 0, 7);
    let file = kernel.mm.file(CACHED).expect("it is there");
    kernel.mm.replace_page(&cpu, file, 0, Some(frame)).expect("an empty slot");
    // The file's owner drops a reference too many.
    let record = MemoryMap::page(kernel.data, &cpu, frame).expect("a frame with a record");
    let count = record.refcount_word().atomic_swap(0);
    let private = Area::private(page(1), 1, AreaRights::ReadWrite, CACHED, 0);
    kernel.mm.mmap(&cpu, ONE, private).expect("a good area");
    for (address, access) in [AT, page(1)].into_iter().flat_map(|at| [(at, Access::Read), (at, Access::Write)]) {
        let fault = PageFault { address, access, cause: FaultCause::NotPresent };
        let bad = FaultError::BadFrame { file: CACHED, frame, level: Level::Pte };
        assert_eq!(kernel.mm.handle_fault(&cpu, kernel.space(0), fault), Err(bad));
        assert_eq!(kernel.frame_at(&cpu, 0, address), None);
    }
    record.refcount_word().atomic_swap(count);
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(7));
    kernel.mm.munmap(&cpu, ONE, AT, 2).expect("it is mapped");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn failed_memory_is_taken_out_of_use() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let file = VirtAddr::new(0x50_0000_0000);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 4, 0)).expect("a good area");
    kernel.mm.mmap(&cpu, ONE, Area::shared(file, 8, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 1).expect("memory");
    assert_eq!(kernel.load(&cpu, 0, file), Ok(0));
    kernel.store(&cpu, 0, file.wrapping_add(4096), 9).expect("a shared area");

    let mut failed = Vec::new();
    let mut fail = |at, contents| {
        let frame = kernel.frame_at(&cpu, 0, at).expect("mapped");
        let failure = kernel.mm.memory_failure(&cpu, frame);
        assert_eq!(failure, Ok(Failure { contents, still_used: 0 }));
        assert_eq!(kernel.counts(&cpu, frame), (1, 0, 0), "one reference keeps it out of use");
        failed.push(frame);
    };
    fail(AT, Contents::Lost);
    assert_eq!(kernel.load(&cpu, 0, AT), Err(FaultError::Poisoned { address: AT }));
    assert!(kernel.store(&cpu, 0, AT, 2).is_err(), "it stays lost");
    fail(file, Contents::Elsewhere);
    assert!(matches!(kernel.load(&cpu, 0, file), Err(FaultError::NoPage { page: 0, .. })), "to be read again");
    let second = file.wrapping_add(4096);
    fail(second, Contents::Lost);
    assert!(kernel.load(&cpu, 0, second).is_err(), "lost, whatever the file has there");

    // Who has it pinned keeps it, and is told of; nobody pins it again.
    kernel.store(&cpu, 0, page(1), 7).expect("memory");
    let run = pin(&kernel, &cpu, page(1));
    let frame = run.frame();
    let failure = kernel.mm.memory_failure(&cpu, frame).expect("it can be taken out of use");
    assert_eq!(failure, Failure { contents: Contents::Lost, still_used: 1024 });
    let again = kernel.mm.gup(&cpu, kernel.space(0), page(1), 1, Foll::PIN, |_| ());
    assert!(again.is_err(), "{again:?}");
    kernel.mm.release(&cpu, run, Access::Read).expect("held");
    failed.push(frame);

    // Where it was, new memory can be.
    kernel.mm.munmap(&cpu, ONE, AT, 4).expect("it is mapped");
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 4, 0)).expect("a good area");
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(0));
    kernel.mm.munmap(&cpu, ONE, AT, 4).expect("it is mapped");
    kernel.mm.munmap(&cpu, ONE, file, 8).expect("it is mapped");
    kernel.empty_file(&cpu);
    assert_eq!(kernel.data.in_use(), failed.len() as u64, "failed frames are never handed out again");
    for frame in failed {
        kernel.mm.free_folio(&cpu, frame).expect("the failure's reference");
    }
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn age_says_what_was_used_since() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 1).expect("memory");
    let frame = kernel.frame_at(&cpu, 0, AT).expect("mapped");
    assert_eq!(kernel.mm.age(&cpu, frame), Ok(1), "the entry");
    assert_eq!(kernel.mm.age(&cpu, frame), Ok(0));
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(1));
    let run = pin(&kernel, &cpu, AT);
    assert_eq!(kernel.mm.age(&cpu, frame), Ok(2), "the entry, and GUP");
    assert_eq!(kernel.mm.age(&cpu, frame), Ok(0));
    kernel.mm.release(&cpu, run, Access::Read).expect("held");
    kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");
    assert!(matches!(kernel.mm.age(&cpu, frame), Err(ReclaimError::NoFolio { .. })));
    kernel.assert_all_is_back(TABLES);
}

const TWO: SpaceId = SpaceId::new(1);

#[test]
fn a_page_of_two_address_spaces_goes_and_comes_back_to_each() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 2, 0)).expect("a good area");
    kernel.store(&cpu, 0, page(0), 70).expect("memory");
    kernel.store(&cpu, 0, page(1), 71).expect("memory");
    let on_swap = kernel.frame_at(&cpu, 0, page(1)).expect("mapped");
    kernel.mm.swap_out(&cpu, on_swap).expect("nobody else uses it");
    kernel.mm.fork(&cpu, ONE, TWO).expect("room for a child");
    let frame = kernel.frame_at(&cpu, 0, page(0)).expect("mapped");
    assert_eq!(kernel.frame_at(&cpu, 1, page(0)), Some(frame));
    assert_eq!((kernel.counts(&cpu, frame), kernel.swap.counts()), ((2, 0, 2), 2));

    // It moves in both, and stays shared: the first store of each makes a copy, or finds that it is the last user.
    let moved = kernel.mm.migrate(&cpu, frame).expect("nobody else uses it").to.head;
    assert_eq!((kernel.frame_at(&cpu, 0, page(0)), kernel.frame_at(&cpu, 1, page(0))), (Some(moved), Some(moved)));
    assert_eq!((kernel.counts(&cpu, moved), kernel.flags(&cpu, moved) & EXCLUSIVE), ((2, 0, 2), 0));

    // Every failure: both spaces have their page as before.
    for failing in 1.. {
        let failed = kernel.failures.failed();
        kernel.failures.fail_at(failing);
        let result = kernel.mm.swap_out(&cpu, moved);
        kernel.failures.fail_at(0);
        if kernel.failures.failed() == failed {
            assert_eq!((result, failing), (Ok(()), 5), "a place, two counts and a write can fail");
            break;
        }
        assert!(matches!(result, Err(ReclaimError::Swap(_))), "{result:?}");
        assert_eq!((kernel.counts(&cpu, moved), kernel.swap.counts()), ((2, 0, 2), 2));
    }
    assert_eq!((kernel.data.in_use(), kernel.swap.counts()), (0, 4));
    for space in [0, 1] {
        assert_eq!((kernel.load(&cpu, space, page(0)), kernel.load(&cpu, space, page(1))), (Ok(70), Ok(71)));
    }
    assert_eq!((kernel.data.in_use(), kernel.swap.counts()), (4, 0), "each has its own");
    kernel.store(&cpu, 1, page(0), 80).expect("memory");
    assert_eq!((kernel.load(&cpu, 0, page(0)), kernel.load(&cpu, 1, page(0))), (Ok(70), Ok(80)));
    kernel.mm.munmap(&cpu, ONE, AT, 2).expect("it is mapped");
    kernel.mm.munmap(&cpu, TWO, AT, 2).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn what_user_code_may_not_use_stays_so_wherever_it_goes() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 3, 0)).expect("a good area");
    for number in 0..3 {
        kernel.store(&cpu, 0, page(number), number).expect("memory");
    }
    let frames: Vec<_> = (0..3).filter_map(|number| kernel.frame_at(&cpu, 0, page(number))).collect();
    kernel.mm.mprotect(&cpu, ONE, AT, 2, AreaRights::None).expect("it is mapped");
    kernel.mm.swap_out(&cpu, frames[0]).expect("nobody else uses it");
    let moved = kernel.mm.migrate(&cpu, frames[1]).expect("nobody else uses it").to.head;
    assert_eq!(kernel.counts(&cpu, moved), (1, 0, 1));
    for number in 0..2 {
        assert!(kernel.load(&cpu, 0, page(number)).is_err(), "page {number} is forbidden");
    }
    kernel.mm.mprotect(&cpu, ONE, AT, 2, AreaRights::Read).expect("it is mapped");
    for number in 0..3 {
        assert_eq!(kernel.load(&cpu, 0, page(number)), Ok(number));
    }
    for number in 0..2 {
        assert!(kernel.store(&cpu, 0, page(number), 9).is_err(), "page {number} may only be read");
    }
    kernel.mm.munmap(&cpu, ONE, AT, 3).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}
