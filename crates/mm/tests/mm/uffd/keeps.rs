//! How long protection lasts.

use super::*;
use crate::memory::{ANONYMOUS, CACHED, anonymous};
use mm::{AreaRights, RetractError, ShareError, Usage};

/// What happens, by name.
type Happening<'h> = (&'h str, &'h dyn Fn(&World));

/// Page 2 of memory that is protected, with 102 in it.
fn protected_page() -> World {
    let w = World::new();
    w.register(anonymous(AT, 8, 0), PROTECT);
    (0..8).for_each(|number| w.store(page(number), 100 + number).expect("memory"));
    w.protect(page(2), 1).expect("registered");
    w
}

#[test]
fn through_all_that_may_happen_to_the_page() {
    let frame = |w: &World| w.kernel.frame_at(&w.cpu, 0, page(2)).expect("mapped");
    let swap_out = |w: &World| w.kernel.mm.swap_out(&w.cpu, frame(w)).expect("nobody else uses it");
    let mprotect = |w: &World, rights| w.kernel.mm.mprotect(&w.cpu, ONE, AT, 8, rights).expect("an area");
    let cases: [Happening<'_>; 13] = [
        ("nothing", &|_| ()),
        ("swap", &swap_out),
        ("swap, and a load", &|w| {
            swap_out(w);
            assert_eq!(w.load(page(2)), Ok(102));
        }),
        ("migration", &|w| {
            w.kernel.mm.migrate(&w.cpu, frame(w)).expect("nobody else uses it");
        }),
        ("migration of the range", &|w| {
            w.kernel.mm.migrate_range(&w.cpu, w.kernel.space(0), AT, 8).map(drop).expect("whole tables");
        }),
        ("mprotect to read and back", &|w| {
            mprotect(w, AreaRights::Read);
            mprotect(w, AreaRights::ReadWrite);
        }),
        ("mprotect to none and back", &|w| {
            mprotect(w, AreaRights::None);
            mprotect(w, AreaRights::ReadWrite);
        }),
        ("mprotect to none, migration, and back, by way of swap", &|w| {
            mprotect(w, AreaRights::None);
            mprotect(w, AreaRights::Read);
            swap_out(w);
            mprotect(w, AreaRights::ReadWrite);
            assert_eq!(w.load(page(2)), Ok(102));
        }),
        ("write_protect", &|w| {
            w.kernel.mm.write_protect(&w.cpu, w.kernel.space(0), AT, 8).expect("whole tables");
        }),
        ("harvest", &|w| {
            let clear = Usage::SOFT_DIRTY.and(Usage::DIRTY).and(Usage::ACCESSED);
            w.kernel.mm.harvest(&w.cpu, w.kernel.space(0), (AT, 8), clear, |_| ()).expect("whole tables");
            assert_eq!(w.load(page(2)), Ok(102));
        }),
        ("a pin for reading", &|w| w.release(w.pin(page(2), Foll::PIN | Foll::LONGTERM))),
        ("fork, of whom the child writes", &|w| {
            w.kernel.mm.fork(&w.cpu, ONE, TWO).expect("enough frames");
            w.kernel.mm.switch(&w.cpu, w.kernel.space(0), w.kernel.space(1));
            w.assert_not_protected(1, page(2));
            w.kernel.mm.switch(&w.cpu, w.kernel.space(1), w.kernel.space(0));
        }),
        ("fork, and a pin that makes the page the parent's own", &|w| {
            w.kernel.mm.fork(&w.cpu, ONE, TWO).expect("enough frames");
            w.release(w.pin(page(2), Foll::PIN | Foll::LONGTERM));
        }),
    ];
    for (name, happens) in cases {
        let w = protected_page();
        happens(&w);
        println!("{name}");
        w.audit();
        assert_eq!(w.load(page(2)), Ok(102), "{name}");
        w.assert_not_protected(0, page(3));
        w.assert_protected(page(2));
        w.end();
    }
}

