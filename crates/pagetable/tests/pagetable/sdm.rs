//! Tables built by hand, bit by bit, from the tables of SDM vol. 3A, chapter 4, and what a walk must make of them.

use crate::common::{Bare, FIRST, Memory, Outcome, Paging, hardware_walk};
use machine::{Frame, PhysAddr, VirtAddr};
use pagetable::{
    AddressError, BadRoot, Cache, FiveLevel, FourLevel, Level, LongMode, Malformed, Mode, Pae, PhysicalWidth, ReadOnce,
    Rights, Root, Split, WalkError, Wide, walk,
};

const WIDTH: u32 = 40;

fn width() -> PhysicalWidth {
    PhysicalWidth::new(WIDTH).unwrap()
}

fn frame_at(index: u64) -> u64 {
    (FIRST + index) << 12
}

fn walk_long<M: Mode<Width = Wide>>(memory: &Memory, mode: M, address: u64) -> Result<(u64, Level), WalkError> {
    let root = Root::new(&mode, memory.root_address()).unwrap();
    let address = VirtAddr::new(address);
    let found = walk::translate(&Bare, &mode, &memory.arena(), &ReadOnce::<Wide>::new(), root, address)?;
    Ok((found.frame.start().as_u64() | address.as_u64() & 0xfff, found.level))
}

fn walk_pae(memory: &Memory, mode: Pae, root: u64, address: u64) -> Result<(u64, Level), WalkError> {
    let root = Root::new(&mode, PhysAddr::new(root)).unwrap();
    let address = VirtAddr::new(address);
    let found = walk::translate(&Bare, &mode, &memory.arena(), &ReadOnce::<Split>::new(), root, address)?;
    Ok((found.frame.start().as_u64() | address.as_u64() & 0xfff, found.level))
}

/// Tables for 4 levels: a 4 KiB page, a 2 MiB page and a 1 GiB page.
fn four_levels() -> Memory {
    let memory = Memory::new(8);
    for index in 1..4 {
        for entry in 0..512 {
            memory.poke(frame_at(index) + 8 * entry, 0);
        }
    }
    // PML4 entry 1, PDPT entries 2 (a table) and 3 (1 GiB), PD entries 4 (a table) and 5 (2 MiB), PT entry 6.
    memory.poke(frame_at(0) + 8, frame_at(1) | 0x27);
    memory.poke(frame_at(1) + 8 * 2, frame_at(2) | 0x27);
    memory.poke(frame_at(1) + 8 * 3, 0x80_4000_0000 | 0x1000 | 0xe7);
    memory.poke(frame_at(2) + 8 * 4, frame_at(3) | 0x27);
    memory.poke(frame_at(2) + 8 * 5, 0xff_0020_0000 | 1 << 63 | 0x85);
    memory.poke(frame_at(3) + 8 * 6, 0xff_ffff_f000 | 0x65);
    memory
}

const PAGE_4K: u64 = 1 << 39 | 2 << 30 | 4 << 21 | 6 << 12;
const PAGE_2M: u64 = 1 << 39 | 2 << 30 | 5 << 21;
const PAGE_1G: u64 = 1 << 39 | 3 << 30;

#[test]
fn four_levels_translate_all_page_sizes() {
    let memory = four_levels();
    let mode = FourLevel::new(width());
    assert_eq!(walk_long(&memory, mode, PAGE_4K | 0xabc), Ok((0xff_ffff_fabc, Level::Pte)));
    assert_eq!(walk_long(&memory, mode, PAGE_2M | 0x12_3abc), Ok((0xff_0032_3abc, Level::Pmd)));
    assert_eq!(walk_long(&memory, mode, PAGE_1G | 0x3def_cabc), Ok((0x80_7def_cabc, Level::Pud)));
    for address in [PAGE_4K | 0xabc, PAGE_2M | 0x12_3abc, PAGE_1G | 0x3def_cabc] {
        let expected = hardware_walk(&memory, Paging::Four, WIDTH, memory.root_address().as_u64(), address);
        assert_eq!(walk_long(&memory, mode, address).map(|(page, _)| Outcome::Page(page)), Ok(expected));
    }
    let missing = VirtAddr::new(PAGE_4K + 0x1000);
    assert!(matches!(
        walk_long(&memory, mode, missing.as_u64()),
        Err(WalkError::NotPresent { address, level: Level::Pte, entry }) if address == missing && entry.is_none()
    ));
}

