//! Operations on areas, one at a time: what they change, and that what they refuse has changed nothing.

use crate::memory::{self, CACHED, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{Access, CpuSet, Frame, VirtAddr, Word};
use mm::error::RangeError;
use mm::{Area, AreaError, AreaRights, FaultError, FolioFlags, Foll, Harvested, MapError, SpaceId, Usage};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TO: VirtAddr = VirtAddr::new(0x50_0000_0000);
const ONE: SpaceId = SpaceId::new(0);
const TWO: SpaceId = SpaceId::new(1);
const TABLES: u64 = 32;
/// How many areas an address space has room for.
const SLOTS: u64 = 16;

fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// Whether an entry is there that allows the access: fast GUP knows no areas and no faults.
fn entry_allows(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr, write: Foll) -> bool {
    let mut run = None;
    let got =
        kernel.mm.gup(cpu, kernel.space(0), at, 1, Foll::GET | Foll::FAST_ONLY | write, |found| run = Some(found));
    if let Some(run) = run {
        kernel.mm.release(cpu, run, Access::Read).expect("just taken");
    }
    got == Ok(1)
}

fn harvest(kernel: &Kernel, cpu: &ThreadCpu, pages: u64, clear: Usage) -> Vec<Harvested> {
    let mut told = Vec::new();
    kernel.mm.harvest(cpu, kernel.space(0), (AT, pages), clear, |page| told.push(page)).expect("whole tables");
    told
}

#[test]
fn rights_go_at_once_and_come_back_without_a_fault_where_nobody_must_be_asked() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 4, 0)).expect("a good area");
    let shared = Area::shared(page(4), 2, AreaRights::ReadWrite, CACHED, 0);
    let private = Area::private(page(6), 1, AreaRights::ReadWrite, CACHED, 2);
    kernel.mm.mmap(&cpu, ONE, shared).expect("a good area");
    kernel.mm.mmap(&cpu, ONE, private).expect("a good area");
    kernel.store(&cpu, 0, page(1), 11).expect("memory");
    kernel.store(&cpu, 0, page(4), 44).expect("memory");
    for clean in [2, 5, 6] {
        kernel.load(&cpu, 0, page(clean)).expect("memory");
    }
    let frames = || (0..7).map(|number| kernel.frame_at(&cpu, 0, page(number))).collect::<Vec<Option<Frame>>>();
    let before = frames();
    let protect = |rights| kernel.mm.mprotect(&cpu, ONE, AT, 7, rights).expect("areas all along");

    protect(AreaRights::None);
    for number in 0..7 {
        assert!(!entry_allows(&kernel, &cpu, page(number), Foll::NONE), "page {number}");
        assert!(matches!(kernel.load(&cpu, 0, page(number)), Err(FaultError::Forbidden { .. })), "page {number}");
    }
    protect(AreaRights::Read);
    assert_eq!(frames(), before, "the pages are there without a fault");
    assert!(matches!(kernel.store(&cpu, 0, page(1), 12), Err(FaultError::Forbidden { .. })));
    protect(AreaRights::ReadWrite);
    assert_eq!(frames(), before);
    for (number, writable) in [(1, true), (2, false), (4, true), (6, false)] {
        // The zero page, and a page of the file in a private area, may not be written; the others are dirty already.
        assert_eq!(entry_allows(&kernel, &cpu, page(number), Foll::WRITE), writable, "page {number}");
    }
    assert_eq!(kernel.load(&cpu, 0, page(1)), Ok(11));
    assert_eq!(kernel.load(&cpu, 0, page(4)), Ok(44));
    kernel.store(&cpu, 0, page(6), 66).expect("a copy");
    assert_eq!(kernel.data.read(kernel.file_frame(2).expect("a page"), 0), 2, "the file's page is as it was");
    kernel.mm.munmap(&cpu, ONE, AT, 7).expect("areas");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn a_clean_page_of_a_file_is_not_made_writable_behind_its_back() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, ONE, Area::shared(AT, 1, AreaRights::Read, CACHED, 0)).expect("a good area");
    kernel.load(&cpu, 0, AT).expect("a page of the file");
    kernel.mm.mprotect(&cpu, ONE, AT, 1, AreaRights::ReadWrite).expect("an area");
    assert!(!entry_allows(&kernel, &cpu, AT, Foll::WRITE), "a fault has to see the first store");
    kernel.store(&cpu, 0, AT, 7).expect("allowed now");
    assert_eq!(kernel.data.read(kernel.file_frame(0).expect("a page"), 0), 7);
}

