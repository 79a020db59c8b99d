//! Following a driver's entries, secondary TLBs that do, and page records that go away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::driver::{CACHED, Kernel, MIXED, PFN, RECORDED, RECORDED_SMALL, VRAM};
use machine::{Access, Frame, VirtAddr};
use mm::special::{DeviceState, KillError, Special};
use mm::{DriverAnswer, Foll, FollowError, InsertError, Inserted, MemoryMap, PfnLeaf};
use pagetable::Level;

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);

#[test]
fn what_is_mapped_is_followed_at_every_level() {
    for level in [Level::Pte, Level::Pmd, Level::Pud] {
        let kernel = Kernel::build(1);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.map(&cpu, AT, level.frames(), PFN);
        let follow = |at| kernel.mm.follow_pfnmap(&cpu, kernel.space, at);
        assert_eq!(follow(AT).err(), Some(FollowError::NotMapped { address: AT }));
        let leaf = PfnLeaf::new(level, VRAM).with_rights(mm::AreaRights::Read);
        kernel.mm.insert_pfn(&cpu, kernel.space, AT, &leaf, Access::Read).expect("a free place");
        let page = level.frames() / 3;
        let followed = follow(AT.wrapping_add(page * 4096 + 5)).expect("mapped");
        assert_eq!((followed.frame(), followed.level()), (VRAM.wrapping_add(page), level));
        assert_eq!((followed.allows(Access::Read), followed.allows(Access::Write)), (true, false));
        assert_eq!(followed.special(), Special::Yes);
        followed.end();
        kernel.mm.insert_pfn(&cpu, kernel.space, AT, &PfnLeaf::new(level, VRAM), Access::Write).expect("the same");
        assert!(follow(AT).expect("mapped").allows(Access::Write));
        // The locks are free again.
        kernel.assert_all_is_back(&cpu);
    }
}

#[test]
fn only_pfn_mapped_areas_are_followed() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    for (number, file) in [MIXED, CACHED].into_iter().enumerate() {
        let at = AT.wrapping_add(number as u64 * 4096);
        kernel.map(&cpu, at, 1, file);
        let error = kernel.mm.follow_pfnmap(&cpu, kernel.space, at).err();
        assert_eq!(error, Some(FollowError::NotPfnMapped { file }));
    }
    let nowhere = AT.wrapping_add(1 << 30);
    let error = kernel.mm.follow_pfnmap(&cpu, kernel.space, nowhere).err();
    assert_eq!(error, Some(FollowError::NoArea { address: nowhere }));
    kernel.assert_all_is_back(&cpu);
}

/// While what was followed is held, nobody takes it away.
#[test]
fn a_revoke_waits_for_who_follows() {
    let kernel = Kernel::build(2);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.map(&cpu, AT, 1, PFN);
    let leaf = PfnLeaf::new(Level::Pte, VRAM);
    kernel.mm.insert_pfn(&cpu, kernel.space, AT, &leaf, Access::Read).expect("a free place");
    let revoked = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let followed = kernel.mm.follow_pfnmap(&cpu, kernel.space, AT).expect("mapped");
        scope.spawn(|| {
            let other = kernel.machine.attach().expect("a free CPU");
            let file = kernel.mm.file(PFN).expect("it is there");
            kernel.mm.unmap_mapping(&other, file, 0, 1).expect("whole tables");
            revoked.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(!revoked.load(Ordering::SeqCst), "the entry is held");
        assert_eq!(followed.frame(), VRAM);
        followed.end();
        // The revoke asks this CPU to flush: it must be able to take the interrupt.
        while !revoked.load(Ordering::SeqCst) {
            machine::Cpu::load(&cpu, kernel.space.active_word());
        }
    });
    assert_eq!(kernel.entry(&cpu, AT), None);
    kernel.assert_all_is_back(&cpu);
}

