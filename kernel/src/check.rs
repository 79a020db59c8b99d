//! The self-check: what the hardware makes of random mappings must be what the engine's walker makes of them.
//!
//! Each CPU has a root of its own, maps one page at a time, of any size and rights, or something that is no page, and lets user code load, store and run
//! there, by random rights to random protection keys where the CPU has keys. Before each access the walker says how it must end, and after it the entry must have the accessed and dirty bits that follow.

use core::sync::atomic::{AtomicU64, Ordering};

use machine::{Access, Cpu, Frame, Invalidation, Pkru, ProtectionKey, ProtectionKeys, VirtAddr};
use mm::FrameSource;
use pagetable::{Attributes, Entry, Flags, Level, Live, Mapper, Mode, NeverLoaded, Rights, Root, WalkError};

use crate::arch::{self, BareCpu, Outcome, PagingMode, UserCall, Write, fault_bits};
use crate::crew;
use crate::data_frames::{HUGE_ORDER, words};
use crate::random::Random;
use crate::report::{self, Verdict};
use crate::system::System;
use crate::table_frames::TableFrames;

type Own<'a> = Mapper<'a, BareCpu, PagingMode, TableFrames, Live<Write>>;

const GIGABYTE: u64 = 1 << 30;
const HUGE: u64 = 2 << 20;
/// Regions of 1 GiB in which pages are mapped, the third by leaves of 1 GiB where there are such.
const REGIONS: u64 = 3;
const STALE_ROUNDS: u64 = 500;

/// What user code does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Load,
    Store,
    Fetch,
}

#[derive(Default)]
struct Counts {
    mappings: AtomicU64,
    accesses: AtomicU64,
    faults: AtomicU64,
    key_faults: AtomicU64,
    wrong: AtomicU64,
    without_present: AtomicU64,
    accessed_by_fault: AtomicU64,
    missing_flush: AtomicU64,
    stale: AtomicU64,
    stale_after_flush: AtomicU64,
}

/// Runs it on all CPUs.
pub(crate) fn run(cpu: &BareCpu, system: &System, checks: u64, seed: u64) -> Verdict {
    let counts = Counts::default();
    let cpus = BareCpu::online().iter().count() as u64;
    crew::all(cpu, |cpu, number| {
        let mut check = Check::new(cpu, system, number, seed, &counts);
        for round in 0..checks.div_ceil(cpus) {
            check.one();
            if round % 1024 == 1023 {
                check.prune();
            }
        }
        check.stale();
        check.end();
    });
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let keys_are_seen = get(&counts.key_faults) > 0 || !arch::has_protection_keys() || get(&counts.accesses) < 1000;
    let well =
        get(&counts.wrong) == 0 && keys_are_seen && get(&counts.stale) > 0 && get(&counts.stale_after_flush) == 0;
    report::result(
        "self-check",
        Verdict::of(well),
        &[
            ("mappings", get(&counts.mappings)),
            ("accesses", get(&counts.accesses)),
            ("faults", get(&counts.faults)),
            ("key_faults", get(&counts.key_faults)),
            ("wrong", get(&counts.wrong)),
            ("reserved_without_present", get(&counts.without_present)),
            ("accessed_by_faults", get(&counts.accessed_by_fault)),
            ("missing_flushes", get(&counts.missing_flush)),
            ("stale", get(&counts.stale)),
            ("stale_after_flush", get(&counts.stale_after_flush)),
        ],
    )
}

struct Check<'a> {
    cpu: &'a BareCpu,
    system: &'a System,
    number: usize,
    root: Root,
    random: Random,
    /// 2 MiB of memory that pages map, whatever their size.
    memory: Frame,
    counts: &'a Counts,
}

/// What a word of memory holds: its address, and `int 0x80`, so that it can be run.
fn content(address: u64) -> u64 {
    (address >> 3) << 16 | UserCall::RETURN
}

/// One frame's words hold what [`content`] says.
fn fill(cpu: &BareCpu, frame: Frame) {
    for (index, word) in words(frame).iter().enumerate() {
        cpu.store(word, content(frame.start().as_u64() + 8 * index as u64));
    }
}