#[test]
fn soft_dirty_sees_every_store_whatever_happens_to_rights() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 3, 0)).expect("a good area");
    for number in 0..3 {
        kernel.store(&cpu, 0, page(number), number).expect("memory");
    }
    let soft_dirty = |clear| {
        let told = harvest(&kernel, &cpu, 3, clear);
        told.iter().filter(|page| page.usage.contains(Usage::SOFT_DIRTY)).map(|page| page.address).collect::<Vec<_>>()
    };
    assert_eq!(soft_dirty(Usage::SOFT_DIRTY), [page(0), page(1), page(2)]);
    assert_eq!(soft_dirty(Usage::SOFT_DIRTY), []);
    for rights in [AreaRights::Read, AreaRights::None, AreaRights::ReadWrite] {
        kernel.mm.mprotect(&cpu, ONE, AT, 3, rights).expect("an area");
    }
    assert_eq!(soft_dirty(Usage::NONE), [], "nobody wrote");
    kernel.store(&cpu, 0, page(1), 1).expect("memory");
    assert_eq!(soft_dirty(Usage::SOFT_DIRTY), [page(1)]);
    // What a swap entry remembers is cleared there, too.
    kernel.store(&cpu, 0, page(2), 2).expect("memory");
    kernel.mm.swap_out(&cpu, kernel.frame_at(&cpu, 0, page(2)).expect("mapped")).expect("nobody else uses it");
    assert_eq!(soft_dirty(Usage::SOFT_DIRTY), [page(2)]);
    assert_eq!(soft_dirty(Usage::NONE), []);
    // A page that moves counts as written.
    kernel.mm.mremap(&cpu, ONE, (AT, 3), (TO, 3)).expect("nothing is there");
    let mut told = Vec::new();
    kernel.mm.harvest(&cpu, kernel.space(0), (TO, 3), Usage::NONE, |page| told.push(page.usage)).expect("whole");
    assert_eq!(told.iter().filter(|usage| usage.contains(Usage::SOFT_DIRTY)).count(), 3);
}

#[test]
fn what_an_entry_forgets_of_dirty_its_folio_remembers() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, ONE, Area::shared(AT, 2, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 1).expect("memory");
    kernel.load(&cpu, 0, page(1)).expect("memory");
    let frame = kernel.file_frame(0).expect("a page");
    let is_dirty = || kernel.flags(&cpu, frame) & FolioFlags::DIRTY.bits() != 0;
    let usages = |clear| harvest(&kernel, &cpu, 2, clear).iter().map(|page| page.usage).collect::<Vec<_>>();
    let written = Usage::ACCESSED.and(Usage::DIRTY).and(Usage::SOFT_DIRTY);
    assert_eq!(usages(Usage::ACCESSED), [written, Usage::ACCESSED.and(Usage::SOFT_DIRTY)]);
    assert_eq!(usages(Usage::NONE), [Usage::DIRTY.and(Usage::SOFT_DIRTY), Usage::SOFT_DIRTY]);
    assert!(!is_dirty(), "the entry says so");
    assert_eq!(usages(Usage::DIRTY)[0], Usage::DIRTY.and(Usage::SOFT_DIRTY));
    assert!(is_dirty());
    assert_eq!(usages(Usage::NONE)[0], Usage::SOFT_DIRTY);
    kernel.store(&cpu, 0, AT, 2).expect("memory");
    assert!(usages(Usage::NONE)[0].contains(Usage::DIRTY), "the next store is seen again");
    // So does a leaf that user code may not use for now.
    kernel.mm.mprotect(&cpu, ONE, AT, 2, AreaRights::None).expect("an area");
    assert!(usages(Usage::DIRTY)[0].contains(Usage::DIRTY));
    assert!(!usages(Usage::NONE).first().is_some_and(|usage| usage.contains(Usage::DIRTY)));
}

