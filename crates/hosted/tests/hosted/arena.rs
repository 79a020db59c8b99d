//! Frames are handed out once at a time, and tables are found where they are.

use std::collections::HashSet;
use std::io::ErrorKind;

use hosted::{FrameArena, Threads, TrustedArena};
use machine::{Cpu, Frame, PhysAddr, VirtAddr};
use pagetable::{Level, NotATable, OutOfFrames, TableMemory, TableSource};

const FIRST: Frame = Frame::new(0x100);

#[test]
fn frames_come_once_until_given_back() {
    let arena = FrameArena::new(FIRST, 3).unwrap();
    let frames: Vec<_> = (0..3).map(|_| arena.allocate().unwrap()).collect();
    assert_eq!(frames, [FIRST, FIRST.wrapping_add(1), FIRST.wrapping_add(2)]);
    assert_eq!(arena.allocate(), Err(OutOfFrames));
    assert_eq!(arena.in_use(), 3);
    arena.free(frames[1]);
    assert_eq!(arena.in_use(), 2);
    assert_eq!(arena.allocate(), Ok(frames[1]));
    assert_eq!(arena.allocate(), Err(OutOfFrames));
}

#[test]
fn a_tidy_arena_begins_anew() {
    let arena = FrameArena::new(FIRST, 3).unwrap();
    let frames: Vec<_> = (0..2).map(|_| arena.allocate().unwrap()).collect();
    arena.free(frames[0]);
    assert_eq!(arena.tidy(), Err(1));
    assert_eq!(arena.allocate(), Ok(frames[0]), "a refused tidying changes nothing");
    frames.iter().for_each(|frame| arena.free(*frame));
    assert_eq!(arena.tidy(), Ok(()));
    assert_eq!((arena.in_use(), arena.allocate()), (0, Ok(FIRST)));
}

#[test]
fn threads_never_get_the_same_frame() {
    let arena = FrameArena::new(FIRST, 2000).unwrap();
    let machine = Threads::new(4, |_, _| ()).unwrap();
    let kept = machine
        .on_every_cpu(|cpu| {
            let mut kept = Vec::new();
            for round in 0..3000 {
                match arena.allocate_table(&cpu) {
                    Ok(frame) => kept.push(frame),
                    Err(OutOfFrames) => break,
                }
                if round % 3 == 0 {
                    arena.free_table(&cpu, kept.pop().unwrap());
                }
            }
            kept
        })
        .unwrap();
    let distinct: HashSet<_> = kept.iter().flatten().collect();
    assert_eq!(distinct.len(), kept.iter().map(Vec::len).sum::<usize>());
    assert_eq!(arena.in_use(), distinct.len() as u64);
}

#[test]
fn a_table_is_its_frame_and_has_metadata_of_its_own() {
    let arena = FrameArena::new(FIRST, 8).unwrap();
    let machine = Threads::new(1, |_, _| ()).unwrap();
    let cpu = machine.attach().unwrap();
    for frame in (0..8).map(|index| FIRST.wrapping_add(index)) {
        let table = arena.table(frame).unwrap();
        assert!(table.cells().iter().all(|cell| cpu.load(cell) == 0));
        assert_eq!(cpu.load(&table.meta().children), 0);
        assert!(table.meta().lock.try_lock(&cpu).is_some());
        cpu.store(table.slot(Level::Pte, VirtAddr::new(511 << 12)).cell(), frame.number());
        cpu.store(&table.meta().children, frame.number() as u32);
    }
    for frame in (0..8).map(|index| FIRST.wrapping_add(index)) {
        assert_eq!(cpu.load(&arena.table(frame).unwrap().cells()[511]), frame.number());
        assert_eq!(cpu.load(&arena.table(frame).unwrap().meta().children), frame.number() as u32);
        // SAFETY: nothing else uses the arena, and the pointer is to 4096 bytes that it owns.
        let bytes = unsafe { arena.bytes(frame).unwrap().read() };
        assert_eq!(bytes[511 * 8..], frame.number().to_le_bytes());
    }
}

#[test]
fn a_pae_root_lies_anywhere_in_its_frame_at_32_bytes() {
    let arena = FrameArena::new(FIRST, 1).unwrap();
    let at = |offset: u64| PhysAddr::new(FIRST.start().as_u64() + offset);
    let machine = Threads::new(1, |_, _| ()).unwrap();
    let cpu = machine.attach().unwrap();
    cpu.store(&arena.pdpt(at(4064)).unwrap().cells()[3], 7);
    assert_eq!(cpu.load(&arena.table(FIRST).unwrap().cells()[511]), 7);
    for address in [at(16), at(4096), PhysAddr::new(FIRST.start().as_u64() - 32)] {
        assert_eq!(arena.pdpt(address).map(drop), Err(NotATable { address }));
    }
}

#[test]
fn frames_outside_are_no_tables() {
    let arena = FrameArena::new(FIRST, 4).unwrap();
    for number in [0, FIRST.number() - 1, FIRST.number() + 4, (1 << 52) - 1, u64::MAX >> 12] {
        let frame = Frame::new(number);
        assert_eq!(arena.table(frame).map(drop), Err(NotATable { address: frame.start() }));
        assert_eq!(arena.bytes(frame), None);
    }
}

#[test]
fn more_frames_than_there_are_addresses_are_refused() {
    assert_eq!(FrameArena::new(FIRST, 1 << 40).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(FrameArena::new(Frame::new(u64::MAX), 1).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(FrameArena::new(Frame::new(0), 1 << 39).is_err());
}

#[test]
fn populated_memory_is_there() {
    let arena = FrameArena::new(FIRST, 64).unwrap();
    arena.populate(u64::MAX).unwrap();
    assert_eq!(arena.in_use(), 0);
}

#[test]
#[should_panic(expected = "never handed out")]
fn a_frame_from_elsewhere_is_not_taken() {
    let arena = FrameArena::new(FIRST, 4).unwrap();
    arena.allocate().unwrap();
    arena.free(FIRST.wrapping_add(1));
}

#[test]
fn a_trusted_arena_finds_the_same_tables() {
    let arena = FrameArena::new(FIRST, 3).unwrap();
    // SAFETY: only frames of the arena are looked up below.
    let trusted = unsafe { TrustedArena::new(&arena) };
    for frame in (0..3).map(|index| FIRST.wrapping_add(index)) {
        let (one, other) = (arena.table(frame).unwrap(), trusted.table(frame).unwrap());
        assert!(std::ptr::eq(one.cells(), other.cells()));
        assert!(std::ptr::eq(one.meta(), other.meta()));
        let root = PhysAddr::new(frame.start().as_u64() + 96);
        let (one, other) = (arena.pdpt(root).unwrap(), trusted.pdpt(root).unwrap());
        assert!(std::ptr::eq(one.cells(), other.cells()));
        assert!(std::ptr::eq(one.meta(), other.meta()));
    }
    let crooked = PhysAddr::new(FIRST.start().as_u64() + 8);
    assert_eq!(trusted.pdpt(crooked).map(drop), Err(NotATable { address: crooked }));
}