/// A secondary TLB that follows entries and counts invalidations never keeps a frame that was taken back.
#[test]
fn secondary_tlbs_never_keep_what_was_revoked() {
    const ROUNDS: u64 = 20_000;
    let kernel = Kernel::build(2);
    // Where the driver has the page now: always a frame that never was there before.
    let place = Arc::new(AtomicU64::new(0));
    let current = Arc::clone(&place);
    kernel.on_fault(move |context| {
        let driver = context.file().driver_lock().lock(context.cpu());
        let frame = VRAM.wrapping_add(current.load(Ordering::SeqCst));
        let inserted = context.insert(&PfnLeaf::new(Level::Pte, frame));
        driver.unlock();
        inserted.into()
    });
    let done = AtomicBool::new(false);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.map(&cpu, AT, 1, PFN);
    }
    let filled = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let filled = &filled;
        let (kernel, done, place) = (&kernel, &done, &place);
        scope.spawn(move || {
            let cpu = kernel.machine.attach().expect("a free CPU");
            kernel.mm.enter(&cpu, kernel.space);
            while !done.load(Ordering::SeqCst) {
                let seen = kernel.listener.invalidations.begin(&cpu);
                let frame = match kernel.mm.follow_pfnmap(&cpu, kernel.space, AT) {
                    Ok(followed) => followed.frame(),
                    Err(FollowError::NotMapped { .. }) => {
                        kernel.fault(&cpu, AT, Access::Read).expect("the driver has a frame");
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                let mut entry = kernel.listener.entry.lock().expect("nobody panicked");
                if !kernel.listener.invalidations.changed(&cpu, seen) {
                    *entry = Some((AT, frame));
                    filled.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        scope.spawn(move || {
            let cpu = kernel.machine.attach().expect("a free CPU");
            kernel.mm.enter(&cpu, kernel.space);
            let file = kernel.mm.file(PFN).expect("it is there");
            let is_enough = |round| round > ROUNDS && filled.load(Ordering::SeqCst) > 0;
            for round in (1..).take_while(|round| !is_enough(*round)) {
                let moved = kernel.mm.revoke(&cpu, file, 0, 1, |_| {
                    let entry = *kernel.listener.entry.lock().expect("nobody panicked");
                    assert_eq!(entry, None, "the page is nowhere now");
                    place.store(round % (1 << 20), Ordering::SeqCst);
                });
                moved.expect("whole tables");
                let entry = *kernel.listener.entry.lock().expect("nobody panicked");
                let now = VRAM.wrapping_add(round % (1 << 20));
                assert!(entry.is_none_or(|entry| entry == (AT, now)), "{entry:?} after {now}");
                if round % 64 == 0 {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
    });
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.assert_all_is_back(&cpu);
}

/// A huge leaf counts once, in one folio: small ones side by side are mapped one by one.
#[test]
fn a_huge_leaf_of_small_folios_is_not_mapped() {
    let kernel = Kernel::build(1);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.map(&cpu, AT, 1024, MIXED);
    let insert = |at, leaf| kernel.mm.insert_pfn(&cpu, kernel.space, at, &leaf, Access::Read);
    let level = Level::Pmd;
    assert_eq!(insert(AT, PfnLeaf::new(level, RECORDED_SMALL)), Err(InsertError::Fallback { level }));
    assert_eq!(kernel.counts(&cpu, RECORDED_SMALL), (1, 0, 0), "only the driver's reference");
    assert_eq!(insert(AT, PfnLeaf::new(Level::Pte, RECORDED_SMALL)), Ok(Inserted::New));
    assert_eq!(insert(AT.wrapping_add(level.size()), PfnLeaf::new(level, RECORDED)), Ok(Inserted::New));
    assert_eq!([RECORDED_SMALL, RECORDED].map(|frame| kernel.counts(&cpu, frame)), [(2, 0, 1); 2]);
    kernel.assert_all_is_back(&cpu);
}

#[test]
fn records_go_only_after_the_last_reference() {
    let kernel = Kernel::build(2);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.map(&cpu, AT, 1024, MIXED);
    kernel.on_fault(|context| match context.level() {
        Level::Pmd if context.leaf_page() == 0 => context.insert(&PfnLeaf::new(Level::Pmd, RECORDED)).into(),
        Level::Pte if context.page() >= 512 => {
            context.insert(&PfnLeaf::new(Level::Pte, RECORDED.wrapping_add(context.page()))).into()
        }
        _ => DriverAnswer::Fallback,
    });
    let small = AT.wrapping_add(600 * 4096);
    let mut runs = Vec::new();
    for (at, pages) in [(AT.wrapping_add(4096), 3), (small, 1)] {
        let got = kernel.mm.gup(&cpu, kernel.space, at, pages, Foll::PIN, |run| runs.push(run));
        assert_eq!(got, Ok(pages));
    }
    let device = &kernel.memory.device;
    let file = kernel.mm.file(MIXED).expect("it is there");
    assert_eq!(device.state(&cpu), DeviceState::Live);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let other = kernel.machine.attach().expect("a free CPU");
            kernel.mm.kill_device_pages(&other, device, file)
        });
        while kernel.entry(&cpu, small).is_some() {
            machine::Cpu::load(&cpu, device.state_word());
        }
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(device.state(&cpu), DeviceState::Dying, "two pins are held");
        assert!(!killer.is_finished());
        // The handler still has the frames: it is refused, so nobody can get a new reference.
        let foreign = InsertError::Foreign { frame: RECORDED.wrapping_add(600) };
        let fault = kernel.fault(&cpu, small, Access::Read);
        assert_eq!(fault, Err(mm::FaultError::Driver(foreign)));
        let again = kernel.mm.kill_device_pages(&cpu, device, file);
        assert_eq!(again, Err(KillError::NotLive(DeviceState::Dying)));
        let counts: Vec<_> = [RECORDED, RECORDED.wrapping_add(600)].map(|frame| kernel.counts(&cpu, frame)).into();
        assert_eq!(counts, [(3, 3, 0), (mm::folio::PIN_BIAS, 0, 0)]);
        // One after the other is given back.
        let last = runs.pop().expect("two runs");
        runs.drain(..).for_each(|run| kernel.mm.release(&cpu, run, Access::Read).expect("held"));
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(device.state(&cpu), DeviceState::Dying, "one pin is held");
        kernel.mm.release(&cpu, last, Access::Read).expect("held");
        while !killer.is_finished() {
            machine::Cpu::load(&cpu, device.state_word());
        }
        assert_eq!(killer.join().expect("it did not panic"), Ok(()));
    });
    assert_eq!(device.state(&cpu), DeviceState::Gone);
    assert!(kernel.memory.page(&cpu, RECORDED).is_none() && kernel.memory.page(&cpu, RECORDED_SMALL).is_none());
    let mut given_back = kernel.memory.given_back.lock().expect("nobody panicked").clone();
    given_back.sort_unstable();
    let all: Vec<Frame> = [RECORDED].into_iter().chain((0..512).map(|i| RECORDED_SMALL.wrapping_add(i))).collect();
    assert_eq!(given_back, all, "every folio once");
    // Without records the frames are those of an undeclared device.
    let gone = InsertError::OutsideDeclared { frame: RECORDED.wrapping_add(600) };
    assert_eq!(kernel.fault(&cpu, small, Access::Read), Err(mm::FaultError::Driver(gone)));
    kernel.assert_all_is_back(&cpu);
}

/// Faults, pins and the end of the device, all at once.
#[test]
fn a_device_dies_under_load() {
    let kernel = Kernel::build(3);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.map(&cpu, AT, 1024, MIXED);
    }
    kernel.on_fault(|context| match context.level() {
        Level::Pmd if context.leaf_page() == 0 => context.insert(&PfnLeaf::new(Level::Pmd, RECORDED)).into(),
        Level::Pte if context.page() >= 512 => {
            let like = PfnLeaf::new(Level::Pte, VRAM);
            context.insert_pages(16, &like, |page| Some(RECORDED.wrapping_add(page))).map(|_| mm::Inserted::New).into()
        }
        _ => DriverAnswer::Fallback,
    });
    let pinned = Mutex::new(0_u64);
    std::thread::scope(|scope| {
        let (kernel, pinned) = (&kernel, &pinned);
        for number in 0..2_u64 {
            scope.spawn(move || {
                let cpu = kernel.machine.attach().expect("a free CPU");
                kernel.mm.enter(&cpu, kernel.space);
                let mut taken = 0;
                let mut page = number * 37;
                while kernel.memory.device.state(&cpu) != DeviceState::Gone {
                    page = (page * 5 + 17) % 1000;
                    let mut runs = Vec::new();
                    let at = AT.wrapping_add(page * 4096);
                    let _ = kernel.mm.gup(&cpu, kernel.space, at, 8, Foll::PIN | Foll::WRITE, |run| runs.push(run));
                    taken += runs.len() as u64;
                    runs.into_iter().for_each(|run| kernel.mm.release(&cpu, run, Access::Write).expect("held"));
                    if page % 7 == 0 {
                        kernel.mm.zap(&cpu, kernel.space, at, 8).expect("whole tables");
                    }
                }
                *pinned.lock().expect("nobody panicked") += taken;
            });
        }
        scope.spawn(move || {
            let cpu = kernel.machine.attach().expect("a free CPU");
            kernel.mm.enter(&cpu, kernel.space);
            std::thread::sleep(Duration::from_millis(50));
            let file = kernel.mm.file(MIXED).expect("it is there");
            kernel.mm.kill_device_pages(&cpu, &kernel.memory.device, file).expect("it lives");
        });
    });
    assert!(*pinned.lock().expect("nobody panicked") > 0);
    assert_eq!(kernel.memory.given_back.lock().expect("nobody panicked").len(), 513, "every folio once");
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.assert_all_is_back(&cpu);
}
