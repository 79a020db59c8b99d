//! Random memory as page tables: nothing panics, and walks agree with the independent walker.

use std::ops::ControlFlow;

use crate::common::{Bare, FIRST, Memory, Outcome, Paging, hardware_walk};
use machine::{PhysAddr, VirtAddr};
use pagetable::ptdump::{Run, What, ptdump};
use pagetable::{
    Attributes, FiveLevel, Flags, FourLevel, Level, Live, LongMode, Mapper, Mode, Offline, Pae, PhysicalWidth,
    ReadOnce, Rights, Root, TwoStep, WalkError, Whole, Width, walk,
};
use proptest::prelude::*;

const FRAMES: u64 = 4;
const WIDTH: u32 = 46;

/// An entry that often leads on: to one of the few frames, present, with few bits wrong.
fn any_entry() -> impl Strategy<Value = u64> {
    let any_flags = any::<u64>().prop_map(|bits| bits & 0xfff);
    let flags = prop_oneof![4 => Just(0x67_u64), 2 => Just(0x01), 1 => Just(0xe7), 1 => any_flags];
    let wrong = prop_oneof![6 => Just(0_u64), 1 => (0..64_u32).prop_map(|bit| 1 << bit)];
    prop_oneof![
        8 => (0..FRAMES + 1, flags, wrong).prop_map(|(index, flags, wrong)| ((FIRST + index) << 12 | flags) ^ wrong),
        1 => Just(0x1_ffe0_0087_u64),
        1 => any::<u64>(),
        1 => Just(0),
    ]
}

/// Entries at the indices that the addresses below use.
const INDICES: [u64; 4] = [0, 1, 2, 511];

fn any_tables() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any_entry(), (FRAMES as usize) * INDICES.len())
}

fn fill(entries: &[u64]) -> Memory {
    let memory = Memory::new(FRAMES as usize);
    for (at, &entry) in entries.iter().enumerate() {
        let (frame, index) = (at as u64 / 4, INDICES[at % 4]);
        memory.poke(((FIRST + frame) << 12) + 8 * index, entry);
    }
    memory
}

fn any_address() -> impl Strategy<Value = u64> {
    let index = || prop::sample::select(&INDICES[..]);
    let indices = (index(), index(), index(), index(), index(), 0..4096_u64);
    let built = indices.prop_map(|(a, b, c, d, e, offset)| a << 48 | b << 39 | c << 30 | d << 21 | e << 12 | offset);
    prop_oneof![
        // Sign-extended for four and for five levels, cut for PAE.
        4 => built.clone().prop_map(|address| ((address << 16) as i64 >> 16) as u64),
        4 => built.clone().prop_map(|address| ((address << 7) as i64 >> 7) as u64),
        4 => built.prop_map(|address| address & 0xffff_ffff),
        1 => any::<u64>(),
    ]
}

fn check<M: Mode>(memory: &Memory, mode: M, paging: Paging, root: u64, address: u64) {
    let arena = memory.arena();
    let root = Root::new(&mode, PhysAddr::new(root)).unwrap();
    let at = VirtAddr::new(address);
    let reader = ReadOnce::<M::Width>::new();
    let found = walk::translate(&Bare, &mode, &arena, &reader, root, at);
    let ours = match found {
        Err(WalkError::Address(_)) => {
            assert!(!mode.translates(at));
            return;
        }
        Ok(found) => Outcome::Page(found.frame.start().as_u64() | address & 0xfff),
        Err(WalkError::NotPresent { .. }) => Outcome::NotPresent,
        Err(WalkError::Malformed(error)) => {
            assert_ne!(error.reserved, 0);
            assert_eq!(error.entry.bits() & error.reserved, error.reserved);
            Outcome::ReservedBits
        }
        Err(WalkError::NotATable { .. }) => Outcome::NoMemory,
        Err(error @ WalkError::Leaf { .. }) => panic!("{error}"),
    };
    assert_eq!(ours, hardware_walk(memory, paging, WIDTH, root.address().as_u64(), address), "{found:?}");
    let path = walk::lookup(&Bare, &mode, &arena, &reader, root, at);
    assert_eq!(path.end, found);
    if let Err(error) = found {
        assert!(!error.to_string().is_empty());
    }
}