#[test]
fn without_slots_nothing_changes() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 8, 0)).expect("a good area");
    (0..8).for_each(|number| kernel.store(&cpu, 0, page(number), number).expect("memory"));
    for number in 1..SLOTS {
        kernel.mm.mmap(&cpu, ONE, anonymous(TO.wrapping_add(number * 8192), 1, 0)).expect("a good area");
    }
    let far = VirtAddr::new(0x60_0000_0000);
    assert_eq!(kernel.mm.mmap(&cpu, ONE, anonymous(far, 1, 0)), Err(MapError::SpaceFull));
    assert_eq!(kernel.mm.munmap(&cpu, ONE, page(3), 1), Err(AreaError::SpaceFull));
    assert_eq!(kernel.mm.mprotect(&cpu, ONE, page(3), 1, AreaRights::None), Err(AreaError::SpaceFull));
    assert_eq!(kernel.mm.mprotect(&cpu, ONE, page(7), 1, AreaRights::None), Err(AreaError::SpaceFull));
    assert_eq!(kernel.mm.mremap(&cpu, ONE, (page(3), 1), (far, 1)), Err(AreaError::SpaceFull));
    assert_eq!(kernel.mm.mremap(&cpu, ONE, (page(7), 1), (far, 1)), Err(AreaError::SpaceFull));
    assert_eq!(kernel.mm.mremap(&cpu, ONE, (page(0), 1), (far, 1)), Err(AreaError::SpaceFull));
    for number in 0..8 {
        assert_eq!(kernel.load(&cpu, 0, page(number)), Ok(number));
        kernel.store(&cpu, 0, page(number), number).expect("still writable");
    }
    // What needs no slot works: the whole area, and its ends.
    kernel.mm.mremap(&cpu, ONE, (AT, 8), (far, 8)).expect("the new area takes the slot of the old one");
    kernel.mm.munmap(&cpu, ONE, far, 1).expect("an end");
    // One slot is free: an area may be cut once.
    kernel.mm.munmap(&cpu, ONE, TO.wrapping_add(8192), 1).expect("a whole area");
    kernel.mm.munmap(&cpu, ONE, far.wrapping_add(3 * 4096), 1).expect("a slot is free");
    assert_eq!(kernel.mm.munmap(&cpu, ONE, far.wrapping_add(5 * 4096), 1), Err(AreaError::SpaceFull));
    kernel.mm.munmap(&cpu, ONE, VirtAddr::new(0), 1 << 35).expect("everything");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 8, 0)).expect("a good area");
    kernel.store(&cpu, 0, page(2), 2).expect("memory");
    let mm = kernel.mm;
    let misaligned = VirtAddr::new(AT.as_u64() + 8);
    let end = VirtAddr::new((1 << 47) - 4096);
    let range = |error| Err(AreaError::Range(error));
    let no_area = |address| Err(AreaError::NoArea { address });
    type Operation = fn(&mm::Mm<'_, memory::WithMemory>, &ThreadCpu, VirtAddr, u64) -> Result<(), AreaError>;
    let operations: [Operation; 4] = [
        |mm, cpu, at, pages| mm.munmap(cpu, ONE, at, pages),
        |mm, cpu, at, pages| mm.mprotect(cpu, ONE, at, pages, AreaRights::None),
        |mm, cpu, at, pages| mm.mremap(cpu, ONE, (at, pages), (TO, 1)),
        |mm, cpu, at, pages| mm.mremap(cpu, ONE, (AT, 1), (at, pages)),
    ];
    for operation in operations {
        assert_eq!(operation(mm, &cpu, misaligned, 1), range(RangeError::Misaligned { address: misaligned }));
        assert_eq!(operation(mm, &cpu, AT, u64::MAX), range(RangeError::Overflow { address: AT, pages: u64::MAX }));
        assert_eq!(operation(mm, &cpu, end, 2), range(RangeError::OutsideUser { address: end, pages: 2 }));
    }
    assert_eq!(mm.munmap(&cpu, ONE, AT, 0), range(RangeError::Empty { address: AT }));
    assert_eq!(mm.mremap(&cpu, ONE, (AT, 0), (TO, 1)), range(RangeError::Empty { address: AT }));
    assert_eq!(mm.mremap(&cpu, ONE, (AT, 1), (TO, 0)), range(RangeError::Empty { address: TO }));
    assert_eq!(mm.mprotect(&cpu, ONE, page(7), 2, AreaRights::None), no_area(page(8)));
    assert_eq!(mm.mremap(&cpu, ONE, (page(7), 2), (TO, 2)), no_area(page(8)));
    assert_eq!(mm.mremap(&cpu, ONE, (TO, 1), (AT, 1)), no_area(TO));
    assert_eq!(mm.mremap(&cpu, ONE, (AT, 4), (page(2), 4)), Err(AreaError::Overlaps(anonymous(AT, 8, 0))));
    assert_eq!(mm.mremap(&cpu, ONE, (AT, 4), (AT, 5)), Err(AreaError::Overlaps(anonymous(AT, 8, 0))));
    assert_eq!(mm.munmap(&cpu, SpaceId::new(9), AT, 1), Err(AreaError::NoSpace(SpaceId::new(9))));
    assert_eq!(kernel.load(&cpu, 0, page(2)), Ok(2));
    mm.munmap(&cpu, ONE, TO, 4).expect("nothing is there, and nothing happens");
    mm.munmap(&cpu, ONE, AT, 8).expect("an area");
    kernel.assert_all_is_back(TABLES);
}

