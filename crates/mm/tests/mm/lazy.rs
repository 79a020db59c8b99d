//! CPUs that idle with a page table loaded: who interrupts them, what they make up for, and where they are when tables go.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hosted::{Statistics, ThreadCpu};
use machine::{Access, Cpu, CpuId, CpuSet, VirtAddr, Word};
use mm::{Area, AreaRights, Lazy, SpaceId};

use crate::memory::{CACHED, Kernel, SPACES, anonymous};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const PAGES: u64 = 16;
const TABLES: u64 = 32;
const USER: SpaceId = SpaceId::new(0);
const OTHER: SpaceId = SpaceId::new(1);
/// Has no areas.
const KERNEL: SpaceId = SpaceId::new(2);

fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// CPU 0 works, CPU 1 idles; both translate by address space 0, where pages are mapped.
struct Machine {
    kernel: Kernel,
    works: ThreadCpu,
    idles: ThreadCpu,
}

impl Machine {
    fn new() -> Self {
        let kernel = Kernel::build(2, TABLES);
        let [works, idles] = [0, 1].map(|cpu| kernel.machine.attach_as(CpuId::new(cpu)).expect("a free CPU"));
        kernel.mm.mmap(&works, USER, anonymous(AT, PAGES, 0)).expect("a good area");
        for cpu in [&works, &idles] {
            kernel.mm.enter(cpu, kernel.space(0));
        }
        kernel.mm.populate(&works, kernel.space(0), AT, PAGES, Access::Write).expect("memory");
        Self { kernel, works, idles }
    }

    fn enter_lazy(&self, kernel: SpaceId) -> Lazy<'_, 'static, ThreadCpu> {
        self.kernel.mm.enter_lazy(&self.idles, USER, kernel).expect("there are such spaces")
    }

    /// What happened on the CPU that idles since `before`.
    fn since(&self, before: Statistics) -> Statistics {
        let now = self.kernel.machine.statistics(self.idles.id());
        Statistics {
            ipis: now.ipis - before.ipis,
            local_invalidations: now.local_invalidations - before.local_invalidations,
            roots_loaded: now.roots_loaded - before.roots_loaded,
            ..Statistics::default()
        }
    }

    fn statistics(&self) -> Statistics {
        self.kernel.machine.statistics(self.idles.id())
    }

    /// The CPUs that a flush of this address space is for.
    fn active(&self, space: u16) -> CpuSet {
        CpuSet::from_bits(self.kernel.space(space).active_word().atomic_load(Ordering::SeqCst))
    }

    fn zap(&self, number: u64) {
        self.kernel.mm.zap(&self.works, self.kernel.space(0), page(number), 1).expect("the tables are whole");
    }

    fn munmap(&self) {
        self.kernel.mm.munmap(&self.works, USER, AT, PAGES).expect("the tables are whole");
    }

    fn end(self) {
        self.kernel.mm.exit(&self.works, USER).expect("the tables are whole");
        self.kernel.assert_all_is_back(TABLES);
    }
}

const NOTHING: Statistics = Statistics {
    ipis: 0,
    local_invalidations: 0,
    paravirtual_invalidations: 0,
    broadcast_invalidations: 0,
    broadcast_syncs: 0,
    grace_periods: 0,
    roots_loaded: 0,
};

#[test]
fn who_is_not_lazy_is_interrupted() {
    let machine = Machine::new();
    let before = machine.statistics();
    machine.zap(0);
    assert_eq!(machine.since(before), Statistics { ipis: 1, local_invalidations: 1, ..NOTHING });
    // Nor is one that has come back.
    machine.kernel.mm.leave_lazy(machine.enter_lazy(KERNEL), machine.kernel.space(0));
    let before = machine.statistics();
    machine.zap(1);
    assert_eq!(machine.since(before), Statistics { ipis: 1, local_invalidations: 1, ..NOTHING });
    machine.end();
}

#[test]
fn flushes_pass_over_who_is_lazy_and_are_made_up_for_at_once() {
    let machine = Machine::new();
    for flushes in [0, 1, 5] {
        let before = machine.statistics();
        let lazy = machine.enter_lazy(KERNEL);
        (0..flushes).for_each(|number| machine.zap(number));
        assert_eq!(machine.since(before), NOTHING, "{flushes} flushes");
        machine.kernel.mm.leave_lazy(lazy, machine.kernel.space(0));
        let once = u64::from(flushes > 0);
        assert_eq!(machine.since(before), Statistics { local_invalidations: once, ..NOTHING }, "{flushes} flushes");
        machine.kernel.mm.populate(&machine.works, machine.kernel.space(0), AT, PAGES, Access::Write).expect("memory");
    }
    machine.end();
}

#[test]
fn who_goes_elsewhere_loads_a_page_table_and_flushes_no_more_than_that() {
    let machine = Machine::new();
    let lazy = machine.enter_lazy(KERNEL);
    machine.zap(0);
    let before = machine.statistics();
    machine.kernel.mm.leave_lazy(lazy, machine.kernel.space(1));
    assert_eq!(machine.since(before), Statistics { roots_loaded: 1, ..NOTHING });
    assert_eq!(machine.active(0), CpuSet::only(machine.works.id()));
    assert_eq!(machine.active(1), CpuSet::only(machine.idles.id()));
    // What it missed there is not made up for again.
    let lazy = machine.kernel.mm.enter_lazy(&machine.idles, OTHER, KERNEL).expect("there are such spaces");
    machine.kernel.mm.leave_lazy(lazy, machine.kernel.space(1));
    assert_eq!(machine.since(before), Statistics { roots_loaded: 1, ..NOTHING });
    machine.end();
}

