//! What who traces is told, and on which CPU.

use hosted::ThreadCpu;
use machine::user::FaultCause;
use machine::{Access, CpuId, PageFault, VirtAddr};
use mm::{Area, AreaRights, Event, FlushReason, NobodyTraces, SpaceId, Trace};
use pagetable::Level;

use crate::memory::{CACHED, Kernel, anonymous};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 32;
const ONE: SpaceId = SpaceId::new(0);
const TWO: SpaceId = SpaceId::new(1);
const KERNEL: SpaceId = SpaceId::new(2);

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

const fn flush(reason: FlushReason, pages: Option<u64>) -> Event {
    Event::TlbFlush { reason, pages }
}

const fn zap(first: u64, end: u64) -> Event {
    Event::Zap { start: page(first), end: page(end) }
}

/// Two CPUs; the first translates by address space 0.
struct World {
    kernel: Kernel,
    cpus: [ThreadCpu; 2],
}

impl World {
    fn new() -> Self {
        let kernel = Kernel::build(2, TABLES);
        let cpus = [0, 1].map(|cpu| kernel.machine.attach_as(CpuId::new(cpu)).expect("a free CPU"));
        kernel.mm.enter(&cpus[0], kernel.space(0));
        kernel.fill_file(&cpus[0]);
        Self { kernel, cpus }
    }

    fn end(self) {
        for space in [ONE, TWO] {
            self.kernel.mm.munmap(&self.cpus[0], space, AT, 1 << 10).expect("the tables are whole");
        }
        self.kernel.empty_file(&self.cpus[0]);
        self.kernel.assert_all_is_back(TABLES);
    }
}

#[test]
fn faults_and_zaps_are_told() {
    let w = World::new();
    let (mm, cpu, space) = (w.kernel.mm, &w.cpus[0], w.kernel.space(0));
    mm.mmap(cpu, ONE, anonymous(AT, 4, 0)).expect("a good area");
    let fault = |number, access, cause| Event::PageFault(PageFault { address: page(number), access, cause });
    let told = w.kernel.recorder.during(|| w.kernel.store(cpu, 0, page(1), 1).expect("memory"));
    assert_eq!(told, [(0, fault(1, Access::Write, FaultCause::NotPresent))]);
    let told = w.kernel.recorder.during(|| assert!(w.kernel.load(cpu, 0, page(7)).is_err()));
    assert_eq!(told, [(0, fault(7, Access::Read, FaultCause::NotPresent))], "though nothing comes of it");
    // No other CPU is to be told.
    let told = w.kernel.recorder.during(|| mm.zap(cpu, space, page(0), 4).expect("whole tables"));
    assert_eq!(told, [(0, zap(0, 4)), (0, flush(FlushReason::LocalMmShootdown, Some(1)))]);
    let told = w.kernel.recorder.during(|| mm.zap(cpu, space, page(0), 4).expect("whole tables"));
    assert_eq!(told, [(0, zap(0, 4))], "nothing was there");
    w.end();
}

#[test]
fn a_flush_is_told_where_it_is_asked_for_and_where_it_is_done() {
    let w = World::new();
    let (mm, [first, second], space) = (w.kernel.mm, &w.cpus, w.kernel.space(0));
    mm.mmap(first, ONE, anonymous(AT, 4, 0)).expect("a good area");
    let switch = flush(FlushReason::TaskSwitch, None);
    assert_eq!(w.kernel.recorder.during(|| mm.enter(second, space)), [(1, switch)]);
    w.kernel.store(first, 0, page(1), 1).expect("memory");
    let told = w.kernel.recorder.during(|| mm.zap(first, space, page(0), 4).expect("whole tables"));
    let asked = (0, flush(FlushReason::RemoteSendIpi, Some(1)));
    let own = (0, flush(FlushReason::LocalMmShootdown, Some(1)));
    assert_eq!(told, [(0, zap(0, 4)), asked, own, (1, flush(FlushReason::RemoteShootdown, Some(1)))]);
    // One that is lazy is passed over, and makes up for it.
    let mut lazy = Some(mm.enter_lazy(second, ONE, KERNEL).expect("there are such spaces"));
    w.kernel.store(first, 0, page(1), 1).expect("memory");
    let told = w.kernel.recorder.during(|| mm.zap(first, space, page(0), 4).expect("whole tables"));
    assert_eq!(told, [(0, zap(0, 4)), own]);
    let told = w.kernel.recorder.during(|| mm.leave_lazy(lazy.take().expect("it is lazy"), space));
    assert_eq!(told, [(1, switch)]);
    // One that has missed nothing has nothing to make up for.
    lazy = mm.enter_lazy(second, ONE, KERNEL);
    assert_eq!(w.kernel.recorder.during(|| mm.leave_lazy(lazy.take().expect("it is lazy"), space)), []);
    // For several address spaces at once.
    mm.mmap(first, TWO, Area::shared(AT, 1, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    w.kernel.store(first, 1, AT, 1).expect("a page of the file");
    let file = mm.file(CACHED).expect("it is there");
    let told = w.kernel.recorder.during(|| assert_eq!(mm.write_back(first, file, 0, |_| ()), Ok(Some(()))));
    assert_eq!(told, [(0, flush(FlushReason::LocalShootdown, None))]);
    w.end();
}

#[test]
fn tables_are_told_before_they_are_free() {
    let w = World::new();
    let (mm, cpu) = (w.kernel.mm, &w.cpus[0]);
    let tables = |told: Vec<(usize, Event)>| -> Vec<Level> {
        let level = |(_, event)| if let Event::TableFree { level, .. } = event { Some(level) } else { None };
        told.into_iter().filter_map(level).collect()
    };
    mm.mmap(cpu, ONE, anonymous(AT, 512, 0).with_huge_pages()).expect("a good area");
    w.kernel.store(cpu, 0, AT, 1).expect("memory");
    mm.split_leaf(cpu, w.kernel.space(0), AT).expect("a huge leaf");
    let told = w.kernel.recorder.during(|| mm.munmap(cpu, ONE, AT, 512).expect("the tables are whole"));
    assert_eq!(tables(told), [Level::Pte, Level::Pmd, Level::Pud]);
    // A collapse and a retraction free one each.
    mm.mmap(cpu, ONE, anonymous(AT, 512, 0).with_huge_pages()).expect("a good area");
    // A table is there, so that the page will be a small one.
    mm.install_guards(cpu, w.kernel.space(0), page(3), 1).expect("memory");
    mm.remove_guards(cpu, w.kernel.space(0), page(3), 1).expect("memory");
    w.kernel.store(cpu, 0, AT, 1).expect("memory");
    let collapse = || mm.collapse(cpu, w.kernel.space(0), AT, 511).expect("nothing is in the way");
    assert_eq!(tables(w.kernel.recorder.during(collapse)), [Level::Pte]);
    mm.munmap(cpu, ONE, AT, 512).expect("the tables are whole");
    mm.mmap(cpu, ONE, Area::shared(AT, 512, AreaRights::Read, CACHED, 0)).expect("a good area");
    w.kernel.load(cpu, 0, AT).expect("a page of the file");
    let told = w.kernel.recorder.during(|| mm.retract_table(cpu, w.kernel.space(0), AT).expect("a table"));
    assert_eq!(tables(told), [Level::Pte]);
    w.end();
}

#[test]
fn nobody_is_told_by_default() {
    const { assert!(!<NobodyTraces as Trace<ThreadCpu>>::ENABLED) }
}