#[test]
fn the_choice_of_levels_at_run_time_changes_nothing() {
    let memory = four_levels();
    let mode = LongMode::Four(FourLevel::new(width()));
    assert_eq!(walk_long(&memory, mode, PAGE_4K | 0xabc), Ok((0xff_ffff_fabc, Level::Pte)));
    // One more level above: what was the root becomes the table under entry 7 of a PML5.
    memory.poke(frame_at(4) + 8 * 7, frame_at(0) | 0x27);
    let mode = LongMode::Five(FiveLevel::new(width()));
    let root = Root::new(&mode, PhysAddr::new(frame_at(4))).unwrap();
    let address = VirtAddr::new(7 << 48 | PAGE_2M | 0x12_3abc);
    let reader = ReadOnce::<Wide>::new();
    let found = walk::translate(&Bare, &mode, &memory.arena(), &reader, root, address).unwrap();
    assert_eq!(found.frame, Frame::new(0xff_0032_3000 >> 12));
    let fixed = FiveLevel::new(width());
    let root = Root::new(&fixed, PhysAddr::new(frame_at(4))).unwrap();
    assert_eq!(walk::translate(&Bare, &fixed, &memory.arena(), &reader, root, address), Ok(found));
}

#[test]
fn a_path_reports_every_level_and_what_all_of_it_allows() {
    let memory = four_levels();
    let mode = FourLevel::new(width());
    let root = Root::new(&mode, memory.root_address()).unwrap();
    let look =
        |address| walk::lookup(&Bare, &mode, &memory.arena(), &ReadOnce::<Wide>::new(), root, VirtAddr::new(address));
    let path = look(PAGE_4K);
    assert_eq!(path.entry(Level::P4d).map(|entry| entry.bits()), Some(frame_at(1) | 0x27));
    assert_eq!(path.entry(Level::Pte).map(|entry| entry.bits()), Some(0xff_ffff_f065));
    assert_eq!(path.entry(Level::Pgd), None);
    // 0x65: present, user, accessed, dirty, not writable; executable, as no entry has XD.
    assert_eq!(path.rights, Rights::USER.and(Rights::EXECUTE));
    assert_eq!(look(PAGE_2M).rights, Rights::USER);
    // PAT of the 1 GiB page is bit 12, and bit 7 is PS.
    let path = look(PAGE_1G);
    let leaf = path.end.unwrap().entry;
    assert_eq!(leaf.attributes(Level::Pud).cache(), Cache::slot(4).unwrap());
    // User is withheld at the top: nobody below can give it.
    memory.poke(frame_at(0) + 8, frame_at(1) | 0x23);
    assert_eq!(look(PAGE_1G).rights, Rights::WRITE.and(Rights::EXECUTE));
}

/// Sets one bit after the other in an entry of `level`, and expects the walk to refuse exactly those in `reserved`.
fn expect_reserved(
    memory: &Memory,
    cell: u64,
    level: Level,
    address: u64,
    reserved: u64,
    walk: impl Fn(u64) -> Result<(u64, Level), WalkError>,
) {
    let entry = memory.peek(cell).unwrap();
    for bit in 1..64 {
        // A change of the frame number or of PS leads elsewhere: only reserved bits are of interest there.
        let with = entry | 1 << bit;
        memory.poke(cell, with);
        match walk(address) {
            Err(WalkError::Malformed(Malformed { level: at, entry: found, reserved: bits, address: on })) => {
                assert_eq!((at, found.bits(), on.as_u64()), (level, with, address));
                assert_eq!(bits, 1 << bit, "{level} bit {bit}");
                assert_ne!(reserved >> bit & 1, 0, "{level} bit {bit} is not reserved");
            }
            _ => assert_eq!(reserved >> bit & 1, 0, "{level} bit {bit} is reserved"),
        }
    }
    memory.poke(cell, entry);
}

