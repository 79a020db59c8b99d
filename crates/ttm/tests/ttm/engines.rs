//! Engines that take their time, or that cannot go everywhere: who waits for them and who does not, and by which way an object goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::card::{APERTURE, COPY_ENGINE, GHOSTS, Leaves, Machine, Manner, SLOW_ENGINE, STOLEN, VRAM, VRAM_PAGES};
use hosted::ThreadCpu;
use machine::{Access, VirtAddr, Word};
use ttm::{Handle, Kind, MoveError, Moved, Place, Refused, Usage};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const PAGES: u64 = 3;

/// A machine with objects of these sizes, the first of which is mapped and holds the numbers of its pages, plus one.
fn scene(cpus: u32, sizes: &[u64]) -> (Machine, ThreadCpu, Vec<Handle>) {
    let machine = Machine::build(cpus, sizes, 32 * 512);
    let cpu = machine.threads.attach().expect("a free CPU");
    machine.mm.enter(&cpu, machine.space());
    let objects: Vec<_> = sizes.iter().map(|&pages| machine.device.create(&cpu, pages).expect("a free slot")).collect();
    machine.map(&cpu, &objects[0], AT, PAGES);
    for page in 0..PAGES {
        let store = |word: &machine::Word64| word.atomic_store(page + 1, Ordering::SeqCst);
        machine.access(&cpu, AT.wrapping_add(page * 4096), Access::Write, &mut Leaves::new(), store).expect("mapped");
    }
    (machine, cpu, objects)
}

fn holds_its_numbers(machine: &Machine, cpu: &ThreadCpu) -> bool {
    (0..PAGES).all(|page| {
        let load = |word: &machine::Word64| word.atomic_load(Ordering::SeqCst);
        machine.access(cpu, AT.wrapping_add(page * 4096), Access::Read, &mut Leaves::new(), load) == Ok(page + 1)
    })
}

fn kind(machine: &Machine, cpu: &ThreadCpu, handle: &Handle) -> Kind {
    machine.device.reserve_alone(cpu, handle).expect("it exists").placed().kind
}

/// Waits for all moves of an object, and gives back what it has left.
fn settle(machine: &Machine, cpu: &ThreadCpu, handle: &Handle) {
    machine.device.wait(&machine.device.reserve_alone(cpu, handle).expect("it exists"), Usage::Kernel);
    machine.device.reap(cpu);
}

/// How many pages of each kind are in use.
fn used(machine: &Machine, cpu: &ThreadCpu) -> Vec<u64> {
    machine.device.kinds().iter().map(|kind| kind.used(cpu)).collect()
}

/// The slow engine does what it was told.
fn finish(machine: &Machine, cpu: &ThreadCpu) {
    machine.card.do_lost();
    let timeline = machine.device.timeline(SLOW_ENGINE).expect("there is one");
    timeline.signal(cpu, timeline.latest(cpu));
}

/// Runs `waits` while the slow engine is at work, and lets that finish a little later. Returns whether the work was done by the end of `waits`.
fn is_over_after(machine: &Machine, waits: impl FnOnce()) -> bool {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let cpu = machine.threads.attach().expect("a free CPU");
            std::thread::sleep(Duration::from_millis(50));
            is_done.store(true, Ordering::SeqCst);
            finish(machine, &cpu);
        });
        waits();
        is_done.load(Ordering::SeqCst)
    })
}

/// Runs `moves` while the slow engine is at work. Whether it came back without waiting for it: else it gets what it waits for in the end.
fn does_not_wait(machine: &Machine, cpu: &ThreadCpu, moves: impl FnOnce()) -> bool {
    let (is_back, was_late) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let cpu = machine.threads.attach().expect("a free CPU");
            let begin = Instant::now();
            while !is_back.load(Ordering::SeqCst) {
                if begin.elapsed() > Duration::from_secs(20) {
                    was_late.store(true, Ordering::SeqCst);
                    finish(machine, &cpu);
                }
                std::thread::yield_now();
            }
        });
        moves();
        is_back.store(true, Ordering::SeqCst);
    });
    let timeline = machine.device.timeline(SLOW_ENGINE).expect("there is one");
    assert!(was_late.load(Ordering::SeqCst) || !timeline.is_reached(cpu, timeline.latest(cpu)), "it was at work");
    !was_late.load(Ordering::SeqCst)
}

