//! Protection keys: who is kept out and who is not, that the key goes wherever the page goes, and that what is refused has changed nothing.

mod follows;
mod model;

use hosted::ThreadCpu;
use machine::{Access, KeyRights, Pkru, ProtectionKey, ProtectionKeys, VirtAddr};
use mm::error::KeyError;
use mm::{
    Area, AreaError, AreaRights, FaultError, Foll, ForkError, GupError, HmmPage, HmmRequest, MapError, PopulateError,
    ShareError, Signal, SpaceId,
};

use crate::memory::{self, CACHED, CACHED_HUGE, Kernel, anonymous};

const ONE: SpaceId = SpaceId::new(0);
const TWO: SpaceId = SpaceId::new(1);
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 48;

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

fn key(number: u8) -> ProtectionKey {
    ProtectionKey::new(number).expect("a key")
}

fn give_keys(kernel: &Kernel, cpu: &ThreadCpu, last: u8) {
    for number in 1..=last {
        assert_eq!(kernel.mm.pkey_alloc(cpu, ONE), Ok(key(number)), "the lowest that is free");
    }
}

/// The thread may do this by a key, and everything by all others.
fn restrict(cpu: &ThreadCpu, key: ProtectionKey, rights: KeyRights) {
    cpu.set_pkru(Pkru::ALLOW_ALL.with(key, rights));
}

fn pkey_mprotect(
    kernel: &Kernel,
    cpu: &ThreadCpu,
    (first, pages): (u64, u64),
    rights: AreaRights,
    number: u8,
) -> Result<(), AreaError> {
    kernel.mm.pkey_mprotect(cpu, ONE, page(first), pages, rights, key(number))
}

/// How many of one page GUP takes, by the thread or for another; given back at once.
fn gup(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr, flags: Foll) -> Result<u64, GupError> {
    let mut runs = Vec::new();
    let got = kernel.mm.gup(cpu, kernel.space(0), at, 1, flags, |run| runs.push(run));
    runs.into_iter().for_each(|run| kernel.mm.release(cpu, run, Access::Read).expect("just taken"));
    got
}

fn gup_remote(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr, flags: Foll) -> Result<u64, GupError> {
    let mut runs = Vec::new();
    let got = kernel.mm.gup_remote(cpu, kernel.space(0), (at, 1), flags, || Signal::None, |run| runs.push(run));
    runs.into_iter().for_each(|run| kernel.mm.release(cpu, run, Access::Read).expect("just taken"));
    got
}

fn end(kernel: &Kernel, cpu: &ThreadCpu) {
    cpu.set_pkru(Pkru::ALLOW_ALL);
    for space in 0..memory::SPACES {
        kernel.mm.exit(cpu, SpaceId::new(space)).expect("well-formed tables");
    }
    kernel.empty_file(cpu);
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn user_code_is_kept_out_of_what_its_own_register_forbids_and_of_nothing_else() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    give_keys(&kernel, &cpu, 3);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 4, 0)).expect("a good area");
    (0..3).for_each(|number| kernel.store(&cpu, 0, page(number), number + 1).expect("memory"));
    pkey_mprotect(&kernel, &cpu, (1, 3), AreaRights::ReadWrite, 3).expect("a key that was given out");
    // Page 3 was never touched: there the fault looks at the area.
    for number in [1, 3] {
        let address = page(number);
        let forbids = |access| Err(FaultError::KeyForbids { address, access, key: key(3) });
        restrict(&cpu, key(3), KeyRights::None);
        assert_eq!(kernel.load(&cpu, 0, address), forbids(Access::Read));
        assert_eq!(kernel.store(&cpu, 0, address, 9), forbids(Access::Write).map(drop));
        restrict(&cpu, key(3), KeyRights::Load);
        assert_eq!(kernel.store(&cpu, 0, address, 9), forbids(Access::Write).map(drop));
        assert_eq!(kernel.load(&cpu, 0, address), Ok(if number == 1 { 2 } else { 0 }));
        assert_eq!(kernel.load(&cpu, 0, page(0)), Ok(1), "another key");
        // Without a system call and without a flush.
        restrict(&cpu, key(2), KeyRights::None);
        assert_eq!(kernel.store(&cpu, 0, address, 2), Ok(()));
    }
    end(&kernel, &cpu);
}

