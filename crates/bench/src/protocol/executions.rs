//! The protocol for checkers that do not know states, but run the program again and again: loom and shuttle. Everybody runs once, so that runs end. The lock is a mutex; so are
//! interrupts that are off, for which the zapper waits by taking each: the same wait, without spinning.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::size::Size;

/// What was covered in the time given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Covered {
    pub(crate) executions: u64,
    /// Accesses to shared words and mutexes, in all executions.
    pub(crate) steps: u64,
    /// No schedule is left.
    pub(crate) is_all: bool,
}

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);

macro_rules! program_for {
    ($module:ident, $peer:ident) => {
        mod $module {
            use $peer::sync::atomic::{AtomicU32, Ordering::SeqCst};
            use $peer::sync::{Arc, Mutex, MutexGuard};
            use $peer::thread;

            use super::{EXECUTIONS, Relaxed, STEPS, Size};

            struct Shared {
                low: Vec<AtomicU32>,
                high: Vec<AtomicU32>,
                lock: Mutex<()>,
                interrupts: Vec<Mutex<()>>,
            }

            fn step() {
                STEPS.fetch_add(1, Relaxed);
            }

            fn load(word: &AtomicU32) -> u32 {
                step();
                word.load(SeqCst)
            }

            fn store(word: &AtomicU32, value: u32) {
                step();
                word.store(value, SeqCst);
            }

            fn take(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
                step();
                mutex.lock().expect("nobody panics with it")
            }

            fn reader(shared: &Shared, number: usize) {
                let _off = take(&shared.interrupts[number]);
                for (low, high) in shared.low.iter().zip(&shared.high) {
                    loop {
                        let first = load(low);
                        if first == 0 {
                            break;
                        }
                        let second = load(high);
                        if load(low) == first {
                            assert_eq!(second, 1, "a mixture of two entries");
                            break;
                        }
                    }
                }
            }

            fn zapper(shared: &Shared) {
                let _held = take(&shared.lock);
                for (low, high) in shared.low.iter().zip(&shared.high) {
                    store(low, 0);
                    store(high, 0);
                }
                for reader in &shared.interrupts {
                    drop(take(reader));
                }
            }

            fn faulter(shared: &Shared) {
                for (low, high) in shared.low.iter().zip(&shared.high) {
                    let _held = take(&shared.lock);
                    if load(low) == 0 {
                        store(high, 1);
                        store(low, 1);
                    }
                }
            }

            /// The zapper is the thread that starts the others: loom has few.
            pub(super) fn execute(size: Size) {
                EXECUTIONS.fetch_add(1, Relaxed);
                let ones = || (0..size.entries).map(|_| AtomicU32::new(1)).collect();
                let shared = Arc::new(Shared {
                    low: ones(),
                    high: ones(),
                    lock: Mutex::new(()),
                    interrupts: (0..size.readers).map(|_| Mutex::new(())).collect(),
                });
                let mut threads = Vec::new();
                for number in 0..size.readers {
                    let shared = shared.clone();
                    threads.push(thread::spawn(move || reader(&shared, number)));
                }
                for _ in 0..size.faulters {
                    let shared = shared.clone();
                    threads.push(thread::spawn(move || faulter(&shared)));
                }
                zapper(&shared);
                for thread in threads {
                    thread.join().expect("nobody panics");
                }
            }
        }
    };
}

program_for!(on_loom, loom);
program_for!(on_shuttle, shuttle);

/// The most threads that loom knows, the first one included (its `rt::MAX_THREADS`, which is not public).
pub(crate) const THREADS_OF_LOOM: usize = 5;

/// In what order schedules come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    DepthFirst,
    Random,
}

/// # Panics
/// If somebody sees a mixture, or if `size` needs more threads than [`THREADS_OF_LOOM`].
pub(crate) fn by_loom(size: Size, time: Duration) -> Covered {
    let mut builder = loom::model::Builder::new();
    builder.max_duration = Some(time);
    covered(time, || builder.check(move || on_loom::execute(size)))
}

/// # Panics
/// If somebody sees a mixture.
pub(crate) fn by_shuttle(size: Size, order: Order, time: Duration) -> Covered {
    let mut config = shuttle::Config::new();
    config.max_time = Some(time);
    covered(time, || match order {
        Order::DepthFirst => {
            let scheduler = shuttle::scheduler::DfsScheduler::new(None, false);
            shuttle::Runner::new(scheduler, config).run(move || on_shuttle::execute(size));
        }
        Order::Random => {
            let scheduler = shuttle::scheduler::RandomScheduler::new_from_seed(1, usize::MAX);
            shuttle::Runner::new(scheduler, config).run(move || on_shuttle::execute(size));
        }
    })
}

fn covered(time: Duration, run: impl FnOnce()) -> Covered {
    let began = Instant::now();
    run();
    Covered { executions: EXECUTIONS.load(Relaxed), steps: STEPS.load(Relaxed), is_all: began.elapsed() < time }
}
