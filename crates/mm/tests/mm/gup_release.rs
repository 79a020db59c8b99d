//! Giving references back in every form, the limits of counts, pins of files, huge leaves, and drivers that must be waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::driver::{Kernel, MIXED, PFN, RECORDED, RECORDED_SMALL, SPACE, VRAM};
use hosted::ThreadCpu;
use machine::{Access, Cpu, Frame, VirtAddr};
use mm::error::{AddPinError, PinFileError};
use mm::folio::{COUNT_LIMIT, PIN_BIAS};
use mm::{DriverAnswer, FolioFlags, Foll, GupError, Membership, MemoryMap, PfnLeaf, ReleaseError, Run, Signal};
use pagetable::Level;

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);

/// A mixed file whose first 512 pages are one folio, mapped huge, and whose next 512 are small ones.
fn kernel_with_device(cpus: u32) -> Kernel {
    let kernel = Kernel::build(cpus);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.map(&cpu, AT, 1024, MIXED);
    kernel.on_fault(|context| match context.level() {
        Level::Pmd if context.leaf_page() == 0 => context.insert(&PfnLeaf::new(Level::Pmd, RECORDED)).into(),
        Level::Pte => context.insert(&PfnLeaf::new(Level::Pte, RECORDED.wrapping_add(context.page()))).into(),
        _ => DriverAnswer::Fallback,
    });
    drop(cpu);
    kernel
}

fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

fn take(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr, pages: u64, flags: Foll) -> Vec<Run> {
    let mut runs = Vec::new();
    let got = kernel.mm.gup(cpu, kernel.space, at, pages, flags, |run| runs.push(run));
    assert_eq!(got, Ok(pages));
    runs
}

