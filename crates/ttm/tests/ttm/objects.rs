//! Buffer objects on threads: where they go when room is short, what stays where it is, and that nothing that was written is lost on the way.

use std::sync::atomic::Ordering;

use crate::card::{APERTURE, Leaves, Machine, SPACE, VRAM, VRAM_PAGES};
use hosted::ThreadCpu;
use machine::{Access, VirtAddr, Word};
use mm::{Area, AreaRights, FaultError};
use ttm::error::{CreateError, MmapError, NoObject, PinError};
use ttm::{Fit, Handle, Importer, Kind, MoveError, Moved, Place, Pressure};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const HALF: u64 = VRAM_PAGES / 2;
const APERTURE_PAGES: u64 = 1 << 14;

fn kind(machine: &Machine, cpu: &ThreadCpu, handle: &Handle) -> Kind {
    machine.device.reserve_alone(cpu, handle).expect("it exists").placed().kind
}

fn store(machine: &Machine, cpu: &ThreadCpu, page: u64, value: u64) {
    let at = AT.wrapping_add(page * 4096);
    let store = |word: &machine::Word64| word.atomic_store(value, Ordering::SeqCst);
    machine.access(cpu, at, Access::Write, &mut Leaves::new(), store).expect("the fault is resolved");
}

fn load(machine: &Machine, cpu: &ThreadCpu, page: u64) -> u64 {
    let at = AT.wrapping_add(page * 4096);
    let load = |word: &machine::Word64| word.atomic_load(Ordering::SeqCst);
    machine.access(cpu, at, Access::Read, &mut Leaves::new(), load).expect("the fault is resolved")
}

#[test]
fn what_was_used_longest_ago_leaves() {
    let machine = Machine::build(1, &[HALF; 3], 32 * 512);
    let cpu = machine.threads.attach().expect("a free CPU");
    let [a, b, c] = &[HALF; 3].map(|pages| machine.device.create(&cpu, pages).expect("a free slot"));
    machine.place(&cpu, a, VRAM).expect("an empty card");
    machine.place(&cpu, b, VRAM).expect("as much again");
    assert_eq!(machine.place(&cpu, a, VRAM), Ok(Moved::Not), "used again: now it is b's turn");
    machine.place(&cpu, c, VRAM).expect("b can leave");
    assert_eq!([a, b, c].map(|object| kind(&machine, &cpu, object)), [VRAM, Kind::SYSTEM, VRAM]);
    assert_eq!(machine.device.kinds()[2].evictions(&cpu), 1);
    // Without pressure nobody leaves.
    let mut reserved = machine.device.reserve_alone(&cpu, b).expect("it exists");
    let only_free = Place { pressure: Pressure::OnlyFree, fit: Fit::First, ..Place::anywhere(VRAM) };
    let refused = machine.device.validate(&mut reserved, &[only_free], None);
    assert!(matches!(refused, Err(MoveError::NoRoom { kind: VRAM, .. })), "{refused:?}");
    // The second place will do.
    let moved = machine.device.validate(&mut reserved, &[only_free, Place::anywhere(APERTURE)], None);
    assert!(matches!(moved, Ok(Moved::From(from)) if from.kind == Kind::SYSTEM), "{moved:?}");
}

#[test]
fn an_object_without_frames_leaves_the_aperture_like_any_other() {
    let machine = Machine::build(1, &[APERTURE_PAGES; 2], 8);
    let cpu = machine.threads.attach().expect("a free CPU");
    let [a, b] = &[APERTURE_PAGES; 2].map(|pages| machine.device.create(&cpu, pages).expect("a free slot"));
    machine.place(&cpu, a, APERTURE).expect("it is empty");
    machine.place(&cpu, b, APERTURE).expect("a takes room there although it has no frames, and can leave");
    assert_eq!([a, b].map(|object| kind(&machine, &cpu, object)), [Kind::SYSTEM, APERTURE]);
}

