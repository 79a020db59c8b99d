//! Dumps of page tables: runs, holes by level, and what nobody should read for long.

use std::ops::ControlFlow;

use machine::{Frame, IrqState, VirtAddr};
use pagetable::ptdump::{Run, What, ptdump};
use pagetable::software::{Softw1, SpecialBit};
use pagetable::{
    AddressError, Attributes, Entry, Flags, FourLevel, Level, Mapper, Marker, NonPresent, Offline, Pae, PhysicalWidth,
    ProtNone, ReadOnce, Rights, Root, Tables, Whole, Wide, ZeroThenLink,
};

use crate::common::interrupted::Interrupted;
use crate::common::{Bare, Memory, Paging};

const MODE: FourLevel = FourLevel::new(PhysicalWidth::MAX);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TABLES: usize = 16;

fn user() -> Attributes {
    Attributes::new(Rights::USER)
}

fn leaf(attributes: Attributes) -> What {
    What::Leaf { attributes, effective: attributes.rights() }
}

const fn run(start: u64, bytes: u64, level: Level, what: What) -> Run {
    Run { start: VirtAddr::new(start), bytes, level, what }
}

fn all_runs(memory: &Memory, range: (u64, u64)) -> Vec<Run> {
    let root = Root::new(&MODE, memory.root_address()).unwrap();
    let mut runs = Vec::new();
    let range = (VirtAddr::new(range.0), range.1);
    let told = ptdump(&Bare, &MODE, &memory.arena(), &ReadOnce::<Wide>::new(), root, range, |run| {
        runs.push(run);
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(told, Ok(ControlFlow::Continue(())));
    runs
}

/// Writes an entry as it is, with the tables that it needs.
fn put(memory: &Memory, at: u64, level: Level, entry: Entry) {
    let (at, arena) = (VirtAddr::new(at), memory.arena());
    let root = Root::new(&MODE, memory.root_address()).unwrap();
    let tables = Tables { mode: &MODE, memory: &arena, reader: &ReadOnce::<Wide>::new(), writer: &Whole, root };
    let position = tables.populate(&Bare, memory, &ZeroThenLink, at, level).unwrap();
    position.lock(&Bare).set(&MODE, &Whole, at, entry).unwrap();
}

#[test]
fn neighbours_that_are_alike_are_one_run_and_holes_have_a_level() {
    let memory = Memory::new(TABLES);
    let arena = memory.arena();
    let root = Root::new(&MODE, memory.root_address()).unwrap();
    let mut mapper = Mapper::new(&Bare, MODE, &arena, root, Offline);
    let special = user().with_mark(Softw1.mark());
    let writable = Attributes::new(Rights::USER.and(Rights::WRITE));
    // Across two tables of pages, to frames in no order; accessed and dirty do not matter.
    mapper.map(&memory, VirtAddr::new(GIB - 0x1000), Level::Pte, Frame::new(9), user()).unwrap();
    mapper.map(&memory, VirtAddr::new(GIB), Level::Pte, Frame::new(3), user().with(Flags::ACCESSED_DIRTY)).unwrap();
    mapper.map(&memory, VirtAddr::new(GIB + 0x1000), Level::Pte, Frame::new(4), writable).unwrap();
    mapper.map(&memory, VirtAddr::new(GIB + 0x2000), Level::Pte, Frame::new(5), special).unwrap();
    for piece in 1..4 {
        let at = VirtAddr::new(GIB + piece * 2 * MIB);
        mapper.map(&memory, at, Level::Pmd, Frame::new(512 * piece), special).unwrap();
    }
    mapper.map(&memory, VirtAddr::new(2 * GIB), Level::Pud, Frame::new(1 << 18), user()).unwrap();
    let entry = |what: NonPresent, level| what.encode(level);
    put(&memory, GIB + 0x4000, Level::Pte, entry(NonPresent::Marker(Marker::Guard), Level::Pte));
    let away = ProtNone { frame: Frame::new(7), attributes: writable.with(Flags::ACCESSED) };
    put(&memory, GIB + 0x5000, Level::Pte, entry(NonPresent::ProtNone(away), Level::Pte));
    assert_eq!(
        all_runs(&memory, (0, 1 << 47)),
        [
            run(0, GIB - 2 * MIB, Level::Pmd, What::Hole),
            run(GIB - 2 * MIB, 2 * MIB - 0x1000, Level::Pte, What::Hole),
            run(GIB - 0x1000, 0x2000, Level::Pte, leaf(user())),
            run(GIB + 0x1000, 0x1000, Level::Pte, leaf(writable)),
            run(GIB + 0x2000, 0x1000, Level::Pte, leaf(special)),
            run(GIB + 0x3000, 0x1000, Level::Pte, What::Hole),
            run(GIB + 0x4000, 0x1000, Level::Pte, What::Marker(Marker::Guard)),
            run(GIB + 0x5000, 0x1000, Level::Pte, What::ProtNone(writable)),
            run(GIB + 0x6000, 2 * MIB - 0x6000, Level::Pte, What::Hole),
            run(GIB + 2 * MIB, 6 * MIB, Level::Pmd, leaf(special)),
            run(GIB + 8 * MIB, GIB - 8 * MIB, Level::Pmd, What::Hole),
            run(2 * GIB, GIB, Level::Pud, leaf(user())),
            run(3 * GIB, (1 << 39) - 3 * GIB, Level::Pud, What::Hole),
            run(1 << 39, (1 << 47) - (1 << 39), Level::P4d, What::Hole),
        ]
    );
    // A range that begins and ends inside leaves.
    assert_eq!(
        all_runs(&memory, (2 * GIB - 0x1000, GIB)),
        [run(2 * GIB - 0x1000, 0x1000, Level::Pmd, What::Hole), run(2 * GIB, GIB - 0x1000, Level::Pud, leaf(user())),]
    );
    assert_eq!(all_runs(&memory, (0x5000, 0)), []);
}

#[test]
fn what_tables_withhold_is_not_effective() {
    let memory = Memory::new(TABLES);
    let arena = memory.arena();
    let root = Root::new(&MODE, memory.root_address()).unwrap();
    let mut mapper = Mapper::new(&Bare, MODE, &arena, root, Offline);
    let all = Attributes::new(Rights::USER.and(Rights::WRITE).and(Rights::EXECUTE));
    mapper.map(&memory, VirtAddr::new(0), Level::Pte, Frame::new(1), all).unwrap();
    let root_cell = memory.root_address().as_u64();
    let entry = memory.peek(root_cell).unwrap();
    // User is withheld at the top.
    memory.poke(root_cell, entry & !4);
    let effective = Rights::WRITE.and(Rights::EXECUTE);
    assert_eq!(all_runs(&memory, (0, 0x1000)), [run(0, 0x1000, Level::Pte, What::Leaf { attributes: all, effective })]);
}

#[test]
fn what_is_malformed_is_told_and_passed() {
    let memory = Memory::new(TABLES);
    let arena = memory.arena();
    let root = Root::new(&MODE, memory.root_address()).unwrap();
    let mut mapper = Mapper::new(&Bare, MODE, &arena, root, Offline);
    let range = (VirtAddr::new(0), 3 * 0x1000);
    mapper.map_range(&memory, range, Frame::new(1), Level::Pte, user()).unwrap();
    mapper.map(&memory, VirtAddr::new(4 * MIB), Level::Pmd, Frame::new(512), user()).unwrap();
    mapper.map(&memory, VirtAddr::new(6 * MIB), Level::Pte, Frame::new(512), user()).unwrap();
    let cell = |at| memory.leaf_cell(Paging::Four, memory.root_address().as_u64(), at);
    let poke = |cell: &machine::Word64, bits: u64| {
        machine::Word::atomic_store(cell, bits, std::sync::atomic::Ordering::Relaxed);
    };
    // Not present, and of no encoding; a huge leaf that is not aligned; a table that is none.
    poke(cell(0x1000), 0xff << 56);
    let huge = cell(4 * MIB);
    poke(huge, machine::Word::atomic_load(huge, std::sync::atomic::Ordering::Relaxed) | 0x2000);
    put(&memory, 2 * MIB, Level::Pmd, Entry::table(Frame::new(5)));
    assert_eq!(
        all_runs(&memory, (0, 8 * MIB)),
        [
            run(0, 0x1000, Level::Pte, leaf(user())),
            run(0x1000, 0x1000, Level::Pte, What::Unknown),
            run(0x2000, 0x1000, Level::Pte, leaf(user())),
            run(0x3000, 2 * MIB - 0x3000, Level::Pte, What::Hole),
            run(2 * MIB, 2 * MIB, Level::Pmd, What::NotATable),
            run(4 * MIB, 2 * MIB, Level::Pmd, What::Malformed { reserved: 0x2000 }),
            run(6 * MIB, 0x1000, Level::Pte, leaf(user())),
            run(6 * MIB + 0x1000, 2 * MIB - 0x1000, Level::Pte, What::Hole),
        ]
    );
}

#[test]
fn interrupts_are_off_while_tables_are_read_and_as_before_while_it_is_told() {
    let memory = Memory::new(TABLES);
    let arena = memory.arena();
    let root = Root::new(&MODE, memory.root_address()).unwrap();
    let mut mapper = Mapper::new(&Bare, MODE, &arena, root, Offline);
    for page in [0, 2, 3] {
        let at = VirtAddr::new(page * 0x1000);
        mapper.map(&memory, at, Level::Pte, Frame::new(page), user()).unwrap();
    }
    let cpu = Interrupted::by(|_| ());
    let mut told = Vec::new();
    let range = (VirtAddr::new(0), 4 * MIB);
    let dumped = ptdump(&cpu, &MODE, &arena, &ReadOnce::<Wide>::new(), root, range, |run| {
        assert_eq!(cpu.interrupts(), IrqState::On);
        told.push(run.bytes);
        if told.len() == 3 { ControlFlow::Break(run.start) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(dumped, Ok(ControlFlow::Break(VirtAddr::new(0x2000))), "told no more when that was asked for");
    assert_eq!(told, [0x1000, 0x1000, 0x2000]);
    let (accesses, open) = cpu.accesses();
    assert_eq!((accesses > 0, open), (true, 0));
    assert_eq!(cpu.interrupts(), IrqState::On);
}

#[test]
fn on_pae_the_root_has_no_rights_and_ranges_are_checked() {
    let memory = Memory::new(TABLES);
    let arena = memory.arena();
    let mode = Pae::new(PhysicalWidth::MAX);
    let root = Root::new(&mode, memory.root_address()).unwrap();
    let mut mapper = Mapper::new(&Bare, mode, &arena, root, Offline);
    let writable = Attributes::new(Rights::USER.and(Rights::WRITE));
    mapper.map(&memory, VirtAddr::new(0xc000_0000), Level::Pmd, Frame::new(512), writable).unwrap();
    let mut runs = Vec::new();
    let mut dump = |start, bytes| {
        ptdump(&Bare, &mode, &arena, &pagetable::Cmpxchg8b, root, (VirtAddr::new(start), bytes), |run| {
            runs.push(run);
            ControlFlow::<()>::Continue(())
        })
    };
    let outside = |address| Err(AddressError::Outside { address: VirtAddr::new(address), mode: "x86 PAE" });
    assert_eq!(dump(0, 5 << 30), outside((5 << 30) - 1));
    assert!(matches!(dump(0x10, 0x1000), Err(AddressError::Misaligned { .. })));
    assert_eq!(dump(0, 1 << 32), Ok(ControlFlow::Continue(())));
    assert_eq!(
        runs,
        [
            run(0, 3 * GIB, Level::Pud, What::Hole),
            run(3 * GIB, 2 * MIB, Level::Pmd, leaf(writable)),
            run(3 * GIB + 2 * MIB, GIB - 2 * MIB, Level::Pmd, What::Hole),
        ]
    );
    assert_eq!(runs[2].last(), VirtAddr::new(u64::from(u32::MAX)));
}

#[test]
fn a_root_that_is_no_table_is_told() {
    let memory = Memory::new(1);
    let root = Root::new(&MODE, Frame::new(3).start()).unwrap();
    let mut runs = Vec::new();
    let range = (VirtAddr::new(0), 1 << 47);
    let _ = ptdump(&Bare, &MODE, &memory.arena(), &ReadOnce::<Wide>::new(), root, range, |run| {
        runs.push(run);
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(runs, [run(0, 1 << 47, Level::P4d, What::NotATable)]);
}
