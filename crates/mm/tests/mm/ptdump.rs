//! How a range of an address space is mapped, by the engine's dump: what each operation leaves behind, and while others change it.

use std::ops::ControlFlow;

use hosted::ThreadCpu;
use machine::{CpuId, VirtAddr};
use mm::error::RangeError;
use mm::{Area, AreaRights, SpaceId};
use pagetable::ptdump::{Run, What};
use pagetable::{Flags, Level, Marker};

use crate::memory::{CACHED, Kernel, anonymous};

const ONE: SpaceId = SpaceId::new(0);
/// On a boundary of 1 GiB.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 48;

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

fn dump(kernel: &Kernel, cpu: &ThreadCpu, start: VirtAddr, pages: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    let told = kernel.mm.ptdump(cpu, kernel.space(0), (start, pages), |run| {
        runs.push(run);
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(told, Ok(ControlFlow::Continue(())));
    runs
}

/// What a page is, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Hole,
    ReadOnly,
    Writable,
    Away,
    Swapped,
    Guard,
}

fn kind(run: &Run) -> Kind {
    match run.what {
        What::Hole => Kind::Hole,
        What::Leaf { attributes, .. } if attributes.has(Flags::WRITE) => Kind::Writable,
        What::Leaf { .. } => Kind::ReadOnly,
        What::ProtNone(_) => Kind::Away,
        What::Swap => Kind::Swapped,
        What::Marker(Marker::Guard) => Kind::Guard,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_operations_leave_behind_is_told() {
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let (mm, space) = (kernel.mm, kernel.space(0));
    mm.enter(&cpu, space);
    kernel.fill_file(&cpu);
    let gib = 1 << 18;
    let nothing = Run { start: AT, bytes: gib * 4096, level: Level::P4d, what: What::Hole };
    assert_eq!(dump(&kernel, &cpu, AT, gib), [nothing]);
    mm.mmap(&cpu, ONE, anonymous(page(0), 16, 0)).expect("a good area");
    mm.mmap(&cpu, ONE, Area::shared(page(16), 16, AreaRights::Read, CACHED, 0)).expect("a good area");
    for number in [0, 1, 2, 4, 5, 8] {
        kernel.store(&cpu, 0, page(number), number).expect("memory");
    }
    for number in 16..24 {
        kernel.load(&cpu, 0, page(number)).expect("a page of the file");
    }
    mm.swap_out(&cpu, kernel.frame_at(&cpu, 0, page(1)).expect("mapped")).expect("nobody else has it");
    mm.mprotect(&cpu, ONE, page(4), 2, AreaRights::None).expect("an area");
    mm.install_guards(&cpu, space, page(6), 1).expect("memory");
    mm.mmap(&cpu, ONE, anonymous(page(512), 512, 512).with_huge_pages()).expect("a good area");
    kernel.store(&cpu, 0, page(600), 1).expect("memory");
    let runs = dump(&kernel, &cpu, AT, gib);
    let told: Vec<_> = runs
        .iter()
        .map(|run| ((run.start.as_u64() - AT.as_u64()) / 4096, run.bytes / 4096, run.level, kind(run)))
        .collect();
    let small = |first, pages, kind| (first, pages, Level::Pte, kind);
    assert_eq!(
        told,
        [
            small(0, 1, Kind::Writable),
            small(1, 1, Kind::Swapped),
            small(2, 1, Kind::Writable),
            small(3, 1, Kind::Hole),
            small(4, 2, Kind::Away),
            small(6, 1, Kind::Guard),
            small(7, 1, Kind::Hole),
            small(8, 1, Kind::Writable),
            small(9, 7, Kind::Hole),
            small(16, 8, Kind::ReadOnly),
            small(24, 488, Kind::Hole),
            (512, 512, Level::Pmd, Kind::Writable),
            (1024, gib - 1024, Level::Pmd, Kind::Hole),
        ]
    );
    // Who has seen enough says so; a range that cannot be meant is refused.
    let first = mm.ptdump(&cpu, space, (page(3), 1), ControlFlow::Break);
    assert_eq!(first.map(|run| run.break_value().map(|run| kind(&run))), Ok(Some(Kind::Hole)));
    let misaligned = VirtAddr::new(0x10);
    let refused = mm.ptdump(&cpu, space, (misaligned, 1), ControlFlow::Break);
    assert_eq!(refused, Err(RangeError::Misaligned { address: misaligned }));
    mm.munmap(&cpu, ONE, AT, 1024).expect("the tables are whole");
    assert_eq!(dump(&kernel, &cpu, AT, gib), [nothing], "tables are gone, too");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

const ROUNDS: u64 = 2_000;

/// One dumps while another maps, fills and unmaps: tables come and go under the walk. What is told covers the range and is never nonsense, and what stays is always told.
#[test]
fn tables_may_go_while_it_walks() {
    const STAYS: u64 = 1900;
    let kernel = Kernel::build(2, TABLES);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.mmap(&cpu, ONE, anonymous(page(STAYS), 1, 0)).expect("a good area");
        kernel.store(&cpu, 0, page(STAYS), 1).expect("memory");
    }
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let cpu = kernel.machine.attach_as(CpuId::new(1)).expect("nobody else has it");
            kernel.mm.enter(&cpu, kernel.space(0));
            for round in 0..ROUNDS {
                let start = page(512 * (round % 3));
                kernel.mm.mmap(&cpu, ONE, anonymous(start, 8, 0)).expect("a good area");
                for number in 0..4 {
                    kernel.store(&cpu, 0, start.wrapping_add(number * 8192), 1).expect("memory");
                }
                kernel.mm.munmap(&cpu, ONE, start, 8).expect("the tables are whole");
            }
        });
        let cpu = kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
        kernel.mm.enter(&cpu, kernel.space(0));
        let mut last = Vec::new();
        while !changes.is_finished() || last.is_empty() {
            last = dump(&kernel, &cpu, AT, 2048);
            let covered: u64 = last.iter().map(|run| run.bytes / 4096).sum();
            assert_eq!(covered, 2048);
            assert!(last.iter().all(|run| matches!(kind(run), Kind::Hole | Kind::Writable)), "{last:?}");
            let stays = last.iter().find(|run| run.start == page(STAYS));
            assert_eq!(stays.map(|run| (run.bytes, kind(run))), Some((4096, Kind::Writable)));
        }
        kernel.mm.munmap(&cpu, ONE, page(STAYS), 1).expect("the tables are whole");
    });
    kernel.assert_all_is_back(TABLES);
}
