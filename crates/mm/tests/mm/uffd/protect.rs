//! Stores to what is protected.

use super::*;
use crate::memory::{CACHED, anonymous};
use mm::{AreaRights, GupError, Signal};
use pagetable::Level;

#[test]
fn a_store_waits_until_the_page_is_not_protected() {
    let w = World::new();
    w.register(anonymous(AT, 8, 0), PROTECT);
    (0..4).for_each(|number| w.store(page(number), number).expect("memory"));
    assert_eq!(w.load(page(4)), Ok(0), "the zero page");
    w.protect(page(1), 5).expect("registered");
    let words: Vec<_> = (0..6).map(|number| w.load(page(number))).collect();
    assert_eq!(words, [Ok(0), Ok(1), Ok(2), Ok(3), Ok(0), Ok(0)], "loads wait for nobody");
    w.protect(page(1), 5).expect("again: nothing changes");
    w.assert_not_protected(0, AT);
    for number in [1, 3, 4] {
        w.assert_protected(page(number));
    }
    // What was not mapped is not protected, and what is not protected can be unprotected.
    w.kernel.mm.zap(&w.cpu, w.kernel.space(0), page(2), 1).expect("whole tables");
    w.assert_not_protected(0, page(2));
    w.store(page(7), 1).expect("memory");
    w.unprotect(AT, 8).expect("registered");
    w.assert_not_protected(0, page(7));
    w.end();
}

#[test]
fn a_page_can_come_protected() {
    let w = World::new();
    w.register(anonymous(AT, 8, 0), MISSING.and(PROTECT));
    w.copy(page(1), 5, UffdProtection::WriteProtected).expect("nothing is there");
    w.copy(page(2), 6, UffdProtection::None).expect("nothing is there");
    assert_eq!((w.load(page(1)), w.load(page(2))), (Ok(5), Ok(6)));
    w.assert_protected(page(1));
    w.assert_not_protected(0, page(2));
    w.end();
}

#[test]
fn a_files_pages_are_protected_before_they_are_mapped() {
    let w = World::new();
    let (shared, private) = (AT, page(16));
    w.register(Area::shared(shared, 8, AreaRights::ReadWrite, CACHED, 0), PROTECT);
    w.register(Area::private(private, 8, AreaRights::ReadWrite, CACHED, 8), PROTECT);
    assert_eq!((w.load(page(0)), w.load(page(16))), (Ok(0), Ok(8)));
    w.protect(AT, 6).expect("registered");
    w.protect(private, 6).expect("registered");
    for (area, first) in [(shared, 0), (private, 8)] {
        // Mapped already; read when it was protected; written first thing.
        assert_eq!(w.load(area.wrapping_add(4096)), Ok(first + 1));
        for number in 0..3 {
            w.assert_protected(area.wrapping_add(number * 4096));
        }
        // Unprotected while nothing is there.
        w.unprotect(area.wrapping_add(3 * 4096), 1).expect("registered");
        w.assert_not_protected(0, area.wrapping_add(3 * 4096));
        w.assert_not_protected(0, area.wrapping_add(6 * 4096));
        // The end of the registration is the end of what was to be protected.
        w.kernel.mm.uffd_unregister(&w.cpu, ONE, area, 8).expect("an area");
        w.assert_not_protected(0, area.wrapping_add(4 * 4096));
        w.assert_not_protected(0, area.wrapping_add(5 * 4096));
    }
    w.end();
}

#[test]
fn nobody_writes_by_gup_either() {
    let w = World::new();
    w.register(anonymous(AT, 4, 0), PROTECT);
    (0..4).for_each(|number| w.store(page(number), number).expect("memory"));
    w.protect(AT, 4).expect("registered");
    let (mm, space) = (w.kernel.mm, w.kernel.space(0));
    for flags in [Foll::PIN | Foll::WRITE | Foll::FAST_ONLY, Foll::GET | Foll::WRITE | Foll::FAST_ONLY] {
        assert_eq!(mm.gup(&w.cpu, space, AT, 1, flags, |_| panic!("a page")), Ok(0));
    }
    let signal = || Signal::None;
    let nowait = mm.gup_remote(&w.cpu, space, (AT, 1), Foll::GET | Foll::WRITE | Foll::NOWAIT, signal, |_| panic!());
    assert_eq!(nowait, Err(GupError::WouldBlock { address: AT }));
    // Who reads does not wait.
    w.release(w.pin(AT, Foll::PIN | Foll::LONGTERM));
    assert_eq!(w.kernel.uffd.take_told(), []);
    w.resolve_by_unprotecting();
    w.release(w.pin(AT, Foll::PIN | Foll::WRITE));
    assert_eq!(w.kernel.uffd.take_told(), [protected(AT)]);
    // Nor does force help, where the area allows no writing at all.
    mm.mprotect(&w.cpu, ONE, page(1), 1, AreaRights::Read).expect("an area");
    w.release(w.pin(page(1), Foll::GET | Foll::WRITE | Foll::FORCE));
    assert_eq!(w.kernel.uffd.take_told(), [protected(page(1))]);
    w.end();
}

#[test]
fn huge_pages() {
    let w = World::new();
    w.kernel.mm.mmap(&w.cpu, ONE, anonymous(AT, 1024, 0).with_huge_pages()).expect("a good area");
    (0..1024).for_each(|number| w.store(page(number), number).expect("memory"));
    w.kernel.mm.uffd_register(&w.cpu, ONE, AT, 1024, PROTECT).expect("anonymous memory");
    let level = |number| w.kernel.leaf_at(&w.cpu, 0, page(number)).map(|leaf| leaf.level);
    // One stays whole, and is handed over whole; of the other part is protected.
    w.protect(AT, 520).expect("registered");
    assert_eq!((level(0), level(512)), (Some(Level::Pmd), Some(Level::Pte)));
    w.resolve_by_unprotecting();
    w.assert_not_protected(0, page(520));
    w.assert_protected(page(519));
    w.assert_protected(page(7));
    assert_eq!(level(0), Some(Level::Pte), "only page 7 was unprotected");
    w.assert_protected(page(8));
    (9..519).for_each(|number| assert_eq!(w.load(page(number)), Ok(number)));
    w.end();
}
