//! Which pages CPUs have written: by dirty bits and by write faults.

use std::sync::atomic::Ordering;

use crate::card::{Leaves, Machine, VRAM};
use hosted::ThreadCpu;
use machine::{Access, VirtAddr, Word};
use mm::{Foll, GupError};
use pagetable::Level;
use ttm::error::TrackError;
use ttm::{Handle, Method};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const PAGES: u64 = 1024;

fn write(machine: &Machine, cpu: &ThreadCpu, page: u64) {
    let store = |word: &machine::Word64| word.atomic_store(page, Ordering::SeqCst);
    let at = AT.wrapping_add(page * 4096);
    machine.access(cpu, at, Access::Write, &mut Leaves::new(), store).expect("the fault is resolved");
}

fn read(machine: &Machine, cpu: &ThreadCpu, page: u64) {
    let load = |word: &machine::Word64| word.atomic_load(Ordering::SeqCst);
    let at = AT.wrapping_add(page * 4096);
    machine.access(cpu, at, Access::Read, &mut Leaves::new(), load).expect("the fault is resolved");
}

fn written(machine: &Machine, cpu: &ThreadCpu, object: &Handle) -> Vec<(u64, u64)> {
    let mut reserved = machine.device.reserve_alone(cpu, object).expect("it exists");
    let mut runs = Vec::new();
    let pages = machine.device.collect_writes(&mut reserved, |first, count| runs.push((first, count)));
    assert_eq!(pages, Ok(runs.iter().map(|(_, count)| count).sum()));
    runs
}

fn every_write_is_found_once(method: Method) {
    let machine = Machine::build(1, &[PAGES], 8 * 512);
    let cpu = machine.threads.attach().expect("a free CPU");
    machine.mm.enter(&cpu, machine.space());
    let object = machine.device.create(&cpu, PAGES).expect("a free slot");
    machine.map(&cpu, &object, AT, PAGES);
    machine.place(&cpu, &object, VRAM).expect("an empty card");
    write(&machine, &cpu, 5);
    assert_eq!(machine.leaf_at(&cpu, AT), Some((VRAM, Level::Pmd)), "nothing is tracked yet");
    let mut reserved = machine.device.reserve_alone(&cpu, &object).expect("it exists");
    assert_eq!(machine.device.collect_writes(&mut reserved, |_, _| ()), Err(TrackError::NotTracked));
    machine.device.track_writes(&mut reserved, method).expect("there is a bit for each page");
    reserved.unlock();

    assert_eq!(written(&machine, &cpu, &object), [], "what was written before is not among them");
    read(&machine, &cpu, 1);
    assert_eq!(
        machine.leaf_at(&cpu, AT.wrapping_add(4096)),
        Some((VRAM, Level::Pte)),
        "a large leaf could not say which"
    );
    assert_eq!(written(&machine, &cpu, &object), [], "a fault for a load is no store");
    write(&machine, &cpu, 1);
    assert_eq!(written(&machine, &cpu, &object), [(1, 1)], "a page that was read before");
    [3, 7, 8, 700, 3].into_iter().for_each(|page| write(&machine, &cpu, page));
    let gup = machine.mm.gup(&cpu, machine.space(), AT.wrapping_add(3 * 4096), 1, Foll::PIN, |_| ());
    assert!(matches!(gup, Err(GupError::Special { .. })), "nobody writes behind our back: {gup:?}");
    assert_eq!(written(&machine, &cpu, &object), [(3, 1), (7, 2), (700, 1)]);
    assert_eq!(written(&machine, &cpu, &object), []);
    read(&machine, &cpu, 3);
    assert_eq!(written(&machine, &cpu, &object), [], "a load is no store");
    write(&machine, &cpu, 3);
    // What was written before the object moved is found although its entries are gone.
    machine.place(&cpu, &object, ttm::Kind::SYSTEM).expect("there is room");
    write(&machine, &cpu, 9);
    assert_eq!(written(&machine, &cpu, &object), [(3, 1), (9, 1)]);
    let mut reserved = machine.device.reserve_alone(&cpu, &object).expect("it exists");
    machine.device.stop_tracking(&mut reserved);
    assert_eq!(machine.device.collect_writes(&mut reserved, |_, _| ()), Err(TrackError::NotTracked));
}

#[test]
fn by_dirty_bits() {
    every_write_is_found_once(Method::DirtyBits);
}

#[test]
fn by_write_faults() {
    every_write_is_found_once(Method::WriteFaults);
}
