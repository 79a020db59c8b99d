//! A small page table that is not ours, and its two bugs: a table that is linked before it is zeroed, and one that is freed before nobody can walk it.
//!
//! `cargo run -p fastgup-lab --example page_table` prints what the lab finds; `cargo test -p fastgup-lab --example page_table` demands it.
//!
//! The kernel has one region of 2 MiB: a page-middle entry that leads to one table of pages, or to none. Faults link a table, unmapping takes it away.

use lab::{
    Arena, Counterexample, FrameKind, Lab, LabCpu, Limits, Machine, MemoryOrder, Paging, Pool, Report, Verdict, trace,
};
use machine::{Access, Cpu, CpuId, CpuSet, Frame, Invalidation, SpinLock, UserAccess, VirtAddr, Word64};

// --- the kernel ---

const PRESENT: u64 = 1;
/// Present, writable, for user code, accessed, dirty: no flag is left for hardware to set.
const LEAF: u64 = PRESENT | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6;
const TABLE: u64 = PRESENT | 1 << 1 | 1 << 2 | 1 << 5;

const TABLES: FrameKind = FrameKind(0);
const PAGES: FrameKind = FrameKind(1);

/// Two pages of the region.
const HERE: VirtAddr = VirtAddr::new(0x4020_3000);
const THERE: VirtAddr = VirtAddr::new(0x4020_4000);

struct Region {
    lock: SpinLock,
    /// CPUs that have yet to flush.
    unflushed: Word64,
}

/// When a new table is linked.
#[derive(Clone, Copy)]
enum Link {
    BeforeZeroing,
    AfterZeroing,
}

/// When a table is freed.
#[derive(Clone, Copy)]
enum Free {
    BeforeClearing,
    AfterClearing,
    AfterFlushing,
}

/// Maps a page at `at`, and the table that it needs.
fn map(cpu: &LabCpu, arena: &Arena, region: &Region, pmd: &Word64, at: VirtAddr, link: Link) {
    let page = cpu.alloc_frame(PAGES).expect("a page");
    let _held = region.lock.lock(cpu);
    let table = match cpu.load(pmd) {
        0 => {
            let frame = cpu.alloc_frame(TABLES).expect("a table");
            let words = arena.table(frame).expect("tables have words");
            let entry = frame.start().as_u64() | TABLE;
            match link {
                Link::BeforeZeroing => {
                    cpu.store(pmd, entry);
                    cpu.zero(words);
                }
                Link::AfterZeroing => {
                    cpu.zero(words);
                    cpu.store(pmd, entry);
                }
            }
            words
        }
        entry => arena.table(Frame::new(entry >> 12)).expect("tables have words"),
    };
    cpu.store(&table[Paging::FOUR_LEVEL.index(at, 1)], page.start().as_u64() | LEAF);
}

/// Takes the table of the region away.
fn unmap(cpu: &LabCpu, region: &Region, pmd: &Word64, free: Free) {
    let held = region.lock.lock(cpu);
    let table = Frame::new(cpu.load(pmd) >> 12);
    match free {
        Free::BeforeClearing => {
            cpu.free_frame(table);
            cpu.swap(pmd, 0);
            flush_everywhere(cpu, region);
        }
        Free::AfterClearing => {
            cpu.swap(pmd, 0);
            cpu.free_frame(table);
            flush_everywhere(cpu, region);
        }
        Free::AfterFlushing => {
            cpu.swap(pmd, 0);
            flush_everywhere(cpu, region);
            cpu.free_frame(table);
        }
    }
    held.unlock();
}

/// Flushes on this CPU, asks the other to, and waits.
fn flush_everywhere(cpu: &LabCpu, region: &Region) {
    cpu.tlb_invalidate(Invalidation::All);
    let others = CpuSet::first(2).without(cpu.id());
    cpu.fetch_or(&region.unflushed, others.bits());
    cpu.send_ipi(others, machine::Vector::TlbShootdown);
    cpu.await_value(&region.unflushed, |cpus| cpus == 0);
}

/// What a CPU does that is asked.
fn flush_here(cpu: &LabCpu, region: &Region) {
    cpu.tlb_invalidate(Invalidation::All);
    cpu.fetch_and(&region.unflushed, !CpuSet::only(cpu.id()).bits());
}

// --- the questions ---

