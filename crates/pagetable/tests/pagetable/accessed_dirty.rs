//! No accessed or dirty bit is lost: a thread plays the hardware and sets bits by locked instructions while
//! software changes the same entries.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{Bare, FIRST, Memory, Paging};
use machine::{Frame, VirtAddr, Word, Word64};
use pagetable::{
    Attributes, Entry, EntryWrite, Flags, FourLevel, Level, Live, Mapper, Mode, Pae, PhysicalWidth, Rights, Root,
    SavesDirty, Sequenced, TwoStep, Whole, Xchg64,
};

/// Few pages, so that both sides meet.
const PAGES: u64 = 8;
const ROUNDS: u64 = if cfg!(miri) { 20 } else { 20_000 };
const BASE: u64 = 0x4000_0000;

/// Sets accessed and dirty as the hardware does: if the entry is present and writable, in one locked
/// instruction. Returns whether dirty was clear before.
fn store_through(cell: &Word64) -> bool {
    let mut seen = cell.atomic_load(Ordering::Relaxed);
    loop {
        if seen & 0b11 != 0b11 {
            return false;
        }
        match cell.atomic_compare_exchange(seen, seen | 0x60) {
            Ok(old) => return old & 0x40 == 0,
            Err(found) => seen = found,
        }
    }
}

/// One side stores through the pages. The other takes them away, changes their rights and harvests them, and
/// counts the dirty bits that it is told of. In the end both counts must agree.
fn nothing_is_lost<M: Mode, W: EntryWrite + Copy + Sync>(mode: M, writer: W, paging: Paging) {
    let memory = Memory::new(16);
    let arena = memory.arena();
    let root = Root::new(&mode, memory.root_address()).unwrap();
    let attributes = Attributes::new(Rights::WRITE.and(Rights::USER));
    let page = |index: u64| VirtAddr::new(BASE + index * 4096);
    let range = (page(0), PAGES * 4096);
    let mut mapper = Mapper::new(&Bare, mode, &arena, root, Live(writer));
    mapper.map_range(&memory, range, Frame::new(0x100), Level::Pte, attributes).unwrap();
    let cells: Vec<&Word64> =
        (0..PAGES).map(|index| memory.leaf_cell(paging, root.address().as_u64(), page(index).as_u64())).collect();
    let (started, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let (told, set) = thread::scope(|scope| {
        let hardware = scope.spawn(|| {
            let mut set = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                set += cells.iter().filter(|cell| store_through(cell)).count() as u64;
                started.store(true, Ordering::Relaxed);
            }
            set
        });
        while !started.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let mut told = 0_u64;
        for round in 0..ROUNDS {
            let index = round % PAGES;
            let mut is_dirty = |entry: Entry| told += u64::from(entry.has(Flags::DIRTY));
            match round / PAGES % 4 {
                0 => {
                    is_dirty(mapper.unmap(page(index)).unwrap().entry);
                    mapper.map(&memory, page(index), Level::Pte, Frame::new(0x100 + index), attributes).unwrap();
                }
                // Rights change, dirty stays: it is told by whoever clears it.
                1 => {
                    mapper.protect(page(index), Rights::USER).unwrap();
                    mapper.protect(page(index), Rights::USER.and(Rights::WRITE)).unwrap();
                }
                2 => mapper.harvest((page(index), 4096), Flags::ACCESSED_DIRTY, |leaf| is_dirty(leaf.entry)).unwrap(),
                _ => {
                    let cell = cells[index as usize];
                    is_dirty(writer.clear_flags(&Bare, cell, &memory.meta(FIRST).sequence, Flags::DIRTY));
                }
            }
            if round % 64 == 0 {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        (told, hardware.join().unwrap())
    });
    let mut rest = 0;
    mapper.unmap_range(range, |leaf| rest += u64::from(leaf.entry.has(Flags::DIRTY))).unwrap();
    assert!(set > 0, "the hardware never came to store");
    assert_eq!(told + rest, set);
}

fn width() -> PhysicalWidth {
    PhysicalWidth::MAX
}

#[test]
fn with_one_instruction_an_entry() {
    nothing_is_lost(FourLevel::new(width()), Whole, Paging::Four);
}

#[test]
fn with_dirty_saved_where_nobody_may_write() {
    nothing_is_lost(FourLevel::new(width()), SavesDirty, Paging::Four);
}

#[test]
fn with_a_sequence_count() {
    nothing_is_lost(FourLevel::new(width()), Sequenced(Whole), Paging::Four);
}

// Miri does not take accesses of different sizes to one atomic, which is what a 32-bit CPU does all the time.
#[cfg_attr(miri, ignore)]
#[test]
fn in_two_steps() {
    nothing_is_lost(Pae::new(width()), TwoStep, Paging::Pae);
}

#[cfg_attr(miri, ignore)]
#[test]
fn with_atomic_writers_on_pae() {
    nothing_is_lost(Pae::new(width()), Xchg64, Paging::Pae);
}
