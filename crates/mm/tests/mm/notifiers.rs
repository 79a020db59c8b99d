//! A device that translates by its own copy of a page table: after every operation that takes entries or rights away, it has forgotten them.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory::{CACHED, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{Access, CpuId, VirtAddr};
use mm::{Area, AreaRights, SpaceId, Usage};
use pagetable::Flags;

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const AWAY: VirtAddr = VirtAddr::new(0x50_0000_0000);
const ONE: SpaceId = SpaceId::new(0);
const TABLES: u64 = 32;
const PAGES: u64 = 16;
const ROUNDS: u64 = 20_000;

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

/// One half is anonymous, the other a file's.
fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// Changes address space 0 in every way that takes something away.
fn change(kernel: &Kernel, cpu: &ThreadCpu, random: &mut Random) {
    let (mm, space) = (kernel.mm, kernel.space(0));
    let first = random.below(PAGES);
    let count = 1 + random.below((PAGES - first).min(4));
    match random.below(11) {
        0 => mm.zap(cpu, space, page(first), count).expect("whole tables"),
        1 => mm.write_protect(cpu, space, page(first), count).expect("whole tables"),
        2 => {
            // Rights come back at once, so that others' accesses fail rarely.
            for rights in [AreaRights::None, AreaRights::Read, AreaRights::ReadWrite] {
                let _ = mm.mprotect(cpu, ONE, page(0), PAGES, rights);
            }
        }
        3 => {
            let half = PAGES / 2;
            let start = page(first / half * half);
            if mm.mremap(cpu, ONE, (start, half), (AWAY, half)).is_ok() {
                // Meanwhile another may have mapped something where it was.
                if mm.mremap(cpu, ONE, (AWAY, half), (start, half)).is_err() {
                    mm.munmap(cpu, ONE, AWAY, half).expect("whole tables");
                }
            }
        }
        4 => {
            mm.munmap(cpu, ONE, page(0), PAGES / 2).expect("whole tables");
            let _ = mm.mmap(cpu, ONE, anonymous(page(0), PAGES / 2, 0));
        }
        5 => {
            let file = mm.file(CACHED).expect("it is there");
            mm.unmap_mapping(cpu, file, random.below(PAGES / 2), count).expect("whole tables");
        }
        6 => mm.harvest(cpu, space, (page(first), count), Usage::SOFT_DIRTY, |_| ()).expect("whole tables"),
        7 => {
            if let Some(frame) = kernel.frame_at(cpu, 0, page(first)) {
                let _ = mm.swap_out(cpu, frame);
            }
        }
        8 => {
            if let Some(frame) = kernel.frame_at(cpu, 0, page(first)) {
                let _ = mm.migrate(cpu, frame);
            }
        }
        _ => {
            let _ = kernel.increment(cpu, 0, page(first));
        }
    }
}

/// Looks addresses up for the device, and compares what the device has with the page table.
fn look(kernel: &Kernel, cpu: &ThreadCpu, random: &mut Random, compared: &mut u64) {
    let shadow = kernel.shadow;
    let at = page(random.below(PAGES));
    let seen = shadow.invalidations.begin(cpu);
    let found = kernel.leaf_at(cpu, 0, at).map(|found| found.entry);
    let mut pages = shadow.pages.lock().expect("nobody panics with it");
    if shadow.invalidations.changed(cpu, seen) {
        return;
    }
    if let Some(had) = pages.get(&at) {
        let now = found.expect("what the device has is mapped");
        assert_eq!(had.leaf_frame(pagetable::Level::Pte), now.leaf_frame(pagetable::Level::Pte), "{at}: another page");
        assert!(now.has(Flags::WRITE) || !had.has(Flags::WRITE), "{at}: the device may write, and user code not");
        *compared += 1;
    }
    match found {
        Some(entry) => pages.insert(at, entry),
        None => pages.remove(&at),
    };
}

#[test]
fn a_device_never_keeps_what_was_taken_away() {
    let kernel = &Kernel::build(3, TABLES);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.fill_file(&cpu);
        kernel.mm.mmap(&cpu, ONE, anonymous(page(0), PAGES / 2, 0)).expect("a good area");
        let shared = Area::shared(page(PAGES / 2), PAGES / 2, AreaRights::ReadWrite, CACHED, 0);
        kernel.mm.mmap(&cpu, ONE, shared).expect("a good area");
        kernel.mm.populate(&cpu, kernel.space(0), AT, PAGES, Access::Read).expect("memory");
    }
    let attach = |number: u32| {
        let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
        kernel.mm.enter(&cpu, kernel.space(0));
        (cpu, Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(number + 1) << 40))
    };
    let has_compared = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changing = [1, 2].map(|number| {
            scope.spawn(move || {
                let (cpu, mut random) = attach(number);
                (0..ROUNDS).for_each(|_| change(kernel, &cpu, &mut random));
                while !has_compared.load(Ordering::Relaxed) {
                    change(kernel, &cpu, &mut random);
                    std::thread::yield_now();
                }
            })
        });
        let (cpu, mut random) = attach(0);
        let mut compared = 0;
        // As long as somebody changes something: who is interrupted while he invalidates would keep any number of looks from an answer.
        while changing.iter().any(|thread| !thread.is_finished()) {
            look(kernel, &cpu, &mut random, &mut compared);
            has_compared.store(compared > 0, Ordering::Relaxed);
        }
    });
    assert!(kernel.shadow.forgotten.load(Ordering::Relaxed) > 0, "nothing was invalidated");
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.munmap(&cpu, ONE, VirtAddr::new(0), 1 << 35).expect("everything");
    assert!(kernel.shadow.pages.lock().expect("nobody panics with it").is_empty(), "nothing is mapped");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}
