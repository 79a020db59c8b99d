//! One address space on all CPUs. Each CPU stores to its own pages, unmaps and protects them, and looks into those of others: what it finds there must be
//! what their owner stored, or nothing, and never what a frame's next user put there.

use core::sync::atomic::{AtomicU64, Ordering};

use machine::VirtAddr;
use mm::{AreaRights, SpaceId};

use super::ledger::Ledger;
use crate::arch::BareCpu;
use crate::command_line::Request;
use crate::crew;
use crate::random::Random;
use crate::report::{self, Verdict};
use crate::system::System;

const PAGES: u64 = 16;
const SPACE: usize = 0;
const START: u64 = 0x1000_0000;

fn page(cpu: u64, page: u64) -> VirtAddr {
    VirtAddr::new(START + (cpu << 20) + (page << 12))
}

/// Both halves say whose value it is: a 32-bit CPU loads them one by one.
fn value(cpu: u64, page: u64, count: u64) -> u64 {
    let tag = (cpu + 1) << 24 | page << 16;
    tag << 32 | tag | count & 0xffff
}

fn is_of(found: u64, cpu: u64, page: u64) -> bool {
    let tag = value(cpu, page, 0) as u32;
    [(found >> 32) as u32, found as u32 & 0xffff_0000].iter().all(|half| *half == 0 || *half == tag)
}

pub(crate) fn run(cpu: &BareCpu, system: &System, request: &Request) -> Verdict {
    let cpus = BareCpu::online().iter().count() as u64;
    let ledger = Ledger::open(cpu, system);
    let [stores, loads, looks, unmaps, protects, wrong, foreign] = &[const { AtomicU64::new(0) }; 7];
    let each = request.operations / cpus;
    crew::all(cpu, |cpu, number| {
        let number = number as u64;
        system.mm.switch(cpu, system.space(2 * number as usize + 1), system.space(SPACE));
        let id = SpaceId::new(SPACE as u16);
        let mut random = Random::new(request.seed, number as usize);
        let mut held = [0_u64; PAGES as usize];
        let mut counts = [0_u64; 7];
        (0..PAGES).for_each(|index| system.map(cpu, SPACE, page(number, index), 1));
        for round in 0..each {
            if number == 0 && each >= 10 && round % (each / 10) == 0 {
                report::progress("shootdown", round * cpus, request.operations);
            }
            let index = random.below(PAGES);
            let at = page(number, index);
            let own = &mut held[index as usize];
            match random.below(16) {
                0..7 => {
                    *own = value(number, index, round);
                    counts[5] += u64::from(system.store(cpu, SPACE, at, *own).is_err());
                    counts[0] += 1;
                }
                7..10 => {
                    counts[5] += u64::from(system.load(cpu, SPACE, at).ok() != Some(*own));
                    counts[1] += 1;
                }
                10..13 => {
                    let other = random.below(cpus);
                    let found = system.load(cpu, SPACE, page(other, index));
                    counts[6] += u64::from(found.is_ok_and(|found| !is_of(found, other, index)));
                    counts[2] += 1;
                }
                13 | 14 => {
                    system.mm.munmap(cpu, id, at, 1).expect("an area of one page");
                    system.map(cpu, SPACE, at, 1);
                    *own = 0;
                    counts[3] += 1;
                }
                _ => {
                    system.mm.mprotect(cpu, id, at, 1, AreaRights::Read).expect("an area of one page");
                    counts[5] += u64::from(system.store(cpu, SPACE, at, 1).is_ok());
                    counts[5] += u64::from(system.load(cpu, SPACE, at).ok() != Some(*own));
                    system.mm.mprotect(cpu, id, at, 1, AreaRights::ReadWrite).expect("an area of one page");
                    counts[4] += 1;
                }
            }
        }
        for (total, own) in [stores, loads, looks, unmaps, protects, wrong, foreign].iter().zip(counts) {
            total.fetch_add(own, Ordering::Relaxed);
        }
        system.mm.switch(cpu, system.space(SPACE), system.space(2 * number as usize + 1));
    });
    let (verdict, lost) = ledger.close(cpu, system, core::iter::once(SPACE));
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let holds = get(wrong) == 0 && get(foreign) == 0;
    report::result(
        "shootdown",
        Verdict::of(holds).and(verdict),
        &[
            ("operations", each * cpus),
            ("stores", get(stores)),
            ("loads", get(loads)),
            ("looks", get(looks)),
            ("unmaps", get(unmaps)),
            ("protects", get(protects)),
            ("wrong", get(wrong)),
            ("foreign", get(foreign)),
            lost[0],
            lost[1],
            lost[2],
        ],
    )
}
