//! Equal pages become one, and a page of one's own again when it is written or pinned.

use machine::Access;
use mm::{AreaRights, FaultError, Foll, ReclaimError, Usage};
use pagetable::{Flags, Level};

use super::{AT, EXCLUSIVE, KSM, ONE, THREE, TWO, audit, end, frame, gup, page, two_spaces, written};

#[test]
fn equal_pages_become_one_and_a_store_makes_a_copy() {
    let (kernel, cpu) = two_spaces(7, 2);
    let (kept, gone) = (frame(&kernel, &cpu, 0, 0), frame(&kernel, &cpu, 1, 1));
    assert_eq!(kernel.mm.merge(&cpu, (ONE, page(0)), (TWO, page(1))), Ok(kept));
    assert_eq!(frame(&kernel, &cpu, 1, 1), kept);
    assert_eq!((kernel.counts(&cpu, kept), kernel.counts(&cpu, gone)), ((2, 0, 2), (0, 0, 0)));
    assert_eq!(kernel.flags(&cpu, kept) & (EXCLUSIVE | KSM), KSM);
    for (space, number) in [(0, 0), (1, 1)] {
        let leaf = kernel.leaf_at(&cpu, space, page(number)).expect("mapped").entry;
        assert!(!leaf.has(Flags::WRITE) && leaf.has(Flags::DIRTY.and(Flags::soft_dirty(Level::Pte))));
    }
    // A third and a fourth; a fork adds another.
    assert_eq!(kernel.mm.merge(&cpu, (TWO, page(1)), (ONE, page(1))), Ok(kept));
    assert_eq!(kernel.mm.merge(&cpu, (ONE, page(1)), (TWO, page(0))), Ok(kept));
    kernel.mm.fork(&cpu, ONE, THREE).expect("room for a child");
    assert_eq!((kernel.counts(&cpu, kept), kernel.data.in_use()), ((6, 0, 6), 1));
    audit(&kernel, &cpu, []);

    kernel.store(&cpu, 0, page(0), 8).expect("memory");
    kernel.store(&cpu, 1, page(1), 9).expect("memory");
    for (space, words) in [(0, [8, 7]), (1, [7, 9]), (2, [7, 7])] {
        assert_eq!([0, 1].map(|number| kernel.load(&cpu, space, page(number))), words.map(Ok));
    }
    assert_eq!(kernel.counts(&cpu, kept), (4, 0, 4));
    let copy = frame(&kernel, &cpu, 0, 0);
    assert_eq!(kernel.flags(&cpu, copy) & (EXCLUSIVE | KSM), EXCLUSIVE);
    assert!(kernel.mm.migrate(&cpu, copy).is_ok(), "the copy's record says where it is mapped");
    audit(&kernel, &cpu, []);
    end(&kernel, &cpu);
}

#[test]
fn the_last_user_copies_too_because_the_record_is_anothers() {
    let (kernel, cpu) = two_spaces(7, 1);
    let kept = kernel.mm.merge(&cpu, (ONE, AT), (TWO, AT)).expect("equal");
    kernel.mm.munmap(&cpu, ONE, AT, 1).expect("it is mapped");
    assert_eq!(kernel.counts(&cpu, kept), (1, 0, 1));
    for refused in [kernel.mm.swap_out(&cpu, kept), kernel.mm.migrate(&cpu, kept).map(drop)] {
        assert_eq!(refused, Err(ReclaimError::Unmovable { frame: kept }));
    }
    assert_eq!(kernel.mm.migrate_range(&cpu, kernel.space(1), AT, 1), Ok(0));
    kernel.store(&cpu, 1, AT, 8).expect("memory");
    let own = frame(&kernel, &cpu, 1, 0);
    assert_ne!(own, kept);
    assert_eq!((kernel.counts(&cpu, own), kernel.data.in_use()), ((1, 0, 1), 1));
    assert_eq!(kernel.mm.swap_out(&cpu, own), Ok(()));
    assert_eq!(kernel.load(&cpu, 1, AT), Ok(8));
    end(&kernel, &cpu);
}