/// Wherever memory runs out, a move has not happened, and the tables that it made are gone.
#[test]
fn a_move_without_frames_is_no_move() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 8, 0)).expect("a good area");
    kernel.store(&cpu, 0, page(3), 3).expect("memory");
    let tables = kernel.tables.arena.in_use();
    // Across the end of a table: two tables of pages, and those above.
    let to = VirtAddr::new(0x50_0020_0000 - 4 * 4096);
    let mut failed = 0;
    loop {
        kernel.failures.fail_at(failed + 1);
        match kernel.mm.mremap(&cpu, ONE, (AT, 8), (to, 8)) {
            Err(AreaError::OutOfFrames) => failed += 1,
            result => break result.expect("no other failure"),
        }
        assert_eq!(kernel.tables.arena.in_use(), tables, "allocation {failed} failed");
        assert_eq!(kernel.load(&cpu, 0, page(3)), Ok(3));
    }
    assert_eq!(failed, 3, "two tables of pages, and one above");
    assert_eq!(kernel.load(&cpu, 0, to.wrapping_add(3 * 4096)), Ok(3));
    assert!(matches!(kernel.load(&cpu, 0, page(3)), Err(FaultError::NoArea { .. })));
    kernel.mm.munmap(&cpu, ONE, to, 8).expect("an area");
    kernel.assert_all_is_back(TABLES);
}