impl<'a> Check<'a> {
    fn new(cpu: &'a BareCpu, system: &'a System, number: usize, seed: u64, counts: &'a Counts) -> Self {
        let root = system.bare_roots[number];
        let memory = system.data.allocate(cpu, HUGE_ORDER).expect("2 MiB for each CPU");
        (0..512).for_each(|index| fill(cpu, memory.wrapping_add(index)));
        let check = Self { cpu, system, number, root, random: Random::new(seed, number), memory, counts };
        // On PAE the tables behind the root must exist before it is loaded.
        for region in 0..REGIONS {
            let at = VirtAddr::new(region * GIGABYTE);
            let mut own = check.own();
            own.map(system.tables, at, Level::Pte, memory, Attributes::new(Rights::READ)).expect("an empty root");
            own.unmap(at).expect("mapped just now");
        }
        check.prune();
        cpu.load_root(root.address());
        check
    }

    fn own(&self) -> Own<'a> {
        Mapper::new(self.cpu, arch::mode(), self.system.tables, self.root, Live(Write::default()))
    }

    /// Gives empty tables back, so that others are made.
    fn prune(&self) {
        let cpu = self.cpu;
        let bytes = REGIONS * GIGABYTE;
        self.own()
            .prune((VirtAddr::new(0), bytes), |table| {
                // This root is loaded on this CPU only, which forgets its way to the table.
                cpu.tlb_invalidate(Invalidation::All);
                table.after_flush(&NeverLoaded).free(cpu, self.system.tables);
            })
            .expect("a tree of our own");
    }

    /// One mapping, used some times.
    fn one(&mut self) {
        let random = self.random.next();
        let level = match random % 8 {
            0..4 => Level::Pte,
            4..7 => Level::Pmd,
            _ if arch::has_gigabyte_pages() => Level::Pud,
            _ => Level::Pmd,
        };
        let region = if level == Level::Pud { 2 } else { random >> 3 & 1 };
        // Slots of 2 MiB: even ones hold tables of small pages, odd ones huge pages. Few of them, so that tables are few.
        let slot = (random >> 4 & 15) * 32 + u64::from(level == Level::Pmd);
        let small = random >> 8 & 511;
        let start = VirtAddr::new(match level {
            Level::Pte => region * GIGABYTE + slot * HUGE + small * 4096,
            Level::Pmd => region * GIGABYTE + slot * HUGE,
            _ => region * GIGABYTE,
        });
        let within = random >> 20 & 511;
        let frame = match level {
            Level::Pte => self.memory.wrapping_add(within),
            Level::Pmd => self.memory,
            _ => Frame::new(self.memory.number() & !(GIGABYTE / 4096 - 1)),
        };
        let into = match level {
            Level::Pte => 0,
            Level::Pmd => within * 4096,
            _ => self.memory.start().as_u64() % GIGABYTE + within * 4096,
        };
        let address = start.wrapping_add(into + (random >> 30 & 511) * 8);
        let entry = self.entry(level, frame, random >> 40);
        if let Some(entry) = entry {
            self.own().set(self.system.tables, start, level, entry).expect("nothing is there");
        }
        self.counts.mappings.fetch_add(1, Ordering::Relaxed);
        self.access(address);
        self.access(address);
        match entry {
            Some(entry) if entry.is_present() && self.own().translate(address).is_ok() => {
                if random >> 60 == 0 {
                    let rights = self.rights();
                    self.own().protect(address, rights).expect("a page is there");
                    self.cpu.tlb_invalidate(Invalidation::page(address));
                    self.access(address);
                }
                self.own().unmap(start).expect("a page is there");
                self.cpu.tlb_invalidate(Invalidation::page(address));
            }
            Some(_) => self.erase(start),
            None => {}
        }
    }

    fn rights(&mut self) -> Rights {
        let random = self.random.next() >> 32;
        [(0, Rights::WRITE), (1, Rights::EXECUTE), (2, Rights::USER), (3, Rights::USER)]
            .iter()
            .filter(|(bit, _)| random >> bit & 1 != 0)
            .fold(Rights::READ, |rights, (_, more)| rights.and(*more))
    }

    /// What user code may do by keys: mostly everything, as far as there are keys.
    fn pkru(&mut self) -> Pkru {
        let random = self.random.next();
        if arch::has_protection_keys() && random & 3 == 0 {
            Pkru::from_bits((random >> 32) as u32)
        } else {
            Pkru::ALLOW_ALL
        }
    }

    /// A random entry of this level, present or not, well-formed or not; or none at all.
    fn entry(&mut self, level: Level, frame: Frame, random: u64) -> Option<Entry> {
        let mut attributes = Attributes::new(self.rights());
        if arch::has_protection_keys() {
            attributes = attributes.with_protection_key(ProtectionKey::from_low_bits(random >> 8));
        }
        if random & 1 != 0 {
            attributes = attributes.with(Flags::ACCESSED);
        }
        if random & 2 != 0 {
            attributes = attributes.with(Flags::DIRTY);
        }
        if random & 4 != 0 {
            attributes = attributes.with_mark(pagetable::software::SpecialBit::mark(&pagetable::software::Softw1));
        }
        let leaf = Entry::leaf(level, frame, attributes).expect("the frame is aligned");
        match random >> 3 & 31 {
            0 => None,
            // Not present, whatever else it says.
            1 | 2 => Some(Entry::from_bits(self.random.next() & !1 | 2)),
            3 | 4 => {
                let wrong = Entry::from_bits(leaf.bits() | 1 << (13 + self.random.below(50)));
                Some(if arch::mode().reserved(level, wrong) != 0 { wrong } else { leaf })
            }
            _ => Some(leaf),
        }
    }

    /// Takes away what is no page.
    fn erase(&self, start: VirtAddr) {
        use pagetable::TableMemory;
        let mode = arch::mode();
        let mut level = mode.root_level();
        let mut slot =
            pagetable::walk::root_slot(&mode, self.system.tables, self.root, start).expect("a root of our own");
        loop {
            let entry = Entry::from_bits(self.cpu.load(slot.cell()));
            match level.lower() {
                Some(lower) if mode.leads_to_table(level, entry) => {
                    let table = self.system.tables.table(entry.table_frame()).expect("a table of our own");
                    (slot, level) = (table.slot(lower, start), lower);
                }
                _ => break,
            }
        }
        self.cpu.swap(slot.cell(), 0);
        self.cpu.fetch_add(&slot.meta().children, u32::MAX);
        self.cpu.tlb_invalidate(Invalidation::page(start));
    }

    /// User code uses the address; what comes of it must be what the walker says.
    fn access(&mut self, address: VirtAddr) {
        let kind = [Use::Load, Use::Store, Use::Fetch][self.random.below(3) as usize];
        let before = self.own().lookup(address);
        let wanted = match kind {
            Use::Load => Rights::USER,
            Use::Store => Rights::USER.and(Rights::WRITE),
            Use::Fetch => Rights::USER.and(Rights::EXECUTE),
        };
        let how = fault_bits::USER
            | match kind {
                Use::Load => 0,
                Use::Store => fault_bits::WRITE,
                Use::Fetch => fault_bits::FETCH,
            };
        let pkru = self.pkru();
        let data_access = match kind {
            Use::Load => Some(Access::Read),
            Use::Store => Some(Access::Write),
            // Fetches have no business with keys.
            Use::Fetch => None,
        };
        let key_forbids = |entry: Entry| data_access.is_some_and(|access| !pkru.allows(entry.protection_key(), access));
        let expected = match before.end {
            // Of user pages, and whatever rights say (SDM vol. 3A, 4.7).
            Ok(found) if before.rights.allow(Rights::USER) && key_forbids(found.entry) => {
                self.counts.key_faults.fetch_add(1, Ordering::Relaxed);
                Some(how | fault_bits::PROTECTION | fault_bits::PROTECTION_KEY)
            }
            Ok(_) if before.rights.allow(wanted) => None,
            Ok(_) => Some(how | fault_bits::PROTECTION),
            Err(WalkError::Malformed(_)) => Some(how | fault_bits::PROTECTION | fault_bits::RESERVED),
            Err(_) => Some(how),
        };
        let physical = before.end.ok().map(|found| found.frame.start().as_u64() | address.as_u64() & 4095);
        let stored = self.random.next() << 16 | UserCall::RETURN;
        let call = match kind {
            Use::Load => UserCall::load(address),
            Use::Store => UserCall::store(address, stored),
            Use::Fetch => UserCall::fetch(address),
        };
        self.cpu.set_pkru(pkru);
        let outcome = self.cpu.user(&call);
        self.cpu.set_pkru(Pkru::ALLOW_ALL);
        let as_expected = match (outcome, expected) {
            (Outcome::Done(value), None) => {
                let held = physical.map(|at| {
                    let word = &words(Frame::new(at / 4096))[(at % 4096 / 8) as usize];
                    let held = self.cpu.load(word);
                    self.cpu.store(word, content(at));
                    held
                });
                match kind {
                    Use::Load => Some(value) == held && held == physical.map(content),
                    Use::Store => held == Some(stored),
                    Use::Fetch => held == physical.map(content),
                }
            }
            (Outcome::Fault { address: at, error }, Some(expected)) => {
                // A reserved bit is found in a present entry, so bit 0 belongs there (SDM vol. 3A, 4.7). QEMU's software emulation (7.2) leaves it out.
                let quirk = expected & fault_bits::RESERVED != 0 && error == expected & !fault_bits::PROTECTION;
                self.counts.without_present.fetch_add(u64::from(quirk), Ordering::Relaxed);
                at == address && (error == expected || quirk)
            }
            _ => false,
        };
        let after = self.own().lookup(address);
        let leaf = |path: &pagetable::Path| path.end.ok().map(|found| found.entry);
        let flags = if kind == Use::Store { Flags::ACCESSED_DIRTY } else { Flags::ACCESSED };
        let left = leaf(&before).map(|entry| if expected.is_none() { entry.with(flags) } else { entry });
        // Walkers may set accessed unasked (MODEL.md, F4). QEMU does in leaves of 1 GiB, before it looks at their rights.
        let unasked =
            expected.is_some() && leaf(&after) != left && leaf(&after) == left.map(|entry| entry.with(Flags::ACCESSED));
        self.counts.accessed_by_fault.fetch_add(u64::from(unasked), Ordering::Relaxed);
        self.counts.accesses.fetch_add(1, Ordering::Relaxed);
        if expected.is_some() {
            self.counts.faults.fetch_add(1, Ordering::Relaxed);
        }
        let is_wrong = !as_expected || leaf(&after) != left && !unasked;
        if is_wrong && self.counts.wrong.fetch_add(1, Ordering::Relaxed) < 10 {
            crate::console::line!(
                "self-check: {kind:?} at {address}: the walker says {:?}, fault {expected:x?}; the hardware says {outcome:x?}, leaves {:?}",
                before.end,
                after.end
            );
        }
    }

    /// Leaves a flush out on purpose: the hardware goes on with what it has. With the flush it does not.
    fn stale(&mut self) {
        let at = VirtAddr::new(HUGE * 64);
        let other = self.memory.wrapping_add(1);
        let read = |frame: Frame| content(frame.start().as_u64());
        for _ in 0..STALE_ROUNDS {
            let attributes = Attributes::new(Rights::USER);
            self.own().map(self.system.tables, at, Level::Pte, self.memory, attributes).expect("nothing is there");
            let first = self.cpu.user(&UserCall::load(at));
            self.own().unmap(at).expect("mapped just now");
            self.own().map(self.system.tables, at, Level::Pte, other, attributes).expect("nothing is there");
            let second = self.cpu.user(&UserCall::load(at));
            self.cpu.tlb_invalidate(Invalidation::page(at));
            let third = self.cpu.user(&UserCall::load(at));
            self.own().unmap(at).expect("mapped just now");
            self.cpu.tlb_invalidate(Invalidation::page(at));
            self.counts.missing_flush.fetch_add(1, Ordering::Relaxed);
            if second == Outcome::Done(read(self.memory)) {
                self.counts.stale.fetch_add(1, Ordering::Relaxed);
            }
            if third != Outcome::Done(read(other)) {
                self.counts.stale_after_flush.fetch_add(1, Ordering::Relaxed);
            }
            if first != Outcome::Done(read(self.memory)) {
                self.counts.wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Gives everything back.
    fn end(self) {
        self.prune();
        self.system.mm.enter(self.cpu, self.system.space(2 * self.number + 1));
        let folio = mm::Membership { head: self.memory, order: HUGE_ORDER };
        mm::MemoryMap::release(self.system.data, self.cpu, folio);
    }
}
