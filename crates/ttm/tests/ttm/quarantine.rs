//! A driver whose fences say nothing: what its engine may still read or write stays where it is until the card was reset.

use std::sync::atomic::Ordering;

use crate::card::{APERTURE, COPY_ENGINE, Leaves, Machine, Manner, NO_TIMELINE, SPACE, STOLEN, VRAM, VRAM_PAGES};
use hosted::ThreadCpu;
use machine::{Access, VirtAddr, Word};
use ttm::error::CreateError;
use ttm::{FenceError, Handle, Kind, MoveError, Moved, Place, TimelineId, Usage};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const PAGES: u64 = 3;

/// One object, mapped, whose pages hold their numbers plus one; another slot for a rival as large as the card's memory.
struct Scene {
    machine: Machine,
    cpu: ThreadCpu,
    object: Handle,
}

impl Scene {
    fn new() -> Self {
        let machine = Machine::build(1, &[PAGES, VRAM_PAGES], 512);
        let cpu = machine.threads.attach().expect("a free CPU");
        machine.mm.enter(&cpu, machine.space());
        let object = machine.device.create(&cpu, PAGES).expect("a free slot");
        machine.map(&cpu, &object, AT, PAGES);
        let scene = Self { machine, cpu, object };
        scene.write(1);
        scene
    }

    fn write(&self, first: u64) {
        for page in 0..PAGES {
            let store = |word: &machine::Word64| word.atomic_store(first + page, Ordering::SeqCst);
            let at = AT.wrapping_add(page * 4096);
            self.machine.access(&self.cpu, at, Access::Write, &mut Leaves::new(), store).expect("it is mapped");
        }
    }

    /// Whether the object's pages hold numbers from `first` on.
    fn holds(&self, first: u64) -> bool {
        (0..PAGES).all(|page| {
            let load = |word: &machine::Word64| word.atomic_load(Ordering::SeqCst);
            let at = AT.wrapping_add(page * 4096);
            self.machine.access(&self.cpu, at, Access::Read, &mut Leaves::new(), load) == Ok(first + page)
        })
    }

    fn place(&self, kind: Kind) -> Result<Moved, MoveError> {
        self.machine.place(&self.cpu, &self.object, kind)
    }

    /// To the card by a fence, and all frames of the system back.
    fn to_the_card(&self) {
        self.place(VRAM).expect("an empty card");
        let device = self.machine.device;
        device.wait(&device.reserve_alone(&self.cpu, &self.object).expect("it exists"), Usage::Kernel);
        device.reap(&self.cpu);
        assert_eq!(self.machine.system_frames_in_use(), 0);
    }

    /// How many pages of each kind are in use, and how many frames of the system.
    fn in_use(&self) -> ([u64; 4], u64) {
        let kinds = self.machine.device.kinds();
        ([0, 1, 2, 3].map(|kind: usize| kinds[kind].used(&self.cpu)), self.machine.system_frames_in_use())
    }

    /// The object is in quarantine, in `at`: it does not move, but can be used.
    fn is_stuck(&self, at: Kind) {
        let device = self.machine.device;
        for kind in [Kind::SYSTEM, APERTURE, VRAM, STOLEN].into_iter().filter(|&kind| kind != at) {
            assert_eq!(self.place(kind), Err(MoveError::Quarantined), "{at:?} to {kind:?}");
        }
        assert_eq!(self.place(at), Ok(Moved::Not));
        assert_eq!(device.swap_out(&self.cpu), Ok(None), "nor is it swapped out");
        let mut reserved = device.reserve_alone(&self.cpu, &self.object).expect("it exists");
        assert!(reserved.is_quarantined());
        device.pin(&mut reserved, &[Place::anywhere(at)], None).expect("it stays there anyway");
        device.unpin(&mut reserved).expect("pinned once");
        reserved.unlock();
        // It is evicted for nobody, and its room is nobody else's.
        let rival = device.create(&self.cpu, VRAM_PAGES).expect("a free slot");
        let refused = self.machine.place(&self.cpu, &rival, VRAM);
        if self.in_use().0[2] > 0 {
            assert!(matches!(refused, Err(MoveError::NoRoom { kind: VRAM, .. })), "{refused:?}");
        }
        device.put(&self.cpu, rival).expect("of this device");
        device.reap(&self.cpu);
        self.write(10);
        assert_eq!(self.machine.card.do_lost(), 1, "the engine writes where nobody is");
        assert!(self.holds(10));
    }