/// Bits 51:40 on a machine with 40 physical bits.
const TOO_WIDE: u64 = 0x000f_ff00_0000_0000;

#[test]
fn four_levels_refuse_exactly_the_reserved_bits() {
    let memory = four_levels();
    let mode = FourLevel::new(width());
    let walk = |address| walk_long(&memory, mode, address);
    expect_reserved(&memory, frame_at(0) + 8, Level::P4d, PAGE_4K, TOO_WIDE | 1 << 7, walk);
    expect_reserved(&memory, frame_at(1) + 24, Level::Pud, PAGE_1G, TOO_WIDE | 0x3fff_e000, walk);
    expect_reserved(&memory, frame_at(2) + 40, Level::Pmd, PAGE_2M, TOO_WIDE | 0x1f_e000, walk);
    expect_reserved(&memory, frame_at(3) + 48, Level::Pte, PAGE_4K, TOO_WIDE, walk);
}

/// PDPTEs at a 32-byte-aligned place inside a frame; PDPTE 2 has a table with a 4 KiB page and a 2 MiB page.
fn pae() -> (Memory, u64) {
    let memory = Memory::new(4);
    for index in 1..3 {
        for entry in 0..512 {
            memory.poke(frame_at(index) + 8 * entry, 0);
        }
    }
    let root = frame_at(0) + 0x7e0;
    memory.poke(root + 8 * 2, frame_at(1) | 1);
    memory.poke(frame_at(1) + 8 * 9, frame_at(2) | 0x27);
    memory.poke(frame_at(1) + 8 * 10, 0xab_0020_0000 | 0xe7);
    memory.poke(frame_at(2) + 8 * 11, 0xff_0000_5000 | 1 << 63 | 0x67);
    (memory, root)
}

const PAE_4K: u64 = 2 << 30 | 9 << 21 | 11 << 12;
const PAE_2M: u64 = 2 << 30 | 10 << 21;

