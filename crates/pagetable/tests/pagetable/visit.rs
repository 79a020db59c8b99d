//! Walks over ranges without locks, and reads of entries by each protocol.

use crate::common::{Bare, FIRST, Memory, Outcome, Paging, hardware_walk};
use machine::{Frame, VirtAddr};
use pagetable::walk::{self, Visited};
use pagetable::{
    Attributes, Cmpxchg8b, Entry, FourLevel, Level, LowHighLow, Mapper, Marker, NonPresent, Offline, Pae,
    PhysicalWidth, ReadOnce, Rights, Root, Tables, WalkError, Whole, Wide, ZeroThenLink,
};

const MODE: FourLevel = FourLevel::new(PhysicalWidth::MAX);

#[test]
fn a_visit_tells_of_every_entry_once_and_in_order() {
    let memory = Memory::new(16);
    let arena = memory.arena();
    let root = Root::new(&MODE, memory.root_address()).unwrap();
    let user = Attributes::new(Rights::USER);
    let mut mapper = Mapper::new(&Bare, MODE, &arena, root, Offline);
    mapper.map_range(&memory, (VirtAddr::new(0x3fff_e000), 0x2000), Frame::new(1), Level::Pte, user).unwrap();
    mapper.map(&memory, VirtAddr::new(0x4000_0000), Level::Pmd, Frame::new(0x400), user).unwrap();
    mapper.map(&memory, VirtAddr::new(0x4060_0000), Level::Pte, Frame::new(10), user).unwrap();
    let tables = Tables { mode: &MODE, memory: &arena, reader: &ReadOnce::<Wide>::new(), writer: &Whole, root };
    let guard = NonPresent::Marker(Marker::Guard).encode(Level::Pte);
    let guarded = VirtAddr::new(0x4020_3000);
    let position = tables.populate(&Bare, &memory, &ZeroThenLink, guarded, Level::Pte).unwrap();
    position.lock(&Bare).set(&MODE, &Whole, guarded, guard).unwrap();

    let mut seen = Vec::new();
    // From the second page, to the middle of the table that holds the last.
    let range = (VirtAddr::new(0x3fff_f000), 0x4060_0000 - 0x3fff_f000);
    walk::visit(&Bare, &MODE, &arena, &ReadOnce::<Wide>::new(), root, range, |visited: Visited<'_>| {
        seen.push((visited.address.as_u64(), visited.level, visited.entry));
        Ok::<(), WalkError>(())
    })
    .unwrap();
    let leaf = |level, frame| Entry::leaf(level, Frame::new(frame), user).unwrap();
    assert_eq!(
        seen,
        [
            (0x3fff_f000, Level::Pte, leaf(Level::Pte, 2)),
            (0x4000_0000, Level::Pmd, leaf(Level::Pmd, 0x400)),
            (0x4020_3000, Level::Pte, guard),
        ]
    );

    // The visitor ends the visit.
    let mut count = 0;
    let ended = walk::visit(&Bare, &MODE, &arena, &ReadOnce::<Wide>::new(), root, range, |visited: Visited<'_>| {
        count += 1;
        Err(WalkError::NotPresent { address: visited.address, level: visited.level, entry: visited.entry })
    });
    assert!(ended.is_err());
    assert_eq!(count, 1);
}

#[test]
fn on_pae_every_way_to_read_an_entry_at_rest_finds_it() {
    let memory = Memory::new(8);
    let arena = memory.arena();
    let mode = Pae::new(PhysicalWidth::MAX);
    let root = Root::new(&mode, memory.root_address()).unwrap();
    let address = VirtAddr::new(0x8020_3000);
    // Above 4 GiB, so that both halves of the entry say something.
    let frame = Frame::new(0x12_3456_7000);
    let mut mapper = Mapper::new(&Bare, mode, &arena, root, Offline);
    mapper.map(&memory, address, Level::Pte, frame, Attributes::new(Rights::USER)).unwrap();
    assert_eq!(walk::translate(&Bare, &mode, &arena, &Cmpxchg8b, root, address).unwrap().frame, frame);
    assert_eq!(walk::translate(&Bare, &mode, &arena, &LowHighLow, root, address).unwrap().frame, frame);
    assert_eq!(
        hardware_walk(&memory, Paging::Pae, 52, FIRST << 12, address.as_u64()),
        Outcome::Page(frame.start().as_u64())
    );
}
