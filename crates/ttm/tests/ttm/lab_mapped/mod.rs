//! Faults on buffer objects against moves, evictions and revokes of them: every interleaving of real page tables, TLBs and shootdowns under TSO.

mod machine;

use lab::{LabCpu, rule};
use pagetable::Level;
use ttm::{Kind, Method};

use ::machine::{Cpu, Word64};
use machine::{Copies, Retries, SLOW, Scene, VRAM, arena};

/// What is in fast memory, in the first half of slow memory and in the second.
type Ends = Vec<Vec<u64>>;

fn ends(report: lab::Report) -> Ends {
    report.expect_safe();
    report.observations.into_iter().collect()
}

const SIZES: [Level; 2] = [Level::Pte, Level::Pmd];

#[test]
fn what_is_stored_while_an_object_moves_arrives() {
    for level in SIZES {
        for copies in [Copies::AtOnce, Copies::ByEngine] {
            let arena = arena(level);
            let scene = Scene::new(&arena, level, copies);
            let draw = |scene: &Scene<'_>, cpu: &LabCpu| {
                scene.store(cpu, 5);
                assert_eq!(scene.load(cpu), 5, "wherever it is by now");
            };
            let away = |scene: &Scene<'_>, cpu: &LabCpu| {
                scene.place(cpu, scene.object(0), SLOW).expect("there is room");
            };
            let engine = |scene: &Scene<'_>, cpu: &LabCpu| scene.device.driver().work(cpu, 1);
            let report = match copies {
                Copies::AtOnce => scene.explore(9, &[&draw, &away]),
                Copies::ByEngine => scene.explore(9, &[&draw, &away, &engine]),
            };
            let ends = ends(report);
            assert!(ends.iter().all(|end| end[1..] == [9, 5]), "{level}: {ends:?}");
        }
    }
}

#[test]
fn room_that_was_revoked_and_given_to_another_is_not_drawn_into() {
    for level in SIZES {
        let arena = arena(level);
        let scene = Scene::new(&arena, level, Copies::AtOnce);
        let draw = |scene: &Scene<'_>, cpu: &LabCpu| scene.store(cpu, 5);
        // The mapped object is evicted to make room.
        let rival = |scene: &Scene<'_>, cpu: &LabCpu| {
            scene.place(cpu, scene.object(1), VRAM).expect("the other can leave");
        };
        let ends = ends(scene.explore(9, &[&draw, &rival]));
        assert!(ends.iter().all(|end| end[0] == 9 && end[2] == 5), "{level}: {ends:?}");
    }
}

#[test]
fn two_faults_and_a_move_agree_where_the_object_is() {
    let arena = arena(Level::Pte);
    let scene = Scene::new(&arena, Level::Pte, Copies::AtOnce);
    let draw = |scene: &Scene<'_>, cpu: &LabCpu| scene.store(cpu, 5);
    let look = |scene: &Scene<'_>, cpu: &LabCpu| {
        let seen = [scene.load(cpu), scene.load(cpu)];
        assert!(matches!(seen, [0, 0] | [0, 5] | [5, 5]), "{seen:?}");
    };
    let away = |scene: &Scene<'_>, cpu: &LabCpu| {
        scene.place(cpu, scene.object(0), SLOW).expect("there is room");
    };
    let ends = ends(scene.explore(9, &[&draw, &look, &away]));
    assert!(ends.iter().all(|end| end[1..] == [9, 5]), "{ends:?}");
}

