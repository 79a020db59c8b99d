//! Changes under page-table locks, by several threads at once.

use std::collections::BTreeSet;
use std::thread;

use crate::common::{Bare, FIRST, Memory, Outcome, Paging, hardware_walk};
use machine::{Cpu, Frame, VirtAddr};
use pagetable::recheck::Atomic;
use pagetable::{
    Attributes, DetachError, Entry, Flags, FourLevel, Level, MapError, Mapper, NobodyWalks, Offline, OutOfFrames,
    PhysicalWidth, ReadOnce, Rights, Root, TableArena, TableSource, Tables, WalkError, Whole, Wide, ZeroThenLink,
};

type Ours<'a> = Tables<'a, FourLevel, TableArena<'a>, ReadOnce<Wide>, Whole>;

const MODE: FourLevel = FourLevel::new(PhysicalWidth::MAX);
const READER: ReadOnce<Wide> = ReadOnce::new();

fn tables<'a>(memory: &Memory, arena: &'a TableArena<'a>) -> Ours<'a> {
    let root = Root::new(&MODE, memory.root_address()).unwrap();
    Tables { mode: &MODE, memory: arena, reader: &READER, writer: &Whole, root }
}

fn leaf(frame: u64) -> Entry {
    Entry::leaf(Level::Pte, Frame::new(frame), Attributes::new(Rights::USER)).unwrap()
}

/// All threads of the test have left.
struct Joined;
impl NobodyWalks for Joined {}

#[test]
fn threads_that_populate_the_same_tables_make_each_once() {
    const THREADS: u64 = 4;
    const PAGES: u64 = if cfg!(miri) { 24 } else { 4096 };
    let memory = Memory::new(32);
    let arena = memory.arena();
    let tables = tables(&memory, &arena);
    let frames = memory.frames_left();
    thread::scope(|scope| {
        for which in 0..THREADS {
            let (memory, tables) = (&memory, &tables);
            scope.spawn(move || {
                // Neighbouring pages belong to different threads: all of them want the same tables.
                for page in (which..PAGES).step_by(THREADS as usize) {
                    let address = VirtAddr::new(0x7f_ffff_0000 + page * 4096);
                    let position = tables.populate(&Bare, memory, &ZeroThenLink, address, Level::Pte).unwrap();
                    let mut locked = position.lock_linked(&Bare, &Atomic).unwrap();
                    locked.set(&MODE, &Whole, address, leaf(page + 1)).unwrap();
                }
            });
        }
    });
    let root = memory.root_address().as_u64();
    for page in 0..PAGES {
        let address = 0x7f_ffff_0000 + page * 4096;
        assert_eq!(hardware_walk(&memory, Paging::Four, 52, root, address), Outcome::Page((page + 1) << 12));
    }
    memory.check_counts(Paging::Four, root);
    // Every frame is in the tree or back in the pool: taken apart again, all of them come back.
    let mut mapper = Mapper::new(&Bare, MODE, &arena, tables.root, Offline);
    let everything = (VirtAddr::new(0), 1 << 47);
    mapper.unmap_range(everything, |_| ()).unwrap();
    mapper.prune(everything, |table| table.after_flush(&Joined).free(&Bare, &memory)).unwrap();
    assert_eq!(memory.frames_left(), frames);
}

/// A pool that is slow: whenever a frame is asked for, somebody else maps the page meanwhile.
struct Overtaken<'a> {
    memory: &'a Memory,
    tables: Ours<'a>,
    address: VirtAddr,
}

impl TableSource for Overtaken<'_> {
    fn allocate_table<C: Cpu>(&self, cpu: &C) -> Result<Frame, OutOfFrames> {
        let frame = self.memory.allocate_table(cpu)?;
        let position = self.tables.populate(&Bare, self.memory, &ZeroThenLink, self.address, Level::Pte).unwrap();
        // The second time it is there already.
        let _ = position.lock(&Bare).set(&MODE, &Whole, self.address, leaf(7));
        Ok(frame)
    }

    fn free_table<C: Cpu>(&self, cpu: &C, frame: Frame) {
        self.memory.free_table(cpu, frame);
    }
}

#[test]
fn a_table_that_somebody_else_made_meanwhile_is_used() {
    let memory = Memory::new(8);
    let arena = memory.arena();
    let tables = tables(&memory, &arena);
    let address = VirtAddr::new(0x1234_5000);
    let source = Overtaken { memory: &memory, tables, address };
    let position = tables.populate(&Bare, &source, &ZeroThenLink, address, Level::Pte).unwrap();
    assert_eq!(position.lock(&Bare).entry(&MODE, address), leaf(7));
    memory.check_counts(Paging::Four, memory.root_address().as_u64());
    // Of seven frames three are in the tree; the one that came too late is back.
    assert_eq!(memory.frames_left(), 4);
}

