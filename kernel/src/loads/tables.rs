//! Tables come and go under lockless walkers: each CPU maps single pages far apart and unmaps them, which frees the tables behind them, while all pin each
//! other's pages by fast GUP.

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

const PLACES: u64 = 8;
const SPACE: usize = 0;
const START: u64 = 0x2000_0000;

/// Each place is in a table of its own.
fn place(cpu: u64, place: u64) -> VirtAddr {
    VirtAddr::new(START + (cpu << 26) + (place << 22))
}

pub(crate) fn run(cpu: &BareCpu, system: &System, request: &Request) -> Verdict {
    let cpus = BareCpu::online().iter().count() as u64;
    let ledger = Ledger::open(cpu, system);
    let [maps, unmaps, pins, misses, wrong] = &[const { AtomicU64::new(0) }; 5];
    let each = request.operations / cpus;
    crew::all(cpu, |cpu, number| {
        let number = number as u64;
        system.mm.switch(cpu, system.space(2 * number as usize + 1), system.space(SPACE));
        let mut random = Random::new(request.seed, number as usize);
        let mut mapped = [false; PLACES as usize];
        let mut counts = [0_u64; 5];
        for round in 0..each {
            if number == 0 && each >= 10 && round % (each / 10) == 0 {
                report::progress("tables", round * cpus, request.operations);
            }
            let index = random.below(PLACES);
            if random.below(4) == 0 {
                let at = place(number, index);
                let is_mapped = &mut mapped[index as usize];
                if *is_mapped {
                    system.mm.munmap(cpu, SpaceId::new(SPACE as u16), at, 1).expect("an area of one page");
                    counts[1] += 1;
                } else {
                    system.map(cpu, SPACE, at, 1);
                    counts[4] += u64::from(system.store(cpu, SPACE, at, at.as_u64() << 32 | at.as_u64()).is_err());
                    counts[0] += 1;
                }
                *is_mapped = !*is_mapped;
            } else {
                let at = place(random.below(cpus), index);
                let mut run: Option<Run> = None;
                let flags = Foll::PIN | Foll::FAST_ONLY;
                let taken = system.mm.gup(cpu, system.space(SPACE), at, 1, flags, |found| run = Some(found));
                match (taken, run) {
                    (Ok(1), Some(run)) => {
                        // While it is pinned, the frame is nobody else's: it holds what was stored at this address, or nothing yet.
                        let held = cpu.load(&words(run.frame())[0]);
                        let half = |half: u64| half == 0 || half == at.as_u64() & 0xffff_ffff;
                        counts[4] += u64::from(!half(held >> 32) || !half(held & 0xffff_ffff));
                        system.mm.release(cpu, run, Access::Read).expect("pinned just now");
                        counts[2] += 1;
                    }
                    _ => counts[3] += 1,
                }
            }
        }
        for (total, own) in [maps, unmaps, pins, misses, wrong].iter().zip(counts) {
            total.fetch_add(own, Ordering::Relaxed);
        }
        system.mm.switch(cpu, system.space(SPACE), system.space(2 * number as usize + 1));
    });
    let (verdict, lost) = ledger.close(cpu, system, core::iter::once(SPACE));
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    report::result(
        "tables",
        Verdict::of(get(wrong) == 0).and(verdict),
        &[
            ("operations", each * cpus),
            ("maps", get(maps)),
            ("unmaps", get(unmaps)),
            ("pins", get(pins)),
            ("misses", get(misses)),
            ("wrong", get(wrong)),
            lost[0],
            lost[1],
            lost[2],
        ],
    )
}
