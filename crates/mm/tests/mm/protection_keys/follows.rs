//! The key goes where the page goes, one way at a time.

use machine::VirtAddr;
use mm::{Area, AreaRights, MergeInto};
use pagetable::{Entry, Flags, NonPresent};

use super::{AT, ONE, TABLES, TWO, end, give_keys, key, page, pkey_mprotect};
use crate::memory::{CACHED, Kernel, anonymous};
use hosted::ThreadCpu;

const TO: VirtAddr = VirtAddr::new(0x50_0000_0000);
/// The key of everything here.
const KEY: u8 = 6;

/// A kernel whose first address space has 1024 pages of anonymous memory, of which the first is written, with a key.
fn with_key() -> (Kernel, ThreadCpu) {
    let (kernel, cpu) = Kernel::alone(TABLES);
    give_keys(&kernel, &cpu, KEY);
    let area = anonymous(AT, 1024, 0).with_huge_pages().with_key(key(KEY));
    kernel.mm.mmap(&cpu, ONE, area).expect("a good area");
    (kernel, cpu)
}

/// The key of the leaf that the hardware uses for an address.
fn key_at(kernel: &Kernel, cpu: &ThreadCpu, space: u16, at: VirtAddr) -> Option<u8> {
    kernel.leaf_at(cpu, space, at).map(|leaf| leaf.entry.protection_key().number())
}

#[test]
fn every_kind_of_fault_gives_the_key() {
    let (kernel, cpu) = with_key();
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, ONE, Area::shared(TO, 4, AreaRights::ReadWrite, CACHED, 0).with_key(key(5))).expect("free");
    let private = Area::private(TO.wrapping_add(4 * 4096), 4, AreaRights::ReadWrite, CACHED, 4).with_key(key(4));
    kernel.mm.mmap(&cpu, ONE, private).expect("free");
    let small = anonymous(TO.wrapping_add(8 * 4096), 4, 9000).with_key(key(3));
    kernel.mm.mmap(&cpu, ONE, small).expect("free");
    // A huge page; a page of a file; one that is copied later; the zero page that is written later.
    let to = |number: u64| TO.wrapping_add(number * 4096);
    kernel.store(&cpu, 0, AT, 1).expect("memory");
    assert_eq!(key_at(&kernel, &cpu, 0, page(100)), Some(KEY), "a huge leaf");
    for (at, expected) in [(to(0), 5), (to(4), 4), (to(8), 3)] {
        kernel.load(&cpu, 0, at).expect("memory");
        assert_eq!(key_at(&kernel, &cpu, 0, at), Some(expected), "read at {at}");
        kernel.store(&cpu, 0, at, 1).expect("memory");
        assert_eq!(key_at(&kernel, &cpu, 0, at), Some(expected), "written at {at}");
    }
    end(&kernel, &cpu);
}

#[test]
fn pages_that_are_away_come_back_with_the_key_of_their_area() {
    let (kernel, cpu) = with_key();
    pkey_mprotect(&kernel, &cpu, (512, 512), AreaRights::ReadWrite, 2).expect("given out");
    kernel.mm.mmap(&cpu, ONE, anonymous(TO, 4, 9000).with_key(key(1))).expect("free");
    let frame = |at| kernel.frame_at(&cpu, 0, at).expect("mapped");
    kernel.store(&cpu, 0, TO, 7).expect("memory");
    kernel.mm.migrate(&cpu, frame(TO)).expect("nobody else uses it");
    assert_eq!(key_at(&kernel, &cpu, 0, TO), Some(1), "migrated");
    // What is on swap has no key: it comes back with that of the area by then.
    for now in [1, 3] {
        kernel.mm.swap_out(&cpu, frame(TO)).expect("nobody else uses it");
        kernel.mm.pkey_mprotect(&cpu, ONE, TO, 4, AreaRights::ReadWrite, key(now)).expect("given out");
        assert_eq!(kernel.load(&cpu, 0, TO), Ok(7));
        assert_eq!(key_at(&kernel, &cpu, 0, TO), Some(now), "swapped in");
    }
    // PROT_NONE remembers the leaf, and takes a new key.
    let rights = |rights, number| {
        kernel.mm.pkey_mprotect(&cpu, ONE, TO, 4, rights, key(number)).expect("given out");
    };
    rights(AreaRights::None, 4);
    rights(AreaRights::None, 5);
    let entry = {
        let tables = kernel.page_tables(0);
        let position = tables.find(&cpu, TO, pagetable::Level::Pte).expect("a table");
        position.slot().read(&cpu, tables.reader)
    };
    let remembered = entry.non_present(pagetable::Level::Pte);
    let Ok(Some(NonPresent::ProtNone(leaf))) = remembered else { panic!("{remembered:?}") };
    assert_eq!(leaf.attributes.protection_key(), key(5));
    rights(AreaRights::Read, 2);
    assert_eq!(key_at(&kernel, &cpu, 0, TO), Some(2), "present again, without a fault");
    assert_eq!(kernel.load(&cpu, 0, TO), Ok(7));
    end(&kernel, &cpu);
}