#[test]
fn contents_go_with_an_object_through_every_kind_and_swap() {
    let machine = Machine::build(1, &[600], 4 * 512);
    let cpu = machine.threads.attach().expect("a free CPU");
    machine.mm.enter(&cpu, machine.space());
    let object = machine.device.create(&cpu, 600).expect("a free slot");
    machine.map(&cpu, &object, AT, 600);
    assert_eq!(load(&machine, &cpu, 599), 0, "a new object holds zeros");
    for page in 0..600 {
        store(&machine, &cpu, page, page + 1);
    }
    for to in [VRAM, APERTURE, Kind::SYSTEM, VRAM, Kind::SYSTEM] {
        machine.place(&cpu, &object, to).expect("there is room everywhere");
        assert!((0..600).all(|page| load(&machine, &cpu, page) == page + 1), "in {to:?}");
        assert_eq!(kind(&machine, &cpu, &object), to);
    }
    assert_eq!(machine.device.swap_out(&cpu), Ok(Some(600)));
    assert_eq!((machine.swap.in_use(), machine.system_frames_in_use()), (600, 0));
    assert!((0..600).all(|page| load(&machine, &cpu, page) == page + 1), "brought back by a fault");
    assert_eq!(machine.swap.in_use(), 0);
    machine.device.swap_out(&cpu).expect("room on swap");
    machine.place(&cpu, &object, VRAM).expect("from swap to the card");
    assert!((0..600).all(|page| load(&machine, &cpu, page) == page + 1), "on the card");
    machine.mm.munmap(&cpu, SPACE, AT, 600).expect("it is mapped");
    machine.device.put(&cpu, object).expect("the last handle");
    machine.device.reap(&cpu);
    assert_eq!((machine.swap.in_use(), machine.device.kinds()[2].used(&cpu)), (0, 0));
    // The frames that the copy engine was reading went with the object.
    assert_eq!(machine.system_frames_in_use(), 0);
}

#[test]
fn what_is_pinned_stays() {
    let machine = Machine::build(1, &[HALF; 3], 32 * 512);
    let cpu = machine.threads.attach().expect("a free CPU");
    let [a, b, c] = &[HALF; 3].map(|pages| machine.device.create(&cpu, pages).expect("a free slot"));
    let device = machine.device;
    for object in [a, b] {
        let mut reserved = device.reserve_alone(&cpu, object).expect("it exists");
        device.pin(&mut reserved, &[Place::anywhere(VRAM)], None).expect("there is room");
    }
    let refused = machine.place(&cpu, c, VRAM);
    assert!(matches!(refused, Err(MoveError::NoRoom { kind: VRAM, .. })), "{refused:?}");
    assert_eq!(machine.place(&cpu, a, Kind::SYSTEM), Err(MoveError::Pinned));
    assert_eq!(machine.place(&cpu, a, VRAM), Ok(Moved::Not));
    {
        let mut reserved = device.reserve_alone(&cpu, a).expect("it exists");
        device.unpin(&mut reserved).expect("pinned once");
        assert_eq!(device.unpin(&mut reserved), Err(PinError::NotPinned), "and not twice");
    }
    machine.place(&cpu, c, VRAM).expect("a can leave now");
    assert_eq!([a, b, c].map(|object| kind(&machine, &cpu, object)), [Kind::SYSTEM, VRAM, VRAM]);
    // System memory is swapped out by the same rule.
    let mut reserved = device.reserve_alone(&cpu, a).expect("it exists");
    device.pin(&mut reserved, &[Place::anywhere(Kind::SYSTEM)], None).expect("it is there");
    reserved.unlock();
    assert_eq!(device.swap_out(&cpu), Ok(None));
}

#[test]
fn importers_follow_moves_or_prevent_them() {
    let machine = Machine::build(1, &[8; 2], 512);
    let cpu = machine.threads.attach().expect("a free CPU");
    let device = machine.device;
    let [object, other] = &[8; 2].map(|pages| device.create(&cpu, pages).expect("a free slot"));
    let mut reserved = device.reserve_alone(&cpu, object).expect("it exists");
    let dynamic = device.attach(&mut reserved, Importer::Dynamic(7)).expect("a free slot");
    let extent = device.map_attachment(&dynamic, &mut reserved).expect("there are frames");
    assert_eq!((extent.kind(), extent.pages()), (Kind::SYSTEM, 8));
    reserved.unlock();
    assert!(device.is_told(&cpu, &dynamic));
    machine.place(&cpu, object, VRAM).expect("it may move");
    assert_eq!(*machine.card.notified.lock().expect("nobody panics"), [7]);
    assert!(!device.is_told(&cpu, &dynamic), "what it was told is out of date");

    let mut reserved = device.reserve_alone(&cpu, object).expect("it exists");
    let fixed = device.attach(&mut reserved, Importer::Static).expect("it moves to where it can be pinned");
    assert_eq!((reserved.placed().kind, reserved.pins()), (Kind::SYSTEM, 1));
    assert_eq!(device.unpin(&mut reserved), Err(PinError::NotPinned), "the pin is the importer's");
    device.pin(&mut reserved, &[Place::anywhere(Kind::SYSTEM)], None).expect("one of our own");
    assert_eq!((device.unpin(&mut reserved), reserved.pins()), (Ok(()), 1));
    reserved.unlock();
    assert_eq!(machine.place(&cpu, object, VRAM), Err(MoveError::Pinned));
    let mut reserved = device.reserve_alone(&cpu, other).expect("it exists");
    let mistaken = device.map_attachment(&fixed, &mut reserved).map(|extent| extent.pages());
    assert_eq!(mistaken, Err(ttm::error::ShareError::OtherObject));
    reserved.unlock();
    device.detach(&cpu, fixed).expect("of this device");
    machine.place(&cpu, object, VRAM).expect("nobody pins it any more");

    // Slots are limited; whoever finds none leaves nothing behind.
    let mut reserved = device.reserve_alone(&cpu, other).expect("it exists");
    let mut all = Vec::new();
    let full = loop {
        match device.attach(&mut reserved, Importer::Static) {
            Ok(attachment) => all.push(attachment),
            Err(error) => break error,
        }
    };
    assert_eq!((full, all.len()), (ttm::error::ShareError::NoSlot, 7));
    assert_eq!(reserved.pins(), 7);
    reserved.unlock();
    all.into_iter().for_each(|attachment| device.detach(&cpu, attachment).expect("of this device"));
    device.detach(&cpu, dynamic).expect("of this device");
    assert_eq!(device.reserve_alone(&cpu, other).expect("it exists").pins(), 0);
}

