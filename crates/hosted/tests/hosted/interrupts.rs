//! Handlers and interrupts-off sections of one CPU exclude each other; no interrupt is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hosted::{Fences, ThreadCpu, Threads};
use machine::{Cpu, CpuId, CpuSet, SpinLock, Vector, Word32, Word64};

const ROUNDS: u32 = if cfg!(miri) { 20 } else { 20_000 };
/// Long after any interrupt must have been taken: only a lost one gets here.
const LOST: Duration = Duration::from_secs(60);

/// What the tests look at, one of each per CPU.
struct Observed {
    in_section: Vec<AtomicBool>,
    in_handler: Vec<AtomicBool>,
    overlaps: AtomicU32,
    /// The number of the last request to this CPU, and of the last that its handler saw.
    asked: Vec<Word64>,
    answered: Vec<Word64>,
}

impl Observed {
    fn new(cpus: usize) -> Arc<Self> {
        fn each<T>(cpus: usize, new: impl Fn() -> T) -> Vec<T> {
            (0..cpus).map(|_| new()).collect()
        }
        Arc::new(Self {
            in_section: each(cpus, || AtomicBool::new(false)),
            in_handler: each(cpus, || AtomicBool::new(false)),
            overlaps: AtomicU32::new(0),
            asked: each(cpus, || Word64::new(0)),
            answered: each(cpus, || Word64::new(0)),
        })
    }

