//! Every allocation of every operation is let fail, alone and with all that follow: the operation fails whole or says what it did, every count stays what the
//! entries say, the same operation succeeds when there are frames again, and in the end nothing is lost.

mod areas;
mod faults;
mod huge;
mod pins;
mod steps;
mod world;

use world::{Case, World};

fn run(cases: &[Case]) {
    let world = World::new();
    cases.iter().for_each(|case| world.run(case));
    world.end();
}

#[test]
fn faults_and_populate() {
    run(faults::FAULTS);
}

#[test]
fn fork_and_changes_of_areas() {
    run(areas::AREA_CHANGES);
}

#[test]
fn pins() {
    run(pins::PINS);
}

#[test]
fn huge_pages_and_reclaim() {
    run(huge::HUGE_PAGES_AND_RECLAIM);
}