#[test]
fn an_object_that_is_gone_is_nobodys() {
    let machine = Machine::build(1, &[8], 512);
    let cpu = machine.threads.attach().expect("a free CPU");
    machine.mm.enter(&cpu, machine.space());
    let device = machine.device;
    assert!(matches!(device.create(&cpu, 0), Err(CreateError::Size { pages: 0 })));
    assert!(matches!(device.create(&cpu, 9), Err(CreateError::Size { pages: 9 })));
    let object = device.create(&cpu, 8).expect("a free slot");
    assert!(matches!(device.create(&cpu, 8), Err(CreateError::NoSlot)));
    let outside = device.mmap(&cpu, &object, (4, 5), (SPACE, AT), AreaRights::ReadWrite);
    assert_eq!(outside, Err(MmapError::OutsideObject { first: 4, pages: 5, size: 8 }));
    machine.map(&cpu, &object, AT, 8);
    store(&machine, &cpu, 3, 33);
    let id = object.id();
    // It is exported and imported by its number while a handle exists.
    device.put(&cpu, device.get(&cpu, id).expect("it has a handle")).expect("of this device");
    device.put(&cpu, object).expect("the last handle");
    assert_eq!(device.get(&cpu, id).map(drop), Err(NoObject(id)), "an export of a freed object");
    assert_eq!(load(&machine, &cpu, 3), 33, "it exists as long as it is mapped");
    assert_eq!(device.reap(&cpu), 0);
    machine.mm.munmap(&cpu, SPACE, AT, 8).expect("it is mapped");
    assert_eq!((device.reap(&cpu), machine.system_frames_in_use()), (1, 0));
    // An area of the device's file that was not made by way of a handle.
    let area = Area::shared(AT, 8, AreaRights::ReadWrite, device.file_id(), 0);
    machine.mm.mmap(&cpu, SPACE, area).expect("nothing is there");
    let fault = machine.access(&cpu, AT, Access::Write, &mut Leaves::new(), |_| ());
    assert!(matches!(fault, Err(FaultError::NoPage { .. })), "{fault:?}");
    assert_eq!(machine.system_frames_in_use(), 0, "there is no object to give frames to");
    machine.mm.munmap(&cpu, SPACE, AT, 8).expect("it is mapped");
    let next = device.create(&cpu, 8).expect("the slot is free again");
    assert_ne!(next.id(), id);
    assert_eq!(device.get(&cpu, id).map(drop), Err(NoObject(id)), "a number is used once");
    machine.map(&cpu, &next, AT, 8);
    assert_eq!(load(&machine, &cpu, 3), 0, "nobody sees what others left");
}

#[test]
fn a_part_of_an_object_is_mapped_from_its_own_first_page_on() {
    let machine = Machine::build(1, &[8; 2], 512);
    let cpu = machine.threads.attach().expect("a free CPU");
    machine.mm.enter(&cpu, machine.space());
    let device = machine.device;
    let [_, object] = &[8; 2].map(|pages| device.create(&cpu, pages).expect("a free slot"));
    machine.map(&cpu, object, AT, 8);
    (0..8).for_each(|page| store(&machine, &cpu, page, page + 1));
    machine.mm.munmap(&cpu, SPACE, AT, 8).expect("it is mapped");
    device.mmap(&cpu, object, (5, 3), (SPACE, AT), AreaRights::ReadWrite).expect("up to its end");
    assert_eq!([0, 1, 2].map(|page| load(&machine, &cpu, page)), [6, 7, 8]);
}
