//! The lock that is taken together with others, in the lab: every interleaving.

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, Report, rule};
use machine::{Cpu, Word32, Word64};
use ttm::ww::{AcquireContext, LockError, Tickets, WwMutex, lock_all};

struct Shared {
    tickets: Tickets,
    locks: [WwMutex; 3],
    /// What each lock protects.
    inside: [Word32; 3],
    rounds: Word64,
}

const fn shared() -> Shared {
    Shared {
        tickets: Tickets::new(),
        locks: [WwMutex::new(), WwMutex::new(), WwMutex::new()],
        inside: [Word32::new(0), Word32::new(0), Word32::new(0)],
        rounds: Word64::new(0),
    }
}

/// The holder of the locks is alone.
fn use_them(cpu: &LabCpu, shared: &Shared, which: &[usize]) {
    for &index in which {
        let before = cpu.owned_load(&shared.inside[index]);
        assert_eq!(before, 0, "two are inside");
        cpu.owned_store(&shared.inside[index], 1);
    }
    for &index in which {
        cpu.owned_store(&shared.inside[index], 0);
    }
}

fn explore(memory: MemoryOrder, programs: &[fn(&LabCpu, &Shared)]) -> Report {
    let arena = Arena::new();
    let shared: &Shared = arena.alloc(shared());
    let mut lab = Lab::new(&arena, Machine::new(memory));
    for (index, lock) in shared.locks.iter().enumerate() {
        lab.name(lock.word(), format!("lock {index}"));
    }
    for (number, &program) in programs.iter().enumerate() {
        lab.cpu(format!("context {number}"), move |cpu| program(cpu, shared));
    }
    lab.observe(|end| vec![end.read(&shared.rounds)]);
    lab.explore(&Limits::default())
}

/// Takes two locks by the protocol, step by step as a driver would.
fn by_the_protocol(cpu: &LabCpu, shared: &Shared, first: usize, second: usize) {
    let context = AcquireContext::new(cpu, &shared.tickets);
    let one = context_lock(&shared.locks[first], &context);
    match shared.locks[second].lock(&context) {
        Ok(two) => {
            use_them(cpu, shared, &[first, second]);
            two.unlock();
            one.unlock();
        }
        Err(LockError::BackOff { holder }) => {
            assert!(holder < context.ticket(), "only an older context is given way");
            one.unlock();
            assert_eq!(context.held(), 0);
            cpu.fetch_add(&shared.rounds, 1);
            let two = shared.locks[second].lock_slow(&context).expect("it holds nothing");
            // It may have to back off once more: by `lock_all`, which begins with what it is given.
            match shared.locks[first].lock(&context) {
                Ok(one) => {
                    use_them(cpu, shared, &[first, second]);
                    one.unlock();
                    two.unlock();
                }
                Err(_) => {
                    two.unlock();
                    all(cpu, shared, &context, [first, second]);
                }
            }
        }
        Err(error) => panic!("{error}"),
    }
}

fn context_lock<'l>(lock: &'l WwMutex, context: &'l AcquireContext<'_, LabCpu>) -> ttm::ww::WwGuard<'l, LabCpu> {
    lock.lock(context).expect("a context that holds nothing waits")
}

fn all<const N: usize>(cpu: &LabCpu, shared: &Shared, context: &AcquireContext<'_, LabCpu>, which: [usize; N]) {
    let locked = lock_all(context, which.map(|index| &shared.locks[index])).expect("different locks");
    use_them(cpu, shared, &which);
    locked.guards().for_each(ttm::ww::WwGuard::unlock);
}

fn take_all<const N: usize>(cpu: &LabCpu, shared: &Shared, which: [usize; N]) {
    let context = AcquireContext::new(cpu, &shared.tickets);
    all(cpu, shared, &context, which);
}

#[test]
fn two_contexts_take_two_locks_in_opposite_orders() {
    for memory in [MemoryOrder::Sc, MemoryOrder::Tso] {
        let report = explore(
            memory,
            &[|cpu, shared| by_the_protocol(cpu, shared, 0, 1), |cpu, shared| by_the_protocol(cpu, shared, 1, 0)],
        );
        report.expect_safe();
        // Only one of the two ever backs off, and only once: it comes to that, and it need not.
        assert_eq!(report.observations.iter().cloned().collect::<Vec<_>>(), [[0], [1]], "{memory:?}");
    }
}

