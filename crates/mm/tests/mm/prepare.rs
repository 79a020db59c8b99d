//! PAE: the tables that must be there before a CPU loads the root, and a lack of frames for them.

use hosted::{DataFrames, FailingTables, Failures, FrameArena, ThreadCpu, Threads};
use machine::{Cpu, Frame};
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, FaultError, Mm, NoDrivers, NoSwap, NobodyListens, NobodyTraces, Parts, Platform, Protocols,
    Shootdown, Sound,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{Cmpxchg8b, Pae, PhysicalWidth, Root, TableMemory, Xchg64, ZeroThenLink};

struct OnPae;

impl Platform for OnPae {
    type Cpu = ThreadCpu;
    type Mode = Pae;
    type Tables = FailingTables;
    type Map = DataFrames;
    type Frames = DataFrames;
    type Swap = NoSwap;
    type Notify = NobodyListens;
    type Drivers = NoDrivers;
    type Trace = NobodyTraces;
    type Read = Cmpxchg8b;
    type Write = Xchg64;
    type Recheck = Atomic;
    type Publish = ZeroThenLink;
    type FlushOrder = FlushAfterUnlock;
    type RemoteFlush = ByIpi;
    type Lifetime = ByRcu;
    type Special = Softw1;
    type Guards = Sound;
}

/// Four PDPTEs, of which user code may have addresses below each.
const PDPTES: u64 = 4;

/// Every allocation fails, alone and with all that follow: it is said, tables that were made stay, and the next attempt makes the rest.
#[test]
fn frames_run_out() {
    for fail in [Failures::fail_at, Failures::fail_from] {
        for number in 1..=PDPTES + 1 {
            let failures = Failures::none();
            let arena = FrameArena::new(Frame::new(0x100), 16).expect("address space for tables");
            let tables = FailingTables { arena, failures: failures.clone() };
            let data = DataFrames::new(Frame::new(0x10000), 16, Failures::none()).expect("address space for data");
            let machine = Threads::new(1, |_, _| ()).expect("a small machine");
            let cpu = machine.attach().expect("a free CPU");
            let mode = Pae::new(PhysicalWidth::MAX);
            let root = tables.arena.allocate().expect("a frame for the root");
            cpu.zero(tables.arena.table(root).expect("a frame of the arena").cells());
            let spaces = [AddressSpace::new(Root::new(&mode, root.start()).expect("aligned, and low enough"), &[])];
            let protocols = Protocols::<OnPae> {
                mode,
                read: Cmpxchg8b,
                write: Xchg64,
                recheck: Atomic,
                publish: ZeroThenLink,
                flush_order: FlushAfterUnlock,
                remote_flush: ByIpi,
                lifetime: ByRcu,
                special: Softw1,
                guards: Sound,
            };
            let shootdown = Shootdown::new();
            let parts = Parts {
                tables: &tables,
                map: &data,
                frames: &data,
                swap: &NoSwap,
                notify: &NobodyListens,
                drivers: &NoDrivers,
                trace: &NobodyTraces,
                spaces: &spaces,
                files: &[],
                shootdown: &shootdown,
            };
            let mm = Mm::new(protocols, parts);
            fail(&failures, number);
            let prepared = mm.prepare(&cpu, &spaces[0]);
            failures.fail_at(0);
            if number <= PDPTES {
                assert_eq!(prepared, Err(FaultError::OutOfFrames), "table {number}");
                assert_eq!(tables.arena.in_use(), 1 + number - 1, "those before stay");
            }
            assert_eq!(mm.prepare(&cpu, &spaces[0]), Ok(()), "again");
            assert_eq!(tables.arena.in_use(), 1 + PDPTES);
        }
    }
}