#[test]
fn huge_leaves_are_split_collapsed_and_moved_with_the_key() {
    let (kernel, cpu) = with_key();
    let space = kernel.space(0);
    kernel.store(&cpu, 0, AT, 1).expect("a huge page");
    kernel.mm.split_leaf(&cpu, space, AT).expect("a huge leaf");
    let keys = |at: VirtAddr| {
        (0..512).map(|number| key_at(&kernel, &cpu, 0, at.wrapping_add(number * 4096))).collect::<Vec<_>>()
    };
    assert_eq!(keys(AT), [Some(KEY); 512]);
    kernel.mm.split_folio(&cpu, kernel.frame_at(&cpu, 0, AT).expect("mapped")).expect("nobody else uses it");
    kernel.mm.collapse(&cpu, space, AT, 0).expect("all pages are there");
    assert_eq!(keys(AT), [Some(KEY); 512], "collapsed");
    kernel.mm.mremap(&cpu, ONE, (AT, 512), (TO, 512)).expect("nothing is there");
    assert_eq!(keys(TO), [Some(KEY); 512], "moved");
    // Faults at the new place know it as well; so does what grows.
    kernel.mm.mremap(&cpu, ONE, (TO, 512), (TO, 1024)).expect("nothing is behind");
    kernel.store(&cpu, 0, TO.wrapping_add(700 * 4096), 1).expect("memory");
    assert_eq!(key_at(&kernel, &cpu, 0, TO.wrapping_add(700 * 4096)), Some(KEY), "grown");
    // Part of a huge leaf gets another one.
    kernel.mm.pkey_mprotect(&cpu, ONE, TO.wrapping_add(4096), 2, AreaRights::ReadWrite, key(1)).expect("given out");
    let expected = |number| if number == 1 || number == 2 { Some(1) } else { Some(KEY) };
    assert_eq!(keys(TO), (0..512).map(expected).collect::<Vec<_>>());
    end(&kernel, &cpu);
}

#[test]
fn forks_and_merges_leave_each_place_its_key() {
    let (kernel, cpu) = with_key();
    for area in
        [anonymous(TO, 2, 9000).with_key(key(1)), anonymous(TO.wrapping_add(2 * 4096), 1, 9002).with_key(key(2))]
    {
        kernel.mm.mmap(&cpu, ONE, area).expect("free");
    }
    let to = |number: u64| TO.wrapping_add(number * 4096);
    (0..3).for_each(|number| kernel.store(&cpu, 0, to(number), 0).expect("memory"));
    kernel.mm.merge(&cpu, (ONE, to(0)), (ONE, to(2))).expect("equal pages");
    assert_eq!(kernel.frame_at(&cpu, 0, to(0)), kernel.frame_at(&cpu, 0, to(2)));
    kernel.mm.merge(&cpu, MergeInto::ZeroPage, (ONE, to(1))).expect("zeros");
    let keys = |space| [0, 1, 2].map(|number| key_at(&kernel, &cpu, space, to(number)));
    assert_eq!(keys(0), [Some(1), Some(1), Some(2)]);
    kernel.mm.fork(&cpu, ONE, TWO).expect("memory enough");
    assert_eq!([keys(0), keys(1)], [[Some(1), Some(1), Some(2)]; 2]);
    for space in [1, 0] {
        (0..3).for_each(|number| kernel.store(&cpu, space, to(number), 5).expect("memory"));
        assert_eq!(keys(space), [Some(1), Some(1), Some(2)], "copied for space {space}");
    }
    end(&kernel, &cpu);
}

/// The hardware must never see the new key with the old rights, or the other way round.
#[test]
fn key_and_rights_change_together_and_nothing_else_does() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    give_keys(&kernel, &cpu, 3);
    kernel.mm.mmap(&cpu, ONE, anonymous(AT, 1, 0).with_key(key(3))).expect("a good area");
    kernel.store(&cpu, 0, AT, 7).expect("memory");
    let entry = || kernel.leaf_at(&cpu, 0, AT).expect("mapped").entry;
    let before = entry();
    let read_only = |number| before.with_protection_key(key(number)).without(Flags::WRITE);
    pkey_mprotect(&kernel, &cpu, (0, 1), AreaRights::Read, 2).expect("given out");
    assert_eq!(entry(), read_only(2));
    pkey_mprotect(&kernel, &cpu, (0, 1), AreaRights::Read, 1).expect("given out");
    assert_eq!(entry(), read_only(1));
    // It is the space's own, and counts as written: no fault has to decide.
    pkey_mprotect(&kernel, &cpu, (0, 1), AreaRights::ReadWrite, 3).expect("given out");
    let after: Entry = entry();
    assert_eq!(after, before);
    kernel.mm.mprotect(&cpu, ONE, AT, 1, AreaRights::Read).expect("an area");
    assert_eq!(entry(), read_only(3), "mprotect keeps the key");
    end(&kernel, &cpu);
}