/// To wait for an object is to reserve it. So two faults that have found it reserved by somebody else, and then only tried again, could each find the other's wait in the way, for ever. Who has
/// waited waits where it is, and comes to an end.
#[test]
fn faults_that_wait_for_each_other_come_to_an_end() {
    let explore = |retries| {
        let arena = arena(Level::Pte);
        let scene = Scene::new_with(&arena, Level::Pte, Copies::AtOnce, retries);
        let draw = |scene: &Scene<'_>, cpu: &LabCpu| scene.store(cpu, 5);
        let look = |scene: &Scene<'_>, cpu: &LabCpu| assert!(matches!(scene.load(cpu), 0 | 5));
        let keep = |scene: &Scene<'_>, cpu: &LabCpu| {
            scene.device.reserve_alone(cpu, scene.object(0)).expect("it exists").unlock();
        };
        scene.explore_livelocks(9, &[&draw, &look, &keep])
    };
    explore(Retries::Told).expect_safe();
    explore(Retries::Untold).expect_violation(rule::LIVELOCK);
}

/// Tracking begins by a revoke. What is written after it was begun is found, however the faults before it went.
#[test]
fn a_revoke_is_seen_by_faults_that_had_begun() {
    for method in [Method::DirtyBits, Method::WriteFaults] {
        let arena = arena(Level::Pte);
        let scene = Scene::new(&arena, Level::Pte, Copies::AtOnce);
        let begun: &Word64 = arena.alloc(Word64::new(0));
        let written: &Word64 = arena.alloc(Word64::new(0));
        let draw = |scene: &Scene<'_>, cpu: &LabCpu| {
            scene.store(cpu, 1);
            cpu.await_value(begun, |begun| begun != 0);
            scene.store(cpu, 2);
            cpu.store(written, 1);
        };
        let track = |scene: &Scene<'_>, cpu: &LabCpu| {
            let mut reserved = scene.device.reserve_alone(cpu, scene.object(0)).expect("it exists");
            scene.device.track_writes(&mut reserved, method).expect("there are bits");
            reserved.unlock();
            cpu.store(begun, 1);
            cpu.await_value(written, |written| written != 0);
            let mut reserved = scene.device.reserve_alone(cpu, scene.object(0)).expect("it exists");
            let mut found = 0;
            scene.device.collect_writes(&mut reserved, |_, pages| found += pages).expect("it is tracked");
            reserved.unlock();
            assert_eq!(found, 1, "the store that was made since");
            cpu.swap(written, 2);
        };
        let ends = ends(scene.explore(9, &[&draw, &track]));
        assert!(ends.iter().all(|end| end[0] == 2), "{method:?}: {ends:?}");
    }
}

/// What was written before an object moves is noted before its entries go.
#[test]
fn a_write_is_noted_by_the_move_or_by_the_collection_after_it() {
    for method in [Method::DirtyBits, Method::WriteFaults] {
        let arena = arena(Level::Pte);
        let scene = Scene::new(&arena, Level::Pte, Copies::AtOnce);
        let (begun, written): (&Word64, &Word64) = (arena.alloc(Word64::new(0)), arena.alloc(Word64::new(0)));
        let draw = |scene: &Scene<'_>, cpu: &LabCpu| {
            cpu.await_value(begun, |begun| begun != 0);
            // A fault for a load maps the page; then the hardware alone knows of the store.
            scene.load(cpu);
            scene.store(cpu, 3);
            cpu.store(written, 1);
        };
        let away = |scene: &Scene<'_>, cpu: &LabCpu| {
            let mut reserved = scene.device.reserve_alone(cpu, scene.object(0)).expect("it exists");
            scene.device.track_writes(&mut reserved, method).expect("there are bits");
            reserved.unlock();
            cpu.store(begun, 1);
            scene.place(cpu, scene.object(0), SLOW).expect("there is room");
            cpu.await_value(written, |written| written != 0);
            let mut reserved = scene.device.reserve_alone(cpu, scene.object(0)).expect("it exists");
            let mut found = 0;
            scene.device.collect_writes(&mut reserved, |_, pages| found += pages).expect("it is tracked");
            assert_eq!((found, reserved.placed().kind), (1, Kind::new(1)));
            reserved.unlock();
        };
        let ends = ends(scene.explore(9, &[&draw, &away]));
        assert!(ends.iter().all(|end| end[2] == 3), "{method:?}: {ends:?}");
    }
}