#[test]
fn a_pin_of_a_merged_page_is_of_a_page_of_ones_own() {
    let (kernel, cpu) = two_spaces(7, 3);
    for number in 0..3 {
        kernel.mm.merge(&cpu, (TWO, page(0)), (ONE, page(number))).expect("equal");
    }
    let merged = frame(&kernel, &cpu, 1, 0);
    let get = gup(&kernel, &cpu, page(0), Foll::GET);
    assert_eq!(get.frame(), merged, "who only looks may look at what others see");
    let fast = kernel.mm.gup(&cpu, kernel.space(0), page(0), 1, Foll::PIN | Foll::FAST_ONLY, |_| ());
    assert_eq!(fast, Ok(0), "without a lock nobody makes it one's own");
    let pins = [gup(&kernel, &cpu, page(0), Foll::PIN), gup(&kernel, &cpu, page(1), Foll::PIN | Foll::WRITE)];
    for (number, pin) in pins.iter().enumerate() {
        kernel.store(&cpu, 0, page(number as u64), 50).expect("memory");
        assert_eq!((pin.frame() == merged, kernel.data.read(pin.frame(), 0)), (false, 50), "pin {number}");
    }
    kernel.mm.mprotect(&cpu, ONE, page(2), 1, AreaRights::Read).expect("it is mapped");
    let forced = gup(&kernel, &cpu, page(2), Foll::PIN | Foll::WRITE | Foll::FORCE);
    assert_ne!(forced.frame(), merged, "a debugger writes into a copy");
    assert_eq!((kernel.load(&cpu, 1, page(0)), kernel.data.read(get.frame(), 0)), (Ok(7), 7));
    audit(&kernel, &cpu, pins.iter().chain([&get, &forced]));
    for run in pins.into_iter().chain([get, forced]) {
        kernel.mm.release(&cpu, run, Access::Read).expect("held");
    }
    end(&kernel, &cpu);
}

/// A store to a merged page, and a pin of one, without a frame for the copy: everything is as it was, and works later.
#[test]
fn without_a_frame_a_merged_page_stays_merged() {
    let (kernel, cpu) = two_spaces(7, 1);
    let merged = kernel.mm.merge(&cpu, (ONE, AT), (TWO, AT)).expect("equal");
    let before = audit(&kernel, &cpu, []).stretches;
    kernel.failures.fail_at(1);
    assert_eq!(kernel.store(&cpu, 0, AT, 8), Err(FaultError::OutOfFrames));
    kernel.failures.fail_at(1);
    let pinned = kernel.mm.gup(&cpu, kernel.space(0), AT, 1, Foll::PIN, |_| ());
    assert_eq!(pinned, Err(FaultError::OutOfFrames.into()));
    kernel.failures.fail_at(0);
    assert_eq!((audit(&kernel, &cpu, []).stretches, kernel.counts(&cpu, merged)), (before, (2, 0, 2)));
    kernel.store(&cpu, 0, AT, 8).expect("memory");
    assert_eq!((kernel.load(&cpu, 0, AT), kernel.load(&cpu, 1, AT)), (Ok(8), Ok(7)));
    end(&kernel, &cpu);
}

/// What an address space has written counts as written wherever the page is by now; and no more than that.
#[test]
fn marks_survive_merges_and_copies() {
    let (kernel, cpu) = two_spaces(7, 2);
    written(&kernel, &cpu, Usage::SOFT_DIRTY);
    kernel.store(&cpu, 0, page(1), 7).expect("memory");
    for number in 0..2 {
        kernel.mm.merge(&cpu, (TWO, page(number)), (ONE, page(number))).expect("equal");
    }
    assert_eq!(written(&kernel, &cpu, Usage::NONE), [page(1)]);
    assert_eq!(kernel.mm.unmerge(&cpu, kernel.space(0), AT, 2), Ok(2));
    assert_eq!(written(&kernel, &cpu, Usage::NONE), [page(1)], "copies remember");
    // The same of a page that a fork has shared and a pin for reading unshares.
    kernel.mm.fork(&cpu, ONE, THREE).expect("room for a child");
    let run = gup(&kernel, &cpu, page(1), Foll::PIN);
    assert_eq!(written(&kernel, &cpu, Usage::NONE), [page(1)]);
    kernel.mm.release(&cpu, run, Access::Read).expect("held");
    end(&kernel, &cpu);
}

/// A device that translates by a copy of the page table forgets both places.
#[test]
fn secondary_tlbs_are_told() {
    let (kernel, cpu) = two_spaces(7, 2);
    for number in 0..2 {
        let entry = kernel.leaf_at(&cpu, 0, page(number)).expect("mapped").entry;
        kernel.shadow.pages.lock().expect("nobody panicked").insert(page(number), entry);
    }
    kernel.mm.merge(&cpu, (ONE, page(0)), (ONE, page(1))).expect("equal");
    assert!(kernel.shadow.pages.lock().expect("nobody panicked").is_empty());
    end(&kernel, &cpu);
}
