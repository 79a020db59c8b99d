//! Data frames with a word each: what user code stores and loads.

use lab::{Arena, FrameKind, Lab, LabCpu, Limits, Machine, MemoryOrder, Paging, Pool, Report, rule};
use machine::{Access, Cpu, CpuId, CpuSet, Frame, Invalidation, UserAccess, Vector, VirtAddr, Word64};

const TABLES: FrameKind = FrameKind(0);
const DATA: FrameKind = FrameKind(1);
const X: VirtAddr = VirtAddr::new(0x4020_3000);
const Y: VirtAddr = VirtAddr::new(0x4020_4000);
const FIRST: u64 = 0x1000;
/// Present, writable, user, accessed, dirty.
const FLAGS: u64 = 0x67;

/// What a CPU does, given the entry of X and the words.
type Code = dyn Fn(&LabCpu, &Word64, &[Word64]) + Sync;

/// X is mapped to the first of two frames with contents, Y to the second.
fn run(memory: MemoryOrder, programs: &[&Code]) -> Report {
    let arena = Arena::with_frames(vec![Pool::tables(TABLES, 0x100..0x104), Pool::data(DATA, 0, FIRST..FIRST + 2)]);
    let words = arena.alloc_slice(2, |number| Word64::new(10 + number as u64));
    let paging = Paging::FOUR_LEVEL;
    let entry = &arena.table(Frame::new(0x103)).expect("a table")[paging.index(X, 1)];
    let mut lab = Lab::new(&arena, Machine::with_paging(memory, paging, [X, Y]));
    lab.contents(Frame::new(FIRST), words);
    for (number, program) in programs.iter().enumerate() {
        lab.cpu(format!("cpu {number}"), move |cpu| program(cpu, entry, words));
    }
    lab.interrupt_handler(|cpu, _| _ = cpu.swap(entry, 0));
    let root = lab.boot(CpuId::new(0), |cpu| {
        let mut above: Option<&Word64> = None;
        let mut root = None;
        for level in (1..=paging.levels()).rev() {
            let frame = cpu.alloc_frame(TABLES).expect("a table frame");
            let table = arena.table(frame).expect("tables have words");
            cpu.zero(table);
            if let Some(above) = above {
                cpu.store(above, frame.start().as_u64() | FLAGS);
            }
            root.get_or_insert(frame);
            above = Some(&table[paging.index(X, level)]);
        }
        for page in [X, Y] {
            let frame = cpu.alloc_frame(DATA).expect("a data frame");
            let table = arena.table(Frame::new(0x103)).expect("a table");
            cpu.store(&table[paging.index(page, 1)], frame.start().as_u64() | FLAGS);
        }
        root.expect("the first is the root")
    });
    lab.load_root(root.start());
    let cpus = programs.len() as u32;
    lab.observe(move |end| {
        let mut seen: Vec<u64> = (0..cpus).map(|cpu| end.reported(CpuId::new(cpu), 0)).collect();
        seen.extend(words.iter().map(|word| end.read(word)));
        seen
    });
    lab.explore(&Limits::default())
}

fn load(cpu: &LabCpu, address: VirtAddr) {
    let value = cpu.user_load(address).expect("mapped");
    cpu.report(0, value);
}

#[test]
fn what_is_stored_is_loaded_from_the_frame_reached() {
    let report = run(
        MemoryOrder::Tso,
        &[&|cpu, _, words| {
            cpu.user_store(X.wrapping_add(8), 7).expect("mapped");
            // The kernel reads the frame's word through its own mapping: the store is forwarded.
            assert_eq!(cpu.load(&words[0]), 7);
            load(cpu, X);
        }],
    );
    assert_eq!(report.expect_safe().observations, [vec![7, 7, 11]].into());
}

