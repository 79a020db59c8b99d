//! Pages that are not there.

use super::*;
use crate::memory::anonymous;
use mm::{GupError, Signal};

#[test]
fn an_access_waits_for_its_page() {
    let w = World::new();
    w.register(anonymous(AT, 8, 0), MISSING);
    let kernel = w.kernel.clone();
    w.kernel.uffd.resolve_by(move |cpu, fault| {
        let word = fault.address.as_u64();
        copy(&kernel, cpu, fault.address, word, UffdProtection::None).expect("nothing is there");
    });
    assert_eq!(w.load(page(1)), Ok(page(1).as_u64()));
    w.store(page(2), 5).expect("memory");
    assert_eq!((w.load(page(1)), w.load(page(2))), (Ok(page(1).as_u64()), Ok(5)));
    let told = [missing(1, Access::Read), missing(2, Access::Write)];
    assert_eq!(w.kernel.uffd.take_told(), told, "each once: what is there is there");
    // What went is missing again.
    w.kernel.mm.zap(&w.cpu, w.kernel.space(0), page(1), 1).expect("whole tables");
    assert_eq!(w.load(page(1)), Ok(page(1).as_u64()));
    assert_eq!(w.kernel.uffd.take_told(), [missing(1, Access::Read)]);
    // A page on swap is not missing.
    w.kernel.mm.swap_out(&w.cpu, w.kernel.frame_at(&w.cpu, 0, page(2)).expect("mapped")).expect("nobody uses it");
    assert_eq!(w.load(page(2)), Ok(5));
    assert_eq!(w.kernel.uffd.take_told(), []);
    w.end();
}

#[test]
fn pages_are_filled_where_nothing_is_and_nowhere_else() {
    let w = World::new();
    w.register(anonymous(AT, 8, 0), MISSING);
    let space = w.kernel.space(0);
    let fill = |number, frame| w.kernel.data.write(frame, 0, 100 + number);
    w.copy(page(3), 7, UffdProtection::None).expect("nothing is there");
    let copied = w.kernel.mm.uffd_copy(&w.cpu, space, (page(1), 4), UffdProtection::None, fill);
    let exists = UffdError::Exists { address: page(3) };
    assert_eq!(copied, Err(UffdFillError { pages: 2, error: exists }));
    let zeroed = w.kernel.mm.uffd_zeropage(&w.cpu, space, page(2), 1);
    assert_eq!(zeroed, Err(UffdFillError { pages: 0, error: UffdError::Exists { address: page(2) } }));
    w.kernel.mm.uffd_zeropage(&w.cpu, space, page(4), 2).expect("nothing is there");
    let words: Vec<_> = (1..6).map(|number| w.load(page(number))).collect();
    assert_eq!(words, [Ok(100), Ok(101), Ok(7), Ok(0), Ok(0)]);
    // Zeros are written to like those of a fault, and what was filled in like any page.
    (1..6).for_each(|number| w.store(page(number), number).expect("memory"));
    assert_eq!(w.load(page(4)), Ok(4));
    assert_eq!(w.kernel.uffd.take_told(), [], "nothing of that was missing");
    // Something on swap, and a guard, are something.
    w.kernel.mm.swap_out(&w.cpu, w.kernel.frame_at(&w.cpu, 0, page(1)).expect("mapped")).expect("nobody uses it");
    w.kernel.mm.install_guards(&w.cpu, space, page(6), 1).expect("anonymous memory");
    for number in [1, 6] {
        let error = UffdError::Exists { address: page(number) };
        assert_eq!(w.copy(page(number), 9, UffdProtection::None), Err(UffdFillError { pages: 0, error }));
    }
    assert_eq!(w.load(page(1)), Ok(1));
    w.end();
}