#[test]
fn pins_go_back_in_every_form() {
    let kernel = kernel_with_device(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let mm = kernel.mm;
    let small = RECORDED_SMALL;
    // By the slow path, and by the fast one.
    for _ in 0..2 {
        let runs = take(&kernel, &cpu, page(10), 502 + 3, Foll::PIN | Foll::WRITE);
        assert_eq!(kernel.counts(&cpu, RECORDED), (2 + 502, 502, 1));
        assert_eq!(kernel.counts(&cpu, small), (2 + PIN_BIAS, 0, 1));
        assert_eq!(
            runs.iter().map(|run| (run.frame(), run.pages())).collect::<Vec<_>>(),
            [(RECORDED.wrapping_add(10), 502), (small, 1), (small.wrapping_add(1), 1), (small.wrapping_add(2), 1),]
        );
        mm.release_all(&cpu, runs, Access::Read).expect("held");
        assert_eq!(kernel.counts(&cpu, RECORDED), (2, 0, 1));
        assert_eq!(kernel.counts(&cpu, small), (2, 0, 1));
    }
    // A part of a run, page by page, and the rest.
    let run = take(&kernel, &cpu, page(0), 100, Foll::PIN).pop().expect("one leaf");
    let (first, rest) = run.split_at(30);
    let (first, rest) = (first.expect("30 pages"), rest.expect("70 pages"));
    assert_eq!((first.pages(), rest.frame(), rest.pages()), (30, RECORDED.wrapping_add(30), 70));
    mm.unpin(&cpu, rest).expect("held");
    assert_eq!(kernel.counts(&cpu, RECORDED), (2 + 30, 30, 1));
    let (none, all) = first.split_at(0);
    assert!(none.is_none());
    let (all, none) = all.expect("30 pages").split_at(30);
    assert!(none.is_none());
    // One more holder.
    let all = all.expect("30 pages");
    let more = mm.add_pin(&cpu, &all).expect("it is pinned");
    assert_eq!(kernel.counts(&cpu, RECORDED), (2 + 60, 60, 1));
    mm.unpin(&cpu, all).expect("held");
    let flags = |frame| {
        let record = kernel.memory.page(&cpu, frame).expect("a frame with a record");
        cpu.load(record.flags_word())
    };
    assert_eq!(flags(RECORDED) & FolioFlags::DIRTY.bits(), 0);
    mm.unpin_dirty_lock(&cpu, more).expect("held");
    assert_eq!(flags(RECORDED) & FolioFlags::DIRTY.and(FolioFlags::LOCKED).bits(), FolioFlags::DIRTY.bits());
    // By frame numbers alone, across folios.
    let runs = take(&kernel, &cpu, page(500), 20, Foll::PIN);
    runs.into_iter().for_each(drop);
    mm.unpin_range(&cpu, RECORDED.wrapping_add(500), 20, Access::Write).expect("pinned above");
    for frame in [RECORDED, small, small.wrapping_add(7)] {
        assert_eq!(kernel.counts(&cpu, frame), (2, 0, 1), "{frame}");
        assert_ne!(flags(frame) & FolioFlags::DIRTY.bits(), 0, "{frame}");
    }
    // References that are no pins.
    let gets = take(&kernel, &cpu, page(600), 2, Foll::GET);
    let frame = RECORDED.wrapping_add(600);
    let mut gets = gets.into_iter();
    let first = gets.next().expect("two");
    assert_eq!(mm.add_pin(&cpu, &first), Err(AddPinError::NotPinned(frame)));
    mm.release(&cpu, first, Access::Read).expect("held");
    let second = gets.next().expect("two");
    assert_eq!(mm.unpin(&cpu, second), Err(ReleaseError::NotPinned(frame.wrapping_add(1))));
    assert_eq!(kernel.counts(&cpu, frame.wrapping_add(1)).0, 3, "nothing was changed");
}

/// Many runs of one folio go with one operation, and what is wrong with one run stays with it.
#[test]
fn runs_of_one_folio_go_together() {
    let kernel = kernel_with_device(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let mut runs = Vec::new();
    for number in 0..50 {
        runs.extend(take(&kernel, &cpu, page(number * 7), 2, Foll::PIN));
    }
    runs.extend(take(&kernel, &cpu, page(5), 1, Foll::GET));
    runs.extend(take(&kernel, &cpu, page(600), 1, Foll::PIN));
    runs.extend(take(&kernel, &cpu, page(6), 1, Foll::PIN));
    assert_eq!(kernel.counts(&cpu, RECORDED), (2 + 102, 101, 1));
    kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
    assert_eq!(kernel.counts(&cpu, RECORDED), (2, 0, 1));
    assert_eq!(kernel.counts(&cpu, RECORDED.wrapping_add(600)), (2, 0, 1));
    // Pins that somebody else has given back: an error, and the others go all the same.
    let mut runs = take(&kernel, &cpu, page(0), 4, Foll::PIN);
    kernel.mm.unpin_range(&cpu, RECORDED, 4, Access::Read).expect("pinned above");
    runs.extend(take(&kernel, &cpu, page(600), 1, Foll::PIN));
    let folio = Membership { head: RECORDED, order: 9 };
    let underflow = mm::folio::CountUnderflow { folio, held: 0, given_back: 4 };
    assert_eq!(kernel.mm.release_all(&cpu, runs, Access::Read), Err(ReleaseError::Underflow(underflow)));
    assert_eq!(kernel.counts(&cpu, RECORDED), (2, 0, 1), "nothing was changed");
    assert_eq!(kernel.counts(&cpu, RECORDED.wrapping_add(600)), (2, 0, 1));
    // More than is pinned of a folio: none of its pins goes.
    let runs = take(&kernel, &cpu, page(0), 2, Foll::PIN);
    let underflow = mm::folio::CountUnderflow { folio, held: 2, given_back: 3 };
    let refused = kernel.mm.unpin_range(&cpu, RECORDED.wrapping_add(1), 3, Access::Read);
    assert_eq!(refused, Err(ReleaseError::Underflow(underflow)));
    assert_eq!(kernel.counts(&cpu, RECORDED), (4, 2, 1), "nothing was changed");
    kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
    let nowhere = Frame::new(3);
    assert_eq!(kernel.mm.unpin_range(&cpu, nowhere, 1, Access::Read), Err(ReleaseError::NoRecord(nowhere)));
    let end = Frame::new(u64::MAX);
    assert_eq!(kernel.mm.unpin_range(&cpu, end, 2, Access::Read), Err(ReleaseError::NoRecord(end)));
}

/// The sum of a count is checked, not what it was before: one request of many pages could carry it over the limit, or round to 0.
#[test]
fn counts_do_not_overflow() {
    let kernel = kernel_with_device(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let small = RECORDED_SMALL;
    for (at, frame, pages, flags, weight) in [
        (page(512), small, 1, Foll::PIN, PIN_BIAS),
        (page(512), small, 1, Foll::GET, 1),
        (page(3), RECORDED, 400, Foll::PIN, 400),
        (page(3), RECORDED, 400, Foll::GET, 400),
    ] {
        take(&kernel, &cpu, at, 1, Foll::GET).into_iter().for_each(|run| {
            kernel.mm.release(&cpu, run, Access::Read).expect("held");
        });
        let record = kernel.memory.page(&cpu, frame).expect("a frame with a record");
        let before = cpu.load(record.refcount_word());
        for (count, fits) in [
            (COUNT_LIMIT - weight, true),
            (COUNT_LIMIT - weight + 1, false),
            (COUNT_LIMIT - 1, weight == 1),
            (COUNT_LIMIT, false),
            (i32::MAX as u32, false),
            (0x8000_0000, false),
            (u32::MAX - weight + 1, false),
            (u32::MAX, false),
        ] {
            cpu.store(record.refcount_word(), count);
            for path in [Foll::FAST_ONLY, Foll::NONE] {
                let mut runs = Vec::new();
                let got = kernel.mm.gup(&cpu, kernel.space, at, pages, flags | path, |run| runs.push(run));
                let refused = match path {
                    Foll::FAST_ONLY => Ok(0),
                    _ => Err(GupError::CountLimit { address: at }),
                };
                assert_eq!(got, if fits { Ok(pages) } else { refused }, "{count:#x} {flags:?}");
                let more = if fits { weight } else { 0 };
                assert_eq!(cpu.load(record.refcount_word()), count.wrapping_add(more));
                kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
                assert_eq!(cpu.load(record.refcount_word()), count, "{count:#x} {flags:?}");
            }
        }
        cpu.store(record.refcount_word(), before);
        if flags == Foll::PIN {
            let run = take(&kernel, &cpu, at, pages, flags).pop().expect("one leaf");
            let pinned = cpu.load(record.refcount_word());
            cpu.store(record.refcount_word(), COUNT_LIMIT - weight + 1);
            assert_eq!(kernel.mm.add_pin(&cpu, &run), Err(AddPinError::CountLimit(run.frame())));
            cpu.store(record.refcount_word(), pinned);
            kernel.mm.unpin(&cpu, run).expect("held");
        }
        assert_eq!(cpu.load(record.refcount_word()), before);
    }
}

/// Parts of huge leaves are runs on both paths, and split first if that is asked for.
#[test]
fn huge_leaves_are_runs_or_split() {
    let kernel = kernel_with_device(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    for (first, pages) in [(0, 512), (1, 511), (100, 7), (511, 1)] {
        for path in [Foll::NOFAULT, Foll::INTERRUPTIBLE] {
            kernel.fault(&cpu, page(first), Access::Write).expect("a page of the driver");
            let runs = take(&kernel, &cpu, page(first), pages, Foll::PIN | path);
            assert_eq!(runs.len(), 1, "{first} {pages} {path:?}");
            assert_eq!((runs[0].frame(), u64::from(runs[0].pages())), (RECORDED.wrapping_add(first), pages));
            kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
        }
    }
    assert_eq!(kernel.entry(&cpu, page(0)).map(|(level, _)| level), Some(Level::Pmd));
    let runs = take(&kernel, &cpu, page(100), 7, Foll::PIN | Foll::SPLIT_PMD);
    assert_eq!(
        runs.iter().map(Run::frame).collect::<Vec<_>>(),
        (100..107).map(|i| RECORDED.wrapping_add(i)).collect::<Vec<_>>()
    );
    assert_eq!(kernel.entry(&cpu, page(0)).map(|(level, _)| level), Some(Level::Pte));
    assert_eq!(kernel.counts(&cpu, RECORDED), (1 + 512 + 7, 7, 512));
    kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
    kernel.mm.munmap(&cpu, SPACE, AT, 1024).expect("whole tables");
    assert_eq!(kernel.counts(&cpu, RECORDED), (1, 0, 0));
    kernel.assert_all_is_back(&cpu);
}

/// What a driver's Retry makes of each flag and signal.
#[test]
fn busy_drivers_are_waited_for_or_not() {
    let kernel = kernel_with_device(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let waits = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&waits);
    kernel.on_fault(move |context| match (seen.load(Ordering::SeqCst), context.level()) {
        // Every second fault is told to wait.
        (waits, _) if waits % 2 == 0 => DriverAnswer::Retry,
        (_, Level::Pte) => {
            seen.fetch_add(1, Ordering::SeqCst);
            context.insert(&PfnLeaf::new(Level::Pte, RECORDED.wrapping_add(context.page()))).into()
        }
        _ => DriverAnswer::Fallback,
    });
    let waited = Arc::clone(&waits);
    kernel.on_wait(move |_, _| drop(waited.fetch_add(1, Ordering::SeqCst).to_string()));
    let ask = |flags, signal: Signal| {
        let mut runs = Vec::new();
        let got = kernel.mm.gup_until(&cpu, kernel.space, (page(700), 2), flags, || signal, |run| runs.push(run));
        kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
        kernel.mm.zap(&cpu, kernel.space, AT, 1024).expect("whole tables");
        (got, waits.swap(0, Ordering::SeqCst))
    };
    let address = page(700);
    assert_eq!(ask(Foll::PIN, Signal::None), (Ok(2), 4));
    assert_eq!(ask(Foll::PIN | Foll::NOWAIT, Signal::None), (Err(GupError::WouldBlock { address }), 0));
    assert_eq!(ask(Foll::PIN | Foll::INTERRUPTIBLE, Signal::Pending), (Err(GupError::Interrupted { address }), 0));
    assert_eq!(ask(Foll::PIN, Signal::Pending), (Ok(2), 4));
    assert_eq!(ask(Foll::PIN, Signal::Fatal), (Err(GupError::Interrupted { address }), 0));
    kernel.assert_all_is_back(&cpu);
}

#[test]
fn special_pages_are_refused_in_the_middle() {
    let kernel = kernel_with_device(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.insert_pfn(&cpu, kernel.space, page(602), &PfnLeaf::new(Level::Pte, VRAM), Access::Read).expect("free");
    let behind = page(1024);
    kernel.map(&cpu, behind, 4, PFN);
    let mut runs = Vec::new();
    let got = kernel.mm.gup(&cpu, kernel.space, page(600), 10, Foll::PIN, |run| runs.push(run));
    assert_eq!(got, Ok(2), "short");
    let got = kernel.mm.gup(&cpu, kernel.space, page(1022), 4, Foll::PIN, |run| runs.push(run));
    assert_eq!(got, Ok(2), "short, though nothing is mapped behind: the area says so");
    for at in [page(602), behind] {
        let got = kernel.mm.gup(&cpu, kernel.space, at, 1, Foll::GET, |_| panic!("special"));
        assert_eq!(got, Err(GupError::Special { address: at }));
    }
    kernel.mm.release_all(&cpu, runs, Access::Read).expect("held");
    kernel.assert_all_is_back(&cpu);
}

#[test]
fn devices_have_no_file_pages() {
    let kernel = kernel_with_device(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    for file in [MIXED, PFN] {
        let file = kernel.mm.file(file).expect("it is there");
        let got = kernel.mm.pin_file(&cpu, file, (3, 1), |_| panic!("no pages"));
        assert_eq!(got, Err(PinFileError::NotInMemory { page: 3 }));
    }
}