#[test]
fn pae_walks_from_pdptes_inside_a_frame() {
    let (memory, root) = pae();
    let mode = Pae::new(width());
    assert_eq!(walk_pae(&memory, mode, root, PAE_4K | 0x123), Ok((0xff_0000_5123, Level::Pte)));
    assert_eq!(walk_pae(&memory, mode, root, PAE_2M | 0x1f_f123), Ok((0xab_003f_f123, Level::Pmd)));
    for address in [PAE_4K | 0x123, PAE_2M | 0x1f_f123, 0x4000_0000] {
        let found = match walk_pae(&memory, mode, root, address) {
            Ok((page, _)) => Outcome::Page(page),
            Err(WalkError::NotPresent { .. }) => Outcome::NotPresent,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(found, hardware_walk(&memory, Paging::Pae, WIDTH, root, address));
    }
}

#[test]
fn pae_refuses_exactly_the_reserved_bits() {
    let (memory, root) = pae();
    let mode = Pae::new(width());
    let walk = |address| walk_pae(&memory, mode, root, address);
    let high = 0x7ff0_0000_0000_0000;
    // SDM vol. 3A, table 4-8: 2:1, 8:5, 63:MAXPHYADDR.
    expect_reserved(&memory, root + 16, Level::Pud, PAE_4K, 0x1e6 | TOO_WIDE | high | 1 << 63, walk);
    // Table 4-9: 20:13 and 62:MAXPHYADDR. Table 4-11: 62:MAXPHYADDR.
    expect_reserved(&memory, frame_at(1) + 80, Level::Pmd, PAE_2M, 0x1f_e000 | TOO_WIDE | high, walk);
    expect_reserved(&memory, frame_at(2) + 88, Level::Pte, PAE_4K, TOO_WIDE | high, walk);
    // No x86, but a machine that one may ask about.
    let mode = Pae::with_ignored_high_bits(width());
    let walk = |address| walk_pae(&memory, mode, root, address);
    expect_reserved(&memory, frame_at(2) + 88, Level::Pte, PAE_4K, TOO_WIDE | 0x7800_0000_0000_0000, walk);
    expect_reserved(&memory, root + 16, Level::Pud, PAE_4K, 0x1e6 | TOO_WIDE | high | 1 << 63, walk);
}

#[test]
fn pae_pdptes_give_no_rights_and_take_none() {
    let (memory, root) = pae();
    let mode = Pae::new(width());
    let root = Root::new(&mode, PhysAddr::new(root)).unwrap();
    let path = walk::lookup(&Bare, &mode, &memory.arena(), &ReadOnce::<Split>::new(), root, VirtAddr::new(PAE_4K));
    // The PDPTE has neither R/W nor U/S set; the page is writable for user mode and not executable.
    assert_eq!(path.rights, Rights::WRITE.and(Rights::USER));
}

#[test]
fn roots_are_aligned_and_within_reach() {
    let mode = Pae::new(PhysicalWidth::MAX);
    assert!(Root::new(&mode, PhysAddr::new(0x1020)).is_ok());
    let bad = PhysAddr::new(0x1010);
    assert_eq!(Root::new(&mode, bad), Err(BadRoot { address: bad, align: 32, end: 1 << 32, mode: "x86 PAE" }));
    assert!(Root::new(&mode, PhysAddr::new(1 << 32)).is_err());
    let mode = FourLevel::new(width());
    assert!(Root::new(&mode, PhysAddr::new(0x1020)).is_err());
    assert!(Root::new(&mode, PhysAddr::new(1 << WIDTH)).is_err());
    assert!(Root::new(&mode, PhysAddr::new((1 << WIDTH) - 0x1000)).is_ok());
}

#[test]
fn addresses_outside_the_mode_are_errors() {
    let (four, five, pae) = (FourLevel::new(width()), FiveLevel::new(width()), Pae::new(width()));
    let address = VirtAddr::new;
    assert_eq!(four.check(address(0x7fff_ffff_ffff)), Ok(()));
    assert_eq!(four.check(address(0xffff_8000_0000_0000)), Ok(()));
    let outside = address(0x8000_0000_0000);
    assert_eq!(four.check(outside), Err(AddressError::Outside { address: outside, mode: "x86-64, 4 levels" }));
    assert_eq!(five.check(outside), Ok(()));
    assert!(five.check(address(1 << 56)).is_err());
    assert_eq!(five.check(address(0xff00_0000_0000_0000)), Ok(()));
    assert!(five.check(address(0xfeff_ffff_ffff_ffff)).is_err());
    assert_eq!(pae.check(address(0xffff_ffff)), Ok(()));
    assert!(pae.check(address(1 << 32)).is_err());

    assert_eq!(four.check_user(address(0x7fff_ffff_f000), 0x1000), Ok(()));
    assert_eq!(
        four.check_user(address(0x7fff_ffff_f000), 0x1001),
        Err(AddressError::Outside { address: outside, mode: four.name() })
    );
    let start = address(0xffff_ffff_ffff_f000);
    assert_eq!(four.check_user(start, 0x1000), Err(AddressError::Wraps { start, bytes: 0x1000 }));
    // The last page of the address space is a legal range; a range over the hole is not.
    assert_eq!(four.check_range(start, 0x1000), Ok(()));
    assert_eq!(four.check_range(start, 0x2000), Err(AddressError::Wraps { start, bytes: 0x2000 }));
    assert_eq!(
        four.check_range(address(0x7fff_ffff_f000), 0xffff_0000_0000_2000),
        Err(AddressError::Outside { address: outside, mode: four.name() })
    );
    let odd = address(0x1234);
    assert_eq!(four.check_range(odd, 0x1000), Err(AddressError::Misaligned { address: odd, size: 0x1000 }));
}

#[test]
fn a_table_where_there_is_no_memory_is_an_error_that_says_where() {
    let memory = four_levels();
    memory.poke(frame_at(2) + 8 * 4, 0x12_3450_0000 | 0x27);
    let mode = FourLevel::new(width());
    match walk_long(&memory, mode, PAGE_4K) {
        Err(WalkError::NotATable { address, level: Level::Pmd, table }) => {
            assert_eq!((address.as_u64(), table.address.as_u64()), (PAGE_4K, 0x12_3450_0000));
        }
        other => panic!("{other:?}"),
    }
}