#[test]
fn who_is_lazy_leaves_for_the_kernel_where_tables_are_freed() {
    let machine = Machine::new();
    let before = machine.statistics();
    let lazy = machine.enter_lazy(KERNEL);
    machine.munmap();
    // One interrupt: for what follows it is not there any more.
    assert_eq!(machine.since(before), Statistics { ipis: 1, roots_loaded: 1, ..NOTHING });
    assert_eq!(machine.active(0), CpuSet::only(machine.works.id()));
    assert_eq!(machine.active(2), CpuSet::only(machine.idles.id()));
    machine.kernel.mm.mmap(&machine.works, USER, anonymous(AT, PAGES, 0)).expect("a good area");
    machine.kernel.mm.populate(&machine.works, machine.kernel.space(0), AT, PAGES, Access::Write).expect("memory");
    machine.munmap();
    assert_eq!(machine.since(before), Statistics { ipis: 1, roots_loaded: 1, ..NOTHING });
    machine.kernel.mm.leave_lazy(lazy, machine.kernel.space(0));
    assert_eq!(machine.since(before), Statistics { ipis: 1, roots_loaded: 2, ..NOTHING });
    assert_eq!(machine.active(0), CpuSet::first(2));
    assert_eq!(machine.active(2), CpuSet::EMPTY);
    machine.end();
}

#[test]
fn who_has_no_other_address_space_to_go_to_flushes() {
    let machine = Machine::new();
    let before = machine.statistics();
    let lazy = machine.enter_lazy(USER);
    machine.munmap();
    let flushed = machine.since(before);
    assert_eq!(flushed, Statistics { ipis: flushed.ipis, local_invalidations: flushed.ipis, ..NOTHING });
    assert!(flushed.ipis > 0, "tables were freed");
    assert_eq!(machine.active(0), CpuSet::first(2));
    machine.kernel.mm.leave_lazy(lazy, machine.kernel.space(0));
    assert_eq!(machine.since(before).roots_loaded, 0);
    machine.end();
}

#[test]
fn nobody_is_left_in_an_address_space_that_ends() {
    let machine = Machine::new();
    // Its tables are gone when the CPU becomes lazy there: no flush of theirs takes it away.
    machine.munmap();
    let lazy = machine.enter_lazy(KERNEL);
    machine.kernel.mm.exit(&machine.works, USER).expect("the tables are whole");
    assert_eq!(machine.active(0), CpuSet::only(machine.works.id()));
    machine.kernel.mm.leave_lazy(lazy, machine.kernel.space(1));
    assert_eq!((machine.active(1), machine.active(2)), (CpuSet::only(machine.idles.id()), CpuSet::EMPTY));
    machine.end();
}

#[test]
fn an_address_space_that_is_not_there_is_none_to_be_lazy_in() {
    let machine = Machine::new();
    let missing = SpaceId::new(SPACES);
    for (space, kernel) in [(missing, KERNEL), (USER, missing)] {
        assert!(machine.kernel.mm.enter_lazy(&machine.idles, space, kernel).is_none());
    }
    let before = machine.statistics();
    machine.zap(0);
    assert_eq!(machine.since(before).ipis, 1, "it is not lazy");
    machine.end();
}

/// Two CPUs come and go while two others take pages and tables away: nobody waits for ever, and everything is back.
#[test]
fn cpus_come_and_go_while_tables_are_freed() {
    const ROUNDS: u64 = 20_000;
    let kernel = &Kernel::build(4, TABLES);
    let works = AtomicBool::new(true);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.fill_file(&cpu);
    }
    let attach = |number: u32| {
        let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
        kernel.mm.enter(&cpu, kernel.space(0));
        cpu
    };
    let lazies = &[2, 3].map(|_| AtomicU64::new(0));
    std::thread::scope(|scope| {
        let idle = [2, 3].map(|number| {
            let works = &works;
            scope.spawn(move || {
                let cpu = attach(number);
                let rounds = &lazies[number as usize - 2];
                while works.load(Ordering::Relaxed) {
                    // A page that may be unmapped, in the middle of this or that.
                    let _ = kernel.load(&cpu, 0, page(rounds.load(Ordering::Relaxed) % PAGES));
                    let lazy = kernel.mm.enter_lazy(&cpu, USER, KERNEL).expect("there are such spaces");
                    if rounds.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                        std::thread::yield_now();
                    }
                    kernel.mm.leave_lazy(lazy, kernel.space(0));
                }
            })
        });
        let work = [0, 1].map(|number| {
            scope.spawn(move || {
                let cpu = attach(number);
                let file = kernel.mm.file(CACHED).expect("it is there");
                let are_lazy = || lazies.iter().all(|rounds| rounds.load(Ordering::Relaxed) > 0);
                for round in (0..).take_while(|round| *round < ROUNDS || !are_lazy()) {
                    let area = Area::shared(AT, PAGES, AreaRights::ReadWrite, CACHED, 0);
                    let _ = kernel.mm.mmap(&cpu, USER, area);
                    let _ = kernel.store(&cpu, 0, page(round % PAGES), round);
                    kernel.mm.unmap_mapping(&cpu, file, round % PAGES, 1).expect("the tables are whole");
                    kernel.mm.munmap(&cpu, USER, AT, PAGES).expect("the tables are whole");
                }
            })
        });
        work.into_iter().for_each(|thread| thread.join().expect("no panic"));
        works.store(false, Ordering::Relaxed);
        idle.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.exit(&cpu, USER).expect("the tables are whole");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}