    fn note(&self, overlap: bool) {
        if overlap {
            self.overlaps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The handler: looks for a section of its CPU at its start and at its end, and answers.
    fn handle(&self, cpu: &ThreadCpu) {
        let at = cpu.id().index();
        self.note(self.in_handler[at].swap(true, Ordering::Relaxed));
        self.note(self.in_section[at].load(Ordering::Relaxed));
        let asked = cpu.load(&self.asked[at]);
        for _ in 0..asked % 64 {
            std::hint::spin_loop();
        }
        cpu.store(&self.answered[at], asked);
        self.note(self.in_section[at].load(Ordering::Relaxed));
        self.note(!self.in_handler[at].swap(false, Ordering::Relaxed));
    }

    /// An interrupts-off section that looks for a handler of its CPU.
    fn section(&self, cpu: &ThreadCpu, length: u32) {
        let at = cpu.id().index();
        let irqs = cpu.irq_off();
        self.in_section[at].store(true, Ordering::Relaxed);
        self.note(self.in_handler[at].load(Ordering::Relaxed));
        for _ in 0..length {
            std::hint::spin_loop();
        }
        self.note(self.in_handler[at].load(Ordering::Relaxed));
        self.in_section[at].store(false, Ordering::Relaxed);
        drop(irqs);
    }
}

fn machine(cpus: u32, fences: Fences) -> (Arc<Threads>, Arc<Observed>) {
    let observed = Observed::new(cpus as usize);
    let handler = Arc::clone(&observed);
    let machine = Threads::with_fences(cpus, fences, move |cpu, _| handler.handle(cpu)).unwrap();
    (machine, observed)
}

/// Raises an interrupt on the next CPU and waits until its handler has seen the request.
fn ask_next_cpu(cpu: &ThreadCpu, observed: &Observed, request: u64, cpus: u32) {
    let next = CpuId::new((cpu.id().index() as u32 + 1) % cpus);
    cpu.store(&observed.asked[next.index()], request);
    cpu.fence();
    cpu.send_ipi(CpuSet::only(next), Vector::TlbShootdown);
    let sent = Instant::now();
    cpu.await_value(&observed.answered[next.index()], |answered| {
        assert!(sent.elapsed() < LOST, "{next} never took request {request}");
        answered >= request
    });
}

fn handlers_exclude_sections(cpus: u32, fences: Fences) {
    let (machine, observed) = machine(cpus, fences);
    let done = AtomicU32::new(0);
    machine
        .on_every_cpu(|cpu| {
            for round in 1..=ROUNDS {
                observed.section(&cpu, round % 50);
                observed.section(&cpu, 0);
                ask_next_cpu(&cpu, &observed, u64::from(round), cpus);
            }
            done.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
    assert_eq!(done.load(Ordering::Relaxed), cpus);
    assert_eq!(
        observed.overlaps.load(Ordering::Relaxed),
        0,
        "a handler ran inside a section of its CPU, or inside another handler"
    );
    for cpu in machine.cpus().iter() {
        assert_eq!(machine.statistics(cpu).ipis, u64::from(ROUNDS));
    }
}

/// One CPU enters sections back to back and never asks anything; the others only ask, all of them the same.
fn one_target_many_senders(fences: Fences) {
    let cpus = 4;
    let (machine, observed) = machine(cpus, fences);
    let senders = AtomicU32::new(cpus - 1);
    let requests = Word64::new(0);
    machine
        .on_every_cpu(|cpu| {
            let target = CpuId::new(0);
            if cpu.id() == target {
                let mut length = 0;
                while senders.load(Ordering::Relaxed) != 0 {
                    observed.section(&cpu, length % 4);
                    length += 1;
                }
                return;
            }
            for round in 0..ROUNDS {
                let request = cpu.fetch_add(&requests, 1) + 1;
                // A request may be overwritten by a smaller one: what counts is that a handler runs after this.
                cpu.store(&observed.asked[0], request);
                let before = cpu.load(&observed.answered[0]);
                cpu.fence();
                let vector = if round % 2 == 0 { Vector::TlbShootdown } else { Vector::Synchronise };
                cpu.send_ipi(CpuSet::only(target), vector);
                let sent = Instant::now();
                cpu.await_value(&observed.answered[0], |answered| {
                    assert!(sent.elapsed() < LOST, "request {request} was never taken");
                    answered != before || answered >= request || cpu.load(&observed.asked[0]) != request
                });
            }
            senders.fetch_sub(1, Ordering::Relaxed);
        })
        .unwrap();
    assert_eq!(observed.overlaps.load(Ordering::Relaxed), 0);
}

#[test]
fn handlers_exclude_sections_asymmetric() {
    handlers_exclude_sections(3, Fences::best());
}

#[test]
fn handlers_exclude_sections_symmetric() {
    handlers_exclude_sections(3, Fences::Symmetric);
}

#[test]
fn one_target_many_senders_asymmetric() {
    one_target_many_senders(Fences::best());
}

#[test]
fn one_target_many_senders_symmetric() {
    one_target_many_senders(Fences::Symmetric);
}

#[test]
fn an_interrupt_waits_for_the_end_of_the_section() {
    let (machine, observed) = machine(2, Fences::best());
    let target = machine.attach_as(CpuId::new(0)).unwrap();
    let sender = machine.attach_as(CpuId::new(1)).unwrap();
    sender.store(&observed.asked[0], 7);

    let outer = target.irq_off();
    let inner = target.irq_off();
    sender.send_ipi(machine.cpus(), Vector::TlbShootdown);
    drop(inner);
    assert_eq!(sender.load(&observed.answered[0]), 0, "taken although the outer section is still open");
    drop(outer);
    assert_eq!(sender.load(&observed.answered[0]), 7, "taken as soon as interrupts are on");
    assert_eq!(sender.load(&observed.answered[1]), 0, "a sender does not interrupt itself");
}

#[test]
fn a_cpu_without_a_thread_takes_interrupts() {
    let (machine, observed) = machine(3, Fences::best());
    let sender = machine.attach_as(CpuId::new(1)).unwrap();
    sender.store(&observed.asked[2], 5);
    sender.send_ipi(CpuSet::first(CpuSet::CAPACITY), Vector::Synchronise);
    assert_eq!(sender.load(&observed.answered[2]), 5);
}

#[test]
fn a_cpu_given_back_inside_a_section_takes_what_was_pending() {
    let (machine, observed) = machine(2, Fences::best());
    let sender = machine.attach_as(CpuId::new(1)).unwrap();
    let target = machine.attach_as(CpuId::new(0)).unwrap();
    target.irq_save();
    target.rcu_read_lock();
    sender.store(&observed.asked[0], 3);
    sender.send_ipi(CpuSet::only(CpuId::new(0)), Vector::Synchronise);
    assert_eq!(sender.load(&observed.answered[0]), 0);
    drop(target);
    assert_eq!(sender.load(&observed.answered[0]), 3);
    sender.synchronize_rcu();
}

#[test]
fn both_vectors_are_taken() {
    let taken = Arc::new([const { AtomicU32::new(0) }; 2]);
    let counted = Arc::clone(&taken);
    let machine = Threads::new(2, move |_, vector| {
        let at = match vector {
            Vector::TlbShootdown => 0,
            Vector::Synchronise => 1,
        };
        counted[at].fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    let target = machine.attach_as(CpuId::new(0)).unwrap();
    let sender = machine.attach_as(CpuId::new(1)).unwrap();
    let section = target.irq_off();
    for _ in 0..3 {
        sender.send_ipi(machine.cpus(), Vector::Synchronise);
    }
    sender.send_ipi(machine.cpus(), Vector::TlbShootdown);
    drop(section);
    let taken = taken.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(taken, [1, 1], "each vector once: what is raised again before it is taken is taken once");
}

#[test]
fn a_handler_has_interrupts_off_and_may_turn_them_off_again() {
    let machine = Threads::new(2, |cpu, _| {
        let nested = cpu.irq_off();
        drop(nested);
        assert_eq!(cpu.irq_save(), machine::IrqState::Off);
        cpu.rcu_read_lock();
        cpu.rcu_read_unlock();
    })
    .unwrap();
    let sender = machine.attach().unwrap();
    sender.send_ipi(machine.cpus(), Vector::TlbShootdown);
    assert_eq!(machine.statistics(CpuId::new(1)).ipis, 1);
}

#[test]
fn a_handler_that_interrupts_another_cpu_reaches_it() {
    let answered = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&answered);
    let machine = Threads::new(3, move |cpu, _| {
        let next = cpu.id().index() as u32 + 1;
        if next < 3 {
            cpu.send_ipi(CpuSet::only(CpuId::new(next)), Vector::Synchronise);
        }
        count.fetch_add(1 << (8 * cpu.id().index()), Ordering::Relaxed);
    })
    .unwrap();
    let sender = machine.attach().unwrap();
    sender.send_ipi(CpuSet::only(CpuId::new(1)), Vector::Synchronise);
    assert_eq!(answered.load(Ordering::Relaxed), 0x01_01_00);
}

#[test]
fn a_handler_that_panics_does_not_hang_its_cpu() {
    let machine = Threads::new(2, |_, _| panic!("a bug in a handler")).unwrap();
    let sender = machine.attach_as(CpuId::new(1)).unwrap();
    let send = || sender.send_ipi(CpuSet::only(CpuId::new(0)), Vector::Synchronise);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(send)).is_err());
    let target = machine.attach_as(CpuId::new(0)).unwrap();
    drop(target.irq_off());
}

#[test]
fn locks_exclude() {
    let machine = Threads::new(4, |_, _| ()).unwrap();
    let lock = SpinLock::new();
    let count = Word32::new(0);
    machine
        .on_every_cpu(|cpu| {
            for _ in 0..ROUNDS {
                let _held = lock.lock(&cpu);
                let seen = cpu.owned_load(&count);
                cpu.owned_store(&count, seen + 1);
            }
        })
        .unwrap();
    let cpu = machine.attach().unwrap();
    assert_eq!(cpu.load(&count), 4 * ROUNDS);
}