/// A machine with the region's upper tables, and what the two CPUs do.
fn explore(
    is_mapped: bool,
    first: impl Fn(&LabCpu, &Arena, &Region, &Word64) + Sync,
    second: impl Fn(&LabCpu) + Sync,
) -> Report {
    let arena = Arena::with_frames(vec![Pool::tables(TABLES, 0x100..0x106), Pool::data(PAGES, 0, 0x500..0x504)]);
    let region = arena.alloc(Region { lock: SpinLock::new(), unflushed: Word64::new(0) });
    let mut lab = Lab::new(&arena, Machine::with_paging(MemoryOrder::Tso, Paging::FOUR_LEVEL, [HERE, THERE]));
    lab.name(region.lock.word(), "region.lock");
    lab.name(&region.unflushed, "region.unflushed");
    lab.interrupt_handler(|cpu, _| flush_here(cpu, region));
    // The upper three tables take the lowest frames when the machine boots.
    let pmd = &arena.table(Frame::new(0x102)).expect("tables have words")[Paging::FOUR_LEVEL.index(HERE, 2)];
    lab.name(pmd, "pmd");
    lab.cpu("kernel", |cpu| first(cpu, &arena, region, pmd));
    lab.cpu("user", second);
    let root = lab.boot(CpuId::new(0), |cpu| {
        let tables = [0, 1, 2].map(|_| cpu.alloc_frame(TABLES).expect("a table"));
        for frame in tables {
            cpu.zero(arena.table(frame).expect("tables have words"));
        }
        for (level, pair) in [4, 3].into_iter().zip(tables.windows(2)) {
            let words = arena.table(pair[0]).expect("tables have words");
            cpu.store(&words[Paging::FOUR_LEVEL.index(HERE, level)], pair[1].start().as_u64() | TABLE);
        }
        if is_mapped {
            map(cpu, &arena, region, pmd, HERE, Link::AfterZeroing);
        }
        tables[0].start()
    });
    lab.load_root(root);
    lab.explore(&Limits::default())
}

/// A fault maps one page while user code touches its neighbour.
fn fault(link: Link) -> Report {
    explore(
        false,
        move |cpu, arena, region, pmd| map(cpu, arena, region, pmd, HERE, link),
        |cpu| {
            // A page fault is fine; a page that nobody mapped is not.
            let touched = cpu.user_access(THERE, Access::Write);
            assert!(touched.is_err(), "nothing is mapped there");
        },
    )
}

/// The table goes away while user code touches a page of it.
fn take_away(free: Free) -> Report {
    explore(
        true,
        move |cpu, _, region, pmd| unmap(cpu, region, pmd, free),
        |cpu| {
            // It is mapped, or it is not any more.
            let _ = cpu.user_access(HERE, Access::Read);
        },
    )
}

fn show(what: &str, report: &Report) {
    match &report.verdict {
        Verdict::Violated(found) => {
            let Counterexample { violation, trace, .. } = &**found;
            println!("{what}: {violation}\n\n{}", trace::columns(trace));
        }
        verdict => println!("{what}: {verdict:?}, {} states\n", report.states),
    }
}

fn main() {
    show("a table that is linked before it is zeroed", &fault(Link::BeforeZeroing));
    show("a table that is linked after it was zeroed", &fault(Link::AfterZeroing));
    show("a table that is freed before its entry is cleared", &take_away(Free::BeforeClearing));
    show("a table that is freed before the flush", &take_away(Free::AfterClearing));
    show("a table that is freed after the flush", &take_away(Free::AfterFlushing));
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab::rule;

    #[test]
    fn a_table_is_zeroed_before_it_is_linked() {
        // What was in the frame before leads a walk to a page that is free.
        let report = fault(Link::BeforeZeroing);
        let found = report.expect_violation(rule::STALE_TLB);
        assert!(found.violation.sentence.contains("which is free"), "{}", found.violation);
        fault(Link::AfterZeroing).expect_safe();
    }

    #[test]
    fn a_table_is_freed_when_nobody_can_walk_it() {
        for early in [Free::BeforeClearing, Free::AfterClearing] {
            take_away(early).expect_violation(rule::FREED_TABLE);
        }
        take_away(Free::AfterFlushing).expect_safe();
    }

    /// Steps name lines of the kernel's source: this file.
    #[test]
    fn the_trace_leads_to_the_line() {
        let report = take_away(Free::AfterClearing);
        let found = report.expect_violation(rule::FREED_TABLE);
        let places = found.trace.steps.iter().filter_map(|step| step.place.as_ref());
        let here: Vec<_> = places.filter(|place| place.file.ends_with("examples/page_table.rs")).collect();
        assert!(!here.is_empty(), "{:?}", found.trace);
        let source: Vec<&str> = include_str!("page_table.rs").lines().collect();
        assert!(here.iter().any(|place| source[place.line as usize - 1].contains("cpu.swap(pmd, 0)")));
    }
}
