//! How long things take, by the time-stamp counter: the best of some rounds. `peer/` does the same work on Linux, with the same numbers of everything.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::{Access, VirtAddr};
use mm::{Area, AreaRights, Foll, Run, SpaceId};

use super::ledger::Ledger;
use crate::arch::{self, BareCpu};
use crate::command_line::Request;
use crate::crew;
use crate::report::{self, Verdict};
use crate::system::{ANONYMOUS, System};

/// Many and short: under an emulator whose threads have to wait for a core, few rounds are undisturbed.
const ROUNDS: usize = 200;
const SPACE: usize = 0;
const CHILD: usize = 1 + 2 * (arch::MAX_CPUS - 1);
const START: VirtAddr = VirtAddr::new(0x1000_0000);
const HUGE_START: VirtAddr = VirtAddr::new(0x4000_0000);
const CALLS: u64 = 100;
const FAULTS: u64 = 64;
const PROTECTED: u64 = 256;
const UNMAPS: u64 = 16;
const FORKED: u64 = 1000;
const PINNED: u64 = 512;
const HUGE_PAGES: u64 = 8;

/// What is measured, in the order of [`measure`], in picoseconds; the last is how many leaves of 2 MiB there were.
const NAMES: [&str; 9] = [
    "empty_call_ps",
    "fault_ps",
    "mprotect_ps",
    "munmap_shootdown_ps",
    "fork_ps",
    "fork_1000_pages_ps",
    "gup_4k_ps",
    "gup_2m_ps",
    "huge_leaves",
];

/// The shortest of some rounds, for each of `items`, in picoseconds. `after` is not counted.
fn best(items: u64, mut round: impl FnMut() -> u64) -> u64 {
    (0..ROUNDS).map(|_| arch::nanoseconds(round()) * 1000 / items).min().unwrap_or(0)
}

fn ticks(body: impl FnOnce()) -> u64 {
    let start = arch::now();
    body();
    arch::now() - start
}

pub(crate) fn run(cpu: &BareCpu, system: &System, _: &Request) -> Verdict {
    let cpus = BareCpu::online().iter().count();
    let ledger = Ledger::open(cpu, system);
    let over = AtomicBool::new(false);
    let ready = AtomicU64::new(0);
    let measured = &[const { AtomicU64::new(0) }; NAMES.len()];
    crew::all(cpu, |cpu, number| match number {
        0 => {
            system.mm.switch(cpu, system.space(1), system.space(SPACE));
            while ready.load(Ordering::Acquire) == 0 && cpus > 1 {
                core::hint::spin_loop();
            }
            for (slot, picoseconds) in measured.iter().zip(measure(cpu, system)) {
                slot.store(picoseconds, Ordering::Relaxed);
            }
            over.store(true, Ordering::Release);
            system.mm.switch(cpu, system.space(SPACE), system.space(1));
        }
        1 => {
            // Runs in the same address space, so that every flush has to ask it.
            system.mm.switch(cpu, system.space(3), system.space(SPACE));
            ready.store(1, Ordering::Release);
            while !over.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
            system.mm.switch(cpu, system.space(SPACE), system.space(3));
        }
        _ => {}
    });
    let (verdict, lost) = ledger.close(cpu, system, core::iter::once(SPACE));
    let mut counts = [("", 0); NAMES.len() + 3];
    let own = NAMES.into_iter().zip(measured.iter().map(|slot| slot.load(Ordering::Relaxed)));
    counts.iter_mut().zip(own.chain(lost)).for_each(|(slot, count)| *slot = count);
    report::result("bench", verdict, &counts)
}

/// Everything, as [`NAMES`] has it.
fn measure(cpu: &BareCpu, system: &System) -> [u64; NAMES.len()] {
    let (id, child) = (SpaceId::new(SPACE as u16), SpaceId::new(CHILD as u16));
    let space = system.space(SPACE);
    let page = |index: u64| START.wrapping_add(index << 12);
    let touch = |pages: u64| {
        for index in 0..pages {
            system.store(cpu, SPACE, page(index), index).expect("an area is there");
        }
    };
    let fork = || {
        let ticks = ticks(|| system.mm.fork(cpu, id, child).expect("an empty child"));
        system.mm.exit(cpu, child).expect("a child");
        ticks
    };
    system.map(cpu, SPACE, START, 1);
    touch(1);
    // There is no kernel to call: user code is entered, and left by an interrupt.
    let call = best(CALLS, || {
        ticks(|| {
            for _ in 0..CALLS {
                system.load(cpu, SPACE, START).expect("it is mapped");
            }
        })
    });
    let fork_alone = best(1, fork);
    system.mm.munmap(cpu, id, START, 1).expect("an area");
    let fault = best(FAULTS, || {
        system.map(cpu, SPACE, START, FAULTS);
        let ticks = ticks(|| touch(FAULTS));
        system.mm.munmap(cpu, id, START, FAULTS).expect("an area");
        ticks
    });
    let protect = best(PROTECTED, || {
        system.map(cpu, SPACE, START, PROTECTED);
        touch(PROTECTED);
        let ticks = ticks(|| system.mm.mprotect(cpu, id, START, PROTECTED, AreaRights::Read).expect("an area"));
        system.mm.munmap(cpu, id, START, PROTECTED).expect("an area");
        ticks
    });
    let unmap = best(UNMAPS, || {
        system.map(cpu, SPACE, START, UNMAPS);
        touch(UNMAPS);
        ticks(|| (0..UNMAPS).for_each(|index| system.mm.munmap(cpu, id, page(index), 1).expect("a page")))
    });
    system.map(cpu, SPACE, START, FORKED);
    let fork_pages = best(1, || {
        // All of them can be written: no page is protected already.
        touch(FORKED);
        fork()
    });
    touch(FORKED);
    let pin = |start: VirtAddr, pages: u64| {
        best(1, || {
            let mut runs: [Option<Run>; PINNED as usize] = [const { None }; PINNED as usize];
            let mut count = 0;
            let ticks = ticks(|| {
                let flags = Foll::GET | Foll::WRITE;
                let taken = system.mm.gup(cpu, space, start, pages, flags, |run| {
                    if let Some(slot) = runs.get_mut(count) {
                        *slot = Some(run);
                    }
                    count += 1;
                });
                assert!(taken.ok() == Some(pages), "pages that are there can be had");
            });
            for run in runs.into_iter().flatten() {
                system.mm.release(cpu, run, Access::Read).expect("taken just now");
            }
            ticks
        })
    };
    let small = pin(START, PINNED) / PINNED;
    let area =
        Area::private(HUGE_START, HUGE_PAGES * 512, AreaRights::ReadWrite, ANONYMOUS, HUGE_START.as_u64() / 4096);
    system.mm.mmap(cpu, id, area.with_huge_pages()).expect("room for an area");
    for index in 0..HUGE_PAGES {
        system.store(cpu, SPACE, HUGE_START.wrapping_add(index << 21), index).expect("an area is there");
    }
    let huge = pin(HUGE_START, HUGE_PAGES * 512) / HUGE_PAGES;
    let leaves =
        (0..HUGE_PAGES).filter(|index| system.is_huge(cpu, SPACE, HUGE_START.wrapping_add(index << 21))).count();
    [call, fault, protect, unmap, fork_alone, fork_pages, small, huge, leaves as u64]
}
