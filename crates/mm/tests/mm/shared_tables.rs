//! Two address spaces use one table: what the one faults in the other has; what the one takes away the other keeps.

use crate::memory::{CACHED, Kernel};
use hosted::ThreadCpu;
use machine::VirtAddr;
use mm::{Area, AreaRights, FolioFlags, RetractError, ShareError, SpaceId};

/// At the same place of their tables, not at the same address.
const AT: [VirtAddr; 2] = [VirtAddr::new(0x40_0000_0000), VirtAddr::new(0x50_0020_0000)];
const SPACES: [SpaceId; 2] = [SpaceId::new(0), SpaceId::new(1)];
const PAGES: u64 = 512;
const TABLES: u64 = 32;

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