#[test]
fn a_key_takes_rights_and_gives_none() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    give_keys(&kernel, &cpu, 1);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 5).expect("memory");
    pkey_mprotect(&kernel, &cpu, (0, 1), AreaRights::Read, 1).expect("a key that was given out");
    assert!(matches!(kernel.store(&cpu, 0, AT, 6), Err(FaultError::Forbidden { .. })));
    // Forbidden by both: the key is named, as the hardware does.
    restrict(&cpu, key(1), KeyRights::Load);
    assert!(matches!(kernel.store(&cpu, 0, AT, 6), Err(FaultError::KeyForbids { .. })));
    assert_eq!(kernel.load(&cpu, 0, AT), Ok(5));
    end(&kernel, &cpu);
}

/// A system call that reads or writes memory for its caller is no way around his keys, and force is none either. Who acts for somebody else is not asked.
#[test]
fn gup_asks_the_keys_of_the_thread_and_not_for_another() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    give_keys(&kernel, &cpu, 1);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0).with_key(key(1))).expect("a good area");
    let file = Area::shared(page(1), 1, AreaRights::ReadWrite, CACHED, 0).with_key(key(1));
    kernel.mm.mmap(&cpu, ONE, file).expect("a good area");
    for at in [page(0), page(1)] {
        for mapped in [false, true] {
            if mapped {
                cpu.set_pkru(Pkru::ALLOW_ALL);
                kernel.store(&cpu, 0, at, 7).expect("memory");
                assert_eq!(gup(&kernel, &cpu, at, Foll::PIN | Foll::WRITE | Foll::FAST_ONLY), Ok(1), "{at}");
            }
            for (rights, flags, allowed) in [
                (KeyRights::None, Foll::PIN, false),
                (KeyRights::None, Foll::GET | Foll::WRITE, false),
                (KeyRights::None, Foll::GET | Foll::FORCE, false),
                (KeyRights::Load, Foll::PIN | Foll::WRITE, false),
                (KeyRights::Load, Foll::GET, true),
            ] {
                restrict(&cpu, key(1), rights);
                let access = if flags.contains(Foll::WRITE) { Access::Write } else { Access::Read };
                let forbids = GupError::Fault(FaultError::KeyForbids { address: at, access, key: key(1) });
                let expected = if allowed { Ok(1) } else { Err(forbids) };
                assert_eq!(gup(&kernel, &cpu, at, flags), expected, "{at} {rights:?} {flags:?}");
                let fast = gup(&kernel, &cpu, at, flags | Foll::FAST_ONLY);
                // Where nothing was written the slow path may have found the zero page, which is special.
                if mapped || !allowed {
                    assert_eq!(fast, Ok(u64::from(allowed)), "{at} {rights:?} {flags:?}");
                }
            }
        }
    }
    restrict(&cpu, key(1), KeyRights::None);
    for at in [page(0), page(1)] {
        for flags in [Foll::GET, Foll::PIN | Foll::WRITE] {
            assert_eq!(gup_remote(&kernel, &cpu, at, flags), Ok(1), "{at} {flags:?}");
        }
    }
    end(&kernel, &cpu);
}

/// What is not there yet: who is not asked faults it in, who is asked does not.
#[test]
fn a_fault_for_another_is_exempt_and_populate_is_not() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    give_keys(&kernel, &cpu, 1);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 3, 0).with_key(key(1))).expect("a good area");
    restrict(&cpu, key(1), KeyRights::None);
    let error = FaultError::KeyForbids { address: AT, access: Access::Write, key: key(1) };
    let populated = kernel.mm.populate(&cpu, kernel.space(0), AT, 3, Access::Write);
    assert_eq!(populated, Err(PopulateError::Fault { pages: 0, error }));
    assert_eq!(gup_remote(&kernel, &cpu, page(0), Foll::GET | Foll::WRITE), Ok(1));
    let mut pages = [HmmPage::None];
    let mirrored = kernel.mm.mirror(
        &cpu,
        kernel.space(0),
        &kernel.shadow.invalidations,
        (page(1), &mut pages),
        |_| HmmRequest::FaultForWrite,
        |_, check| check.check(),
    );
    assert_eq!(mirrored, Ok(()));
    assert!(matches!(pages, [HmmPage::Valid { access: Access::Write, .. }]), "{pages:?}");
    let mut dumped = Vec::new();
    let told = kernel.mm.dump(&cpu, kernel.space(0), (AT, 3), || Signal::None, |at, run| dumped.push((at, run)));
    assert_eq!(told, Ok(()));
    assert_eq!(dumped.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [page(0), page(1)]);
    dumped.into_iter().for_each(|(_, run)| kernel.mm.release(&cpu, run, Access::Read).expect("just taken"));
    end(&kernel, &cpu);
}

