//! Pins of a file's pages, mapped or not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::memory::{ANONYMOUS, CACHED, CACHED_HUGE, FILE_PAGES, Kernel};
use machine::{Access, Cpu, Frame, VirtAddr};
use mm::error::PinFileError;
use mm::folio::{COUNT_LIMIT, PIN_BIAS};
use mm::{Area, AreaRights, FaultError, FolioFlags, MemoryMap, Run, SpaceId};
use pagetable::Level;

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 32;

fn mark(kernel: &Kernel, cpu: &hosted::ThreadCpu, frame: Frame, flag: FolioFlags) {
    let record = MemoryMap::page(kernel.data, cpu, frame).expect("a frame with a record");
    cpu.fetch_or(record.flags_word(), flag.bits());
}

fn pin(kernel: &Kernel, cpu: &hosted::ThreadCpu, first: u64, pages: u64) -> (Result<u64, PinFileError>, Vec<Run>) {
    let mut runs = Vec::new();
    let file = kernel.mm.file(CACHED).expect("it is there");
    let got = kernel.mm.pin_file(cpu, file, (first, pages), |run| runs.push(run));
    assert_eq!(runs.len() as u64, got.unwrap_or(0));
    (got, runs)
}

#[test]
fn the_pages_of_the_file_are_pinned() {
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.fill_file(&cpu);
    let (got, runs) = pin(&kernel, &cpu, 3, 10);
    assert_eq!(got, Ok(10));
    for (run, number) in runs.iter().zip(3..) {
        assert_eq!(Some(run.frame()), kernel.file_frame(number));
        assert_eq!(kernel.counts(&cpu, run.frame()), (1 + PIN_BIAS, 0, 0));
    }
    // The file gives one up: it stays for whoever pinned it.
    let file = kernel.mm.file(CACHED).expect("it is there");
    let in_use = kernel.data.in_use();
    kernel.mm.replace_page(&cpu, file, 3, None).expect("a page of the file");
    assert_eq!(kernel.data.in_use(), in_use);
    kernel.mm.release_all(&cpu, runs, Access::Write).expect("held");
    assert_eq!(kernel.data.in_use(), in_use - 1);
    // A hole: short, or an error where it is the first.
    let (got, runs) = pin(&kernel, &cpu, 0, 10);
    assert_eq!(got, Ok(3));
    kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
    assert_eq!(pin(&kernel, &cpu, 3, 1).0, Err(PinFileError::NoPage { page: 3 }));
    assert_eq!(pin(&kernel, &cpu, FILE_PAGES, 1).0, Err(PinFileError::NoPage { page: FILE_PAGES }));
    assert_eq!(pin(&kernel, &cpu, u64::MAX, 2).0, Err(PinFileError::NoPage { page: u64::MAX }));
    assert_eq!(pin(&kernel, &cpu, 3, 0).0, Ok(0));
    let anonymous = kernel.mm.file(ANONYMOUS).expect("it is there");
    let got = kernel.mm.pin_file(&cpu, anonymous, (0, 1), |_| panic!("no pages"));
    assert_eq!(got, Err(PinFileError::NotInMemory { page: 0 }));
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

/// A run is as long as the huge page allows, and no longer than what was asked for.
#[test]
fn huge_pages_of_a_file_are_pinned_in_runs() {
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let heads = [0, 1].map(|number| kernel.fill_huge_page(&cpu, number));
    let file = kernel.mm.file(CACHED_HUGE).expect("it is there");
    for (first, pages, expected) in [
        (500, 24, vec![(heads[0].wrapping_add(500), 12), (heads[1], 12)]),
        (3, 5, vec![(heads[0].wrapping_add(3), 5)]),
        (512, 512, vec![(heads[1], 512)]),
    ] {
        let mut runs = Vec::new();
        assert_eq!(kernel.mm.pin_file(&cpu, file, (first, pages), |run| runs.push(run)), Ok(pages));
        let got: Vec<_> = runs.iter().map(|run| (run.frame(), run.pages())).collect();
        assert_eq!(got, expected, "{pages} pages from {first}");
        let pins = heads.map(|head| kernel.counts(&cpu, head).1);
        assert_eq!(u64::from(pins[0] + pins[1]), pages);
        kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
    }
    for page in [0, 512] {
        kernel.mm.replace_page(&cpu, file, page, None).expect("a page of the file");
    }
    // A folio that is smaller than its place in the file: what lies behind it is somebody else's.
    let small = kernel.new_file_page(&cpu, 0, 0);
    kernel.mm.replace_page(&cpu, file, 0, Some(small)).expect("an empty slot");
    let got = kernel.mm.pin_file(&cpu, file, (0, 2), |_| panic!("one page is not two"));
    assert_eq!(got, Err(PinFileError::NotAllowed { page: 0 }));
    kernel
        .mm
        .mmap(&cpu, SpaceId::new(0), Area::shared(AT, 512, AreaRights::Read, CACHED_HUGE, 0))
        .expect("a good area");
    let bad = FaultError::BadFrame { file: CACHED_HUGE, frame: small, level: Level::Pmd };
    assert_eq!(kernel.load(&cpu, 0, AT), Err(bad), "nor is it mapped");
    kernel.mm.munmap(&cpu, SpaceId::new(0), AT, 512).expect("it is mapped");
    assert_eq!(kernel.counts(&cpu, small), (1, 0, 0));
    kernel.mm.replace_page(&cpu, file, 0, None).expect("a page of the file");
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn what_must_not_be_pinned_is_not() {
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.fill_file(&cpu);
    let flags = [FolioFlags::SECRET, FolioFlags::TRUNCATED, FolioFlags::POISONED];
    for (page, flag) in flags.into_iter().enumerate() {
        let page = page as u64;
        mark(&kernel, &cpu, kernel.file_frame(page).expect("filled"), flag);
        assert_eq!(pin(&kernel, &cpu, page, 1).0, Err(PinFileError::NotAllowed { page }), "{flag:?}");
    }
    // Of a file whose file system wants to know of writes.
    let frame = kernel.file_frame(5).expect("filled");
    let record = MemoryMap::page(kernel.data, &cpu, frame).expect("a frame with a record");
    cpu.fetch_and(record.flags_word(), !FolioFlags::SHMEM.bits());
    assert_eq!(pin(&kernel, &cpu, 5, 1).0, Err(PinFileError::NotInMemory { page: 5 }));
    let count = cpu.swap(record.refcount_word(), COUNT_LIMIT);
    assert_eq!(pin(&kernel, &cpu, 5, 1).0, Err(PinFileError::CountLimit { page: 5 }));
    cpu.store(record.refcount_word(), count);
    for page in [0, 1, 2, 5] {
        assert_eq!(kernel.counts(&cpu, kernel.file_frame(page).expect("filled")), (1, 0, 0), "nothing is left behind");
    }
    let (got, runs) = pin(&kernel, &cpu, 3, 10);
    assert_eq!(got, Ok(2), "short before the page that is refused");
    kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

/// Who moves a page of the file, or drops it, freezes its count and holds its lock until the file's slot says what became of it: that is waited for. A frame
/// that is free although nobody does any of that is an error.
#[test]
fn a_page_that_is_on_its_way_is_waited_for() {
    let kernel = Kernel::build(2, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.fill_file(&cpu);
    let record = MemoryMap::page(kernel.data, &cpu, kernel.file_frame(0).expect("filled")).expect("a record");
    let count = cpu.swap(record.refcount_word(), 0);
    assert_eq!(pin(&kernel, &cpu, 0, 1).0, Err(PinFileError::NotAllowed { page: 0 }), "it is free");
    cpu.fetch_or(record.flags_word(), FolioFlags::LOCKED.bits());
    let is_done = AtomicBool::new(false);
    let (waited, got) = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let cpu = kernel.machine.attach().expect("a free CPU");
            let (got, runs) = pin(&kernel, &cpu, 0, 1);
            is_done.store(true, Ordering::SeqCst);
            kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
            got
        });
        std::thread::sleep(Duration::from_millis(50));
        let waited = !is_done.load(Ordering::SeqCst);
        cpu.store(record.refcount_word(), count);
        cpu.fetch_and(record.flags_word(), !FolioFlags::LOCKED.bits());
        (waited, waiter.join().expect("it does not panic"))
    });
    assert_eq!((waited, got), (true, Ok(1)));
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

/// Pages that must stay movable move, mapped as they are, and not if somebody holds them.
#[test]
fn pages_move_before_they_are_pinned() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let area = Area::shared(AT, 4, AreaRights::ReadWrite, CACHED, 0);
    kernel.mm.mmap(&cpu, SpaceId::new(0), area).expect("a good area");
    kernel.store(&cpu, 0, AT, 1234).expect("memory");
    let before = [0, 1].map(|page| kernel.file_frame(page).expect("filled"));
    before.into_iter().for_each(|frame| mark(&kernel, &cpu, frame, FolioFlags::MOVABLE));
    let (got, runs) = pin(&kernel, &cpu, 0, 1);
    assert_eq!(got, Ok(1));
    assert_ne!(runs[0].frame(), before[0]);
    assert_eq!((Some(runs[0].frame()), kernel.data.read(runs[0].frame(), 0)), (kernel.file_frame(0), 1234));
    kernel.store(&cpu, 0, AT, 5678).expect("memory");
    assert_eq!(kernel.data.read(runs[0].frame(), 0), 5678, "user code and the pin see the same memory");
    let record = MemoryMap::page(kernel.data, &cpu, before[1]).expect("a frame with a record");
    cpu.fetch_add(record.refcount_word(), 1);
    let got = pin(&kernel, &cpu, 1, 1).0;
    assert!(matches!(got, Err(PinFileError::NotMigrated { page: 1, .. })), "{got:?}");
    assert_eq!(kernel.file_frame(1), Some(before[1]));
    cpu.fetch_add(record.refcount_word(), u32::MAX);
    kernel.mm.release_all(&cpu, runs, Access::Write).expect("held");
    kernel.mm.munmap(&cpu, SpaceId::new(0), AT, 4).expect("whole tables");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}