#[test]
fn an_object_goes_by_way_of_a_third_kind_if_the_engine_must() {
    for via in [APERTURE, STOLEN] {
        let (machine, cpu, objects) = scene(1, &[PAGES]);
        machine.card.refuse(Some(match via {
            APERTURE => |from, to| [from, to].iter().all(|&kind| kind != APERTURE).then_some(Refused::Hop(APERTURE)),
            _ => |from, to| [from, to].iter().all(|&kind| kind != STOLEN).then_some(Refused::Hop(STOLEN)),
        }));
        for to in [VRAM, Kind::SYSTEM, VRAM] {
            let from = kind(&machine, &cpu, &objects[0]);
            let moved = machine.place(&cpu, &objects[0], to);
            assert!(matches!(moved, Ok(Moved::From(placed)) if placed.kind == from), "{moved:?}");
            assert_eq!(kind(&machine, &cpu, &objects[0]), to, "by way of {via:?}");
            assert!(holds_its_numbers(&machine, &cpu), "by way of {via:?} to {to:?}");
            settle(&machine, &cpu, &objects[0]);
            let (vram, system) = if to == VRAM { (PAGES, 0) } else { (0, PAGES) };
            assert_eq!((used(&machine, &cpu), machine.system_frames_in_use()), (vec![0, 0, vram, 0], system));
        }
    }
}

#[test]
fn a_way_that_leads_nowhere_is_refused_before_anybody_has_to_make_room() {
    let (machine, cpu, objects) = scene(1, &[PAGES, VRAM_PAGES]);
    machine.place(&cpu, &objects[0], STOLEN).expect("it is empty");
    machine.place(&cpu, &objects[1], VRAM).expect("it is empty");
    settle(&machine, &cpu, &objects[0]);
    settle(&machine, &cpu, &objects[1]);
    let copies = machine.card.copies.load(Ordering::Relaxed);
    // By way of where it is, of where it is to go, and of a kind that does not exist.
    let ways: [(crate::card::Refusal, Kind); 3] = [
        (|from, to| (from != to).then_some(Refused::Hop(STOLEN)), STOLEN),
        (|from, to| (from != to).then_some(Refused::Hop(APERTURE)), APERTURE),
        (|from, to| (from != to).then_some(Refused::Hop(Kind::new(4))), Kind::new(4)),
    ];
    for (refusal, via) in ways {
        machine.card.refuse(Some(refusal));
        assert_eq!(machine.place(&cpu, &objects[0], APERTURE), Err(MoveError::Refused(Refused::Hop(via))));
        assert_eq!(kind(&machine, &cpu, &objects[0]), STOLEN);
        assert_eq!((used(&machine, &cpu), machine.system_frames_in_use()), (vec![0, 0, VRAM_PAGES, PAGES], 0));
    }
    // Where it is to go all but a page is taken: whoever asked for room there twice would find none, and say so.
    machine.card.refuse(None);
    machine.place(&cpu, &objects[0], Kind::SYSTEM).expect("there is room");
    machine.place(&cpu, &objects[1], Kind::SYSTEM).expect("there is room");
    machine.card.refuse(Some(|from, to| (from != to).then_some(Refused::Hop(VRAM))));
    assert_eq!(machine.place(&cpu, &objects[1], VRAM), Err(MoveError::Refused(Refused::Hop(VRAM))));
    machine.card.refuse(None);
    settle(&machine, &cpu, &objects[0]);
    assert!(holds_its_numbers(&machine, &cpu));
    assert_eq!(machine.card.copies.load(Ordering::Relaxed), copies + 2, "nothing was copied but the ways back");
}

