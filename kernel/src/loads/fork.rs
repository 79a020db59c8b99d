//! Each CPU has a parent and forks children of it, at random between stores of both. Neither may see what the other stored after the fork; a page that is
//! pinned stays the parent's.

use core::sync::atomic::{AtomicU64, Ordering};

use machine::{Access, Cpu, VirtAddr};
use mm::{Foll, Run, SpaceId};

use super::ledger::Ledger;
use crate::arch::BareCpu;
use crate::command_line::Request;
use crate::crew;
use crate::data_frames::words;
use crate::random::Random;
use crate::report::{self, Verdict};
use crate::system::System;

const PAGES: u64 = 16;
/// So that CPUs have the same file, but not the same pages of it.
fn start(cpu: u64) -> u64 {
    0x3000_0000 + (cpu << 24)
}

pub(crate) fn run(cpu: &BareCpu, system: &System, request: &Request) -> Verdict {
    let cpus = BareCpu::online().iter().count() as u64;
    let ledger = Ledger::open(cpu, system);
    let [stores, forks, pins, wrong] = &[const { AtomicU64::new(0) }; 4];
    let each = request.operations / cpus;
    crew::all(cpu, |cpu, number| {
        let (parent, child) = (2 * number + 1, 2 * number + 2);
        let ids = [parent, child].map(|space| SpaceId::new(space as u16));
        let at = |page: u64| VirtAddr::new(start(number as u64) + (page << 12));
        let mut random = Random::new(request.seed, number);
        let mut counts = [0_u64; 4];
        let mut held = [0_u64; PAGES as usize];
        let mut pinned: Option<(Run, u64)> = None;
        system.map(cpu, parent, at(0), PAGES);
        system.mm.enter(cpu, system.space(parent));
        for round in 0..each {
            if number == 0 && each >= 10 && round % (each / 10) == 0 {
                report::progress("fork", round * cpus, request.operations);
            }
            let page = random.below(PAGES);
            match random.below(32) {
                0 => {
                    system.mm.fork(cpu, ids[0], ids[1]).expect("an empty child");
                    let inherited = held;
                    // The parent stores, and the child must not see it; then the other way round.
                    held[page as usize] = round << 8 | 1;
                    counts[3] += u64::from(system.store(cpu, parent, at(page), held[page as usize]).is_err());
                    system.mm.switch(cpu, system.space(parent), system.space(child));
                    for page in [page, (page + 1 + random.below(PAGES - 1)) % PAGES] {
                        counts[3] +=
                            u64::from(system.load(cpu, child, at(page)).ok() != Some(inherited[page as usize]));
                        counts[3] += u64::from(system.store(cpu, child, at(page), round << 8 | 2).is_err());
                    }
                    system.mm.switch(cpu, system.space(child), system.space(parent));
                    counts[3] += u64::from(system.load(cpu, parent, at(page)).ok() != Some(held[page as usize]));
                    system.mm.exit(cpu, ids[1]).expect("a child that can end");
                    counts[1] += 1;
                }
                1 => match pinned.take() {
                    Some((run, page)) => {
                        // A device stores into it: the parent must see that, however often it has forked meanwhile.
                        held[page as usize] = round << 8 | 3;
                        cpu.store(&words(run.frame())[0], held[page as usize]);
                        counts[3] += u64::from(system.load(cpu, parent, at(page)).ok() != Some(held[page as usize]));
                        system.mm.release(cpu, run, Access::Write).expect("pinned before");
                    }
                    None => {
                        let mut taken = None;
                        let flags = Foll::PIN | Foll::WRITE;
                        let count =
                            system.mm.gup(cpu, system.space(parent), at(page), 1, flags, |run| taken = Some(run));
                        counts[3] += u64::from(count.ok() != Some(1));
                        pinned = taken.map(|run| (run, page));
                        counts[2] += 1;
                    }
                },
                2..20 => {
                    held[page as usize] = round << 8;
                    counts[3] += u64::from(system.store(cpu, parent, at(page), round << 8).is_err());
                    counts[0] += 1;
                }
                _ => counts[3] += u64::from(system.load(cpu, parent, at(page)).ok() != Some(held[page as usize])),
            }
        }
        if let Some((run, _)) = pinned {
            system.mm.release(cpu, run, Access::Read).expect("pinned before");
        }
        for (total, own) in [stores, forks, pins, wrong].iter().zip(counts) {
            total.fetch_add(own, Ordering::Relaxed);
        }
    });
    let (verdict, lost) = ledger.close(cpu, system, (0..cpus as usize).map(|number| 2 * number + 1));
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    report::result(
        "fork",
        Verdict::of(get(wrong) == 0).and(verdict),
        &[
            ("operations", each * cpus),
            ("stores", get(stores)),
            ("forks", get(forks)),
            ("pins", get(pins)),
            ("wrong", get(wrong)),
            lost[0],
            lost[1],
            lost[2],
        ],
    )
}