#[test]
fn keys_are_given_out_once_and_areas_have_none_that_was_not() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    let mm = kernel.mm;
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 2, 0)).expect("a good area");
    let area = anonymous(page(2), 1, 2).with_key(key(5));
    assert_eq!(mm.mmap(&cpu, ONE, area), Err(MapError::NoKey(key(5))));
    assert_eq!(pkey_mprotect(&kernel, &cpu, (0, 2), AreaRights::None, 5), Err(AreaError::NoKey(key(5))));
    kernel.store(&cpu, 0, AT, 1).expect("its rights are as they were");
    give_keys(&kernel, &cpu, 15);
    assert_eq!(mm.pkey_alloc(&cpu, ONE), Err(KeyError::AllGivenOut));
    assert_eq!(mm.pkey_alloc(&cpu, TWO), Ok(key(1)), "each address space has its own");
    pkey_mprotect(&kernel, &cpu, (0, 1), AreaRights::ReadWrite, 5).expect("given out");
    assert_eq!(mm.pkey_free(&cpu, ONE, key(5)), Ok(()));
    assert_eq!(mm.pkey_free(&cpu, ONE, key(5)), Err(KeyError::NotGivenOut(key(5))));
    assert_eq!(mm.pkey_free(&cpu, ONE, key(0)), Err(KeyError::NotGivenOut(key(0))));
    assert_eq!(mm.mmap(&cpu, ONE, area), Err(MapError::NoKey(key(5))));
    // What has the key keeps it: the next owner of the key has that, too.
    restrict(&cpu, key(5), KeyRights::None);
    assert!(matches!(kernel.load(&cpu, 0, AT), Err(FaultError::KeyForbids { .. })));
    assert_eq!(mm.pkey_alloc(&cpu, ONE), Ok(key(5)));
    mm.exit(&cpu, ONE).expect("well-formed tables");
    assert_eq!(mm.pkey_alloc(&cpu, ONE), Ok(key(1)), "as new");
    end(&kernel, &cpu);
}

#[test]
fn a_child_has_the_keys_of_its_parent_and_gives_out_its_own() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    let mm = kernel.mm;
    give_keys(&kernel, &cpu, 2);
    mm.pkey_free(&cpu, ONE, key(1)).expect("given out");
    mm.mmap(&cpu, ONE, anonymous(AT, 1, 0).with_key(key(2))).expect("a good area");
    kernel.store(&cpu, 0, AT, 5).expect("memory");
    // One that fails leaves nothing behind.
    mm.mmap(&cpu, TWO, anonymous(AT, 1, 9)).expect("a good area");
    assert_eq!(mm.fork(&cpu, ONE, TWO), Err(ForkError::ChildInUse(TWO)));
    mm.munmap(&cpu, TWO, AT, 1).expect("it is mapped");
    assert_eq!(mm.mmap(&cpu, TWO, anonymous(AT, 1, 9).with_key(key(2))), Err(MapError::NoKey(key(2))));
    mm.fork(&cpu, ONE, TWO).expect("memory enough");
    restrict(&cpu, key(2), KeyRights::Load);
    assert_eq!(kernel.load(&cpu, 1, AT), Ok(5));
    let forbids = FaultError::KeyForbids { address: AT, access: Access::Write, key: key(2) };
    assert_eq!(kernel.store(&cpu, 1, AT, 6), Err(forbids));
    assert_eq!(mm.pkey_alloc(&cpu, TWO), Ok(key(1)));
    assert_eq!(mm.pkey_alloc(&cpu, TWO), Ok(key(3)));
    assert_eq!(mm.pkey_alloc(&cpu, ONE), Ok(key(1)));
    end(&kernel, &cpu);
}