#[test]
fn who_resolves_too_late_is_told() {
    let w = World::new();
    w.register(anonymous(AT, 8, 0), MISSING);
    let gone = |address| Err(UffdFillError { pages: 0, error: UffdError::NotRegistered { address } });
    // Unregistered while the fault is on its way: it is resolved as everywhere else.
    let kernel = w.kernel.clone();
    w.kernel.uffd.resolve_by(move |cpu, fault| {
        kernel.mm.uffd_unregister(cpu, ONE, fault.address, 1).expect("an area");
    });
    assert_eq!(w.load(page(2)), Ok(0));
    assert_eq!(w.kernel.uffd.take_told(), [missing(2, Access::Read)]);
    assert_eq!(w.copy(page(2), 5, UffdProtection::None), gone(page(2)));
    // Unmapped: there is no such address.
    let kernel = w.kernel.clone();
    w.kernel.uffd.resolve_by(move |cpu, fault| {
        kernel.mm.munmap(cpu, ONE, fault.address, 1).expect("an area");
    });
    assert_eq!(w.load(page(4)), Err(FaultError::NoArea { address: page(4) }));
    assert_eq!(w.copy(page(4), 5, UffdProtection::None), gone(page(4)));
    // The neighbours of both are registered still.
    for number in [0, 1, 3, 5, 7] {
        w.copy(page(number), number, UffdProtection::None).expect("registered, and nothing is there");
        assert_eq!(w.load(page(number)), Ok(number));
    }
    // Not of an area that is registered for missing pages only.
    w.kernel.mm.zap(&w.cpu, w.kernel.space(0), AT, 1).expect("whole tables");
    assert_eq!(w.copy(AT, 5, UffdProtection::WriteProtected), gone(AT));
    w.end();
}

#[test]
fn gup_waits_or_says_that_it_would() {
    let w = World::new();
    w.register(anonymous(AT, 8, 0), MISSING);
    let (mm, space) = (w.kernel.mm, w.kernel.space(0));
    let got =
        |flags, signal: fn() -> Signal| mm.gup_remote(&w.cpu, space, (AT, 1), flags, signal, |_| panic!("a page"));
    let none = || Signal::None;
    assert_eq!(got(Foll::GET | Foll::NOWAIT, none), Err(GupError::WouldBlock { address: AT }));
    assert_eq!(got(Foll::GET | Foll::NOFAULT, none), Err(GupError::NotMapped { address: AT }));
    let interrupted = Err(GupError::Interrupted { address: AT });
    assert_eq!(got(Foll::GET | Foll::INTERRUPTIBLE, || Signal::Pending), interrupted);
    assert_eq!(mm.gup(&w.cpu, space, AT, 1, Foll::GET | Foll::FAST_ONLY, |_| panic!("a page")), Ok(0));
    assert_eq!(w.kernel.uffd.take_told(), [], "who does not wait tells nobody");
    let kernel = w.kernel.clone();
    w.kernel.uffd.resolve_by(move |cpu, fault| {
        copy(&kernel, cpu, fault.address, 6, UffdProtection::None).expect("nothing is there");
    });
    let run = w.pin(AT, Foll::PIN | Foll::WRITE);
    assert_eq!(w.kernel.uffd.take_told(), [missing(0, Access::Write)]);
    assert_eq!((Some(run.frame()), w.load(AT)), (w.kernel.frame_at(&w.cpu, 0, AT), Ok(6)));
    w.release(run);
    mm.populate(&w.cpu, space, AT, 3, Access::Read).expect("they come");
    assert_eq!(w.kernel.uffd.take_told(), [missing(1, Access::Read), missing(2, Access::Read)]);
    w.end();
}

#[test]
fn no_huge_page_comes_unasked() {
    let w = World::new();
    w.register(anonymous(AT, 1024, 0).with_huge_pages(), MISSING);
    w.copy(page(5), 5, UffdProtection::None).expect("nothing is there");
    assert_eq!(w.load(page(5)), Ok(5));
    let collapsed = w.kernel.mm.collapse(&w.cpu, w.kernel.space(0), AT, 511);
    assert_eq!(collapsed, Err(mm::CollapseError::Area { address: AT }));
    // Afterwards as everywhere else.
    w.kernel.mm.uffd_unregister(&w.cpu, ONE, AT, 1024).expect("an area");
    w.kernel.mm.collapse(&w.cpu, w.kernel.space(0), AT, 511).expect("one page, and zeros");
    assert_eq!((w.load(page(5)), w.load(page(6))), (Ok(5), Ok(0)));
    w.end();
}
