//! TLBs, page walks, frames.

use std::collections::BTreeSet;

use lab::{
    Arena, End, Ending, Event, FrameKind, FreedWalks, Ghost, Lab, LabCpu, Limits, Machine, MemoryOrder, Misuse,
    MisuseKind, Monitor, Paging, Pool, Report, Sampling, Speculation, Verdict, Violation, Writer, rule, trace,
};
use machine::user::FaultCause;
use machine::{Access, Cpu, CpuId, CpuSet, Frame, Invalidation, PhysAddr, UserAccess, Vector, VirtAddr, Word, Word64};

const TABLES: FrameKind = FrameKind(0);
const DATA: FrameKind = FrameKind(1);
const HUGE: FrameKind = FrameKind(2);

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;

const VA: VirtAddr = VirtAddr::new(0x4020_3000);
/// Data frames lie above 4 GiB.
const FIRST_DATA: u64 = 0x12_3450;

fn arena() -> Arena {
    Arena::with_frames(vec![
        Pool::tables(TABLES, 0x100..0x108),
        Pool::data(DATA, 0, FIRST_DATA..FIRST_DATA + 4),
        Pool::data(HUGE, 9, [0x40_0000, 0x40_0200]),
    ])
}

const fn entry(frame: Frame, flags: u64) -> u64 {
    frame.start().as_u64() | flags
}

/// The tables on the way to `VA`.
struct Space<'a> {
    paging: Paging,
    /// From the top: the word of the entry for `VA` in each table.
    entries: Vec<&'a Word64>,
    tables: Vec<Frame>,
    page: Frame,
}

/// Maps `VA` to a data frame with these flags in the last entry, and loads the table on all CPUs.
fn map<'a>(lab: &mut Lab<'a>, arena: &'a Arena, paging: Paging, flags: u64) -> Space<'a> {
    let space = lab.boot(CpuId::new(0), |cpu| {
        let page = cpu.alloc_frame(DATA).expect("a data frame");
        let mut tables = Vec::new();
        let mut entries = Vec::new();
        for level in (1..=paging.levels()).rev() {
            let frame = cpu.alloc_frame(TABLES).expect("a table frame");
            let words = arena.table(frame).expect("tables have words");
            cpu.zero(words);
            if let Some(&above) = entries.last() {
                let upper: u64 = if entries.len() == 1 && paging.has_registers() { P } else { P | RW | US | A };
                let above: &Word64 = above;
                cpu.store(above, entry(frame, upper));
            }
            tables.push(frame);
            entries.push(&words[paging.index(VA, level)]);
        }
        cpu.store(entries[entries.len() - 1], entry(page, flags));
        Space { paging, entries, tables, page }
    });
    lab.load_root(space.tables[0].start());
    for (word, name) in space.entries.iter().rev().zip(["pte", "pmd", "pud", "p4d", "pgd"]) {
        lab.name_range(
            word.address(),
            8,
            name,
            Some(Box::new(|bits| if bits & P == 0 { "none".into() } else { "present".into() })),
        );
    }
    space
}

impl<'a> Space<'a> {
    fn pte(&self) -> &'a Word64 {
        self.entries[self.entries.len() - 1]
    }
}

fn machine(paging: Paging) -> Machine {
    Machine::with_paging(MemoryOrder::Tso, paging, [VA])
}

const MODES: [Paging; 3] = [Paging::PAE, Paging::FOUR_LEVEL, Paging::FIVE_LEVEL];

#[test]
fn a_mapped_page_is_reached_in_every_mode() {
    for paging in MODES {
        let arena = arena();
        let mut lab = Lab::new(&arena, machine(paging));
        lab.cpu("user", |cpu| {
            cpu.report(0, cpu.user_access(VA, Access::Read).is_ok().into());
            cpu.report(1, cpu.user_access(VA, Access::Write).is_ok().into());
        });
        let space = map(&mut lab, &arena, paging, P | RW | US);
        let pte = space.pte();
        lab.observe(move |end| vec![end.reported(CpuId::new(0), 0), end.reported(CpuId::new(0), 1), end.read(pte)]);
        let report = lab.explore(&Limits::default());
        // The TLB may hold the entry from a speculative walk before the first access, so A may be set before or with D; but it is set.
        assert_eq!(
            report.expect_safe().observations,
            [vec![1, 1, entry(space.page, P | RW | US | A | D)]].into(),
            "{paging:?}"
        );
    }
}

