//! A frame buffer that moves between the card's memory and the system's while all CPUs draw into it and try to pin its pages. Nothing that was drawn may be
//! lost, and GUP, fast and slow, must refuse every page, whatever the size of the leaf that maps it.

use core::sync::atomic::{AtomicU64, Ordering};

use machine::{Access, VirtAddr};
use mm::{Area, AreaRights, Foll, SpaceId};
use ttm::{AcquireContext, Handle, Kind, MoveError, Place};

use super::ledger::Ledger;
use crate::arch::{BareCpu, Patience};
use crate::card::{OBJECT_PAGES, VRAM};
use crate::command_line::Request;
use crate::crew;
use crate::random::Random;
use crate::report::{self, Verdict};
use crate::system::System;

const SPACE: usize = 0;
const START: VirtAddr = VirtAddr::new(0x5000_0000);
/// How many operations of the first CPU there are for each move.
const TURN: u64 = 256;

/// Moves an object where it is wanted.
fn place(cpu: &BareCpu, system: &System, handle: &Handle, kind: Kind) {
    let device = system.card.device();
    loop {
        let context = AcquireContext::new(cpu, device.tickets());
        let Ok(mut reserved) = device.reserve(handle, &context) else { continue };
        let moved = device.validate(&mut reserved, &[Place::anywhere(kind)], Some(&context));
        reserved.unlock();
        match moved {
            Err(MoveError::Lock(_)) => {}
            moved => {
                moved.expect("there is room for one of the two");
                return;
            }
        }
    }
}

pub(crate) fn run(cpu: &BareCpu, system: &System, request: &Request) -> Verdict {
    let cpus = BareCpu::online().iter().count() as u64;
    let ledger = Ledger::open(cpu, system);
    let device = system.card.device();
    let [frame_buffer, rival] = [0; 2].map(|_| device.create(cpu, OBJECT_PAGES).expect("a slot for an object"));
    let area =
        Area::shared(START, OBJECT_PAGES, AreaRights::ReadWrite, device.file_id(), device.mmap_offset(&frame_buffer));
    system.mm.mmap(cpu, SpaceId::new(SPACE as u16), area).expect("room for an area");
    let [stores, loads, moves, refused, huge, taken, wrong] = &[const { AtomicU64::new(0) }; 7];
    let each = request.operations / cpus;
    // How far the first CPU is: moving takes long, and the others shall be at work meanwhile, not done already.
    let pace = &AtomicU64::new(0);
    crew::all(cpu, |cpu, number| {
        system.mm.switch(cpu, system.space(2 * number + 1), system.space(SPACE));
        let mut random = Random::new(request.seed, number);
        // What this CPU drew: a word of each page.
        let mut drawn = [0_u32; OBJECT_PAGES as usize];
        let mut counts = [0_u64; 7];
        let at = |page: u64| START.wrapping_add(page * 4096 + number as u64 * 8);
        for round in 0..each {
            if number == 0 && each >= 10 && round % (each / 10) == 0 {
                report::progress("special", round * cpus, request.operations);
            }
            if number == 0 && round % TURN == TURN - 1 {
                place(cpu, system, if (round / TURN).is_multiple_of(2) { &rival } else { &frame_buffer }, VRAM);
                counts[2] += 1;
            }
            if number == 0 {
                pace.store(round, Ordering::Release);
            } else {
                let mut patience = Patience::default();
                while round > pace.load(Ordering::Acquire).saturating_add(TURN / 2) {
                    patience.wait();
                }
            }
            let page = random.below(OBJECT_PAGES);
            match random.below(8) {
                0 => {
                    let is_huge = system.is_huge(cpu, SPACE, at(page));
                    for flags in [Foll::PIN | Foll::FAST_ONLY, Foll::PIN] {
                        let space = system.space(SPACE);
                        let result = system.mm.gup(cpu, space, START.wrapping_add(page * 4096), 1, flags, |run| {
                            counts[5] += 1;
                            system.mm.release(cpu, run, Access::Read).expect("taken just now");
                        });
                        counts[3] += u64::from(result.is_err() || result.is_ok_and(|taken| taken == 0));
                    }
                    counts[4] += u64::from(is_huge);
                }
                1..4 => {
                    let found = system.load(cpu, SPACE, at(page));
                    counts[6] += u64::from(found.ok() != Some(u64::from(drawn[page as usize])));
                    counts[1] += 1;
                }
                _ => {
                    drawn[page as usize] = round as u32 + 1;
                    counts[6] += u64::from(system.store(cpu, SPACE, at(page), (round + 1) & 0xffff_ffff).is_err());
                    counts[0] += 1;
                }
            }
        }
        if number == 0 {
            pace.store(u64::MAX, Ordering::Release);
        }
        for page in 0..OBJECT_PAGES {
            counts[6] += u64::from(system.load(cpu, SPACE, at(page)).ok() != Some(u64::from(drawn[page as usize])));
        }
        for (total, own) in [stores, loads, moves, refused, huge, taken, wrong].iter().zip(counts) {
            total.fetch_add(own, Ordering::Relaxed);
        }
        system.mm.switch(cpu, system.space(SPACE), system.space(2 * number + 1));
    });
    system.mm.exit(cpu, SpaceId::new(SPACE as u16)).expect("an address space that can end");
    for handle in [frame_buffer, rival] {
        device.put(cpu, handle).expect("an object of this device");
    }
    device.reap(cpu);
    let (verdict, lost) = ledger.close(cpu, system, core::iter::empty());
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    report::result(
        "special",
        Verdict::of(get(wrong) == 0 && get(taken) == 0).and(verdict),
        &[
            ("operations", each * cpus),
            ("stores", get(stores)),
            ("loads", get(loads)),
            ("moves", get(moves)),
            ("evictions", device.kinds()[1].evictions(cpu)),
            ("refused", get(refused)),
            ("refused_huge", get(huge)),
            ("taken", get(taken)),
            ("wrong", get(wrong)),
            lost[0],
            lost[1],
            lost[2],
        ],
    )
}
