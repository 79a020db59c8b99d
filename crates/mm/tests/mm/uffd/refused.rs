//! What cannot be registered, filled in or protected.

use super::*;
use crate::common;
use crate::memory::{CACHED, CACHED_HUGE, anonymous};
use machine::Frame;
use mm::{AreaError, AreaRights, MergeError, RangeError, UffdRegisterError, Unmergeable};

#[test]
fn only_where_somebody_can_resolve_the_fault() {
    let w = World::new();
    let mm = w.kernel.mm;
    let huge = Area::shared(ELSEWHERE, 512, AreaRights::ReadWrite, CACHED_HUGE, 0);
    let file = Area::shared(page(8), 4, AreaRights::ReadWrite, CACHED, 0);
    mm.mmap(&w.cpu, ONE, huge).expect("a good area");
    mm.mmap(&w.cpu, ONE, anonymous(AT, 4, 0)).expect("a good area");
    mm.mmap(&w.cpu, ONE, file).expect("a good area");
    let register = |at, pages, modes| mm.uffd_register(&w.cpu, ONE, at, pages, modes);
    assert_eq!(register(ELSEWHERE, 512, PROTECT), Err(UffdRegisterError::Unsuitable { area: huge }));
    assert_eq!(register(page(9), 1, MISSING), Err(UffdRegisterError::Unsuitable { area: file }));
    let hole = AreaError::NoArea { address: page(4) };
    assert_eq!(register(AT, 10, PROTECT), Err(UffdRegisterError::Area(hole)));
    let nobody = SpaceId::new(99);
    let unknown = mm.uffd_register(&w.cpu, nobody, AT, 1, MISSING);
    assert_eq!(unknown, Err(UffdRegisterError::Area(AreaError::NoSpace(nobody))));
    let odd = AT.wrapping_add(1);
    let misaligned = RangeError::Misaligned { address: odd };
    assert_eq!(register(odd, 1, MISSING), Err(UffdRegisterError::Area(AreaError::Range(misaligned))));
    // Whatever was refused has changed nothing: nobody is told.
    w.store(AT, 1).expect("memory");
    w.store(page(8), 1).expect("memory");
    assert_eq!(w.kernel.uffd.take_told(), []);
    // Nor is what `mmap` is told.
    let unasked = Area { uffd: MISSING, ..anonymous(page(20), 4, 20) };
    mm.mmap(&w.cpu, ONE, unasked).expect("a good area");
    assert_eq!(w.load(page(20)), Ok(0));
    w.end();
}

#[test]
fn only_what_is_registered() {
    let w = World::new();
    w.register(anonymous(AT, 4, 0), MISSING);
    w.register(Area::shared(page(8), 4, AreaRights::ReadWrite, CACHED, 0), PROTECT);
    w.kernel.mm.mmap(&w.cpu, ONE, anonymous(page(4), 2, 4)).expect("a good area");
    let failed = |pages, error| Err(UffdFillError { pages, error });
    let copy = |at, pages| {
        let fill = |_, _: Frame| ();
        w.kernel.mm.uffd_copy(&w.cpu, w.kernel.space(0), (at, pages), UffdProtection::None, fill)
    };
    assert_eq!(copy(page(4), 1), failed(0, UffdError::NotRegistered { address: page(4) }));
    assert_eq!(copy(page(3), 2), failed(1, UffdError::NotRegistered { address: page(4) }));
    let area = Area { uffd: PROTECT, ..Area::shared(page(8), 4, AreaRights::ReadWrite, CACHED, 0) };
    assert_eq!(copy(page(8), 1), failed(0, UffdError::Unsuitable { area }));
    let odd = AT.wrapping_add(8);
    assert_eq!(copy(odd, 1), failed(0, UffdError::Range(RangeError::Misaligned { address: odd })));
    for change in [World::protect, World::unprotect] {
        assert_eq!(change(&w, AT, 1), Err(UffdError::NotRegistered { address: AT }), "for missing pages only");
        assert_eq!(change(&w, page(8), 5), Err(UffdError::NotRegistered { address: page(12) }));
        assert_eq!(change(&w, odd, 1), Err(UffdError::Range(RangeError::Misaligned { address: odd })));
    }
    w.assert_not_protected(0, page(9));
    w.end();
}

#[test]
fn no_merge_of_what_is_protected() {
    let w = World::new();
    w.register(anonymous(AT, 4, 0), PROTECT);
    (0..2).for_each(|number| w.store(page(number), 5).expect("memory"));
    w.protect(AT, 1).expect("registered");
    let merge = |one, other| w.kernel.mm.merge(&w.cpu, (ONE, one), (ONE, other));
    assert_eq!(merge(AT, page(1)), Err(MergeError::Into(Unmergeable::WriteProtected)));
    assert_eq!(merge(page(1), AT), Err(MergeError::From(Unmergeable::WriteProtected)));
    w.assert_protected(AT);
    w.end();
}

#[test]
fn nothing_without_a_userfaultfd() {
    let kernel = common::Kernel::build(1, 16, mm::FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let area = common::area(0x4000_0000, 4, common::CACHED);
    kernel.mm.mmap(&cpu, common::SPACE, area).expect("a good area");
    let registered = kernel.mm.uffd_register(&cpu, common::SPACE, area.start, 4, PROTECT);
    assert_eq!(registered, Err(UffdRegisterError::Unsupported { modes: PROTECT }));
    kernel.mm.uffd_unregister(&cpu, common::SPACE, area.start, 4).expect("nothing to do");
}
