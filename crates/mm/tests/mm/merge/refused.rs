//! Which pages are not merged, and why.

use machine::{Access, Frame, VirtAddr, Word};
use mm::{Area, AreaRights, FolioFlags, Foll, MemoryMap, MergeError, RangeError, SpaceId, UnmergeError, Unmergeable};
use pagetable::Level;

use super::{AT, EXCLUSIVE, KSM, ONE, TABLES, THREE, TWO, audit, end, frame, gup, page, two_spaces, zero_page};
use crate::audit::Account;
use crate::memory::{ANONYMOUS, CACHED, Kernel, SPACES};

#[test]
fn who_is_used_is_left_as_he_is() {
    let (kernel, cpu) = two_spaces(7, 1);
    let used = frame(&kernel, &cpu, 0, 0);
    let referenced = Unmergeable::Referenced { expected: 2, references: 3 };
    for (flags, why) in [
        (Foll::GET, referenced),
        (Foll::GET | Foll::WRITE, referenced),
        (Foll::PIN, Unmergeable::Pinned),
        (Foll::PIN | Foll::WRITE, Unmergeable::Pinned),
    ] {
        let run = gup(&kernel, &cpu, AT, flags);
        let before = audit(&kernel, &cpu, [&run]).stretches;
        assert_eq!(kernel.mm.merge(&cpu, (ONE, AT), (TWO, AT)), Err(MergeError::Into(why)));
        assert_eq!(audit(&kernel, &cpu, [&run]).stretches, before, "{flags:?}: the page that was to stay");
        assert_eq!(kernel.mm.merge(&cpu, (TWO, AT), (ONE, AT)), Err(MergeError::From(why)));
        assert_eq!(kernel.flags(&cpu, used) & (EXCLUSIVE | KSM), EXCLUSIVE, "{flags:?}");
        kernel.store(&cpu, 1, AT, 7).expect("memory");
        assert_eq!(audit(&kernel, &cpu, [&run]).stretches, before, "{flags:?}: the page that was to go");
        kernel.mm.release(&cpu, run, Access::Read).expect("held");
    }
    // What a fork has shared has one reference for each mapping; another one shows.
    kernel.mm.fork(&cpu, ONE, THREE).expect("room for a child");
    let run = gup(&kernel, &cpu, AT, Foll::GET);
    let referenced = Unmergeable::Referenced { expected: 3, references: 4 };
    assert_eq!(kernel.mm.merge(&cpu, (THREE, AT), (TWO, AT)), Err(MergeError::Into(referenced)));
    kernel.mm.release(&cpu, run, Access::Read).expect("held");
    assert_eq!(kernel.mm.merge(&cpu, (TWO, AT), (THREE, AT)), Ok(frame(&kernel, &cpu, 1, 0)));
    assert_eq!(kernel.counts(&cpu, used), (1, 0, 1));
    audit(&kernel, &cpu, []);
    end(&kernel, &cpu);
}

