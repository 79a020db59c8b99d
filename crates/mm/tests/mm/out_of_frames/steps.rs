//! Steps that several cases share.

use std::fmt::Debug;

use crate::memory::{CACHED, CACHED_HUGE, anonymous};
use mm::{Area, AreaRights};

use super::world::*;

pub(crate) fn said<T, E: Debug>(result: Result<T, E>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| format!("{error:?}"))
}

pub(crate) fn store(world: &World, space: u16, number: u64) -> Result<(), String> {
    said(world.kernel.store(&world.cpu, space, page(number), 7))
}

pub(crate) fn load(world: &World, space: u16, number: u64) -> Result<(), String> {
    said(world.kernel.load(&world.cpu, space, page(number)))
}

pub(crate) fn small(world: &World) {
    world.map(anonymous(AT, 16, 0));
}

pub(crate) fn shared_file(world: &World) {
    world.map(Area::shared(AT, 16, AreaRights::ReadWrite, CACHED, 0));
}

pub(crate) fn private_file(world: &World) {
    world.map(Area::private(AT, 16, AreaRights::ReadWrite, CACHED, 0));
}

pub(crate) fn huge_file(world: &World) {
    world.map(Area::shared(AT, HUGE, AreaRights::ReadWrite, CACHED_HUGE, 0));
}

pub(crate) fn fork(world: &World) -> Result<(), String> {
    said(world.kernel.mm.fork(&world.cpu, ONE, TWO))
}

pub(crate) fn forked(world: &World, prepare: fn(&World)) {
    prepare(world);
    fork(world).expect("enough frames");
}

pub(crate) fn two_small_pages(world: &World) {
    small(world);
    world.store(3);
    world.store(4);
}

/// Two places map one page.
pub(crate) fn merged(world: &World) {
    small(world);
    [3, 4].into_iter().for_each(|number| store(world, 0, number).expect("enough frames"));
    let [into, from] = [3, 4].map(|number| (ONE, page(number)));
    world.kernel.mm.merge(&world.cpu, into, from).expect("equal pages that nobody uses");
}
