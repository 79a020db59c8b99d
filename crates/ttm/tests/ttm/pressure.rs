//! Every allocation fails, at each place, alone and with all that follow: the operation fails whole or does without, nothing leaks, and the next attempt succeeds.

use std::fmt::Debug;
use std::sync::atomic::Ordering;

use crate::card::{APERTURE, Leaves, Machine, SPACE, VRAM};
use hosted::{Failures, ThreadCpu};
use machine::{Access, VirtAddr, Word};
use ttm::{Handle, Importer, Kind, MoveError, Place, Usage};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const PAGES: u64 = 3;

/// An object whose pages hold their numbers plus one, mapped.
struct Tried<'m> {
    machine: &'m Machine,
    cpu: &'m ThreadCpu,
    object: &'m Handle,
}

impl Tried<'_> {
    fn access(&self, page: u64, kind: Access) -> Result<u64, mm::FaultError> {
        let at = AT.wrapping_add(page * 4096);
        self.machine.access(self.cpu, at, kind, &mut Leaves::new(), |word| match kind {
            Access::Read => word.atomic_load(Ordering::SeqCst),
            Access::Write => {
                word.atomic_store(page + 1, Ordering::SeqCst);
                page + 1
            }
        })
    }

    fn place(&self, kind: Kind) -> Result<(), MoveError> {
        self.machine.place(self.cpu, self.object, kind).map(drop)
    }
}

/// Gives an object back, and looks whether everything is there again.
fn end(machine: &Machine, cpu: &ThreadCpu, object: Handle) {
    machine.mm.munmap(cpu, SPACE, AT, PAGES).expect("it is mapped");
    let mut reserved = machine.device.reserve_alone(cpu, &object).expect("it exists");
    machine.device.wait(&reserved, Usage::Kernel);
    while reserved.pins() > 0 {
        machine.device.unpin(&mut reserved).expect("a pin of ours");
    }
    reserved.unlock();
    machine.device.put(cpu, object).expect("the last handle");
    machine.device.reap(cpu);
    let used: Vec<u64> = machine.device.kinds().iter().map(|kind| kind.used(cpu)).collect();
    assert_eq!((machine.system_frames_in_use(), machine.swap.counts(), used), (0, 0, vec![0; 4]));
}

/// In how many cases an operation failed.
#[derive(PartialEq, Eq, Debug)]
struct Refusals {
    /// Of those in which one allocation failed.
    alone: u64,
    /// Of those in which all that followed failed, too.
    lasting: u64,
}

impl Refusals {
    /// The operation needs all that it asks for, which is so much.
    const fn of_each(allocations: u64) -> Self {
        Self { alone: allocations, lasting: allocations }
    }

    const fn some(&self) -> bool {
        self.alone > 0 && self.lasting >= self.alone
    }
}

fn fail_each<E: Debug>(prepare: impl Fn(&Tried<'_>), operation: impl Fn(&Tried<'_>) -> Result<(), E>) -> Refusals {
    Refusals {
        alone: fail_each_by(Failures::fail_at, &prepare, &operation),
        lasting: fail_each_by(Failures::fail_from, &prepare, &operation),
    }
}

