//! Everything at once on threads: afterwards every count is exact and every table is back.

use std::sync::atomic::Ordering;

use crate::common::{CACHED, CACHED_HUGE, DRIVER, FIRST_DATA, HUGE, Kernel, PAGES, SPACE, area};
use hosted::ThreadCpu;
use machine::{Access, Cpu, CpuId, Frame, VirtAddr};
use mm::{FolioFlags, Foll};

const CPUS: u32 = 4;
const ROUNDS: u64 = 100_000;
const SMALL: u64 = 0x40_0000_0000;
const LARGE: u64 = 0x50_0000_0000;
const SPECIAL: u64 = 0x60_0000_0000;
const TABLES: u64 = 64;

/// xorshift: the same work in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn work(kernel: &Kernel, cpu: &ThreadCpu) {
    let mm = kernel.mm;
    mm.enter(cpu, kernel.space);
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (cpu.id().index() as u64 + 1) << 40);
    let mut held = Vec::new();
    for _ in 0..ROUNDS {
        let page = random.below(PAGES);
        let small = VirtAddr::new(SMALL + page * 4096);
        let large = VirtAddr::new(LARGE + page * 4096);
        match random.below(12) {
            // Somebody may have unmapped the area, so these may fail: what they return must be right if they do not.
            0..4 => {
                let pages = 1 + random.below(8).min(PAGES - page - 1);
                let mut next = FIRST_DATA.wrapping_add(page);
                let _ = mm.gup(cpu, kernel.space, small, pages, Foll::PIN | Foll::WRITE, |run| {
                    assert_eq!(run.frame(), next, "the page that belongs there");
                    next = next.wrapping_add(u64::from(run.pages()));
                    held.push(run);
                });
            }
            4 => {
                let _ = mm.gup(cpu, kernel.space, large, 1 + (PAGES - page) / 2, Foll::PIN | Foll::FAST_ONLY, |run| {
                    assert!((HUGE..HUGE.wrapping_add(512)).contains(&run.frame()), "a page of the huge folio");
                    held.push(run);
                });
            }
            5 => drop(kernel.fault(cpu, if page.is_multiple_of(2) { small } else { large }, Access::Write)),
            6 => mm.zap(cpu, kernel.space, small, (PAGES - page).min(16)).expect("the tables are whole"),
            7 => {
                let file =
                    mm.file(if page.is_multiple_of(2) { CACHED } else { CACHED_HUGE }).expect("the file is there");
                mm.unmap_mapping(cpu, file, page - page % 8, 8).expect("the tables are whole");
            }
            8 => mm.write_protect(cpu, kernel.space, small, 1).expect("the tables are whole"),
            9 => {
                let start = if page.is_multiple_of(2) { SMALL } else { LARGE };
                let file = if page.is_multiple_of(2) { CACHED } else { CACHED_HUGE };
                if mm.mmap(cpu, SPACE, area(start, PAGES, file)).is_err() {
                    mm.munmap(cpu, SPACE, VirtAddr::new(start), PAGES).expect("the tables are whole");
                }
            }
            10 => special(kernel, cpu),
            _ => held.drain(..).for_each(|run| mm.release(cpu, run, Access::Write).expect("held")),
        }
        if held.len() > 64 {
            held.drain(..).for_each(|run| mm.release(cpu, run, Access::Read).expect("held"));
        }
    }
    held.drain(..).for_each(|run| mm.release(cpu, run, Access::Read).expect("held"));
}

/// A driver's page: mapped, refused to GUP, and revoked.
fn special(kernel: &Kernel, cpu: &ThreadCpu) {
    let (file, _) = DRIVER[1];
    let at = VirtAddr::new(SPECIAL);
    let _ = kernel.fault(cpu, at, Access::Write);
    let got = kernel.mm.gup(cpu, kernel.space, at, 1, Foll::PIN | Foll::FAST_ONLY, |_| ());
    assert_eq!(got, Ok(0), "fast GUP takes no driver's page");
    let file = kernel.mm.file(file).expect("the file is there");
    kernel.mm.revoke(cpu, file, 0, 512, |frames| frames.get(0)).expect("the tables are whole");
}

#[test]
fn counts_are_exact_and_nothing_is_lost() {
    let kernel = Kernel::build(CPUS, TABLES, FolioFlags::SHMEM);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.mmap(&cpu, SPACE, area(SMALL, PAGES, CACHED)).expect("a good area");
        kernel.mm.mmap(&cpu, SPACE, area(LARGE, PAGES, CACHED_HUGE)).expect("a good area");
        kernel.mm.mmap(&cpu, SPACE, area(SPECIAL, 512, DRIVER[1].0)).expect("a good area");
    }
    std::thread::scope(|scope| {
        for number in 0..CPUS {
            let kernel = &kernel;
            scope.spawn(move || {
                let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
                work(kernel, &cpu);
            });
        }
    });
    let cpu = kernel.machine.attach().expect("a free CPU");
    for start in [SMALL, LARGE, SPECIAL] {
        kernel.mm.munmap(&cpu, SPACE, VirtAddr::new(start), PAGES).expect("the tables are whole");
    }
    let folios = (0..PAGES).map(|page| FIRST_DATA.wrapping_add(page)).chain([HUGE, HUGE.wrapping_add(1024)]);
    for folio in folios {
        assert_eq!(kernel.counts(&cpu, folio), (1, 0, 0), "{folio}: the file's reference, or the driver's");
    }
    assert_eq!(kernel.records.released.load(Ordering::Relaxed), 0, "files keep their pages");
    let left: Vec<Frame> = std::iter::from_fn(|| kernel.tables.allocate().ok()).collect();
    assert_eq!(left.len() as u64, TABLES - 1, "every table but the root is back");
}
