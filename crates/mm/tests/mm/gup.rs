//! What GUP gives, and what it refuses.

use crate::common::{CACHED, CACHED_HUGE, DRIVER, FIRST_DATA, HUGE, Kernel, SPACE, area};
use machine::{Access, Cpu, VirtAddr};
use mm::error::{RangeError, ReclaimError};
use mm::folio::PIN_BIAS;
use mm::gup::InvalidFlags;
use mm::{FaultError, FolioFlags, Foll, GupError, MapError, ReleaseError, Run};

const AT: u64 = 0x40_0000_0000;

fn gup(
    kernel: &Kernel,
    cpu: &hosted::ThreadCpu,
    at: u64,
    pages: u64,
    flags: Foll,
) -> (Result<u64, GupError>, Vec<Run>) {
    let mut runs = Vec::new();
    let result = kernel.mm.gup(cpu, kernel.space, VirtAddr::new(at), pages, flags, |run| runs.push(run));
    (result, runs)
}

#[test]
fn counts_are_linux_counts() {
    let kernel = Kernel::build(1, 32, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.mmap(&cpu, SPACE, area(AT, 4, CACHED)).expect("a good area");
    kernel.mm.mmap(&cpu, SPACE, area(AT + 0x4000_0000, 512, CACHED_HUGE)).expect("a good area");

    // Nothing is mapped: the fast path finds nothing, the slow path faults.
    let (got, _) = gup(&kernel, &cpu, AT, 4, Foll::PIN | Foll::FAST_ONLY);
    assert_eq!(got, Ok(0));
    let (got, runs) = gup(&kernel, &cpu, AT, 4, Foll::PIN | Foll::WRITE);
    assert_eq!(got, Ok(4));
    assert_eq!(kernel.counts(&cpu, FIRST_DATA), (2 + u64::from(PIN_BIAS), 0, 1));
    let (got, again) = gup(&kernel, &cpu, AT, 4, Foll::GET | Foll::FAST_ONLY);
    assert_eq!(got, Ok(4));
    assert_eq!(kernel.counts(&cpu, FIRST_DATA), (3 + u64::from(PIN_BIAS), 0, 1));
    for run in runs.into_iter().chain(again) {
        kernel.mm.release(&cpu, run, Access::Write).expect("held");
    }
    assert_eq!(kernel.counts(&cpu, FIRST_DATA), (2, 0, 1));

    // A huge leaf is one run, and exact.
    kernel.fault(&cpu, VirtAddr::new(AT + 0x4000_0000), Access::Read).expect("a page of the file");
    let (got, runs) = gup(&kernel, &cpu, AT + 0x4000_3000, 100, Foll::PIN | Foll::FAST_ONLY);
    assert_eq!((got, runs.len()), (Ok(100), 1));
    assert_eq!((runs[0].frame(), runs[0].pages()), (HUGE.wrapping_add(3), 100));
    assert_eq!(kernel.counts(&cpu, HUGE), (102, 100, 1));
    for run in runs {
        kernel.mm.release(&cpu, run, Access::Read).expect("held");
    }
    assert_eq!(kernel.counts(&cpu, HUGE), (2, 0, 1));

    // What is unmapped while it is pinned stays until it is given back.
    let (_, runs) = gup(&kernel, &cpu, AT, 1, Foll::PIN);
    kernel.mm.munmap(&cpu, SPACE, VirtAddr::new(AT), 4).expect("the area is there");
    let file = kernel.mm.file(CACHED).expect("the file is there");
    kernel.mm.replace_page(&cpu, file, 0, None).expect("a page of the file");
    assert_eq!(kernel.counts(&cpu, FIRST_DATA), (u64::from(PIN_BIAS), 0, 0));
    assert_eq!(kernel.records.released.load(std::sync::atomic::Ordering::Relaxed), 0);
    for run in runs {
        kernel.mm.release(&cpu, run, Access::Read).expect("held");
    }
    assert_eq!(kernel.records.released.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn drivers_pages_are_refused_at_every_level() {
    let kernel = Kernel::build(1, 32, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    for (number, (file, level)) in DRIVER.into_iter().enumerate() {
        let at = AT + ((number as u64 + 1) << 32);
        kernel.mm.mmap(&cpu, SPACE, area(at, level.frames(), file)).expect("a good area");
        kernel.fault(&cpu, VirtAddr::new(at), Access::Write).expect("the driver has a frame");
        let (got, _) = gup(&kernel, &cpu, at, 1, Foll::PIN | Foll::FAST_ONLY);
        assert_eq!(got, Ok(0), "{level}");
        let (got, _) = gup(&kernel, &cpu, at, 1, Foll::PIN);
        assert_eq!(got, Err(GupError::Special { address: VirtAddr::new(at) }), "{level}");
        // Revoked: the next fault finds nothing.
        let file = kernel.mm.file(file).expect("the file is there");
        let old = kernel.mm.revoke(&cpu, file, 0, level.frames(), |frames| frames.set(0, None));
        assert!(matches!(old, Ok(Some(_))), "{level}");
        let fault = kernel.fault(&cpu, VirtAddr::new(at), Access::Read);
        assert!(matches!(fault, Err(FaultError::NoPage { .. })), "{level}: {fault:?}");
    }
    assert_eq!(kernel.counts(&cpu, HUGE.wrapping_add(512)), (1, 0, 0));
}

#[test]
fn flags_and_ranges_are_validated() {
    let kernel = Kernel::build(1, 32, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let refused = |at, pages, flags| gup(&kernel, &cpu, at, pages, flags).0.expect_err("refused");
    assert_eq!(refused(AT, 1, Foll::GET | Foll::PIN), GupError::Flags(InvalidFlags::GetWithPin));
    assert_eq!(refused(AT, 1, Foll::WRITE), GupError::Flags(InvalidFlags::NeitherGetNorPin));
    assert_eq!(refused(AT, 1, Foll::GET | Foll::LONGTERM), GupError::Flags(InvalidFlags::LongTermWithoutPin));
    let address = VirtAddr::new;
    assert_eq!(refused(AT + 1, 1, Foll::PIN), GupError::Range(RangeError::Misaligned { address: address(AT + 1) }));
    let overflow = RangeError::Overflow { address: address(AT), pages: u64::MAX };
    assert_eq!(refused(AT, u64::MAX, Foll::PIN), GupError::Range(overflow));
    let outside = RangeError::OutsideUser { address: address(1 << 47), pages: 1 };
    assert_eq!(refused(1 << 47, 1, Foll::PIN), GupError::Range(outside));
    assert_eq!(refused(AT, 1, Foll::PIN), GupError::Fault(FaultError::NoArea { address: address(AT) }));
    assert_eq!(gup(&kernel, &cpu, AT, 0, Foll::PIN).0, Ok(0));

    let mmap = |area| kernel.mm.mmap(&cpu, SPACE, area).expect_err("refused");
    assert!(matches!(mmap(area(AT + 8, 1, CACHED)), MapError::BadRange { .. }));
    assert!(matches!(mmap(area(AT, 0, CACHED)), MapError::BadRange { .. }));
    assert!(matches!(mmap(area((1 << 47) - 4096, 2, CACHED)), MapError::BadRange { .. }));
    assert!(matches!(mmap(area(AT + 4096, 512, CACHED_HUGE)), MapError::NotLeafAligned { .. }));
    kernel.mm.mmap(&cpu, SPACE, area(AT, 4, CACHED)).expect("a good area");
    assert_eq!(mmap(area(AT + 4096, 4, CACHED)), MapError::Overlaps(area(AT, 4, CACHED)));
}

#[test]
fn folios_that_must_not_be_pinned_are_not() {
    let cases = [
        (FolioFlags::SECRET, Foll::PIN, false),
        (FolioFlags::SECRET, Foll::GET, false),
        (FolioFlags::TRUNCATED, Foll::PIN, false),
        (FolioFlags::MOVABLE, Foll::PIN | Foll::LONGTERM, false),
        (FolioFlags::MOVABLE, Foll::PIN, true),
        (FolioFlags::FILE, Foll::PIN | Foll::LONGTERM | Foll::WRITE, false),
        (FolioFlags::FILE, Foll::PIN | Foll::LONGTERM, true),
        (FolioFlags::FILE, Foll::PIN | Foll::WRITE, true),
        (FolioFlags::SHMEM, Foll::PIN | Foll::LONGTERM | Foll::WRITE, true),
    ];
    for (page, flags, allowed) in cases {
        let kernel = Kernel::build(1, 32, page);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.mmap(&cpu, SPACE, area(AT, 1, CACHED)).expect("a good area");
        kernel.fault(&cpu, VirtAddr::new(AT), Access::Write).expect("a page of the file");
        // What fast GUP refuses it has not used.
        let record = mm::MemoryMap::page(kernel.records, &cpu, FIRST_DATA).expect("a frame with a record");
        cpu.fetch_and(record.flags_word(), !FolioFlags::REFERENCED.bits());
        let (got, runs) = gup(&kernel, &cpu, AT, 1, flags | Foll::FAST_ONLY);
        assert_eq!(got, Ok(u64::from(allowed)), "{page:?} {flags:?}");
        let was_used = cpu.load(record.flags_word()) & FolioFlags::REFERENCED.bits() != 0;
        assert_eq!(was_used, allowed, "{page:?} {flags:?}");
        for run in runs {
            kernel.mm.release(&cpu, run, Access::Read).expect("held");
        }

        let (got, runs) = gup(&kernel, &cpu, AT, 1, flags);
        let address = VirtAddr::new(AT);
        // A record that says of no file cannot be moved.
        let unmovable = GupError::NotMigrated { address, error: ReclaimError::Unmovable { frame: FIRST_DATA } };
        let expected = match (allowed, page) {
            (true, _) => Ok(1),
            (false, FolioFlags::MOVABLE) => Err(unmovable),
            (false, _) => Err(GupError::NotAllowed { address }),
        };
        assert_eq!(got, expected, "{page:?} {flags:?}");
        for run in runs {
            kernel.mm.release(&cpu, run, Access::Read).expect("held");
        }
        assert_eq!(kernel.counts(&cpu, FIRST_DATA), (2, 0, 1), "{page:?} {flags:?}: no reference is left behind");
    }
}

#[test]
fn what_was_not_taken_is_not_given_back() {
    let kernel = Kernel::build(1, 32, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.mmap(&cpu, SPACE, area(AT, 1, CACHED)).expect("a good area");
    let (_, runs) = gup(&kernel, &cpu, AT, 1, Foll::PIN);
    let before = kernel.counts(&cpu, FIRST_DATA);
    // Somebody drops references that are not theirs; the pin that is given back then is missing.
    let page = mm::MemoryMap::page(kernel.records, &cpu, FIRST_DATA).expect("a frame with a record");
    cpu.fetch_add(page.refcount_word(), 0u32.wrapping_sub(3));
    for run in runs {
        let error = kernel.mm.release(&cpu, run, Access::Read).expect_err("less than a pin is left");
        assert!(matches!(error, ReleaseError::Underflow(_)), "{error:?}");
    }
    assert_eq!(kernel.counts(&cpu, FIRST_DATA).0, before.0 - 3, "nothing was changed");
}

#[test]
fn without_frames_nothing_is_left_half_done() {
    // The root takes one frame; a path to a page takes three more.
    for tables in 1..4 {
        let kernel = Kernel::build(1, tables, FolioFlags::SHMEM);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.mmap(&cpu, SPACE, area(AT, 1, CACHED)).expect("a good area");
        let fault = kernel.fault(&cpu, VirtAddr::new(AT), Access::Write);
        assert_eq!(fault, Err(FaultError::OutOfFrames), "{tables} tables");
        assert_eq!(gup(&kernel, &cpu, AT, 1, Foll::PIN).0, Err(GupError::Fault(FaultError::OutOfFrames)));
        assert_eq!(kernel.counts(&cpu, FIRST_DATA), (1, 0, 0), "{tables} tables");
        kernel.mm.munmap(&cpu, SPACE, VirtAddr::new(AT), 4).expect("the area is there");
    }
}
