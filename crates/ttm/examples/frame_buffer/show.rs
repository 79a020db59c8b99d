//! What the example shows, and what it claims. A test of the package looks whether it is true.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::card::{GIGABYTE_PAGES, Leaves, Machine, STOLEN, VRAM};
use hosted::ThreadCpu;
use machine::{Access, VirtAddr, Word};
use mm::{Foll, GupError};
use pagetable::Level;
use ttm::{Handle, Kind, MoveError};

const PAINTERS: u64 = 3;
/// Words of each page that each painter draws.
const WORDS: u64 = 4;
/// 16 MiB: half of the card's memory.
const FRAME_BUFFER_PAGES: u64 = 8 * 512;
/// With the frame buffer, more than the card's memory.
const RIVAL_PAGES: u64 = 10 * 512;
/// Too small for a huge leaf.
const CURSOR_PAGES: u64 = 3;

/// How long each has the card's memory, so that something is drawn.
const TURN: Duration = Duration::from_millis(2);

const FRAME_BUFFER: VirtAddr = VirtAddr::new(0x40_0000_0000);
const CURSOR: VirtAddr = VirtAddr::new(0x50_0000_0000);
const APERTURE: VirtAddr = VirtAddr::new(0x60_0000_0000);

/// What happened.
#[derive(Default)]
pub(crate) struct Report {
    /// In words.
    pub(crate) lines: Vec<String>,
    /// Claims that turned out not to be true.
    pub(crate) broken: Vec<String>,
}

impl Report {
    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn claim(&mut self, what: &str, holds: impl FnOnce() -> bool) {
        if !holds() {
            self.broken.push(what.to_owned());
        }
    }
}

/// What one painter did.
struct Painted {
    stores: u64,
    loads: u64,
    wrong: u64,
    leaves: Leaves,
}

/// What the CPU that wants direct I/O met with.
#[derive(Default)]
struct DirectIo {
    refused: Vec<(Level, u64)>,
    taken: u64,
    bounced: u64,
}

/// Runs the show, with so many evictions.
pub(crate) fn show(rounds: u64) -> Report {
    let machine =
        Machine::build(PAINTERS as u32 + 2, &[FRAME_BUFFER_PAGES, RIVAL_PAGES, CURSOR_PAGES, GIGABYTE_PAGES], 40 * 512);
    let cpu = machine.threads.attach().expect("a free CPU");
    let device = machine.device;
    let create = |pages| device.create(&cpu, pages).expect("there is a slot for it");
    let [frame_buffer, rival, cursor, aperture] =
        &[FRAME_BUFFER_PAGES, RIVAL_PAGES, CURSOR_PAGES, GIGABYTE_PAGES].map(create);
    machine.map(&cpu, frame_buffer, FRAME_BUFFER, FRAME_BUFFER_PAGES);
    machine.map(&cpu, cursor, CURSOR, CURSOR_PAGES);
    machine.map(&cpu, aperture, APERTURE, GIGABYTE_PAGES);
    machine.place(&cpu, frame_buffer, VRAM).expect("there is room");
    machine.place(&cpu, cursor, VRAM).expect("there is room");
    machine.place(&cpu, aperture, STOLEN).expect("there is room");

    let mut report = Report::default();
    let stop = AtomicBool::new(false);
    let (painted, io) = std::thread::scope(|scope| {
        let painters: Vec<_> = (0..PAINTERS)
            .map(|number| {
                let (machine, stop) = (&machine, &stop);
                scope.spawn(move || paint(machine, number, stop))
            })
            .collect();
        let io = {
            let (machine, stop) = (&machine, &stop);
            scope.spawn(move || direct_io(machine, stop))
        };
        let turns = take_turns(&machine, &cpu, [rival, frame_buffer], rounds);
        stop.store(true, Ordering::Relaxed);
        let painted: Vec<Painted> =
            painters.into_iter().map(|painter| painter.join().expect("painters do not panic")).collect();
        turns.expect("there is room for one of them at a time");
        (painted, io.join().expect("direct I/O does not panic"))
    });
    tell(&machine, &cpu, &painted, &io, &mut report);
    report
}

/// The card's memory is too small for both: what was used longest ago leaves when the other comes.
fn take_turns(
    machine: &Machine,
    cpu: &ThreadCpu,
    [rival, frame_buffer]: [&Handle; 2],
    rounds: u64,
) -> Result<(), MoveError> {
    for round in 0..rounds {
        machine.place(cpu, rival, VRAM)?;
        if round % 4 == 3 {
            machine.device.swap_out(cpu)?;
        }
        std::thread::sleep(TURN);
        machine.place(cpu, frame_buffer, VRAM)?;
        std::thread::sleep(TURN);
        machine.device.reap(cpu);
    }
    Ok(())
}