#[test]
fn an_entry_is_set_once_and_counted_once() {
    let memory = Memory::new(8);
    let arena = memory.arena();
    let tables = tables(&memory, &arena);
    let address = VirtAddr::new(0x1234_5000);
    let position = tables.populate(&Bare, &memory, &ZeroThenLink, address, Level::Pte).unwrap();
    let mut locked = position.lock(&Bare);
    assert_eq!(locked.set(&MODE, &Whole, address, leaf(1)), Ok(()));
    assert_eq!(locked.set(&MODE, &Whole, address, leaf(2)), Err(leaf(1)));
    assert_eq!(locked.children(), 1);
    assert_eq!(locked.replace(&Whole, address, leaf(3)), leaf(1));
    assert_eq!(locked.set_flags(&Whole, address, Flags::DIRTY), leaf(3));
    assert_eq!(locked.update(&Whole, address, |entry| entry.with(Flags::ACCESSED)), leaf(3).with(Flags::DIRTY));
    assert_eq!(locked.clear_flags(&Whole, address, Flags::DIRTY), leaf(3).with(Flags::ACCESSED_DIRTY));
    assert_eq!(locked.children(), 1);
    assert_eq!(locked.get_and_clear(&Whole, address), leaf(3).with(Flags::ACCESSED));
    assert_eq!(locked.get_and_clear(&Whole, address), Entry::NONE);
    assert_eq!(locked.children(), 0);
}

#[test]
fn a_table_is_detached_empty_and_linked_or_not_at_all() {
    let memory = Memory::new(8);
    let arena = memory.arena();
    let tables = tables(&memory, &arena);
    let address = VirtAddr::new(0x1234_5000);
    let pte = tables.populate(&Bare, &memory, &ZeroThenLink, address, Level::Pte).unwrap();
    let pmd = tables.find(&Bare, address, Level::Pmd).unwrap();
    let mut upper = pmd.lock(&Bare);
    let mut lower = pte.lock(&Bare);
    lower.set(&MODE, &Whole, address, leaf(1)).unwrap();
    let detached = upper.detach(&MODE, &arena, &Whole, address, &lower);
    assert_eq!(detached, Err(DetachError::NotEmpty { children: 1 }));
    lower.get_and_clear(&Whole, address);
    let elsewhere = VirtAddr::new(address.as_u64() + Level::Pmd.size());
    let detached = upper.detach(&MODE, &arena, &Whole, elsewhere, &lower);
    assert_eq!(detached, Err(DetachError::NotLinked { entry: Entry::NONE }));
    // Nor is it linked by what only looks like the entry that leads to it: a huge leaf of the same frame, an entry that is not present, another table.
    let frame = pte.parent().unwrap().entry.table_frame();
    let other = tables.populate(&Bare, &memory, &ZeroThenLink, VirtAddr::new(0x9000_0000), Level::Pte).unwrap();
    let table_at = |frame: Frame| Entry::from_bits(frame.start().as_u64() | 0x67);
    let present = table_at(frame);
    for impostor in [
        Entry::from_bits(present.bits() | 0x80),
        Entry::from_bits(present.bits() & !1),
        table_at(other.parent().unwrap().entry.table_frame()),
    ] {
        upper.set(&MODE, &Whole, elsewhere, impostor).unwrap();
        let detached = upper.detach(&MODE, &arena, &Whole, elsewhere, &lower);
        let error = DetachError::NotLinked { entry: impostor };
        assert_eq!(detached, Err(error));
        assert_eq!(error.to_string(), format!("the parent's entry {impostor} does not point to the table"));
        upper.get_and_clear(&Whole, elsewhere);
    }
    let detached = upper.detach(&MODE, &arena, &Whole, address, &lower).unwrap();
    assert_eq!(detached.level(), Level::Pte);
    drop((upper, lower));
    // Who found the table before it was detached must not fill it any more.
    assert!(pte.lock_linked(&Bare, &Atomic).is_err());
    assert_eq!(pmd.lock(&Bare).children(), 0);
    let left = memory.frames_left();
    detached.after_flush(&Joined).free(&Bare, &memory);
    assert_eq!(memory.frames_left(), left + 1);
}

