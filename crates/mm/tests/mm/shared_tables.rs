//! Two address spaces use one table: what the one faults in the other has; what the one takes away the other keeps.

use crate::memory::{ANONYMOUS, CACHED, CACHED_HUGE, Kernel};
use hosted::ThreadCpu;
use machine::VirtAddr;
use mm::{Area, AreaRights, FolioFlags, RetractError, ShareError, SpaceId};

/// At the same place of their tables, not at the same address.
const AT: [VirtAddr; 2] = [VirtAddr::new(0x40_0000_0000), VirtAddr::new(0x50_0020_0000)];
const SPACES: [SpaceId; 2] = [SpaceId::new(0), SpaceId::new(1)];
const PAGES: u64 = 512;
const TABLES: u64 = 32;
const HUGE_BYTES: u64 = 2 << 20;

fn page(space: usize, number: u64) -> VirtAddr {
    AT[space].wrapping_add(number * 4096)
}

fn build(rights: [AreaRights; 2]) -> Kernel {
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.fill_file(&cpu);
    for space in [0, 1] {
        let area = Area::shared(AT[space], PAGES, rights[space], CACHED, 0);
        kernel.mm.mmap(&cpu, SPACES[space], area).expect("a good area");
    }
    drop(cpu);
    kernel
}

#[test]
fn one_table_serves_both_until_one_takes_entries_away() {
    let kernel = build([AreaRights::ReadWrite; 2]);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let mm = kernel.mm;
    mm.enter(&cpu, kernel.space(1));
    let share = || mm.share_table(&cpu, (SPACES[1], page(1, 5)), (SPACES[0], page(0, 7)));
    kernel.failures.fail_at(1);
    assert_eq!(share(), Err(ShareError::OutOfFrames), "for the levels above");
    kernel.failures.fail_at(0);
    assert_eq!(share(), Err(ShareError::NoTable { address: AT[0] }), "nothing is mapped yet");
    for number in 0..4 {
        assert_eq!(kernel.load(&cpu, 0, page(0, number)), Ok(number));
    }
    let tables = kernel.tables.arena.in_use();
    share().expect("the same pages of one file");
    assert_eq!(share(), Err(ShareError::Occupied { address: AT[1] }));
    assert_eq!(kernel.tables.arena.in_use(), tables, "of the levels above there were tables, tried once before");

    let frame = |number| kernel.file_frame(number).expect("a page of the file");
    for number in 0..4 {
        assert_eq!(kernel.frame_at(&cpu, 1, page(1, number)), Some(frame(number)), "without a fault");
        assert_eq!(kernel.counts(&cpu, frame(number)), (2, 0, 1), "one entry");
    }
    kernel.store(&cpu, 1, page(1, 9), 99).expect("a page of the file");
    assert_eq!(kernel.frame_at(&cpu, 0, page(0, 9)), Some(frame(9)), "the table is the other's, too");

    // One takes a page away for itself: it leaves, and the other keeps all.
    mm.zap(&cpu, kernel.space(1), page(1, 2), 1).expect("the tables are whole");
    for number in [0, 1, 2, 3, 9] {
        assert_eq!(kernel.frame_at(&cpu, 1, page(1, number)), None);
        assert_eq!(kernel.frame_at(&cpu, 0, page(0, number)), Some(frame(number)));
        assert_eq!(kernel.counts(&cpu, frame(number)), (2, 0, 1));
    }
    assert_eq!(kernel.load(&cpu, 1, page(1, 9)), Ok(99), "in a table of its own");
    assert_eq!(kernel.counts(&cpu, frame(9)), (3, 0, 2));
    // The last one changes its entries like any.
    mm.zap(&cpu, kernel.space(0), page(0, 2), 1).expect("the tables are whole");
    assert_eq!(kernel.frame_at(&cpu, 0, page(0, 2)), None);
    assert_eq!(kernel.frame_at(&cpu, 0, page(0, 3)), Some(frame(3)));
    end(&kernel, &cpu);
}

