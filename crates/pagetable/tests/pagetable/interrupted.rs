//! Changes of tables with another CPU, or the hardware, between any two accesses: every place is tried.

use std::cell::Cell;

use crate::common::interrupted::Interrupted;
use crate::common::{Bare, Memory, Paging};
use machine::{Frame, VirtAddr, Word};
use pagetable::recheck::Atomic;
use pagetable::{
    Attributes, Entry, EntryWrite, Flags, FourLevel, Level, Live, Mapper, Mode, Offline, Pae, PhysicalWidth, ReadOnce,
    Rights, Root, Tables, TwoStep, WalkError, Whole, Wide, Xchg64,
};

const PAGE: VirtAddr = VirtAddr::new(0x4000_0000);
const RANGE: (VirtAddr, u64) = (PAGE, 0x1000);
/// More accesses than any of the changes makes.
const PLACES: usize = 32;

type Change<M, W> = fn(&mut Mapper<'_, Interrupted<'_>, M, pagetable::TableArena<'_>, Live<W>>, &mut dyn FnMut(Entry));

/// Runs `change` on a page that the hardware writes to at each place in turn. Every dirty bit that was set must be told by the change or still be
/// there, and none twice.
fn every_dirty_bit_is_told_or_stays<M: Mode, W: EntryWrite + Copy>(
    mode: M,
    writer: W,
    paging: Paging,
    change: Change<M, W>,
) {
    for place in 0..PLACES {
        let memory = Memory::new(8);
        let arena = memory.arena();
        let root = Root::new(&mode, memory.root_address()).unwrap();
        let attributes = Attributes::new(Rights::WRITE.and(Rights::USER)).with(Flags::ACCESSED);
        let mut owner = Mapper::new(&Bare, mode, &arena, root, Offline);
        owner.map(&memory, PAGE, Level::Pte, Frame::new(1), attributes).unwrap();
        let cell = memory.leaf_cell(paging, root.address().as_u64(), PAGE.as_u64());
        let set = Cell::new(0);
        let cpu = Interrupted::by(|access| {
            let entry = cell.atomic_load(std::sync::atomic::Ordering::Relaxed);
            if access == place && entry & 3 == 3 && entry & 0x40 == 0 {
                cell.atomic_fetch_or(0x60);
                set.set(set.get() + 1);
            }
        });
        let mut told = 0;
        let mut tell = |entry: Entry| told += u32::from(entry.has(Flags::DIRTY));
        change(&mut Mapper::new(&cpu, mode, &arena, root, Live(writer)), &mut tell);
        drop(cpu);
        let left = Entry::from_bits(cell.atomic_load(std::sync::atomic::Ordering::Relaxed));
        assert_eq!(told + u32::from(left.has(Flags::DIRTY)), set.get(), "place {place}, left {left}");
    }
}

fn all_changes<M: Mode, W: EntryWrite + Copy>(mode: M, writer: W, paging: Paging) {
    let changes: [Change<M, W>; 4] = [
        |mapper, tell| tell(mapper.unmap(PAGE).unwrap().entry),
        |mapper, tell| mapper.unmap_range(RANGE, |leaf| tell(leaf.entry)).unwrap(),
        |mapper, tell| mapper.harvest(RANGE, Flags::ACCESSED_DIRTY, |leaf| tell(leaf.entry)).unwrap(),
        |mapper, _| mapper.protect_range(RANGE, Rights::READ, |_| ()).unwrap(),
    ];
    for change in changes {
        every_dirty_bit_is_told_or_stays(mode, writer, paging, change);
    }
}

#[test]
fn no_dirty_bit_is_lost_wherever_it_is_set() {
    all_changes(FourLevel::new(PhysicalWidth::MAX), Whole, Paging::Four);
}

#[cfg_attr(miri, ignore = "accesses of two sizes to one atomic")]
#[test]
fn no_dirty_bit_is_lost_on_pae() {
    all_changes(Pae::new(PhysicalWidth::MAX), TwoStep, Paging::Pae);
    all_changes(Pae::new(PhysicalWidth::MAX), Xchg64, Paging::Pae);
}

/// A range is zapped under page-table locks while somebody splits its huge page: it goes as a whole or in parts, but no part is left out.
#[test]
fn a_zap_sees_a_huge_page_or_all_of_its_parts() {
    const MODE: FourLevel = FourLevel::new(PhysicalWidth::MAX);
    let reader = ReadOnce::<Wide>::new();
    let (mut whole, mut in_parts) = (0, 0);
    for place in 0..PLACES {
        let memory = Memory::new(8);
        let arena = memory.arena();
        let root = Root::new(&MODE, memory.root_address()).unwrap();
        let mut owner = Mapper::new(&Bare, MODE, &arena, root, Offline);
        owner.map(&memory, PAGE, Level::Pmd, Frame::new(0x200), Attributes::new(Rights::USER)).unwrap();
        let pmd = memory.leaf_cell(Paging::Four, root.address().as_u64(), PAGE.as_u64());
        let pmd_table = owner.lookup(PAGE).entry(Level::Pud).unwrap().table_frame().number();
        let split = Cell::new(false);
        let cpu = Interrupted::by(|access| {
            // Who splits waits for the page-table lock.
            let locked = memory.meta(pmd_table).lock.word().atomic_load(std::sync::atomic::Ordering::Relaxed) != 0;
            let is_huge = pmd.atomic_load(std::sync::atomic::Ordering::Relaxed) & 0x81 == 0x81;
            if access >= place && !locked && is_huge && !split.replace(true) {
                Mapper::new(&Bare, MODE, &arena, root, Offline).split(&memory, PAGE).unwrap();
            }
        });
        let tables = Tables { mode: &MODE, memory: &arena, reader: &reader, writer: &Whole, root };
        let mut pages = 0;
        tables
            .for_each_locked::<_, _, WalkError>(&cpu, &Atomic, (PAGE, Level::Pmd.size()), |mut table, run| {
                for address in run.addresses(table.level()) {
                    let old = table.get_and_clear(&Whole, address);
                    assert!(old.is_leaf(table.level()));
                    pages += table.level().frames();
                }
                if table.level() == Level::Pmd {
                    whole += 1
                } else {
                    in_parts += 1
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(pages, 512, "place {place}");
    }
    assert!(whole > 0 && in_parts > 0);
}