#[test]
fn an_object_that_gets_no_further_than_half_way_stays_there_with_its_contents() {
    let (machine, cpu, objects) = scene(1, &[PAGES]);
    machine.card.refuse(Some(|from, to| match (from, to) {
        (Kind::SYSTEM, STOLEN) => None,
        (STOLEN, _) => Some(Refused::Failed(7)),
        _ => Some(Refused::Hop(STOLEN)),
    }));
    assert_eq!(machine.place(&cpu, &objects[0], VRAM), Err(MoveError::Refused(Refused::Failed(7))));
    assert_eq!(kind(&machine, &cpu, &objects[0]), STOLEN);
    settle(&machine, &cpu, &objects[0]);
    assert_eq!((used(&machine, &cpu), machine.system_frames_in_use()), (vec![0, 0, 0, PAGES], 0), "VRAM is free again");
    assert!(holds_its_numbers(&machine, &cpu));
    // And if it does not get that far, all room is given back.
    machine.card.refuse(None);
    machine.place(&cpu, &objects[0], Kind::SYSTEM).expect("there is room");
    settle(&machine, &cpu, &objects[0]);
    machine.card.refuse(Some(|_, to| Some(if to == VRAM { Refused::Hop(STOLEN) } else { Refused::Failed(8) })));
    assert_eq!(machine.place(&cpu, &objects[0], VRAM), Err(MoveError::Refused(Refused::Failed(8))));
    assert_eq!((used(&machine, &cpu), machine.system_frames_in_use()), (vec![0; 4], PAGES));
    assert!(holds_its_numbers(&machine, &cpu));
}

#[test]
fn who_moves_an_object_does_not_wait_for_the_engine_but_who_wants_its_room_does() {
    let sizes = [PAGES; GHOSTS as usize + 1];
    let (machine, cpu, objects) = scene(2, &sizes);
    // What was done at once needs no note, nor does what was not done at all.
    for _ in 0..GHOSTS {
        machine.card.set_manner(Manner::AtOnce);
        machine.place(&cpu, &objects[0], VRAM).expect("there is room");
        machine.card.refuse(Some(|_, _| Some(Refused::Failed(1))));
        machine.place(&cpu, &objects[0], STOLEN).expect_err("refused");
        machine.card.refuse(None);
        machine.place(&cpu, &objects[0], STOLEN).expect("there is room");
        machine.place(&cpu, &objects[0], Kind::SYSTEM).expect("there is room");
    }
    machine.card.set_manner(Manner::Later);
    let to_the_card = || {
        objects.iter().for_each(|object| {
            machine.place(&cpu, object, VRAM).expect("there is room");
        });
    };
    assert!(does_not_wait(&machine, &cpu, to_the_card), "out of system memory");
    finish(&machine, &cpu);
    let all = sizes.len() as u64 * PAGES;
    let out_of_it = || {
        objects[..GHOSTS as usize].iter().for_each(|object| {
            machine.place(&cpu, object, STOLEN).expect("there is room");
        });
    };
    assert!(does_not_wait(&machine, &cpu, out_of_it), "out of the card's memory");
    machine.device.reap(&cpu);
    assert_eq!(used(&machine, &cpu), [0, 0, all, all - PAGES], "the engine still reads there");
    // There is no room to note one more, so its room is given back before the call returns.
    let last = || {
        machine.place(&cpu, &objects[GHOSTS as usize], STOLEN).expect("there is room");
    };
    assert!(is_over_after(&machine, last));
    assert_eq!(used(&machine, &cpu), [0, 0, all - PAGES, all]);
    machine.device.reap(&cpu);
    assert_eq!(used(&machine, &cpu), [0, 0, 0, all]);
    assert!(holds_its_numbers(&machine, &cpu));
}

#[test]
fn each_engine_has_a_time_of_its_own() {
    let (machine, cpu, objects) = scene(1, &[PAGES]);
    let device = machine.device;
    machine.place(&cpu, &objects[0], VRAM).expect("there is room");
    settle(&machine, &cpu, &objects[0]);
    machine.card.set_manner(Manner::Later);
    machine.place(&cpu, &objects[0], STOLEN).expect("there is room");
    // The other engine has come further, but has nothing to do with it.
    for _ in 0..3 {
        let fence = device.fence(&cpu, COPY_ENGINE).expect("there is one");
        device.timeline(COPY_ENGINE).expect("there is one").signal(&cpu, fence.point());
    }
    device.reap(&cpu);
    assert_eq!(used(&machine, &cpu), [0, 0, PAGES, PAGES], "it is still copied");
    let reserved = device.reserve_alone(&cpu, &objects[0]).expect("it exists");
    assert!(device.is_busy(&reserved, Usage::Read));
    finish(&machine, &cpu);
    assert!(!device.is_busy(&reserved, Usage::Kernel));
    reserved.unlock();
    device.reap(&cpu);
    assert_eq!(used(&machine, &cpu), [0, 0, 0, PAGES]);
    assert!(holds_its_numbers(&machine, &cpu));
}