    /// Ends the object, and looks whether everything is there again.
    fn end(self) {
        let (machine, cpu) = (&self.machine, &self.cpu);
        machine.mm.munmap(cpu, SPACE, AT, PAGES).expect("it is mapped");
        machine.device.put(cpu, self.object).expect("the last handle");
        machine.device.wait_for_fault(cpu, 0);
        machine.device.reap(cpu);
        let used: Vec<u64> = machine.device.kinds().iter().map(|kind| kind.used(cpu)).collect();
        assert_eq!((machine.system_frames_in_use(), machine.swap.counts(), used), (0, 0, vec![0; 4]));
    }
}

fn never_given(error: MoveError) -> bool {
    matches!(error, MoveError::BadFence(FenceError::NeverGiven { fence, latest }) if fence.point() == latest + 1)
}

fn no_timeline(error: MoveError) -> bool {
    matches!(error, MoveError::BadFence(FenceError::NoTimeline(fence)) if fence.timeline() == NO_TIMELINE)
}

type IsTheError = fn(MoveError) -> bool;

/// Both ways in which a fence says nothing.
const LOST: [(TimelineId, IsTheError); 2] = [(COPY_ENGINE, never_given), (NO_TIMELINE, no_timeline)];

#[test]
fn frames_that_an_engine_may_write_are_nobodys_before_the_reset() {
    for (timeline, is_the_error) in LOST {
        for (to, aperture) in [(Kind::SYSTEM, 0), (APERTURE, PAGES)] {
            let scene = Scene::new();
            scene.to_the_card();
            scene.machine.card.set_manner(Manner::Lost(timeline));
            assert!(scene.place(to).is_err_and(is_the_error));
            scene.machine.card.set_manner(Manner::Fenced);
            assert_eq!(scene.in_use(), ([0, aperture, PAGES, 0], PAGES), "the old place and the new one");
            assert!(scene.holds(1), "it is where it was");
            scene.is_stuck(VRAM);
            assert_eq!(scene.machine.device.reap(&scene.cpu), 0);
            assert_eq!(scene.in_use(), ([0, aperture, PAGES, 0], PAGES));
            assert_eq!(scene.machine.device.after_reset(&scene.cpu), 1);
            assert_eq!(scene.in_use(), ([0, 0, PAGES, 0], 0));
            assert_eq!(scene.machine.device.after_reset(&scene.cpu), 0, "nothing is left in quarantine");
            assert!(scene.place(to).is_ok(), "it moves again");
            assert!(scene.holds(10));
            scene.end();
        }
    }
}

#[test]
fn room_on_the_card_that_an_engine_may_write_is_nobodys_before_the_reset() {
    for (timeline, is_the_error) in LOST {
        let scene = Scene::new();
        scene.machine.card.set_manner(Manner::Lost(timeline));
        assert!(scene.place(VRAM).is_err_and(is_the_error));
        scene.machine.card.set_manner(Manner::Fenced);
        assert_eq!(scene.in_use(), ([0, 0, PAGES, 0], PAGES));
        scene.is_stuck(Kind::SYSTEM);
        assert_eq!(
            scene.in_use(),
            ([0, 0, PAGES, 0], PAGES),
            "nobody gets the room, and its frames are not swapped out"
        );
        assert_eq!(scene.machine.device.after_reset(&scene.cpu), 1);
        assert_eq!(scene.in_use(), ([0; 4], PAGES));
        assert_eq!(scene.machine.device.swap_out(&scene.cpu), Ok(Some(PAGES)), "now it can be");
        assert!(scene.place(VRAM).is_ok());
        assert!(scene.holds(10));
        scene.end();
    }
}

#[test]
fn room_on_the_card_that_an_engine_may_read_is_not_given_away() {
    let scene = Scene::new();
    scene.to_the_card();
    scene.machine.card.set_manner(Manner::Lost(COPY_ENGINE));
    assert!(scene.place(STOLEN).is_err_and(never_given));
    scene.machine.card.set_manner(Manner::Fenced);
    assert_eq!(scene.in_use(), ([0, 0, PAGES, PAGES], 0), "source and target");
    scene.is_stuck(VRAM);
    assert_eq!(scene.machine.device.after_reset(&scene.cpu), 1);
    assert_eq!(scene.in_use(), ([0, 0, PAGES, 0], 0));
    scene.end();
}