/// Draws at random, and looks again at what was drawn before; at last looks at everything.
fn paint(machine: &Machine, number: u64, stop: &AtomicBool) -> Painted {
    let cpu = machine.threads.attach().expect("a CPU for each painter");
    machine.mm.enter(&cpu, machine.space());
    let mut drawn = vec![0_u64; (FRAME_BUFFER_PAGES * WORDS) as usize];
    let mut painted = Painted { stores: 0, loads: 0, wrong: 0, leaves: Leaves::new() };
    let at = |pixel: u64| {
        let (page, word) = (pixel / WORDS, pixel % WORDS);
        FRAME_BUFFER.wrapping_add(page * 4096 + (word * PAINTERS + number) * 8)
    };
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (number + 1) << 40;
    while !stop.load(Ordering::Relaxed) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pixel = (state >> 33) % (FRAME_BUFFER_PAGES * WORDS);
        if state >> 20 & 3 == 0 {
            painted.wrong += u64::from(look(machine, &cpu, at(pixel), &mut painted.leaves) != drawn[pixel as usize]);
            painted.loads += 1;
        } else {
            painted.stores += 1;
            drawn[pixel as usize] = painted.stores;
            let colour = painted.stores;
            let draw = |word: &machine::Word64| word.atomic_store(colour, Ordering::SeqCst);
            machine
                .access(&cpu, at(pixel), Access::Write, &mut painted.leaves, draw)
                .expect("the frame buffer is mapped");
        }
    }
    for (pixel, &colour) in drawn.iter().enumerate() {
        painted.wrong += u64::from(look(machine, &cpu, at(pixel as u64), &mut painted.leaves) != colour);
        painted.loads += 1;
    }
    painted
}

fn look(machine: &Machine, cpu: &ThreadCpu, at: VirtAddr, leaves: &mut Leaves) -> u64 {
    let load = |word: &machine::Word64| word.atomic_load(Ordering::SeqCst);
    machine.access(cpu, at, Access::Read, leaves, load).expect("the object is mapped")
}

/// Tries to pin pages of each object for a disk, fast and slow; what it may not pin it copies by the CPU (a bounce buffer).
fn direct_io(machine: &Machine, stop: &AtomicBool) -> DirectIo {
    let cpu = machine.threads.attach().expect("a CPU for direct I/O");
    machine.mm.enter(&cpu, machine.space());
    let mut io = DirectIo::default();
    let mut leaves = Leaves::new();
    let mut refused = [(Level::Pte, 0), (Level::Pmd, 0), (Level::Pud, 0)];
    let mut turn = 0_u64;
    while !stop.load(Ordering::Relaxed) || turn < 300 {
        turn += 1;
        let at = match turn % 3 {
            0 => FRAME_BUFFER.wrapping_add(turn % FRAME_BUFFER_PAGES * 4096),
            1 => CURSOR.wrapping_add(turn % CURSOR_PAGES * 4096),
            _ => APERTURE.wrapping_add(turn % GIGABYTE_PAGES * 4096),
        };
        look(machine, &cpu, at, &mut leaves);
        io.bounced += 1;
        let before = machine.leaf_at(&cpu, at);
        let fast = machine.mm.gup(&cpu, machine.space(), at, 1, Foll::PIN | Foll::FAST_ONLY, |_| io.taken += 1);
        let slow = machine.mm.gup(&cpu, machine.space(), at, 1, Foll::PIN, |_| io.taken += 1);
        let is_refused = fast == Ok(0) && matches!(slow, Err(GupError::Special { .. }));
        if let (true, Some((_, level))) = (is_refused, before)
            && before == machine.leaf_at(&cpu, at)
        {
            refused.iter_mut().filter(|(known, _)| *known == level).for_each(|(_, count)| *count += 1);
        }
    }
    io.refused = refused.to_vec();
    io
}

const fn size(level: Level) -> &'static str {
    match level {
        Level::Pte => "4 KiB",
        Level::Pmd => "2 MiB",
        _ => "1 GiB",
    }
}

fn tell(machine: &Machine, cpu: &ThreadCpu, painted: &[Painted], io: &DirectIo, report: &mut Report) {
    let kinds = machine.device.kinds();
    let evictions = kinds[usize::from(VRAM.number())].evictions(cpu);
    let copies = machine.card.copies.load(Ordering::Relaxed);
    report.say(format!(
        "{evictions} objects were evicted from the card's memory; the copy engine moved or cleared {copies} times"
    ));
    report.say(format!(
        "{} faults met an object that was moving or reserved, dropped their locks and waited",
        machine.card.waits.load(Ordering::Relaxed)
    ));
    let mut leaves = Leaves::new();
    for (place, count) in painted.iter().flat_map(|painter| &painter.leaves) {
        *leaves.entry(*place).or_default() += count;
    }
    for ((kind, level), count) in &leaves {
        let place = if *kind == VRAM.number() { "in the card's memory" } else { "in system memory" };
        report.say(format!("{count:>6} faults on the frame buffer {place} were resolved with {} leaves", size(*level)));
    }
    let sum = |of: fn(&Painted) -> u64| painted.iter().map(of).sum::<u64>();
    let (stores, loads, wrong) = (sum(|p| p.stores), sum(|p| p.loads), sum(|p| p.wrong));
    report.say(format!("{stores} pixels were drawn and {loads} looked at; {wrong} were not what had been drawn"));
    for (level, count) in &io.refused {
        report.say(format!("GUP, fast and slow, refused pages that {} leaves map, {count} times", size(*level)));
    }
    report.say(format!("{} pages went to the disk by way of a bounce buffer, {} were pinned", io.bounced, io.taken));

    report.claim("the frame buffer was evicted", || evictions > 0);
    report.claim("no drawn pixel was lost", || wrong == 0 && stores > 0);
    report.claim("GUP took no page of the card", || io.taken == 0);
    report.claim("GUP refused pages at every level", || io.refused.iter().all(|(_, count)| *count > 0));
    report.claim("in the card's memory the frame buffer was mapped by huge leaves", || {
        leaves.contains_key(&(VRAM.number(), Level::Pmd))
    });
    report.claim("it was also used in system memory", || leaves.keys().any(|(kind, _)| *kind == Kind::SYSTEM.number()));
}