/// Whoever shares a table has its entries, and with them their keys.
#[test]
fn tables_are_shared_only_where_keys_are_the_same() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    for (space, given) in [(ONE, 1), (TWO, 1)] {
        assert_eq!(kernel.mm.pkey_alloc(&cpu, space), Ok(key(given)));
    }
    let area = |number: u8| Area::shared(AT, 512, AreaRights::ReadWrite, CACHED, 0).with_key(key(number));
    kernel.mm.mmap(&cpu, ONE, area(1)).expect("a good area");
    kernel.mm.mmap(&cpu, TWO, area(0)).expect("a good area");
    kernel.load(&cpu, 0, page(3)).expect("a page of the file");
    assert_eq!(kernel.mm.share_table(&cpu, (TWO, AT), (ONE, AT)), Err(ShareError::Different));
    kernel.mm.pkey_mprotect(&cpu, TWO, AT, 512, AreaRights::ReadWrite, key(1)).expect("given out");
    assert_eq!(kernel.mm.share_table(&cpu, (TWO, AT), (ONE, AT)), Ok(()));
    // Who changes a key leaves the table first: the other's entries stay.
    kernel.mm.pkey_mprotect(&cpu, TWO, page(3), 1, AreaRights::ReadWrite, key(0)).expect("always given out");
    restrict(&cpu, key(1), KeyRights::None);
    assert_eq!(kernel.load(&cpu, 1, page(3)), Ok(3));
    assert!(matches!(kernel.load(&cpu, 0, page(3)), Err(FaultError::KeyForbids { .. })));
    end(&kernel, &cpu);
}

/// A huge leaf has to be split, and there is no frame for that: neither areas nor entries have changed.
#[test]
fn a_change_that_lacks_a_frame_changes_nothing() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    give_keys(&kernel, &cpu, 4);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 512, 0).with_huge_pages().with_key(key(4))).expect("a good area");
    kernel.store(&cpu, 0, AT, 5).expect("a huge page");
    kernel.failures.fail_at(1);
    assert_eq!(pkey_mprotect(&kernel, &cpu, (7, 3), AreaRights::Read, 2), Err(AreaError::OutOfFrames));
    kernel.failures.fail_at(0);
    restrict(&cpu, key(2), KeyRights::None);
    assert_eq!(kernel.store(&cpu, 0, page(8), 5), Ok(()));
    restrict(&cpu, key(4), KeyRights::None);
    assert!(matches!(kernel.load(&cpu, 0, page(8)), Err(FaultError::KeyForbids { .. })));
    kernel
        .mm
        .mmap(&cpu, ONE, anonymous(page(512), 512, 512).with_huge_pages().with_key(key(4)))
        .expect("a slot is free");
    // Into a file's huge leaf no other key is cut.
    kernel.fill_huge_file(&cpu);
    let huge = Area::shared(page(1024), 512, AreaRights::ReadWrite, CACHED_HUGE, 0);
    kernel.mm.mmap(&cpu, ONE, huge).expect("a good area");
    let cut = pkey_mprotect(&kernel, &cpu, (1030, 3), AreaRights::Read, 2);
    assert!(matches!(cut, Err(AreaError::NotLeafAligned { .. })), "{cut:?}");
    pkey_mprotect(&kernel, &cpu, (1024, 512), AreaRights::ReadWrite, 2).expect("all of it");
    restrict(&cpu, key(2), KeyRights::None);
    assert!(matches!(kernel.load(&cpu, 0, page(1100)), Err(FaultError::KeyForbids { .. })));
    cpu.set_pkru(Pkru::ALLOW_ALL);
    for space in 0..memory::SPACES {
        kernel.mm.exit(&cpu, SpaceId::new(space)).expect("well-formed tables");
    }
    let file = kernel.mm.file(CACHED_HUGE).expect("it is there");
    kernel.mm.replace_page(&cpu, file, 0, None).expect("a page of the file");
    kernel.assert_all_is_back(TABLES);
}