#[test]
fn what_is_protected_on_swap_or_prot_none_is_protected_afterwards() {
    let w = World::new();
    w.register(anonymous(AT, 8, 0), PROTECT);
    (0..8).for_each(|number| w.store(page(number), 100 + number).expect("memory"));
    w.kernel.mm.swap_out(&w.cpu, w.kernel.frame_at(&w.cpu, 0, page(1)).expect("mapped")).expect("nobody uses it");
    w.kernel.mm.mprotect(&w.cpu, ONE, page(2), 2, AreaRights::None).expect("an area");
    w.protect(AT, 4).expect("registered");
    w.kernel.mm.mprotect(&w.cpu, ONE, page(2), 2, AreaRights::ReadWrite).expect("an area");
    w.unprotect(page(3), 1).expect("registered");
    w.assert_protected(page(1));
    w.assert_protected(page(2));
    w.assert_not_protected(0, page(3));
    // And unprotected there.
    w.protect(page(4), 2).expect("registered");
    w.kernel.mm.swap_out(&w.cpu, w.kernel.frame_at(&w.cpu, 0, page(4)).expect("mapped")).expect("nobody uses it");
    w.kernel.mm.mprotect(&w.cpu, ONE, page(5), 1, AreaRights::None).expect("an area");
    w.unprotect(page(4), 2).expect("registered");
    w.kernel.mm.mprotect(&w.cpu, ONE, page(5), 1, AreaRights::ReadWrite).expect("an area");
    w.assert_not_protected(0, page(4));
    w.assert_not_protected(0, page(5));
    w.end();
}

#[test]
fn not_where_the_memory_goes_or_somebody_else_has_it() {
    let w = protected_page();
    let mm = w.kernel.mm;
    // The child, in every way in which it can get the page.
    w.kernel.mm.swap_out(&w.cpu, w.kernel.frame_at(&w.cpu, 0, page(2)).expect("mapped")).expect("nobody uses it");
    w.protect(page(3), 1).expect("registered");
    let pin = w.pin(page(3), Foll::PIN);
    mm.fork(&w.cpu, ONE, TWO).expect("enough frames");
    mm.switch(&w.cpu, w.kernel.space(0), w.kernel.space(1));
    w.assert_not_protected(1, page(2));
    w.assert_not_protected(1, page(3));
    mm.switch(&w.cpu, w.kernel.space(1), w.kernel.space(0));
    w.release(pin);
    w.assert_protected(page(2));
    // The new place of a move, and what is zapped.
    w.protect(AT, 8).expect("registered");
    mm.zap(&w.cpu, w.kernel.space(0), page(4), 1).expect("whole tables");
    w.assert_not_protected(0, page(4));
    mm.mremap(&w.cpu, ONE, (AT, 4), (ELSEWHERE, 4)).expect("nothing else is there");
    for number in 0..4 {
        w.assert_not_protected(0, ELSEWHERE.wrapping_add(number * 4096));
    }
    let unregistered = UffdError::NotRegistered { address: ELSEWHERE };
    assert_eq!(w.protect(ELSEWHERE, 1), Err(unregistered));
    w.assert_protected(page(5));
    // The end of the registration, also for that mode only.
    mm.uffd_register(&w.cpu, ONE, page(6), 1, MISSING).expect("anonymous memory");
    mm.uffd_unregister(&w.cpu, ONE, page(7), 1).expect("an area");
    w.assert_not_protected(0, page(6));
    w.assert_not_protected(0, page(7));
    w.end();
}

