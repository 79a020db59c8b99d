//! Huge leaves that become small: what user code can do stays the same, and every count is exact.

use crate::common::{CACHED_HUGE, DRIVER, HUGE, Kernel, SPACE, area};
use machine::{Access, Frame, VirtAddr};
use mm::{FolioFlags, Foll, SplitError};
use pagetable::Level;

const AT: VirtAddr = VirtAddr::new(0x50_0000_0000);
const TABLES: u64 = 16;

fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// All frames of tables that are left; they stay taken.
fn exhaust(kernel: &Kernel) -> Vec<Frame> {
    std::iter::from_fn(|| kernel.tables.allocate().ok()).collect()
}

#[test]
fn a_split_leaf_maps_the_same_pages_and_each_counts() {
    let kernel = Kernel::build(1, TABLES, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.mm.mmap(&cpu, SPACE, area(AT.as_u64(), 512, CACHED_HUGE)).expect("a good area");
    kernel.fault(&cpu, page(7), Access::Write).expect("a page of the file");
    assert_eq!(kernel.counts(&cpu, HUGE), (2, 0, 1));

    assert_eq!(kernel.mm.split_leaf(&cpu, kernel.space, page(9)), Ok(Level::Pmd));
    assert_eq!(kernel.counts(&cpu, HUGE), (1 + 512, 0, 512), "each of 512 leaves holds a reference and a mapping");
    assert_eq!(
        kernel.mm.split_leaf(&cpu, kernel.space, page(9)),
        Err(SplitError::NotHuge { address: page(9) }),
        "it is small already"
    );
    let mut next = HUGE;
    let got = kernel.mm.gup(&cpu, kernel.space, AT, 512, Foll::PIN | Foll::WRITE | Foll::FAST_ONLY, |run| {
        assert_eq!(run.frame(), next, "the same page at the same address, still writable");
        next = next.wrapping_add(u64::from(run.pages()));
        kernel.mm.release(&cpu, run, Access::Read).expect("just taken");
    });
    assert_eq!(got, Ok(512));

    // One page goes and comes back, as a small one: a table is in the way of a huge one.
    kernel.mm.zap(&cpu, kernel.space, page(3), 1).expect("the tables are whole");
    assert_eq!(kernel.counts(&cpu, HUGE), (512, 0, 511));
    kernel.fault(&cpu, page(3), Access::Read).expect("a page of the file");
    assert_eq!(kernel.counts(&cpu, HUGE), (513, 0, 512));

    kernel.mm.munmap(&cpu, SPACE, AT, 512).expect("it is mapped");
    assert_eq!(kernel.counts(&cpu, HUGE), (1, 0, 0), "the file's reference is left");
    assert_eq!(exhaust(&kernel).len() as u64, TABLES - 1, "every table but the root is back");
}

#[test]
fn without_a_frame_for_the_table_nothing_changes() {
    let kernel = Kernel::build(1, TABLES, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.mm.mmap(&cpu, SPACE, area(AT.as_u64(), 512, CACHED_HUGE)).expect("a good area");
    kernel.fault(&cpu, AT, Access::Write).expect("a page of the file");
    let taken = exhaust(&kernel);
    assert_eq!(kernel.mm.split_leaf(&cpu, kernel.space, AT), Err(SplitError::OutOfFrames));
    assert_eq!(kernel.counts(&cpu, HUGE), (2, 0, 1));
    let got = kernel.mm.gup(&cpu, kernel.space, AT, 512, Foll::PIN | Foll::WRITE | Foll::FAST_ONLY, |run| {
        kernel.mm.release(&cpu, run, Access::Read).expect("just taken");
    });
    assert_eq!(got, Ok(512), "the huge leaf is there as before");
    for frame in taken {
        kernel.tables.free(frame);
    }
    assert_eq!(kernel.mm.split_leaf(&cpu, kernel.space, AT), Ok(Level::Pmd));
}

/// Pages of one large folio that small leaves map come as one run, one reference each, until something is different.
#[test]
fn fast_gup_takes_small_leaves_of_a_large_folio_in_runs() {
    let kernel = Kernel::build(1, TABLES, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    kernel.mm.mmap(&cpu, SPACE, area(AT.as_u64(), 512, CACHED_HUGE)).expect("a good area");
    kernel.fault(&cpu, AT, Access::Write).expect("a page of the file");
    kernel.mm.split_leaf(&cpu, kernel.space, AT).expect("it is huge");
    let mapped = 1 + 512;
    let runs = |first: u64, pages: u64, flags: Foll| {
        let mut runs = Vec::new();
        let got = kernel.mm.gup(&cpu, kernel.space, page(first), pages, flags | Foll::FAST_ONLY, |run| runs.push(run));
        assert_eq!(got, Ok(runs.iter().map(|run| u64::from(run.pages())).sum()));
        let pins: u64 = runs.iter().map(|run| u64::from(run.pages())).sum();
        assert_eq!(kernel.counts(&cpu, HUGE).1, pins, "each page is pinned once");
        let found: Vec<_> = runs.iter().map(|run| (run.frame().number() - HUGE.number(), run.pages())).collect();
        for run in runs {
            kernel.mm.release(&cpu, run, Access::Read).expect("just taken");
        }
        assert_eq!(kernel.counts(&cpu, HUGE).1, 0);
        found
    };
    assert_eq!(runs(0, 512, Foll::PIN | Foll::WRITE), [(0, 512)]);
    assert_eq!(runs(3, 7, Foll::PIN), [(3, 7)]);
    assert_eq!(kernel.counts(&cpu, HUGE), (mapped, 0, 512));

    // An entry with other rights ends a run; where it must not be used, the walk.
    kernel.mm.write_protect(&cpu, kernel.space, page(100), 2).expect("the tables are whole");
    assert_eq!(runs(0, 512, Foll::PIN), [(0, 100), (100, 2), (102, 410)]);
    assert_eq!(runs(0, 512, Foll::PIN | Foll::WRITE), [(0, 100)]);
    // So does a hole.
    kernel.mm.zap(&cpu, kernel.space, page(50), 1).expect("the tables are whole");
    assert_eq!(runs(40, 20, Foll::PIN), [(40, 10)]);
    assert_eq!(runs(51, 49, Foll::PIN), [(51, 49)]);
}

/// Drivers' leaves are special: no counts, no records, and fast GUP refuses what they become.
#[test]
fn drivers_leaves_split_at_both_levels() {
    let kernel = Kernel::build(1, TABLES, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    let (file, level) = DRIVER[2];
    assert_eq!(level, Level::Pud);
    let at = VirtAddr::new(0x80_0000_0000);
    kernel.mm.mmap(&cpu, SPACE, area(at.as_u64(), level.frames(), file)).expect("a good area");
    kernel.fault(&cpu, at, Access::Write).expect("a frame of the driver");
    let inside = at.wrapping_add(5 * Level::Pmd.size() + 3 * 4096);
    assert_eq!(kernel.mm.split_leaf(&cpu, kernel.space, inside), Ok(Level::Pud));
    assert_eq!(kernel.mm.split_leaf(&cpu, kernel.space, inside), Ok(Level::Pmd));
    assert_eq!(kernel.mm.split_leaf(&cpu, kernel.space, inside), Err(SplitError::NotHuge { address: inside }));
    for address in [at, inside] {
        let got = kernel.mm.gup(&cpu, kernel.space, address, 1, Foll::PIN | Foll::FAST_ONLY, |_| ());
        assert_eq!(got, Ok(0), "still special");
    }
    // What is zapped comes back as a leaf of the size that fits under the tables.
    kernel.mm.zap(&cpu, kernel.space, inside, 1).expect("the tables are whole");
    kernel.fault(&cpu, inside, Access::Write).expect("a frame of the driver");
    let file = kernel.mm.file(file).expect("the file is there");
    kernel.mm.revoke(&cpu, file, 0, level.frames(), |frames| frames.get(0)).expect("the tables are whole");
    kernel.mm.munmap(&cpu, SPACE, at, level.frames()).expect("it is mapped");
    assert_eq!(exhaust(&kernel).len() as u64, TABLES - 1, "every table but the root is back");
}