#[test]
fn an_object_without_frames_that_an_engine_clears_has_none_afterwards() {
    let scene = Scene::new();
    let empty = scene.machine.device.create(&scene.cpu, VRAM_PAGES).expect("a free slot");
    scene.machine.card.set_manner(Manner::Lost(COPY_ENGINE));
    let refused = scene.machine.place(&scene.cpu, &empty, VRAM);
    assert!(refused.is_err_and(never_given), "it was to be filled with zeros");
    scene.machine.card.set_manner(Manner::Fenced);
    assert_eq!(scene.in_use(), ([0, 0, VRAM_PAGES, 0], PAGES));
    scene.machine.card.do_lost();
    assert_eq!(scene.machine.device.after_reset(&scene.cpu), 1);
    assert_eq!(scene.in_use(), ([0; 4], PAGES));
    scene.machine.device.put(&scene.cpu, empty).expect("of this device");
    scene.end();
}

#[test]
fn an_object_in_quarantine_ends_with_the_reset() {
    let scene = Scene::new();
    scene.to_the_card();
    scene.machine.card.set_manner(Manner::Lost(NO_TIMELINE));
    assert!(scene.place(Kind::SYSTEM).is_err_and(no_timeline));
    let Scene { machine, cpu, object } = scene;
    let device = machine.device;
    machine.mm.munmap(&cpu, SPACE, AT, PAGES).expect("it is mapped");
    device.put(&cpu, object).expect("the last handle");
    assert_eq!((device.reap(&cpu), machine.system_frames_in_use()), (0, PAGES), "not before");
    let other = device.create(&cpu, PAGES).expect("the large slot");
    assert!(matches!(device.create(&cpu, PAGES), Err(CreateError::NoSlot)), "and that was the only one");
    device.put(&cpu, other).expect("of this device");
    machine.card.do_lost();
    assert_eq!((device.after_reset(&cpu), machine.system_frames_in_use()), (1, 0));
    let used: Vec<u64> = device.kinds().iter().map(|kind| kind.used(&cpu)).collect();
    assert_eq!(used, [0; 4]);
    let next = device.create(&cpu, PAGES).expect("the slot is free");
    device.put(&cpu, next).expect("of this device");
}

#[test]
fn what_is_done_at_once_leaves_nothing_behind() {
    let scene = Scene::new();
    scene.machine.card.set_manner(Manner::AtOnce);
    scene.place(VRAM).expect("an empty card");
    assert_eq!(scene.in_use(), ([0, 0, PAGES, 0], 0), "its frames went without being asked for");
    assert!(scene.holds(1));
    scene.place(STOLEN).expect("it is empty");
    assert_eq!(scene.in_use(), ([0, 0, 0, PAGES], 0));
    scene.place(APERTURE).expect("it is empty");
    assert_eq!(scene.in_use(), ([0, PAGES, 0, 0], PAGES));
    assert!(scene.holds(1));
    scene.end();
}

#[test]
fn a_fence_that_was_never_given_out_is_refused() {
    let scene = Scene::new();
    let (device, cpu) = (scene.machine.device, &scene.cpu);
    let mut reserved = device.reserve_alone(cpu, &scene.object).expect("it exists");
    let foreign = scene.machine.card.foreign_fence(cpu, COPY_ENGINE);
    for usage in [Usage::Kernel, Usage::Write, Usage::Read] {
        let refused = device.add_fence(&mut reserved, foreign, usage);
        assert_eq!(refused, Err(FenceError::NeverGiven { fence: foreign, latest: foreign.point() - 1 }));
    }
    let nowhere = scene.machine.card.foreign_fence(cpu, NO_TIMELINE);
    assert_eq!(device.add_fence(&mut reserved, nowhere, Usage::Read), Err(FenceError::NoTimeline(nowhere)));
    assert!(!device.is_busy(&reserved, Usage::Kernel), "nothing to wait for");
    let own = device.fence(cpu, COPY_ENGINE).expect("there is one");
    assert_eq!(device.add_fence(&mut reserved, own, Usage::Write), Ok(()));
    assert!(device.is_busy(&reserved, Usage::Read));
    device.timeline(COPY_ENGINE).expect("there is one").signal(cpu, own.point());
    device.wait(&reserved, Usage::Kernel);
    reserved.unlock();
    scene.end();
}