#[test]
fn three_contexts_in_a_circle() {
    let report = explore(
        MemoryOrder::Tso,
        &[
            |cpu, shared| take_all(cpu, shared, [0, 1]),
            |cpu, shared| take_all(cpu, shared, [1, 2]),
            |cpu, shared| take_all(cpu, shared, [2, 0]),
        ],
    );
    report.expect_safe();
}

#[test]
fn three_contexts_take_two_locks() {
    for memory in [MemoryOrder::Sc, MemoryOrder::Tso] {
        let report = explore(
            memory,
            &[
                |cpu, shared| take_all(cpu, shared, [0, 1]),
                |cpu, shared| take_all(cpu, shared, [1, 0]),
                |cpu, shared| take_all(cpu, shared, [0, 1]),
            ],
        );
        // A lost wake-up would be a deadlock: somebody waits for a lock that is free.
        report.expect_safe();
        assert_eq!(report.ends, 1, "all are done, and every lock is free");
    }
}

#[test]
fn an_evictor_that_only_tries_never_stands_in_the_way() {
    // The second holds one lock, tries the other (as eviction does), and waits for neither.
    let report = explore(
        MemoryOrder::Tso,
        &[
            |cpu, shared| take_all(cpu, shared, [0, 1]),
            |cpu, shared| {
                let context = AcquireContext::new(cpu, &shared.tickets);
                let one = context_lock(&shared.locks[1], &context);
                if let Some(zero) = shared.locks[0].try_lock(cpu) {
                    use_them(cpu, shared, &[0, 1]);
                    cpu.fetch_add(&shared.rounds, 1);
                    zero.unlock();
                }
                one.unlock();
            },
            |cpu, shared| {
                let alone = shared.locks[0].lock_alone(cpu);
                use_them(cpu, shared, &[0]);
                alone.unlock();
            },
        ],
    );
    report.expect_safe();
    assert_eq!(report.observations.len(), 2, "the attempt may succeed and may fail");
}

#[test]
fn without_backing_off_there_is_a_deadlock() {
    /// What a driver must not do: waiting without a ticket while it holds another lock.
    fn wrong(cpu: &LabCpu, shared: &Shared, first: usize, second: usize) {
        let one = shared.locks[first].lock_alone(cpu);
        let two = shared.locks[second].lock_alone(cpu);
        two.unlock();
        one.unlock();
    }
    let report =
        explore(MemoryOrder::Tso, &[|cpu, shared| wrong(cpu, shared, 0, 1), |cpu, shared| wrong(cpu, shared, 1, 0)]);
    let found = report.expect_violation(rule::DEADLOCK);
    assert!(found.shortest);
    assert_eq!(found.trace.steps.len(), 2, "each takes its first lock");
    // The same mixture of the two ways.
    let report = explore(
        MemoryOrder::Tso,
        &[|cpu, shared| take_all(cpu, shared, [0, 1]), |cpu, shared| wrong(cpu, shared, 1, 0)],
    );
    report.expect_violation(rule::DEADLOCK);
}

#[test]
fn misuse_is_refused() {
    let report = explore(
        MemoryOrder::Sc,
        &[|cpu, shared| {
            let context = AcquireContext::new(cpu, &shared.tickets);
            let zero = context_lock(&shared.locks[0], &context);
            assert!(shared.locks[0].is_held_by(&context) && !shared.locks[1].is_held_by(&context));
            assert!(matches!(shared.locks[0].lock(&context), Err(LockError::Already)));
            assert!(matches!(shared.locks[1].lock_slow(&context), Err(LockError::HoldsOthers { held: 1 })));
            assert!(matches!(lock_all(&context, [&shared.locks[1]]), Err(LockError::HoldsOthers { held: 1 })));
            assert!(shared.locks[0].try_lock(cpu).is_none());
            zero.unlock();
            assert!(matches!(lock_all(&context, [&shared.locks[1], &shared.locks[1]]), Err(LockError::Already)));
            assert_eq!(context.held(), 0, "what was taken before the mistake is given back");
            take_all(cpu, shared, [0, 1, 2]);
        }],
    );
    report.expect_safe();
}