/// A file's mapping slots run out: a move needs one more while it lasts.
#[test]
fn without_mapping_slots_nothing_changes() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let area = |number: u64| Area::shared(page(2 * number), 1, AreaRights::ReadWrite, CACHED, number);
    let spaces = memory::SPACES;
    // All mapping slots but one, in areas of several address spaces; then that one.
    let mut mapped = 0;
    'full: for space in 0..spaces {
        for number in 0..SLOTS {
            match kernel.mm.mmap(&cpu, SpaceId::new(space), area(number)) {
                Ok(()) => mapped += 1,
                Err(MapError::FileFull) => break 'full,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    assert_eq!(mapped, memory::FILE_MAPPINGS as u64, "as many as the file has room for");
    kernel.store(&cpu, 0, page(6), 33).expect("memory");
    assert_eq!(kernel.mm.mremap(&cpu, ONE, (page(6), 1), (TO, 1)), Err(AreaError::FileFull));
    assert_eq!(kernel.load(&cpu, 0, page(6)), Ok(33));
    kernel.mm.munmap(&cpu, ONE, page(0), 1).expect("an area");
    kernel.mm.mremap(&cpu, ONE, (page(6), 1), (TO, 1)).expect("a slot is free");
    assert_eq!(kernel.load(&cpu, 0, TO), Ok(33));
    let last = SpaceId::new(spaces - 1);
    for space in [ONE, SpaceId::new(1), last] {
        kernel.mm.munmap(&cpu, space, VirtAddr::new(0), 1 << 35).expect("everything");
    }
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

/// A switch to the same address space leaves the CPU among those that are flushed.
#[test]
fn a_switch_to_the_same_space_changes_nothing() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    let (one, two) = (kernel.space(0), kernel.space(1));
    let active = |space: &mm::AddressSpace<'_>| {
        CpuSet::from_bits(space.active_word().atomic_load(std::sync::atomic::Ordering::SeqCst))
    };
    let this = CpuSet::only(machine::Cpu::id(&cpu));
    let root = || kernel.machine.root(machine::Cpu::id(&cpu));
    kernel.mm.switch(&cpu, one, one);
    assert_eq!((active(one), active(two)), (this, CpuSet::EMPTY));
    assert_eq!(root(), Some(one.root().address()));
    kernel.mm.switch(&cpu, one, two);
    assert_eq!((active(one), active(two)), (CpuSet::EMPTY, this));
    assert_eq!(root(), Some(two.root().address()));
}

/// Pages that come along, or are added, are those that lie behind in the file.
#[test]
fn a_part_of_a_file_moves_and_grows_with_its_place_in_the_file() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, ONE, Area::shared(AT, 8, AreaRights::ReadWrite, CACHED, 10)).expect("a good area");
    kernel.load(&cpu, 0, page(3)).expect("a page of the file");
    kernel.mm.mremap(&cpu, ONE, (page(3), 2), (TO, 4)).expect("nothing is there");
    for number in 0..4 {
        assert_eq!(kernel.load(&cpu, 0, TO.wrapping_add(number * 4096)), Ok(13 + number));
    }
    // Where it is: of the same size, longer by more pages than there were, and of the same size as a whole.
    kernel.mm.mremap(&cpu, ONE, (page(5), 2), (page(5), 2)).expect("nothing changes");
    kernel.mm.mremap(&cpu, ONE, (page(5), 3), (page(5), 7)).expect("nothing is behind it");
    kernel.mm.mremap(&cpu, ONE, (page(5), 7), (page(5), 7)).expect("nothing changes");
    for number in [0, 1, 2, 5, 6, 7, 8, 9, 10, 11] {
        assert_eq!(kernel.load(&cpu, 0, page(number)), Ok(10 + number));
    }
    for number in [3, 4, 12] {
        assert!(matches!(kernel.load(&cpu, 0, page(number)), Err(FaultError::NoArea { .. })), "page {number}");
    }
    kernel.mm.munmap(&cpu, ONE, VirtAddr::new(0), 1 << 35).expect("everything");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn a_child_has_room_for_all_areas_of_its_parent() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    for number in 0..SLOTS {
        kernel.mm.mmap(&cpu, ONE, anonymous(page(2 * number), 1, 0)).expect("a slot is free");
        kernel.store(&cpu, 0, page(2 * number), number).expect("memory");
    }
    kernel.mm.fork(&cpu, ONE, TWO).expect("the child has as many slots");
    for number in 0..SLOTS {
        assert_eq!(kernel.load(&cpu, 1, page(2 * number)), Ok(number));
    }
    for space in [ONE, TWO] {
        kernel.mm.exit(&cpu, space).expect("whole tables");
    }
    kernel.assert_all_is_back(TABLES);
}