#[test]
fn a_fault_that_was_given_up_waits_for_the_move_of_its_object() {
    let (machine, cpu, objects) = scene(2, &[PAGES; 2]);
    let device = machine.device;
    machine.card.set_manner(Manner::Later);
    machine.place(&cpu, &objects[1], VRAM).expect("there is room");
    let page = device.mmap_offset(&objects[1]) + PAGES - 1;
    // The other object has no move to wait for.
    assert!(does_not_wait(&machine, &cpu, || device.wait_for_fault(&cpu, device.mmap_offset(&objects[0]))));
    assert!(is_over_after(&machine, || device.wait_for_fault(&cpu, page)));
    // Nor is there anything to wait for where no object can be.
    device.wait_for_fault(&cpu, 2 << 31);
    device.wait_for_fault(&cpu, u64::MAX);
}

#[test]
fn an_object_goes_to_the_first_place_where_room_can_be_made() {
    let (machine, cpu, objects) = scene(1, &[PAGES, VRAM_PAGES, 1 << 14]);
    let [object, rival, bound] = &objects[..] else { panic!("three") };
    let device = machine.device;
    let mut reserved = device.reserve_alone(&cpu, rival).expect("it exists");
    device.pin(&mut reserved, &[Place::anywhere(VRAM)], None).expect("it is empty");
    reserved.unlock();
    machine.place(&cpu, bound, APERTURE).expect("it is empty");
    // The card's memory is full and stays so. The aperture is full too, but what is there can leave.
    let mut reserved = device.reserve_alone(&cpu, object).expect("it exists");
    let places = [VRAM, APERTURE].map(Place::anywhere);
    assert!(device.validate(&mut reserved, &places, None).is_ok());
    assert_eq!(reserved.placed().kind, APERTURE);
    reserved.unlock();
    assert_eq!(kind(&machine, &cpu, bound), Kind::SYSTEM);
    // Of two that could be emptied the first is, and the other is left alone.
    machine.place(&cpu, object, Kind::SYSTEM).expect("there is room");
    machine.place(&cpu, bound, APERTURE).expect("it is empty");
    let mut reserved = device.reserve_alone(&cpu, rival).expect("it exists");
    device.unpin(&mut reserved).expect("pinned once");
    reserved.unlock();
    let mut reserved = device.reserve_alone(&cpu, object).expect("it exists");
    assert!(device.validate(&mut reserved, &places, None).is_ok());
    assert_eq!(reserved.placed().kind, VRAM);
    reserved.unlock();
    assert_eq!([rival, bound].map(|object| kind(&machine, &cpu, object)), [Kind::SYSTEM, APERTURE]);
    assert!(holds_its_numbers(&machine, &cpu));
}

#[test]
fn places_that_cannot_be_are_refused() {
    let (machine, cpu, objects) = scene(1, &[PAGES]);
    let mut reserved = machine.device.reserve_alone(&cpu, &objects[0]).expect("it exists");
    let vram = Place::anywhere(VRAM);
    let bad = [
        Place::anywhere(Kind::new(4)),
        Place { alignment: 0, ..vram },
        Place { alignment: 3, ..vram },
        Place { alignment: 3, ..Place::anywhere(Kind::SYSTEM) },
        Place { first: 1, end: PAGES, ..vram },
        Place { first: VRAM_PAGES - PAGES + 1, ..vram },
        Place { first: u64::MAX, ..vram },
    ];
    for place in bad {
        // Whichever of several it is: who asks so has made a mistake.
        let refused = machine.device.validate(&mut reserved, &[Place::anywhere(Kind::SYSTEM), place], None);
        assert_eq!(refused, Err(MoveError::BadPlace(place)));
    }
    assert_eq!(machine.device.validate(&mut reserved, &[], None), Err(MoveError::NoPlace));
    // In system memory there are no windows.
    let system = Place { first: 1, end: 0, ..Place::anywhere(Kind::SYSTEM) };
    assert_eq!(machine.device.validate(&mut reserved, &[system], None), Ok(Moved::Not));
    let last = Place { first: VRAM_PAGES - PAGES, ..vram };
    assert!(machine.device.validate(&mut reserved, &[last], None).is_ok(), "it just fits");
    assert_eq!(reserved.placed().start, VRAM_PAGES - PAGES);
}