#[test]
fn of_a_files_page_that_went_a_marker_stays() {
    let goes: [Happening<'_>; 4] = [
        ("madvise(dontneed)", &|w| {
            w.kernel.mm.zap(&w.cpu, w.kernel.space(0), AT, 4).expect("whole tables");
        }),
        ("by rmap", &|w| {
            let file = w.kernel.mm.file(CACHED).expect("it is there");
            w.kernel.mm.unmap_mapping(&w.cpu, file, 0, 4).expect("whole tables");
        }),
        ("replaced", &|w| {
            let file = w.kernel.mm.file(CACHED).expect("it is there");
            let frame = w.kernel.new_file_page(&w.cpu, 2, 2);
            w.kernel.mm.replace_page(&w.cpu, file, 2, Some(frame)).expect("a page of the file");
        }),
        ("reclaimed", &|w| {
            let file = w.kernel.mm.file(CACHED).expect("it is there");
            w.kernel.mm.write_back(&w.cpu, file, 2, |_| ()).map(drop).expect("a page of the file");
            w.kernel.mm.drop_page(&w.cpu, file, 2).expect("clean, and nobody uses it");
            let frame = w.kernel.new_file_page(&w.cpu, 2, 2);
            w.kernel.mm.replace_page(&w.cpu, file, 2, Some(frame)).expect("an empty slot");
        }),
    ];
    for (name, go) in goes {
        let w = World::new();
        w.register(Area::shared(AT, 4, AreaRights::ReadWrite, CACHED, 0), PROTECT);
        (0..4).for_each(|number| assert_eq!(w.load(page(number)), Ok(number)));
        w.protect(page(2), 1).expect("registered");
        go(&w);
        println!("{name}");
        assert_eq!(w.kernel.frame_at(&w.cpu, 0, page(2)), None, "{name}");
        assert_eq!(w.load(page(2)), Ok(2), "{name}");
        w.assert_protected(page(2));
        w.assert_not_protected(0, page(1));
        // It goes with the area.
        w.protect(page(2), 1).expect("registered");
        go(&w);
        w.kernel.mm.munmap(&w.cpu, ONE, AT, 4).expect("an area");
        w.kernel.mm.mmap(&w.cpu, ONE, Area::shared(AT, 4, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
        w.assert_not_protected(0, page(2));
        w.end();
    }
}

#[test]
fn a_copy_that_was_in_a_files_private_area_leaves_a_marker_too() {
    let w = World::new();
    w.register(Area::private(AT, 4, AreaRights::ReadWrite, CACHED, 0), PROTECT);
    w.store(page(1), 9).expect("memory");
    w.store(page(2), 9).expect("memory");
    w.protect(AT, 4).expect("registered");
    let file = w.kernel.mm.file(ANONYMOUS).expect("it is there");
    w.kernel.mm.unmap_mapping(&w.cpu, file, 0, 4).expect("whole tables");
    w.kernel.mm.zap(&w.cpu, w.kernel.space(0), AT, 4).expect("whole tables");
    assert_eq!(w.load(page(1)), Ok(1), "the file's page again");
    w.assert_protected(page(1));
    w.assert_protected(page(2));
    w.end();
}

#[test]
fn a_table_is_nobody_elses() {
    let w = World::new();
    let area = Area::shared(AT, 512, AreaRights::ReadWrite, CACHED, 0);
    w.register(area, PROTECT);
    w.kernel.mm.mmap(&w.cpu, TWO, area).expect("a good area");
    assert_eq!(w.load(page(3)), Ok(3));
    let shared = w.kernel.mm.share_table(&w.cpu, (TWO, AT), (ONE, AT));
    assert_eq!(shared, Err(ShareError::Area { address: AT }));
    let retracted = w.kernel.mm.retract_table(&w.cpu, w.kernel.space(0), AT);
    assert_eq!(retracted, Err(RetractError::Area { address: AT }));
    // Who registers when a table is shared already leaves it as soon as something is protected.
    w.kernel.mm.uffd_unregister(&w.cpu, ONE, AT, 512).expect("an area");
    w.kernel.mm.share_table(&w.cpu, (TWO, AT), (ONE, AT)).expect("the same pages of one file");
    w.kernel.mm.uffd_register(&w.cpu, ONE, AT, 512, PROTECT).expect("a file");
    w.protect(page(3), 1).expect("registered");
    w.kernel.mm.switch(&w.cpu, w.kernel.space(0), w.kernel.space(1));
    w.assert_not_protected(1, page(3));
    w.kernel.mm.switch(&w.cpu, w.kernel.space(1), w.kernel.space(0));
    w.assert_protected(page(3));
    w.end();
}