#[test]
fn every_other_reason_is_said_and_changes_nothing() {
    let (kernel, cpu) = two_spaces(7, 8);
    kernel.fill_file(&cpu);
    let [shared, private] = [0x50_0000_0000, 0x50_0020_0000].map(VirtAddr::new);
    let huge = VirtAddr::new(0x48_0000_0000);
    let areas = [
        Area::shared(shared, 8, AreaRights::ReadWrite, CACHED, 0),
        Area::private(private, 8, AreaRights::ReadWrite, CACHED, 0),
        Area::private(huge, 1024, AreaRights::ReadWrite, ANONYMOUS, 1 << 20).with_huge_pages(),
    ];
    areas.iter().for_each(|area| kernel.mm.mmap(&cpu, ONE, *area).expect("a good area"));
    [shared, private].iter().for_each(|at| assert_eq!(kernel.load(&cpu, 0, *at), Ok(0)));
    kernel.store(&cpu, 0, huge, 7).expect("memory");
    kernel.store(&cpu, 0, huge.wrapping_add(512 * 4096), 7).expect("memory");
    kernel.mm.split_leaf(&cpu, kernel.space(0), huge.wrapping_add(512 * 4096)).expect("a huge leaf");
    kernel.mm.zap(&cpu, kernel.space(0), page(1), 2).expect("whole tables");
    kernel.load(&cpu, 0, page(2)).expect("the zero page");
    kernel.mm.swap_out(&cpu, frame(&kernel, &cpu, 0, 3)).expect("nobody else uses it");
    kernel.mm.install_guards(&cpu, kernel.space(0), page(4), 1).expect("enough frames");
    kernel.store(&cpu, 0, page(5), 8).expect("memory");
    let record = |number| MemoryMap::page(kernel.data, &cpu, frame(&kernel, &cpu, 0, number)).expect("a record");
    record(6).flags_word().atomic_fetch_or(FolioFlags::LOCKED.bits());
    record(7).flags_word().atomic_fetch_or(FolioFlags::POISONED.bits());
    let misaligned = AT.wrapping_add(8);
    let outside = VirtAddr::new(0xffff_8000_0000_0000);
    let reasons = [
        (misaligned, Unmergeable::Range(RangeError::Misaligned { address: misaligned })),
        (outside, Unmergeable::Range(RangeError::OutsideUser { address: outside, pages: 1 })),
        (VirtAddr::new(0x1000), Unmergeable::NotMapped),
        (page(1), Unmergeable::NotMapped),
        (page(2), Unmergeable::Special),
        (page(3), Unmergeable::NotMapped),
        (page(4), Unmergeable::NotMapped),
        (page(6), Unmergeable::Locked),
        (page(7), Unmergeable::Unsuitable),
        (shared, Unmergeable::NotAnonymous),
        (private, Unmergeable::NotAnonymous),
        (huge.wrapping_add(1 << 30), Unmergeable::NotMapped),
        (huge, Unmergeable::Large),
        (huge.wrapping_add(512 * 4096), Unmergeable::Large),
    ];
    let before = |kernel: &Kernel| {
        let spaces: Vec<_> = (0..SPACES).map(|number| kernel.space(number)).collect();
        // The other one's page becomes read-only.
        let stretches = Account::of(kernel.tables, zero_page(kernel), &spaces).stretches.into_iter();
        stretches.filter(|stretch| stretch.space == 0).collect::<Vec<_>>()
    };
    let seen = before(&kernel);
    for (at, why) in reasons {
        assert_eq!(kernel.mm.merge(&cpu, (ONE, at), (TWO, AT)), Err(MergeError::Into(why)), "{at}");
        assert_eq!(kernel.mm.merge(&cpu, (TWO, AT), (ONE, at)), Err(MergeError::From(why)), "{at}");
        assert_eq!(before(&kernel), seen, "{at}: {why:?}");
    }
    for _ in 0..2 {
        // The second time the page that was to stay is read-only already.
        let differs = kernel.mm.merge(&cpu, (TWO, AT), (ONE, page(5)));
        assert_eq!(differs, Err(MergeError::From(Unmergeable::Different)));
        assert_eq!(before(&kernel), seen);
    }
    let nowhere = SpaceId::new(SPACES);
    let nobody = MergeError::Into(Unmergeable::NoSpace(nowhere));
    assert_eq!(kernel.mm.merge(&cpu, (nowhere, AT), (ONE, AT)), Err(nobody));
    let tables = kernel.page_tables(0);
    let link = tables.find(&cpu, AT, Level::Pmd).expect("a table").slot().cell();
    let table = link.atomic_swap(0xdead_0000_0007);
    let malformed = kernel.mm.merge(&cpu, (ONE, AT), (TWO, AT));
    assert!(matches!(malformed, Err(MergeError::Into(Unmergeable::Malformed(_)))), "{malformed:?}");
    let malformed = kernel.mm.unmerge(&cpu, kernel.space(0), AT, 1);
    assert!(matches!(malformed, Err(UnmergeError::Malformed(_))), "{malformed:?}");
    link.atomic_swap(table);
    let before = record(6).flags_word().atomic_fetch_and(!FolioFlags::LOCKED.bits());
    assert_ne!(before & FolioFlags::LOCKED.bits(), 0, "it is locked still");
    record(7).flags_word().atomic_fetch_and(!FolioFlags::POISONED.bits());

    // What must stay movable may go, and not stay.
    record(0).flags_word().atomic_fetch_or(FolioFlags::MOVABLE.bits());
    let movable = MergeError::Into(Unmergeable::Movable);
    assert_eq!(kernel.mm.merge(&cpu, (ONE, AT), (TWO, AT)), Err(movable));
    let full = record(0).refcount_word().atomic_swap(mm::folio::COUNT_LIMIT);
    assert_eq!(kernel.mm.merge(&cpu, (TWO, AT), (ONE, AT)), Err(MergeError::From(Unmergeable::CountLimit)));
    record(0).refcount_word().atomic_swap(full);
    assert!(kernel.mm.merge(&cpu, (TWO, AT), (ONE, AT)).is_ok());
    let same = Err(MergeError::From(Unmergeable::Same));
    assert_eq!(
        (kernel.mm.merge(&cpu, (ONE, AT), (TWO, AT)), kernel.mm.merge(&cpu, (ONE, AT), (ONE, AT))),
        (same, same)
    );
    let message = "the page that was to go: it is the same already";
    assert_eq!(same.map(|_: Frame| ()).expect_err("an error").to_string(), message);
    for space in 0..2 {
        kernel.mm.munmap(&cpu, SpaceId::new(space), VirtAddr::new(0), 1 << 35).expect("whole tables");
    }
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}
