//! The example of the README: code written once, explored in the lab, run on threads.

use hosted::Threads;
use lab::{Arena, Lab, Limits, Machine, MemoryOrder};
use machine::{Cpu, SpinLock, Word64};

/// Written once, for any machine.
fn deposit<C: Cpu>(cpu: &C, lock: &SpinLock, balance: &Word64, amount: u64) {
    let _held = lock.lock(cpu);
    cpu.store(balance, cpu.load(balance) + amount);
}

/// Explored: every interleaving of two CPUs, stores delayed as x86 delays them.
#[test]
fn no_deposit_is_lost_in_any_interleaving() {
    let arena = Arena::new();
    let (lock, balance) = (arena.alloc(SpinLock::new()), arena.alloc(Word64::new(0)));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.cpu("CPU0", |cpu| deposit(cpu, lock, balance, 1));
    lab.cpu("CPU1", |cpu| deposit(cpu, lock, balance, 10));
    lab.observe(|end| vec![end.read(balance)]);
    let report = lab.explore(&Limits::default());
    report.expect_safe();
    assert_eq!(report.observations, [vec![11]].into());
}

/// Run: the same function, on threads, where each operation is the plain instruction.
#[test]
fn no_deposit_is_lost_on_threads() {
    let machine = Threads::new(2, |_, _| ()).expect("two CPUs are not too many");
    let (lock, balance) = (SpinLock::new(), Word64::new(0));
    let deposit = |amount| {
        let cpu = machine.attach().expect("a CPU for each thread");
        deposit(&cpu, &lock, &balance, amount);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| deposit(1));
        scope.spawn(|| deposit(10));
    });
    let cpu = machine.attach().expect("both are free again");
    assert_eq!(cpu.load(&balance), 11);
}