#[test]
fn whoever_goes_first_leaves_the_table_to_the_other() {
    for first in [0, 1] {
        let kernel = build([AreaRights::ReadWrite; 2]);
        let cpu = kernel.machine.attach().expect("a free CPU");
        let mm = kernel.mm;
        mm.enter(&cpu, kernel.space(0));
        kernel.store(&cpu, 0, page(0, 3), 33).expect("a page of the file");
        mm.share_table(&cpu, (SPACES[1], AT[1]), (SPACES[0], AT[0])).expect("the same pages");
        mm.munmap(&cpu, SPACES[first], AT[first], PAGES).expect("it is mapped");
        let other = 1 - first;
        assert_eq!(kernel.frame_at(&cpu, other as u16, page(other, 3)), kernel.file_frame(3));
        assert_eq!(kernel.load(&cpu, other as u16, page(other, 3)), Ok(33));
        end(&kernel, &cpu);
    }
}

/// A page that leaves its file leaves both address spaces.
#[test]
fn what_a_file_loses_all_lose() {
    let kernel = build([AreaRights::ReadWrite; 2]);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space(0));
    kernel.load(&cpu, 0, page(0, 3)).expect("a page of the file");
    kernel.mm.share_table(&cpu, (SPACES[1], AT[1]), (SPACES[0], AT[0])).expect("the same pages");
    let file = kernel.mm.file(CACHED).expect("it is there");
    kernel.mm.replace_page(&cpu, file, 3, None).expect("a page of the file");
    for space in [0, 1] {
        assert_eq!(kernel.frame_at(&cpu, space as u16, page(space, 3)), None);
    }
    end(&kernel, &cpu);
}

#[test]
fn what_differs_is_not_shared() {
    let kernel = build([AreaRights::ReadWrite, AreaRights::Read]);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.load(&cpu, 0, page(0, 3)).expect("a page of the file");
    let share = |to, from| kernel.mm.share_table(&cpu, to, from);
    assert_eq!(share((SPACES[1], AT[1]), (SPACES[0], AT[0])), Err(ShareError::Different));
    let outside = AT[0].wrapping_add(PAGES * 4096);
    assert_eq!(share((SPACES[1], AT[1]), (SPACES[0], outside)), Err(ShareError::Area { address: outside }));
    // An area that does not reach as far as the table.
    kernel.mm.munmap(&cpu, SPACES[1], page(1, 511), 1).expect("it is mapped");
    assert_eq!(share((SPACES[1], AT[1]), (SPACES[0], AT[0])), Err(ShareError::Area { address: AT[1] }));
    end(&kernel, &cpu);
}

/// What else is private or no file's pages at all keeps its tables.
#[test]
fn only_shared_areas_of_cached_files_share_tables() {
    let kernel = build([AreaRights::ReadWrite; 2]);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.load(&cpu, 0, page(0, 3)).expect("a page of the file");
    kernel.mm.munmap(&cpu, SPACES[1], AT[1], PAGES).expect("it is mapped");
    let private = Area::private(AT[1], PAGES, AreaRights::ReadWrite, CACHED, 0);
    let anonymous = Area::shared(AT[1], PAGES, AreaRights::ReadWrite, ANONYMOUS, 0);
    for area in [private, anonymous] {
        kernel.mm.mmap(&cpu, SPACES[1], area).expect("a good area");
        let got = kernel.mm.share_table(&cpu, (SPACES[1], AT[1]), (SPACES[0], AT[0]));
        assert_eq!(got, Err(ShareError::Area { address: AT[1] }), "{area:?}");
        let got = kernel.mm.share_table(&cpu, (SPACES[0], AT[0]), (SPACES[1], AT[1]));
        assert_eq!(got, Err(ShareError::Area { address: AT[1] }), "{area:?}");
        kernel.mm.munmap(&cpu, SPACES[1], AT[1], PAGES).expect("it is mapped");
    }
    end(&kernel, &cpu);
}

