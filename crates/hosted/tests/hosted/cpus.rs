//! Who has which CPU, and what a machine remembers of it.

use hosted::{AttachError, CpuCountError, Statistics, Threads};
use machine::{Cpu, CpuId, CpuSet, Invalidation, PhysAddr, VirtAddr, Word64};

#[test]
fn a_machine_has_1_to_64_cpus() {
    assert_eq!(Threads::new(0, |_, _| ()).unwrap_err(), CpuCountError { asked: 0 });
    assert_eq!(Threads::new(65, |_, _| ()).unwrap_err().to_string(), "a machine of 65 CPUs: it must have 1 to 64");
    assert_eq!(Threads::new(64, |_, _| ()).unwrap().cpus(), CpuSet::first(64));
}

#[test]
fn a_cpu_is_taken_once_at_a_time() {
    let machine = Threads::new(2, |_, _| ()).unwrap();
    let first = machine.attach().unwrap();
    let second = machine.attach().unwrap();
    assert_eq!((first.id().index(), second.id().index()), (0, 1));
    assert_eq!(machine.attach().unwrap_err(), AttachError::AllTaken { cpus: 2 });
    assert_eq!(machine.attach_as(CpuId::new(1)).unwrap_err(), AttachError::Taken(CpuId::new(1)));
    let nowhere = CpuId::new(2);
    assert_eq!(machine.attach_as(nowhere).unwrap_err(), AttachError::NoSuchCpu { cpu: nowhere, cpus: 2 });
    drop(first);
    assert_eq!(machine.attach().unwrap().id(), CpuId::new(0));
    assert_eq!(machine.on_every_cpu(|_| ()).unwrap_err(), AttachError::Taken(CpuId::new(1)));
    assert_eq!(machine.attach().unwrap().id(), CpuId::new(0), "a refused run keeps no CPU");
}

#[test]
fn a_handler_does_not_give_its_cpu_back() {
    let machine = Threads::new(2, |_, _| ()).unwrap();
    let target = machine.attach_as(CpuId::new(0)).unwrap();
    let sender = machine.attach_as(CpuId::new(1)).unwrap();
    sender.send_ipi(machine.cpus(), machine::Vector::Synchronise);
    assert_eq!(machine.attach_as(target.id()).unwrap_err(), AttachError::Taken(target.id()));
}

#[test]
fn what_a_cpu_did_is_counted() {
    let machine = Threads::new(2, |_, _| ()).unwrap();
    let cpu = machine.attach().unwrap();
    let page = Invalidation::page(VirtAddr::new(0x1000));
    assert_eq!(machine.root(cpu.id()), None);
    cpu.load_root(PhysAddr::new(0x5000));
    cpu.tlb_invalidate(page);
    cpu.tlb_invalidate(Invalidation::All);
    cpu.tlb_invalidate_paravirtual(machine.cpus(), page);
    cpu.tlb_broadcast(page);
    cpu.tlb_broadcast_sync();
    cpu.synchronize_rcu();
    assert_eq!(machine.root(cpu.id()), Some(PhysAddr::new(0x5000)));
    let expected = Statistics {
        ipis: 0,
        local_invalidations: 2,
        paravirtual_invalidations: 1,
        broadcast_invalidations: 1,
        broadcast_syncs: 1,
        grace_periods: 1,
        roots_loaded: 1,
    };
    assert_eq!(machine.statistics(cpu.id()), expected);
    assert_eq!(machine.statistics(CpuId::new(1)), Statistics::default());
}

#[test]
fn zero_clears_just_the_words() {
    let machine = Threads::new(1, |_, _| ()).unwrap();
    let cpu = machine.attach().unwrap();
    let words: Vec<Word64> = (0..512).map(|_| Word64::new(u64::MAX)).collect();
    cpu.zero(&words[1..511]);
    cpu.zero(&words[0..0]);
    let left: Vec<u64> = words.iter().map(|word| cpu.load(word)).collect();
    assert!(left[1..511].iter().all(|value| *value == 0));
    assert_eq!((left[0], left[511]), (u64::MAX, u64::MAX));
}
