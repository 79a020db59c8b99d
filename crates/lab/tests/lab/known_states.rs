//! Steps that lead to states which are known already, and are not taken for that: they break rules all the same.

use lab::{Arena, FrameKind, Lab, Limits, Machine, MemoryOrder, MisuseKind, Pool, Reduction, Verdict, rule};
use machine::{Cpu, CpuId, Frame, Word64};

fn machine() -> Machine {
    Machine { reduction: Reduction::None, ..Machine::new(MemoryOrder::Sc) }
}

/// The state in which both stand beside each other is met twice. The first time the owner came there by a way on which it left the word alone, and forgot it.
#[test]
fn owned_accesses_are_noticed_on_the_second_way_to_a_state() {
    let arena = Arena::new();
    let [word, gone, never] = [0, 0, 0].map(|zero| arena.alloc(Word64::new(zero)));
    let mut lab = Lab::new(&arena, machine());
    lab.cpu("intruder", |cpu| {
        cpu.store(gone, 1);
        cpu.store(word, 0);
    });
    lab.cpu("owner", |cpu| {
        if cpu.load(gone) == 0 {
            cpu.owned_store(word, 0);
        }
        cpu.op_boundary(0);
        cpu.fetch_or(never, 0);
    });
    match lab.explore(&Limits::default()).verdict {
        Verdict::Error(misuse) => {
            assert_eq!(misuse.kind, MisuseKind::NotOwned);
            let sentence = &misuse.sentence;
            assert!(sentence.starts_with("CPU1 accesses") && sentence.contains("while CPU0"), "{sentence}");
        }
        other => panic!("{other:?}"),
    }
}

/// Whether the table is read first or freed first, the same state comes of it.
#[test]
fn a_freed_table_is_noticed_on_the_second_way_to_a_state() {
    const TABLES: FrameKind = FrameKind(0);
    const TABLE: Frame = Frame::new(0x100);
    let arena = Arena::with_frames(vec![Pool::tables(TABLES, [TABLE.number()])]);
    let word = &arena.table(TABLE).expect("a table")[7];
    let mut lab = Lab::new(&arena, machine());
    lab.cpu("reads", |cpu| _ = cpu.load(word));
    lab.cpu("frees", |cpu| cpu.free_frame(TABLE));
    lab.boot(CpuId::new(0), |cpu| assert_eq!(cpu.alloc_frame(TABLES), Some(TABLE)));
    let report = lab.explore(&Limits::default());
    let found = report.expect_violation(rule::FREED_TABLE);
    assert!(found.violation.sentence.starts_with("CPU0 reads"), "{}", found.violation.sentence);
}