#[test]
fn user_stores_wait_in_the_buffer() {
    let programs: [&Code; 2] = [
        &|cpu, _, _| {
            cpu.user_store(X, 1).expect("mapped");
            load(cpu, Y);
        },
        &|cpu, _, _| {
            cpu.user_store(Y, 1).expect("mapped");
            load(cpu, X);
        },
    ];
    let missed = vec![11, 10, 1, 1];
    assert!(run(MemoryOrder::Tso, &programs).expect_safe().observations.contains(&missed));
    let strong = run(MemoryOrder::Sc, &programs);
    assert!(!strong.expect_safe().observations.contains(&missed));
    assert_eq!(strong.observations.len(), 3);
}

/// X is taken away, flushed, and its frame freed, while another CPU stores to it.
fn free(memory: MemoryOrder, flush: fn(&LabCpu)) -> Report {
    let frees = move |cpu: &LabCpu, entry: &Word64, _: &[Word64]| {
        cpu.swap(entry, 0);
        flush(cpu);
        cpu.free_frame(Frame::new(FIRST));
    };
    run(memory, &[&|cpu, _, _| _ = cpu.user_store(X, 1), &frees])
}

fn by_hypervisor(cpu: &LabCpu) {
    cpu.tlb_invalidate_paravirtual(CpuSet::first(2), Invalidation::page(X));
}

fn by_broadcast(cpu: &LabCpu) {
    cpu.tlb_broadcast(Invalidation::page(X));
    cpu.tlb_broadcast_sync();
}

#[test]
fn a_flush_that_is_complete_leaves_no_store_behind() {
    for memory in [MemoryOrder::Sc, MemoryOrder::Tso] {
        free(memory, by_hypervisor).expect_safe();
        free(memory, by_broadcast).expect_safe();
        free(memory, |_| ()).expect_violation(rule::STALE_TLB);
    }
}

/// The frame is freed when the store was made and has not arrived: the sender of an IPI does not wait for its own stores (F7).
#[test]
fn a_store_that_waits_for_a_freed_frame_is_noticed() {
    let report = run(
        MemoryOrder::Tso,
        &[
            &|cpu, _, _| {
                cpu.user_store(X, 1).expect("mapped");
                cpu.send_ipi(CpuSet::first(2), Vector::Synchronise);
            },
            &|cpu, entry, _| {
                // The handler clears the entry.
                cpu.await_value(entry, |entry| entry == 0);
                cpu.free_frame(Frame::new(FIRST));
            },
        ],
    );
    let sentence = &report.expect_violation(rule::STALE_TLB).violation.sentence;
    assert!(sentence.contains("a store of CPU0 to frame 0x1000 still waits in its buffer"), "{sentence}");
}

#[test]
fn accesses_without_a_word_leave_contents_alone() {
    let report = run(MemoryOrder::Tso, &[&|cpu, _, _| cpu.user_access(X, Access::Write).expect("mapped")]);
    assert_eq!(report.expect_safe().observations, [vec![0, 10, 11]].into());
}

#[test]
fn a_device_finds_the_frame_and_not_the_address() {
    let report = run(
        MemoryOrder::Tso,
        &[&|cpu, entry, _| {
            cpu.user_store(X, 5).expect("mapped");
            cpu.swap(entry, 0);
            // Behind the CPU's own stores, and whatever is mapped.
            let held = cpu.device_access(Frame::new(FIRST), Access::Write, 6);
            cpu.report(0, held);
        }],
    );
    assert_eq!(report.expect_safe().observations, [vec![5, 6, 11]].into());
    let report = run(
        MemoryOrder::Tso,
        &[&|cpu, _, _| {
            cpu.free_frame(Frame::new(FIRST));
            cpu.device_access(Frame::new(FIRST), Access::Read, 0);
        }],
    );
    let sentence = &report.expect_violation(rule::STALE_TLB).violation.sentence;
    assert!(sentence.contains("a device, told by CPU0, loads from frame 0x1000, which is free"), "{sentence}");
}