/// A table of huge leaves is shared as a whole. If one of them was split, there is a table below that nobody would know to be shared.
#[test]
fn a_table_of_huge_leaves_is_shared_unless_one_is_split() {
    const GIB: u64 = 1 << 18;
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let mm = kernel.mm;
    mm.enter(&cpu, kernel.space(0));
    let at = [AT[0], VirtAddr::new(0x50_4000_0000)];
    for space in [0, 1] {
        let area = Area::shared(at[space], GIB, AreaRights::ReadWrite, CACHED_HUGE, 0);
        mm.mmap(&cpu, SPACES[space], area).expect("a good area");
    }
    let share = || mm.share_table(&cpu, (SPACES[1], at[1]), (SPACES[0], at[0]));
    let second = |space: usize| at[space].wrapping_add(HUGE_BYTES);
    let heads = [0, 1].map(|page| kernel.fill_huge_page(&cpu, page));
    for address in [at[0], second(0)] {
        kernel.load(&cpu, 0, address).expect("a page of the file");
    }
    for address in [at[0], second(0)] {
        mm.split_leaf(&cpu, kernel.space(0), address).expect("a huge leaf");
        assert_eq!(share(), Err(ShareError::NoTable { address: at[0] }), "split at {address}");
        mm.zap(&cpu, kernel.space(0), at[0], GIB).expect("whole tables");
        mm.munmap(&cpu, SPACES[0], at[0], GIB).expect("it is mapped");
        let area = Area::shared(at[0], GIB, AreaRights::ReadWrite, CACHED_HUGE, 0);
        mm.mmap(&cpu, SPACES[0], area).expect("a good area");
        for address in [at[0], second(0)] {
            kernel.load(&cpu, 0, address).expect("a page of the file");
        }
    }
    share().expect("none is split");
    assert_eq!([at[1], second(1)].map(|address| kernel.frame_at(&cpu, 1, address)), heads.map(Some), "without a fault");
    assert_eq!(heads.map(|head| kernel.counts(&cpu, head)), [(2, 0, 1); 2], "one entry each");
    for space in [0, 1] {
        mm.munmap(&cpu, SPACES[space], at[space], GIB).expect("it is mapped");
    }
    let file = mm.file(CACHED_HUGE).expect("it is there");
    for page in [0, 1] {
        mm.replace_page(&cpu, file, page * 512, None).expect("a page of the file");
    }
    kernel.assert_all_is_back(TABLES);
}

/// A table goes with all its entries; the pages stay in the file and come back.
#[test]
fn a_table_of_a_files_pages_is_retracted() {
    let kernel = build([AreaRights::ReadWrite; 2]);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space(0));
    let retract = || kernel.mm.retract_table(&cpu, kernel.space(0), page(0, 7));
    assert_eq!(retract(), Err(RetractError::NoTable { address: page(0, 7) }));
    for number in [3, 60] {
        kernel.store(&cpu, 0, page(0, number), 100 + number).expect("a page of the file");
    }
    let tables = kernel.tables.arena.in_use();
    retract().expect("a table is there");
    assert_eq!(kernel.tables.arena.in_use(), tables - 1);
    for number in [3, 60] {
        let frame = kernel.file_frame(number).expect("a page of the file");
        assert_eq!(kernel.frame_at(&cpu, 0, page(0, number)), None);
        assert_eq!(kernel.counts(&cpu, frame), (1, 0, 0));
        assert_ne!(kernel.flags(&cpu, frame) & FolioFlags::DIRTY.bits(), 0, "the entry was dirty");
        assert_eq!(kernel.load(&cpu, 0, page(0, number)), Ok(100 + number));
    }
    // One that is shared stays with the other.
    kernel.mm.share_table(&cpu, (SPACES[1], AT[1]), (SPACES[0], AT[0])).expect("the same pages");
    retract().expect("a table is there");
    assert_eq!(kernel.frame_at(&cpu, 0, page(0, 3)), None);
    assert_eq!(kernel.frame_at(&cpu, 1, page(1, 3)), kernel.file_frame(3));
    end(&kernel, &cpu);
}

fn end(kernel: &Kernel, cpu: &ThreadCpu) {
    for space in [0, 1] {
        kernel.mm.munmap(cpu, SPACES[space], AT[space], PAGES).expect("a good range");
    }
    kernel.empty_file(cpu);
    kernel.assert_all_is_back(TABLES);
}
