//! The protocols of interrupts and grace periods, explored: every interleaving of a few threads, and every value that a load may return.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p fastgup-hosted --test hosted --release`. With symmetric fences: loom knows no `membarrier`. The
//! arguments for both kinds are the same, once a fence in each thread is given (see `interrupts` and `grace`).

use std::sync::Arc;

use hosted::{Fences, ThreadCpu, Threads};
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use machine::{Cpu, CpuId, CpuSet, Vector};

/// More preemptions than this find nothing new in a reasonable time.
const PREEMPTIONS: usize = 3;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// What sections and handlers of one CPU share. Loom fails if two accesses are not ordered.
struct Shared {
    touched: UnsafeCell<u32>,
    handled: AtomicUsize,
}

// SAFETY: loom checks every access to the cell.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn touch(&self) {
        // SAFETY: loom fails before an access that overlaps another.
        self.touched.with_mut(|touched| unsafe { *touched += 1 });
    }
}

fn machine(cpus: u32) -> (Arc<Threads>, Arc<Shared>) {
    let shared = Arc::new(Shared { touched: UnsafeCell::new(0), handled: AtomicUsize::new(0) });
    let in_handler = Arc::clone(&shared);
    let machine = Threads::with_fences(cpus, Fences::Symmetric, move |_, _| {
        in_handler.touch();
        in_handler.handled.fetch_add(1, Ordering::Relaxed);
    });
    (machine.unwrap(), shared)
}

fn target(machine: &Arc<Threads>, shared: &Arc<Shared>, sections: usize) -> thread::JoinHandle<()> {
    let (cpu, shared) = (machine.attach_as(CpuId::new(0)).unwrap(), Arc::clone(shared));
    thread::spawn(move || {
        for _ in 0..sections {
            let irqs = cpu.irq_off();
            shared.touch();
            drop(irqs);
        }
    })
}

fn sender(machine: &Arc<Threads>, number: u32, vector: Vector) -> thread::JoinHandle<()> {
    let cpu = machine.attach_as(CpuId::new(number)).unwrap();
    thread::spawn(move || cpu.send_ipi(CpuSet::only(CpuId::new(0)), vector))
}

#[test]
fn a_handler_excludes_a_section_and_is_not_lost() {
    explore(|| {
        let (machine, shared) = machine(2);
        let target = target(&machine, &shared, 1);
        let sender = sender(&machine, 1, Vector::TlbShootdown);
        target.join().unwrap();
        sender.join().unwrap();
        assert_eq!(shared.handled.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_handler_excludes_two_sections_in_a_row() {
    explore(|| {
        let (machine, shared) = machine(2);
        let target = target(&machine, &shared, 2);
        let sender = sender(&machine, 1, Vector::TlbShootdown);
        target.join().unwrap();
        sender.join().unwrap();
        assert_eq!(shared.handled.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn two_senders_exclude_each_other_and_a_section() {
    explore(|| {
        let (machine, shared) = machine(3);
        let target = target(&machine, &shared, 1);
        let senders = [sender(&machine, 1, Vector::TlbShootdown), sender(&machine, 2, Vector::Synchronise)];
        target.join().unwrap();
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(shared.handled.load(Ordering::Relaxed), 2);
    });
}

/// One cell that readers find as long as it is published.
struct Published {
    published: AtomicUsize,
    cell: UnsafeCell<u32>,
}

// SAFETY: loom checks every access to the cell.
unsafe impl Sync for Published {}
// SAFETY: as above.
unsafe impl Send for Published {}

impl Published {
    fn find(&self) -> bool {
        self.published.load(Ordering::Acquire) == 1
    }

    fn read(&self) {
        // SAFETY: loom fails before an access that overlaps a change.
        self.cell.with(|cell| assert_eq!(unsafe { *cell }, 7));
    }
}

fn nothing_is_taken_away_from_a_reader(reader: impl Fn(&ThreadCpu, &Published) + Copy + Send + Sync + 'static) {
    explore(move || {
        let machine = Threads::with_fences(2, Fences::Symmetric, |_, _| ()).unwrap();
        let published = Arc::new(Published { published: AtomicUsize::new(1), cell: UnsafeCell::new(7) });
        let (cpu, seen) = (machine.attach_as(CpuId::new(0)).unwrap(), Arc::clone(&published));
        let reading = thread::spawn(move || reader(&cpu, &seen));
        let cpu = machine.attach_as(CpuId::new(1)).unwrap();
        published.published.store(0, Ordering::Release);
        cpu.synchronize_rcu();
        // SAFETY: loom fails if a reader may still be there.
        published.cell.with_mut(|cell| unsafe { *cell = 8 });
        reading.join().unwrap();
    });
}

#[test]
fn rcu_sections_hold_off_the_end_of_a_grace_period() {
    nothing_is_taken_away_from_a_reader(|cpu, published| {
        for _ in 0..2 {
            cpu.rcu_read_lock();
            if published.find() {
                published.read();
            }
            cpu.rcu_read_unlock();
        }
    });
}

#[test]
fn interrupts_off_hold_off_the_end_of_a_grace_period() {
    nothing_is_taken_away_from_a_reader(|cpu, published| {
        let _irqs = cpu.irq_off();
        if published.find() {
            published.read();
        }
    });
}

#[test]
fn a_section_handed_over_holds_off_the_end_of_a_grace_period() {
    nothing_is_taken_away_from_a_reader(|cpu, published| {
        cpu.rcu_read_lock();
        let found = published.find();
        let irqs = cpu.irq_off();
        cpu.rcu_read_unlock();
        if found {
            published.read();
        }
        drop(irqs);
    });
}

#[test]
fn a_handler_holds_off_the_end_of_a_grace_period() {
    explore(|| {
        let published = Arc::new(Published { published: AtomicUsize::new(1), cell: UnsafeCell::new(7) });
        let seen = Arc::clone(&published);
        let machine = Threads::with_fences(3, Fences::Symmetric, move |_, _| {
            if seen.find() {
                seen.read();
            }
        })
        .unwrap();
        let sender = sender(&machine, 1, Vector::Synchronise);
        let cpu = machine.attach_as(CpuId::new(2)).unwrap();
        published.published.store(0, Ordering::Release);
        cpu.synchronize_rcu();
        // SAFETY: loom fails if the handler may still be there.
        published.cell.with_mut(|cell| unsafe { *cell = 8 });
        sender.join().unwrap();
    });
}