/// Pages of shared areas come to the child by faults; only guards would have to be copied.
#[test]
fn a_page_that_nobody_may_access_is_shared_by_a_fork_all_the_same() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 5).expect("memory");
    kernel.mm.mprotect(&cpu, ONE, AT, 1, AreaRights::None).expect("an area");
    kernel.mm.fork(&cpu, ONE, TWO).expect("room for a child");
    for space in [ONE, TWO] {
        kernel.mm.mprotect(&cpu, space, AT, 1, AreaRights::ReadWrite).expect("an area");
    }
    kernel.store(&cpu, 1, AT, 6).expect("memory for a copy");
    assert_eq!([0, 1].map(|space| kernel.load(&cpu, space, AT)), [Ok(5), Ok(6)]);
    for space in [ONE, TWO] {
        kernel.mm.exit(&cpu, space).expect("whole tables");
    }
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn a_hole_through_three_areas_leaves_what_is_before_and_behind() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    for first in [0, 4, 8, 12] {
        kernel.mm.mmap(&cpu, ONE, anonymous(page(first), 4, first)).expect("a good area");
    }
    for number in 0..16 {
        kernel.store(&cpu, 0, page(number), number).expect("memory");
    }
    kernel.mm.munmap(&cpu, ONE, page(2), 8).expect("areas");
    for number in 0..16 {
        let left = (!(2..10).contains(&number)).then_some(number);
        assert_eq!(kernel.load(&cpu, 0, page(number)).ok(), left);
    }
    kernel.mm.munmap(&cpu, ONE, AT, 16).expect("areas");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn to_write_protect_a_range_leaves_what_is_on_swap_as_it_is() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 5).expect("memory");
    let frame = kernel.frame_at(&cpu, 0, AT).expect("mapped");
    kernel.mm.swap_out(&cpu, frame).expect("nobody else uses it");
    kernel.mm.write_protect(&cpu, kernel.space(0), AT, 1).expect("whole tables");
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(5));
    let usage: Vec<_> = harvest(&kernel, &cpu, 1, Usage::NONE).iter().map(|page| page.usage).collect();
    assert!(matches!(usage[..], [one] if one.contains(Usage::SOFT_DIRTY)), "written before, and nobody has looked");
    kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn a_move_makes_no_table_for_what_lies_behind_it() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    // To the end of a table, and something behind that.
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 512, 0)).expect("a good area");
    kernel.mm.mmap(&cpu, ONE, anonymous(AT.wrapping_add(512 * 4096), 1, 0x1000)).expect("a good area");
    for page in [0, 511, 512] {
        kernel.store(&cpu, 0, AT.wrapping_add(page * 4096), page).expect("memory");
    }
    let before = kernel.tables.arena.in_use();
    kernel.mm.mremap(&cpu, ONE, (AT, 512), (TO, 512)).expect("room");
    assert_eq!(
        kernel.tables.arena.in_use() - before,
        1,
        "a table of 2 MiB entries; that of pages takes the old one's place"
    );
    assert_eq!(kernel.load(&cpu, 0, TO.wrapping_add(511 * 4096)), Ok(511));
    kernel.mm.exit(&cpu, ONE).expect("whole tables");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn address_spaces_have_the_reader_locks_that_they_were_given() {
    let (kernel, _cpu) = Kernel::alone(TABLES);
    let locks = |space| kernel.space(space).parts()[0].mmap_lock().words().count();
    assert_eq!([0, 1, 2].map(locks), [1, 2, 3], "that of writers, and none, one and two");
}

#[test]
fn a_child_gets_no_tables_for_shared_pages_without_guards() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let mm = kernel.mm;
    let map = || {
        mm.mmap(&cpu, ONE, Area::shared(AT, 4, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
        kernel.load(&cpu, 0, AT).expect("a page of the file");
    };
    let tables_of_a_child = || {
        let before = kernel.tables.arena.in_use();
        mm.fork(&cpu, ONE, TWO).expect("room for a child");
        let child = kernel.tables.arena.in_use() - before;
        assert_eq!(kernel.frame_at(&cpu, 1, AT), None);
        assert_eq!(kernel.load(&cpu, 1, AT), Ok(0));
        mm.exit(&cpu, TWO).expect("whole tables");
        child
    };
    map();
    assert_eq!(tables_of_a_child(), 0);
    mm.install_guards(&cpu, kernel.space(0), page(1), 1).expect("a page of a file");
    assert!(tables_of_a_child() > 0, "for the guard");
    // As new.
    mm.exit(&cpu, ONE).expect("whole tables");
    map();
    assert_eq!(tables_of_a_child(), 0);
    mm.exit(&cpu, ONE).expect("whole tables");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}