#[test]
fn rights_are_those_of_all_levels() {
    let arena = arena();
    let fault = |flags: u64, access: Access| {
        let mut lab = Lab::new(&arena, machine(Paging::FOUR_LEVEL));
        lab.cpu("user", move |cpu| {
            let cause = match cpu.user_access(VA, access) {
                Ok(()) => 0,
                Err(fault) if fault.cause == FaultCause::NotPresent => 1,
                Err(_) => 2,
            };
            cpu.report(0, cause);
        });
        map(&mut lab, &arena, Paging::FOUR_LEVEL, flags);
        lab.observe(|end| vec![end.reported(CpuId::new(0), 0)]);
        let report = lab.explore(&Limits::default());
        let observations = &report.expect_safe().observations;
        assert_eq!(observations.len(), 1);
        observations.first().expect("one")[0]
    };
    assert_eq!(fault(P | RW | US, Access::Write), 0);
    assert_eq!(fault(P | US, Access::Read), 0);
    assert_eq!(fault(P | US, Access::Write), 2);
    assert_eq!(fault(P | RW, Access::Read), 2);
    assert_eq!(fault(RW | US, Access::Read), 1);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flush {
    None,
    Ipi,
    IpiUserMasked,
    Paravirtual,
    Broadcast,
    BroadcastWithoutSync,
}

/// One CPU unmaps, flushes and frees the page; the other uses it.
fn unmap_and_free(paging: Paging, flush: Flush) -> Report {
    let arena = arena();
    let acknowledged = arena.alloc(Word64::new(0));
    let mut lab = Lab::new(&arena, machine(paging));
    let user = lab.cpu("user", move |cpu| {
        let off = (flush == Flush::IpiUserMasked).then(|| cpu.irq_off());
        let _ = cpu.user_access(VA, Access::Read);
        drop(off);
    });
    let space_of = |arena: &Arena| -> (usize, Frame) {
        let frame = Frame::new(0x100 + paging.levels() as u64 - 1);
        (arena.table(frame).expect("a table").as_ptr().addr() + 8 * paging.index(VA, 1), Frame::new(FIRST_DATA))
    };
    let (pte_address, page) = space_of(&arena);
    let table = arena.table(Frame::new(0x100 + paging.levels() as u64 - 1)).expect("a table");
    let pte = &table[paging.index(VA, 1)];
    assert_eq!(pte.address(), pte_address);
    lab.cpu("zapper", move |cpu| {
        cpu.swap(pte, 0);
        cpu.tlb_invalidate(Invalidation::page(VA));
        let others = CpuSet::only(user);
        match flush {
            Flush::None => (),
            Flush::Ipi | Flush::IpiUserMasked => {
                cpu.send_ipi(others, Vector::TlbShootdown);
                cpu.await_value(acknowledged, |acks| acks == 1);
            }
            Flush::Paravirtual => cpu.tlb_invalidate_paravirtual(others, Invalidation::page(VA)),
            Flush::Broadcast => {
                cpu.tlb_broadcast(Invalidation::page(VA));
                cpu.tlb_broadcast_sync();
            }
            Flush::BroadcastWithoutSync => cpu.tlb_broadcast(Invalidation::page(VA)),
        }
        cpu.free_frame(page);
    });
    lab.interrupt_handler(move |cpu, _| {
        cpu.tlb_invalidate(Invalidation::page(VA));
        cpu.fetch_add(acknowledged, 1);
    });
    let space = map(&mut lab, &arena, paging, P | RW | US);
    assert_eq!((space.pte().address(), space.page, space.paging), (pte.address(), page, paging));
    lab.explore(&Limits::default())
}

#[test]
fn a_page_freed_before_the_flush_is_reached_through_a_stale_translation() {
    for paging in MODES {
        for flush in [Flush::None, Flush::BroadcastWithoutSync] {
            let report = unmap_and_free(paging, flush);
            let found = report.expect_violation(rule::STALE_TLB);
            let text = trace::columns(&found.trace);
            assert!(text.contains("xchg pte") && text.contains("reaches frame 0x123450"), "{text}");
        }
        for flush in [Flush::Ipi, Flush::IpiUserMasked, Flush::Paravirtual, Flush::Broadcast] {
            unmap_and_free(paging, flush).expect_safe();
        }
    }
}

/// A walker sets A and D in memory; a plain store of an older value loses them, a compare-exchange does not.
fn write_protect(update: fn(&LabCpu, &Word64), paging: Paging) -> Report {
    struct Lost(usize);
    impl Monitor for Lost {
        fn on_event(&self, _: &mut Ghost<'_>, event: &Event<'_>) -> Result<(), Violation> {
            match *event {
                Event::Written { address, old, new, writer, .. }
                    if address == self.0 && writer != Writer::Walker && old & (A | D) & !new != 0 =>
                {
                    Err(Violation::new("lost-accessed-dirty-update", format!("{old:#x} became {new:#x}")))
                }
                _ => Ok(()),
            }
        }
    }
    let arena = arena();
    let mut lab = Lab::new(&arena, machine(paging));
    lab.cpu("user", |cpu| _ = cpu.user_access(VA, Access::Write));
    let table = arena.table(Frame::new(0x100 + paging.levels() as u64 - 1)).expect("a table");
    let pte = &table[paging.index(VA, 1)];
    lab.cpu("protects", move |cpu| update(cpu, pte));
    map(&mut lab, &arena, paging, P | RW | US);
    lab.monitor(0, Lost(pte.address()));
    lab.explore(&Limits::default())
}

#[test]
fn a_plain_store_loses_what_the_walker_set() {
    let plain: fn(&LabCpu, &Word64) = |cpu, pte| {
        let old = cpu.load(pte);
        cpu.store(pte, old & !RW);
    };
    let exact: fn(&LabCpu, &Word64) = |cpu, pte| _ = cpu.fetch_and(pte, !RW);
    let exchange: fn(&LabCpu, &Word64) = |cpu, pte| _ = cpu.await_update(pte, |old| Some(old & !RW));
    for paging in MODES {
        let report = write_protect(plain, paging);
        let found = report.expect_violation("lost-accessed-dirty-update");
        let text = trace::columns(&found.trace);
        assert!(text.contains("walker of user store at 0x40203000 sets"), "{text}");
        write_protect(exact, paging).expect_safe();
        write_protect(exchange, paging).expect_safe();
    }
}

/// D cleared without a flush: a store through the old, dirty translation is remembered nowhere.
#[test]
fn a_dirty_translation_needs_no_walk() {
    let run = |flush: bool| {
        let arena = arena();
        let mut lab = Lab::new(&arena, machine(Paging::FOUR_LEVEL));
        let table = arena.table(Frame::new(0x103)).expect("a table");
        let pte = &table[Paging::FOUR_LEVEL.index(VA, 1)];
        lab.cpu("user", move |cpu| {
            cpu.fetch_and(pte, !D);
            if flush {
                cpu.tlb_invalidate(Invalidation::page(VA));
            }
            cpu.user_access(VA, Access::Write).expect("still mapped");
        });
        map(&mut lab, &arena, Paging::FOUR_LEVEL, P | RW | US | A | D);
        lab.observe(move |end| vec![end.read(pte) & D]);
        lab.explore(&Limits::default()).expect_safe().observations.clone()
    };
    assert_eq!(run(true), [vec![D]].into());
    assert_eq!(run(false), [vec![0], vec![D]].into());
}

/// The last table is unlinked and freed; does a walk through a cached pointer meet it?
fn free_table(flush: bool) -> Report {
    let arena = arena();
    let mut lab = Lab::new(&arena, machine(Paging::FOUR_LEVEL));
    lab.cpu("user", |cpu| _ = cpu.user_access(VA, Access::Read));
    let pmd = &arena.table(Frame::new(0x102)).expect("a table")[Paging::FOUR_LEVEL.index(VA, 2)];
    lab.cpu("frees", move |cpu| {
        cpu.swap(pmd, 0);
        if flush {
            cpu.tlb_invalidate_paravirtual(CpuSet::first(2), Invalidation::page(VA));
        }
        cpu.free_frame(Frame::new(0x103));
    });
    let space = map(&mut lab, &arena, Paging::FOUR_LEVEL, 0);
    assert_eq!(space.tables[3], Frame::new(0x103));
    lab.explore(&Limits::default())
}

#[test]
fn a_walk_through_a_cached_pointer_meets_a_freed_table() {
    let report = free_table(false);
    let found = report.expect_violation(rule::FREED_TABLE);
    assert!(found.violation.sentence.contains("page walker of CPU0"), "{}", found.violation.sentence);
    free_table(true).expect_safe();
}

#[test]
fn software_that_touches_a_freed_table_is_caught() {
    let arena = arena();
    let word = &arena.table(Frame::new(0x100)).expect("a table")[7];
    let run = |program: fn(&LabCpu, &Word64)| {
        let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
        lab.cpu("frees", move |cpu| {
            let frame = cpu.alloc_frame(TABLES).expect("a frame");
            assert_eq!(frame, Frame::new(0x100));
            program(cpu, word);
        });
        lab.explore(&Limits::default())
    };
    // Giving back is a barrier: the store does not come after it.
    run(|cpu, word| {
        cpu.store(word, 1);
        cpu.free_frame(Frame::new(0x100));
    })
    .expect_safe();
    let wrong: [fn(&LabCpu, &Word64); 6] = [
        |cpu, word| {
            cpu.free_frame(Frame::new(0x100));
            cpu.store(word, 1);
        },
        |cpu, word| {
            cpu.free_frame(Frame::new(0x100));
            cpu.load(word);
        },
        |cpu, word| {
            cpu.free_frame(Frame::new(0x100));
            cpu.fetch_or(word, 1);
        },
        |cpu, word| {
            cpu.free_frame(Frame::new(0x100));
            cpu.owned_load(word);
        },
        |cpu, word| {
            cpu.free_frame(Frame::new(0x100));
            cpu.owned_store(word, 3);
        },
        |cpu, _| {
            cpu.free_frame(Frame::new(0x100));
            cpu.free_frame(Frame::new(0x100));
        },
    ];
    for program in wrong {
        run(program).expect_violation(rule::FREED_TABLE);
    }
}

/// Frames come dirty: a table that is linked before it is zeroed maps garbage.
fn publish(zero_first: bool) -> Report {
    let arena = arena();
    let mut lab = Lab::new(&arena, machine(Paging::FOUR_LEVEL));
    lab.cpu("user", |cpu| _ = cpu.user_access(VA, Access::Read));
    let pmd = &arena.table(Frame::new(0x102)).expect("a table")[Paging::FOUR_LEVEL.index(VA, 2)];
    lab.cpu("maps", move |cpu| {
        let frame = cpu.alloc_frame(TABLES).expect("a frame");
        let words = cpu.table(frame).expect("tables have words");
        if zero_first {
            cpu.zero(words);
        }
        cpu.store(pmd, entry(frame, P | RW | US | A));
        if !zero_first {
            cpu.zero(words);
        }
    });
    map(&mut lab, &arena, Paging::FOUR_LEVEL, 0);
    lab.boot(CpuId::new(0), |cpu| {
        cpu.store(pmd, 0);
        cpu.tlb_invalidate(Invalidation::All);
    });
    lab.boot(CpuId::new(1), |cpu| cpu.tlb_invalidate(Invalidation::All));
    lab.explore(&Limits::default())
}

#[test]
fn a_table_published_before_it_is_zeroed_maps_garbage() {
    publish(true).expect_safe();
    publish(false).expect_violation(rule::STALE_TLB);
}

/// PAE: a PDPTE that was filled in is not seen before CR3 is loaded again.
#[test]
fn pdptes_are_registers() {
    let run = |reload: bool, paging: Paging| {
        let arena = arena();
        let mut lab = Lab::new(&arena, machine(paging));
        let levels = paging.levels();
        let top = &arena.table(Frame::new(0x100)).expect("a table")[paging.index(VA, levels)];
        lab.cpu("user", move |cpu| {
            cpu.swap(top, entry(Frame::new(0x101), P));
            if reload {
                cpu.load_root(PhysAddr::new(0x10_0000));
            }
            cpu.report(0, cpu.user_access(VA, Access::Read).is_ok().into());
        });
        let space = map(&mut lab, &arena, paging, P | RW | US);
        lab.boot(CpuId::new(0), |cpu| {
            cpu.store(top, 0);
            cpu.load_root(space.tables[0].start());
        });
        lab.observe(|end| vec![end.reported(CpuId::new(0), 0)]);
        lab.explore(&Limits::default()).expect_safe().observations.clone()
    };
    assert_eq!(run(false, Paging::PAE), [vec![0]].into());
    assert_eq!(run(true, Paging::PAE), [vec![1]].into());
}

#[test]
fn large_pages_translate_and_dangle_as_one() {
    for paging in MODES {
        let arena = arena();
        let mut lab = Lab::new(&arena, machine(paging));
        let first = Frame::new(0x40_0000);
        let pmd = {
            let frame = Frame::new(0x100 + paging.levels() as u64 - 2);
            &arena.table(frame).expect("a table")[paging.index(VA, 2)]
        };
        struct Reaches(Frame);
        impl Monitor for Reaches {
            fn on_event(&self, _: &mut Ghost<'_>, event: &Event<'_>) -> Result<(), Violation> {
                match *event {
                    Event::Accessed { frame, .. } if frame != self.0 => {
                        Err(Violation::new("wrong-page", format!("{frame}")))
                    }
                    _ => Ok(()),
                }
            }
        }
        lab.monitor(0, Reaches(first.wrapping_add(3)));
        lab.cpu("user", |cpu| cpu.report(0, cpu.user_access(VA, Access::Write).is_ok().into()));
        lab.cpu("frees", move |cpu| {
            cpu.await_value(pmd, |bits| bits & D != 0);
            cpu.free_frame(first);
        });
        map(&mut lab, &arena, paging, 0);
        lab.boot(CpuId::new(0), |cpu| {
            let page = cpu.alloc_frame(HUGE).expect("a huge page");
            assert_eq!(page, first);
            cpu.store(pmd, entry(page, P | RW | US | PS));
            cpu.tlb_invalidate(Invalidation::All);
        });
        let report = lab.explore(&Limits::default());
        let found = report.expect_violation(rule::STALE_TLB);
        assert!(found.violation.sentence.contains("0x400003"), "{}", found.violation.sentence);
    }
}

#[test]
fn walkers_set_accessed_flags_unasked_where_the_machine_does_so() {
    let run = |speculation: Speculation| {
        let arena = arena();
        let mut machine = machine(Paging::FOUR_LEVEL);
        machine.speculation = speculation;
        let mut lab = Lab::new(&arena, machine);
        lab.cpu("idle", |_| ());
        let space = map(&mut lab, &arena, Paging::FOUR_LEVEL, P | RW | US);
        let pte = space.pte();
        lab.cpu("looks", move |cpu| cpu.report(0, cpu.load(pte) & A));
        lab.observe(|end: &End<'_>| vec![end.reported(CpuId::new(1), 0)]);
        lab.explore(&Limits::default()).expect_safe().observations.clone()
    };
    assert_eq!(run(Speculation::Fills), [vec![0]].into());
    assert_eq!(run(Speculation::SetsAccessed), [vec![0], vec![A]].into());
}

#[test]
fn a_run_may_end_before_a_walker_has_set_a_flag_unasked() {
    let arena = arena();
    let mut machine = machine(Paging::FOUR_LEVEL);
    machine.speculation = Speculation::SetsAccessed;
    let mut lab = Lab::new(&arena, machine);
    lab.cpu("idle", |_| ());
    let pte = map(&mut lab, &arena, Paging::FOUR_LEVEL, P | RW | US).pte();
    lab.observe(move |end: &End<'_>| vec![end.read(pte) & A]);
    let ends = || BTreeSet::from([vec![0], vec![A]]);
    assert_eq!(lab.explore(&Limits::default()).expect_safe().observations, ends());
    assert_eq!(lab.explore_livelocks(&Limits::default(), &mut |_| ()).expect_safe().observations, ends());
    let everything = lab.explore_preempting(9, &Limits::default(), &mut |_| ());
    assert_eq!(everything.expect_safe().observations, ends());
    let sampling = Sampling { runs: 20, ..Sampling::default() };
    assert_eq!(lab.sample(&sampling, &Limits::default(), &mut |_| ()).observations, ends());
    // A run to each, which can be done again.
    let report = lab.explore_keeping_runs(&Limits::default(), &mut |_| ());
    let shown: Vec<_> = report.runs.iter().map(|run| lab.shown_run(run).expect("it is the same lab")).collect();
    assert!(shown.iter().all(|run| run.ending == Ending::Rest));
    assert_eq!(shown.iter().filter_map(|run| run.observation.clone()).collect::<BTreeSet<_>>(), ends());
}

/// A walker may set the flag, and owes it to nobody: who waits for it may wait for ever. What code has to do is another matter.
#[test]
fn waiting_for_a_flag_that_a_walker_may_set_is_a_livelock() {
    let run = |code: fn(&LabCpu, &Word64)| {
        let arena = arena();
        let mut machine = machine(Paging::FOUR_LEVEL);
        machine.speculation = Speculation::SetsAccessed;
        let mut lab = Lab::new(&arena, machine);
        lab.cpu("idle", |_| ());
        let space = map(&mut lab, &arena, Paging::FOUR_LEVEL, P | RW | US);
        let pte = space.pte();
        lab.cpu("waits", move |cpu| {
            let head = cpu.loop_head();
            loop {
                cpu.round(&head, 0);
                if cpu.load(pte) & A != 0 {
                    break;
                }
            }
        });
        lab.cpu("other", move |cpu| code(cpu, pte));
        lab.explore_livelocks(&Limits::default(), &mut |_| ())
    };
    run(|_, _| ()).expect_violation(rule::LIVELOCK);
    run(|cpu, pte| {
        cpu.fetch_or(pte, A);
    })
    .expect_safe();
}

/// A table goes back while an idle CPU's caches still lead to it: nobody makes an access there.
#[test]
fn a_walk_into_a_freed_table_needs_no_access_where_the_machine_walks_unasked() {
    let run = |freed_walks: FreedWalks, flushes: bool| {
        let arena = arena();
        let mut machine = machine(Paging::FOUR_LEVEL);
        machine.freed_walks = freed_walks;
        let mut lab = Lab::new(&arena, machine);
        lab.cpu("idle", |_| ());
        let space = map(&mut lab, &arena, Paging::FOUR_LEVEL, P | RW | US);
        let (pmd, table) = (space.entries[space.entries.len() - 2], *space.tables.last().expect("tables"));
        lab.cpu("frees", move |cpu| {
            cpu.swap(pmd, 0);
            if flushes {
                cpu.tlb_invalidate_paravirtual(CpuSet::only(CpuId::new(0)), Invalidation::All);
                cpu.tlb_invalidate(Invalidation::All);
            }
            cpu.free_frame(table);
        });
        lab.explore(&Limits::default())
    };
    run(FreedWalks::Asked, false).expect_safe();
    run(FreedWalks::Unasked, true).expect_safe();
    let report = run(FreedWalks::Unasked, false);
    let found = report.expect_violation(rule::FREED_TABLE);
    assert!(found.violation.sentence.contains("unasked"), "{}", found.violation.sentence);
}

#[test]
fn what_the_machine_lacks_is_named() {
    let setup = |paging: Option<Paging>, program: fn(&LabCpu)| {
        let arena = arena();
        let mut machine = Machine::new(MemoryOrder::Tso);
        machine.paging = paging;
        machine.watched = vec![VA];
        let mut lab = Lab::new(&arena, machine);
        lab.cpu("cpu", program);
        match lab.explore(&Limits::default()).verdict {
            Verdict::Error(misuse) => *misuse,
            other => panic!("{other:?}"),
        }
    };
    let is_setup = |Misuse { kind, sentence, .. }: Misuse, part: &str| {
        assert_eq!(kind, MisuseKind::Setup);
        assert!(sentence.contains(part) && sentence.contains("translation.rs:"), "{sentence}");
    };
    is_setup(setup(None, |cpu| _ = cpu.user_access(VA, Access::Read)), "without a loaded page table");
    is_setup(setup(Some(Paging::PAE), |cpu| _ = cpu.user_access(VA, Access::Read)), "without a loaded page table");
    is_setup(
        setup(Some(Paging::PAE), |cpu| _ = cpu.user_access(VirtAddr::new(0), Access::Read)),
        "not on a watched page",
    );
    is_setup(setup(Some(Paging::PAE), |cpu| _ = cpu.alloc_frame(FrameKind(9))), "no pool of frames 9");
    is_setup(setup(Some(Paging::PAE), |cpu| cpu.free_frame(Frame::new(3))), "frame 0x3");
    is_setup(setup(Some(Paging::PAE), |cpu| cpu.send_ipi(CpuSet::first(2), Vector::Synchronise)), "not there");
    let Misuse { kind, sentence, .. } = setup(Some(Paging::PAE), |cpu| cpu.load_root(PhysAddr::new(0x5000)));
    assert_eq!(kind, MisuseKind::Setup);
    assert!(sentence.contains("0x5000"), "{sentence}");
}

#[test]
fn frames_run_out_and_come_back_lowest_first() {
    let arena = arena();
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
    lab.cpu("takes", |cpu| {
        let first = cpu.alloc_frame(HUGE).expect("one");
        let second = cpu.alloc_frame(HUGE).expect("two");
        assert_eq!((first, second), (Frame::new(0x40_0000), Frame::new(0x40_0200)));
        assert_eq!(cpu.alloc_frame(HUGE), None);
        cpu.free_frame(first);
        assert_eq!(cpu.alloc_frame(HUGE), Some(first));
    });
    lab.observe(|end| vec![end.is_allocated(Frame::new(0x40_0001)).unwrap_or(false).into()]);
    assert_eq!(lab.explore(&Limits::default()).expect_safe().observations, [vec![1]].into());
}