/// A dump covers its range without a gap, and says of each page what a walk to it says.
fn dump<M: Mode>(memory: &Memory, mode: &M, root: Root, range: (VirtAddr, u64)) {
    let arena = memory.arena();
    let reader = ReadOnce::<M::Width>::new();
    let mut runs: Vec<Run> = Vec::new();
    let told = ptdump(&Bare, mode, &arena, &reader, root, range, |run| {
        runs.push(run);
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(told.is_ok(), mode.check_range(range.0, range.1).is_ok());
    let mut next = range.0;
    for run in &runs {
        assert_eq!(run.start, next);
        assert!(run.bytes != 0 && run.bytes.is_multiple_of(4096));
        next = next.wrapping_add(run.bytes);
        for page in [run.start, run.last().align_down(4096)] {
            let path = walk::lookup(&Bare, mode, &arena, &reader, root, page);
            let (level, agree) = match path.end {
                Ok(found) => {
                    (found.level, matches!(run.what, What::Leaf { effective, .. } if effective == path.rights))
                }
                Err(WalkError::NotPresent { level, entry, .. }) if entry.is_none() => (level, run.what == What::Hole),
                Err(WalkError::NotPresent { level, .. }) => {
                    let other = [What::Swap, What::Migration, What::Unknown];
                    let agree = matches!(run.what, What::ProtNone(_) | What::Marker(_)) || other.contains(&run.what);
                    (level, agree)
                }
                Err(WalkError::Malformed(error)) => {
                    (error.level, run.what == What::Malformed { reserved: error.reserved })
                }
                Err(WalkError::NotATable { level, .. }) => (level, run.what == What::NotATable),
                Err(error) => panic!("{error}"),
            };
            assert!(agree && level == run.level, "{page}: {run:?}, and {:?}", path.end);
        }
    }
    assert!(told.is_err() || next == range.0.wrapping_add(range.1));
    assert!(runs.windows(2).all(|pair| (pair[0].level, pair[0].what) != (pair[1].level, pair[1].what)));
}

/// Whatever a single owner does to such tables, it ends.
fn disturb<M: Mode>(memory: &Memory, mode: M, root: u64, address: u64, owner: impl pagetable::Ownership + Copy) {
    let arena = memory.arena();
    let root = Root::new(&mode, PhysAddr::new(root)).unwrap();
    let page = VirtAddr::new(address & !0xfff);
    let mut mapper = Mapper::new(&Bare, mode, &arena, root, owner);
    let range = (page, 0x40_2000);
    let _ =
        walk::visit::<_, _, _, _, WalkError>(&Bare, &mode, &arena, &ReadOnce::<M::Width>::new(), root, range, |seen| {
            assert!(!seen.entry.is_none());
            Ok(())
        });
    dump(memory, &mode, root, range);
    let attributes = Attributes::new(Rights::USER);
    let before = mapper.translate(page);
    let mapped = mapper.map(memory, page, Level::Pte, machine::Frame::new(1), attributes);
    assert!(before.is_err() || mapped.is_err(), "mapped over a page");
    let _ = mapper.protect(page, Rights::READ);
    let _ = mapper.harvest(range, Flags::ACCESSED_DIRTY, |_| ());
    let _ = mapper.protect_range(range, Rights::WRITE, |_| ());
    let _ = Mapper::new(&Bare, mode, &arena, root, Offline).split(memory, page);
    let _ = mapper.unmap(page);
    let _ = mapper.unmap_range(range, |_| ());
    // Tables in such a tree may be shared: nothing detached is given back.
    let mut detached = 0;
    let _ = mapper.prune(range, |_| detached += 1);
    let _ = mapper.map_range(memory, range, machine::Frame::new(0x200), Level::Pud, attributes);
}

const CASES: u32 = if cfg!(miri) { 4 } else { 2048 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn walks_agree_with_the_hardware(entries in any_tables(), addresses in prop::collection::vec(any_address(), 16)) {
        let memory = fill(&entries);
        let width = PhysicalWidth::new(WIDTH).unwrap();
        let root = memory.root_address().as_u64();
        for address in addresses {
            check(&memory, FourLevel::new(width), Paging::Four, root, address);
            check(&memory, FiveLevel::new(width), Paging::Five, root, address);
            check(&memory, LongMode::Five(FiveLevel::new(width)), Paging::Five, root, address);
            check(&memory, Pae::new(width), Paging::Pae, root, address);
            check(&memory, Pae::new(width), Paging::Pae, root + 0xfe0, address);
        }
    }

    #[test]
    fn nothing_panics(entries in any_tables(), address in any_address(), which in 0..4) {
        let memory = fill(&entries);
        let width = PhysicalWidth::new(WIDTH).unwrap();
        let root = memory.root_address().as_u64();
        match which {
            0 => disturb(&memory, FourLevel::new(width), root, address, Offline),
            1 => disturb(&memory, FiveLevel::new(width), root, address, Live(Whole)),
            2 => disturb(&memory, Pae::new(width), root, address & 0xffff_ffff, Live(TwoStep)),
            _ => disturb(&memory, Pae::new(width), root, address & 0xffff_ffff, Offline),
        }
    }
}

#[test]
fn the_widths_are_what_they_say() {
    assert_eq!(PhysicalWidth::new(31), None);
    assert_eq!(PhysicalWidth::new(53), None);
    let (min, max) = (PhysicalWidth::new(32).unwrap(), PhysicalWidth::MAX);
    assert_eq!(FourLevel::new(min).reserved_always(), 0x000f_ffff_0000_0000);
    assert_eq!(FourLevel::new(max).reserved_always(), 0);
    assert_eq!(Pae::new(max).reserved_always(), 0x7ff0_0000_0000_0000);
    assert_eq!(Pae::new(max).software_bits(), 0xe00);
    fn access_is<N: Width, M: Mode<Width = N>>(_: M) {}
    access_is::<pagetable::Split, _>(Pae::new(max));
    access_is::<pagetable::Wide, _>(LongMode::Four(FourLevel::new(max)));
}
