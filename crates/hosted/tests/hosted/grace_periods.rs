//! Nothing that a section can reach is given back before the section ends.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hosted::{Fences, ThreadCpu, Threads};
use machine::{Cpu, CpuId, CpuSet, Vector, Word64};

const GRACE_PERIODS: u64 = if cfg!(miri) { 10 } else { 60 };
const ALIVE: u64 = 0;
const DEAD: u64 = 1;

/// Which kind of section readers use.
#[derive(Clone, Copy)]
enum Section {
    Rcu,
    IrqOff,
    /// Enters one kind, then the other, leaves the first, and goes on reading.
    HandOver,
}

/// Two cells take turns at being published. The writer unpublishes one, waits for a grace period, marks it dead for a while, and
/// revives it before it is published again.
fn nothing_dead_is_seen(section: Section, fences: Fences) {
    let machine = Threads::with_fences(3, fences, |_, _| ()).unwrap();
    let published = Word64::new(0);
    let cells = [Word64::new(ALIVE), Word64::new(ALIVE)];
    let stop = AtomicBool::new(false);
    let (seen_dead, reads) = (AtomicU32::new(0), AtomicU32::new(0));

    let read = |cpu: &ThreadCpu| {
        let cell = &cells[cpu.load(&published) as usize];
        for _ in 0..3 {
            std::hint::spin_loop();
        }
        cell
    };
    let check = |cpu: &ThreadCpu, cell: &Word64| {
        if cpu.load(cell) == DEAD {
            seen_dead.fetch_add(1, Ordering::Relaxed);
        }
        reads.fetch_add(1, Ordering::Relaxed);
    };

    machine
        .on_every_cpu(|cpu| {
            if cpu.id() == CpuId::new(0) {
                for round in 0..GRACE_PERIODS {
                    // Not all of them in one time slice, with nobody reading.
                    let before = reads.load(Ordering::Relaxed);
                    while reads.load(Ordering::Relaxed) == before {
                        std::thread::yield_now();
                    }
                    let old = round % 2;
                    cpu.store(&published, 1 - old);
                    cpu.synchronize_rcu();
                    cpu.store(&cells[old as usize], DEAD);
                    for _ in 0..20 {
                        std::hint::spin_loop();
                    }
                    cpu.store(&cells[old as usize], ALIVE);
                }
                stop.store(true, Ordering::Relaxed);
                return;
            }
            while !stop.load(Ordering::Relaxed) {
                match section {
                    Section::Rcu => {
                        cpu.rcu_read_lock();
                        cpu.rcu_read_lock();
                        let cell = read(&cpu);
                        cpu.rcu_read_unlock();
                        check(&cpu, cell);
                        cpu.rcu_read_unlock();
                    }
                    Section::IrqOff => {
                        let _irqs = cpu.irq_off();
                        let cell = read(&cpu);
                        check(&cpu, cell);
                    }
                    Section::HandOver => {
                        cpu.rcu_read_lock();
                        let cell = read(&cpu);
                        let irqs = cpu.irq_off();
                        cpu.rcu_read_unlock();
                        check(&cpu, cell);
                        cpu.rcu_read_lock();
                        drop(irqs);
                        check(&cpu, cell);
                        cpu.rcu_read_unlock();
                    }
                }
            }
        })
        .unwrap();
    assert_eq!(seen_dead.load(Ordering::Relaxed), 0, "a reader saw what was given back");
    assert_eq!(machine.statistics(CpuId::new(0)).grace_periods, GRACE_PERIODS);
}

macro_rules! every_kind {
    ($($name:ident: $section:expr, $fences:expr;)*) => {$(
        #[test]
        fn $name() {
            nothing_dead_is_seen($section, $fences);
        }
    )*};
}

every_kind! {
    rcu_asymmetric: Section::Rcu, Fences::best();
    rcu_symmetric: Section::Rcu, Fences::Symmetric;
    irq_off_asymmetric: Section::IrqOff, Fences::best();
    irq_off_symmetric: Section::IrqOff, Fences::Symmetric;
    hand_over_asymmetric: Section::HandOver, Fences::best();
    hand_over_symmetric: Section::HandOver, Fences::Symmetric;
}

#[test]
fn a_grace_period_waits_for_a_section_and_not_for_the_next() {
    let machine = Threads::new(2, |_, _| ()).unwrap();
    let (waiting, over) = (AtomicBool::new(false), AtomicBool::new(false));
    machine
        .on_every_cpu(|cpu| {
            if cpu.id() == CpuId::new(0) {
                while !waiting.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                cpu.synchronize_rcu();
                assert!(over.load(Ordering::Acquire), "the section was still open");
                return;
            }
            let irqs = cpu.irq_off();
            waiting.store(true, Ordering::Release);
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            over.store(true, Ordering::Release);
            drop(irqs);
            // If the other CPU waited for this section, too, the test would never end.
            let _next = cpu.irq_off();
            while machine.statistics(CpuId::new(0)).grace_periods == 0 {
                std::thread::yield_now();
            }
        })
        .unwrap();
}

#[test]
fn a_grace_period_waits_for_a_handler() {
    let (entered, over) = (std::sync::Arc::new(AtomicBool::new(false)), std::sync::Arc::new(AtomicBool::new(false)));
    let flags = (entered.clone(), over.clone());
    let machine = Threads::new(3, move |_, _| {
        flags.0.store(true, Ordering::Release);
        for _ in 0..1000 {
            std::thread::yield_now();
        }
        flags.1.store(true, Ordering::Release);
    })
    .unwrap();
    machine
        .on_every_cpu(|cpu| match cpu.id().index() {
            0 => cpu.send_ipi(CpuSet::only(CpuId::new(2)), Vector::Synchronise),
            1 => {
                while !entered.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                cpu.synchronize_rcu();
                assert!(over.load(Ordering::Acquire), "the handler was still running");
            }
            _ => (),
        })
        .unwrap();
}

#[test]
#[should_panic(expected = "inside a read-side section")]
fn waiting_for_oneself_is_refused() {
    let machine = Threads::new(1, |_, _| ()).unwrap();
    let cpu = machine.attach().unwrap();
    let _irqs = cpu.irq_off();
    cpu.synchronize_rcu();
}