#[test]
fn populate_says_what_is_in_the_way() {
    let memory = Memory::new(5);
    let arena = memory.arena();
    let tables = tables(&memory, &arena);
    let huge = VirtAddr::new(0x4000_0000);
    let pmd = tables.populate(&Bare, &memory, &ZeroThenLink, huge, Level::Pmd).unwrap();
    let entry = Entry::leaf(Level::Pmd, Frame::new(0x200), Attributes::new(Rights::USER)).unwrap();
    pmd.lock(&Bare).set(&MODE, &Whole, huge, entry).unwrap();
    let blocked = tables.populate(&Bare, &memory, &ZeroThenLink, huge, Level::Pte).err();
    assert_eq!(blocked, Some(MapError::Walk(WalkError::Leaf { address: huge, level: Level::Pmd, entry })));
    // Two frames are left, a new path needs three; the third is missing at the pmd level.
    let far = VirtAddr::new(0x7000_0000_0000);
    let starved = tables.populate(&Bare, &memory, &ZeroThenLink, far, Level::Pte).err();
    assert_eq!(starved, Some(MapError::OutOfFrames { address: far, level: Level::Pmd }));
    memory.check_counts(Paging::Four, memory.root_address().as_u64());
    let outside = VirtAddr::new(1 << 47);
    assert!(matches!(
        tables.populate(&Bare, &memory, &ZeroThenLink, outside, Level::Pte).err(),
        Some(MapError::Walk(WalkError::Address(_)))
    ));
}

#[test]
fn a_range_takes_each_lock_once() {
    let memory = Memory::new(16);
    let arena = memory.arena();
    let tables = tables(&memory, &arena);
    let start = 0x3fff_e000_u64;
    let mut mapper = Mapper::new(&Bare, MODE, &arena, tables.root, Offline);
    let user = Attributes::new(Rights::USER);
    // Two pages, a huge page, and a page after a hole of a whole table.
    let two = (VirtAddr::new(start), 0x2000);
    mapper.map_range(&memory, two, Frame::new(1), Level::Pte, user).unwrap();
    mapper.map(&memory, VirtAddr::new(0x4000_0000), Level::Pmd, Frame::new(0x400), user).unwrap();
    mapper.map(&memory, VirtAddr::new(0x4040_1000), Level::Pte, Frame::new(9), user).unwrap();
    // And one that lies behind the range, in the next table.
    mapper.map(&memory, VirtAddr::new(0x4060_0000), Level::Pte, Frame::new(10), user).unwrap();
    let mut seen = Vec::new();
    let range = (VirtAddr::new(start - 0x1000), 0x40_2000 + 0x3000);
    tables
        .for_each_locked::<_, _, WalkError>(&Bare, &Atomic, range, |mut table, run| {
            for address in run.addresses(table.level()) {
                let entry = table.entry(&MODE, address);
                if !entry.is_none() {
                    seen.push((address.as_u64(), table.level(), table.get_and_clear(&Whole, address)));
                }
            }
            Ok(())
        })
        .unwrap();
    let seen: Vec<_> =
        seen.into_iter().map(|(address, level, entry)| (address, level, entry.leaf_frame(level).number())).collect();
    assert_eq!(
        seen,
        [
            (0x3fff_e000, Level::Pte, 1),
            (0x3fff_f000, Level::Pte, 2),
            (0x4000_0000, Level::Pmd, 0x400),
            (0x4040_1000, Level::Pte, 9)
        ]
    );
    memory.check_counts(Paging::Four, memory.root_address().as_u64());
}

#[test]
fn threads_that_zap_a_range_get_every_page_once() {
    const PAGES: u64 = if cfg!(miri) { 16 } else { 3000 };
    let memory = Memory::new(32);
    let arena = memory.arena();
    let tables = tables(&memory, &arena);
    let range = (VirtAddr::new(0x5000_0000), PAGES * 4096);
    Mapper::new(&Bare, MODE, &arena, tables.root, Offline)
        .map_range(&memory, range, Frame::new(1), Level::Pte, Attributes::new(Rights::USER))
        .unwrap();
    let zap = || {
        let mut frames = Vec::new();
        let zapped = tables.for_each_locked::<_, _, WalkError>(&Bare, &Atomic, range, |mut table, run| {
            frames.extend(run.addresses(Level::Pte).filter_map(|address| {
                let old = table.get_and_clear(&Whole, address);
                (!old.is_none()).then(|| old.table_frame().number())
            }));
            Ok(())
        });
        zapped.map(|()| frames).unwrap()
    };
    let all: Vec<Vec<u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(zap)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let frames: Vec<u64> = all.concat();
    assert_eq!(frames.len() as u64, PAGES);
    assert_eq!(frames.into_iter().collect::<BTreeSet<_>>(), (1..=PAGES).collect());
    memory.check_counts(Paging::Four, memory.root_address().as_u64());
    assert_eq!(Bare.load(&memory.meta(FIRST).children), 1);
}
