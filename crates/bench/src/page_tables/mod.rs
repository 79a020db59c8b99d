//! Page tables: single pages and ranges, ours and everybody's.

mod contestants;
pub(crate) mod frames;
mod workload;

use std::cell::RefCell;

use hosted::ThreadCpu;

use contestants::{Bare, Generic, Inactive, LivePaging, Multiarch, OursLive, OursOffline, Ranges};
pub(crate) use contestants::{Contestant, Hand, X86_64};
use workload::{DATA, Pattern, Workload, address};
pub(crate) use workload::{RANDOM, SEQUENTIAL};

use crate::rounds::{Effort, interleave};
use crate::samples::{Samples, Stopwatch};

pub(crate) const MAP_COLD: &str = "map, tables missing";
pub(crate) const MAP_WARM: &str = "map, tables there";
pub(crate) const TRANSLATE: &str = "translate, in order";
pub(crate) const TRANSLATE_SHUFFLED: &str = "translate, shuffled";
pub(crate) const MISS: &str = "translate, not mapped";
pub(crate) const UNMAP: &str = "unmap";
pub(crate) const FREE: &str = "free, per table";
pub(crate) const RANGE_MAP: &str = "range map, per page";
pub(crate) const RANGE_PROTECT: &str = "range protect, per page";
pub(crate) const RANGE_UNMAP: &str = "range unmap, per page";

/// The names that targets speak of.
pub(crate) const HAND: &str = Hand::NAME;
pub(crate) const OURS: &str = OursLive::<ThreadCpu>::NAME;
pub(crate) const OURS_OFFLINE: &str = OursOffline::<ThreadCpu>::NAME;
pub(crate) const CONTROL: &str = OursLive::<Bare>::NAME;
pub(crate) const PEERS: [&str; 5] = [X86_64::NAME, Multiarch::NAME, Inactive::NAME, LivePaging::NAME, Generic::NAME];

/// Measures everybody on both patterns, and the ranges.
pub(crate) fn measure(effort: Effort, samples: &mut Samples) {
    for pattern in [Pattern::Sequential, Pattern::Random] {
        let workload = pattern.pages(effort.pages);
        let samples = RefCell::new(&mut *samples);
        let mut turns: Vec<Box<dyn FnMut() + '_>> = Vec::new();
        macro_rules! turns {
            ($($contestant:ty),* $(,)?) => {$(
                turns.push(Box::new(|| single_pages::<$contestant>(&workload, &mut samples.borrow_mut())));
            )*};
        }
        turns![
            Hand,
            OursLive<ThreadCpu>,
            OursLive<Bare>,
            OursOffline<ThreadCpu>,
            X86_64,
            Multiarch,
            Inactive,
            LivePaging,
            Generic,
        ];
        interleave(workload.name, effort.rounds, &mut turns);
    }
    let workload = Pattern::Sequential.pages(effort.pages);
    let samples = RefCell::new(samples);
    let mut turns: Vec<Box<dyn FnMut() + '_>> = Vec::new();
    macro_rules! turns {
        ($($contestant:ty),* $(,)?) => {$(
            turns.push(Box::new(|| ranges::<$contestant>(&workload, &mut samples.borrow_mut())));
        )*};
    }
    turns![Hand, OursLive<ThreadCpu>, OursLive<Bare>, OursOffline<ThreadCpu>, Multiarch, Inactive, Generic,];
    interleave("ranges", effort.rounds, &mut turns);
}

// The loops, each a function of its own: so that everybody's is compiled with the same registers to spare.

#[inline(never)]
fn map_all<C: Contestant>(tables: &mut C, workload: &Workload) {
    let mut phys = DATA;
    for page in &workload.in_order {
        tables.map(address(*page), phys);
        phys += 4096;
    }
}

/// Returns the wrapping sum of what it found.
#[inline(never)]
fn translate_all<C: Contestant>(tables: &C, pages: &[u32]) -> u64 {
    pages.iter().filter_map(|page| tables.translate(address(*page))).fold(0, u64::wrapping_add)
}

#[inline(never)]
fn unmap_all<C: Contestant>(tables: &mut C, pages: &[u32]) -> u64 {
    pages.iter().filter_map(|page| tables.unmap(address(*page))).fold(0, u64::wrapping_add)
}

/// One turn with single pages.
fn single_pages<C: Contestant>(workload: &Workload, samples: &mut Samples) {
    let mut watch = Stopwatch::new(samples, workload.name, C::NAME);
    let Workload { in_order, shuffled, sum, .. } = workload;
    let count = in_order.len() as u64;
    let mut tables = C::new();

    watch.time(MAP_COLD, count, || map_all(&mut tables, workload));
    watch.time(UNMAP, count, || unmap_all(&mut tables, in_order));
    watch.time(MAP_WARM, count, || map_all(&mut tables, workload));
    let found = [
        watch.time(TRANSLATE, count, || translate_all(&tables, in_order)),
        watch.time(TRANSLATE_SHUFFLED, count, || translate_all(&tables, shuffled)),
    ];
    assert_eq!(found, [*sum; 2], "{} translated wrongly", C::NAME);
    let unmapped = watch.time(UNMAP, count, || unmap_all(&mut tables, in_order));
    assert!([0, *sum].contains(&unmapped), "{} unmapped something else", C::NAME);
    let found = watch.time(MISS, count, || translate_all(&tables, in_order));
    assert_eq!(found, 0, "{} translates what is not mapped", C::NAME);
    free(tables, &mut watch);
}

/// One turn with one range.
fn ranges<C: Ranges>(workload: &Workload, samples: &mut Samples) {
    let mut watch = Stopwatch::new(samples, workload.name, C::NAME);
    let count = workload.in_order.len() as u64;
    let (virt, phys) = (address(workload.in_order[0]), DATA);
    let mut tables = C::new();
    // Who keeps empty tables has them the second time.
    for _ in 0..2 {
        watch.time(RANGE_MAP, count, || tables.map_range(virt, count, phys));
        assert_eq!(translate_all(&tables, &workload.in_order), workload.sum, "{} mapped a range wrongly", C::NAME);
        watch.time(RANGE_PROTECT, count, || tables.protect_range(virt, count));
        watch.time(RANGE_UNMAP, count, || tables.unmap_range(virt, count));
        assert_eq!(translate_all(&tables, &workload.in_order), 0, "{} did not unmap the range", C::NAME);
    }
    tables.free();
    tidy(C::NAME);
}

/// Frees all tables. Who freed them with the last page has nothing left to be timed.
fn free<C: Contestant>(tables: C, watch: &mut Stopwatch<'_>) {
    let count = frames::arena().in_use();
    if count > 1 {
        watch.time(FREE, count, || tables.free());
    } else {
        tables.free();
    }
    tidy(C::NAME);
}

/// The next contestant finds the arena as the last one did.
fn tidy(name: &str) {
    if let Err(left) = frames::arena().tidy() {
        panic!("{name} lost {left} tables");
    }
}