/// Lets allocation after allocation fail until the operation needs no more of them. Returns in how many of these cases the operation failed.
fn fail_each_by<E: Debug>(
    fail: impl Fn(&Failures, u64),
    prepare: impl Fn(&Tried<'_>),
    operation: impl Fn(&Tried<'_>) -> Result<(), E>,
) -> u64 {
    let machine = &Machine::build(1, &[PAGES], 512);
    let cpu = &machine.threads.attach().expect("a free CPU");
    machine.mm.enter(cpu, machine.space());
    let mut refused = 0;
    for number in 1.. {
        let object = machine.device.create(cpu, PAGES).expect("the slot is free again");
        machine.map(cpu, &object, AT, PAGES);
        let tried = Tried { machine, cpu, object: &object };
        for page in 0..PAGES {
            tried.access(page, Access::Write).expect("nothing fails yet");
        }
        prepare(&tried);
        let before = machine.failures.failed();
        fail(&machine.failures, number);
        let result = operation(&tried);
        machine.failures.fail_at(0);
        let failed = machine.failures.failed() - before;
        if result.is_err() {
            assert!(failed > 0, "{result:?}");
            refused += 1;
            operation(&tried).expect("the same again, and nothing fails");
        }
        for page in 0..PAGES {
            let found = tried.access(page, Access::Read).expect("nothing fails any more");
            assert_eq!(found, page + 1, "allocation {number}");
        }
        end(machine, cpu, object);
        if failed == 0 {
            break;
        }
    }
    refused
}

const fn nothing(_: &Tried<'_>) {}

fn to_swap(tried: &Tried<'_>) {
    assert_eq!(tried.machine.device.swap_out(tried.cpu), Ok(Some(PAGES)));
}

fn to_the_card(tried: &Tried<'_>) {
    tried.place(VRAM).expect("an empty card");
    // The frames that it left are given back, not only left: it needs new ones to come back.
    let reserved = tried.machine.device.reserve_alone(tried.cpu, tried.object).expect("it exists");
    tried.machine.device.wait(&reserved, Usage::Kernel);
    reserved.unlock();
    tried.machine.device.reap(tried.cpu);
    assert_eq!(tried.machine.system_frames_in_use(), 0);
}

#[test]
fn moves_to_system_memory() {
    // Two folios, of two pages and one; for the first, smaller ones will do.
    assert!(fail_each(to_the_card, |tried| tried.place(Kind::SYSTEM)).some());
    assert!(fail_each(to_the_card, |tried| tried.place(APERTURE)).some());
}

#[test]
fn moves_to_the_card() {
    assert_eq!(fail_each(nothing, |tried| tried.place(VRAM)), Refusals::of_each(0), "nothing is allocated for it");
    assert!(fail_each(to_swap, |tried| tried.place(VRAM)).some(), "it must be read from swap");
}

#[test]
fn swapping_out() {
    let swap_out = |tried: &Tried<'_>| tried.machine.device.swap_out(tried.cpu).map(drop);
    // A place and a write for each page.
    assert_eq!(fail_each(nothing, swap_out), Refusals::of_each(2 * PAGES));
}

#[test]
fn faults() {
    let fault = |tried: &Tried<'_>| tried.access(1, Access::Write).map(drop);
    assert!(fail_each(to_swap, fault).some(), "frames, and reads from swap");
    let unmap = |tried: &Tried<'_>| {
        tried.machine.mm.munmap(tried.cpu, SPACE, AT, PAGES).expect("it is mapped");
        tried.machine.map(tried.cpu, tried.object, AT, PAGES);
    };
    assert_eq!(fail_each(unmap, fault), Refusals::of_each(3), "a table of each level below the root");
    let on_the_card = |tried: &Tried<'_>| {
        to_the_card(tried);
        unmap(tried);
    };
    assert_eq!(fail_each(on_the_card, fault), Refusals::of_each(3), "a table of each level below the root");
}

#[test]
fn pins_and_exports() {
    let pin = |tried: &Tried<'_>| {
        let mut reserved = tried.machine.device.reserve_alone(tried.cpu, tried.object).expect("it exists");
        let pinned = tried.machine.device.pin(&mut reserved, &[Place::anywhere(Kind::SYSTEM)], None);
        assert_eq!(reserved.pins(), u32::from(pinned.is_ok()));
        pinned
    };
    assert!(fail_each(to_swap, pin).some());
    assert!(fail_each(to_the_card, pin).some());
    let export = |tried: &Tried<'_>| {
        let device = tried.machine.device;
        let mut reserved = device.reserve_alone(tried.cpu, tried.object).expect("it exists");
        let attached = device.attach(&mut reserved, Importer::Static);
        assert_eq!(reserved.pins(), u32::from(attached.is_ok()));
        reserved.unlock();
        device.detach(tried.cpu, attached?)
    };
    assert!(fail_each(to_swap, export).some());
    assert!(fail_each(to_the_card, export).some());
}
