//! The search for the shortest run, where what it takes for no step turns out to be one.

use lab::{Arena, Lab, Limits, Machine, MemoryOrder, rule};
use machine::{Cpu, Word64};

/// One CPU stores twice to a word that it has for itself, until the other, many steps later, looks at it: between the stores. By then the search has to know which of its levels had taken the two
/// for one step.
#[test]
fn a_word_that_is_shared_late_was_so_from_the_beginning() {
    const BEFORE: u64 = 6;
    let arena = Arena::new();
    let [count, mine] = [0, 0].map(|value| arena.alloc(Word64::new(value)));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
    lab.cpu("stores twice", |cpu| {
        for _ in 0..2 {
            cpu.fetch_add(count, 1);
        }
        cpu.store(mine, 1);
        cpu.store(mine, 2);
        cpu.fetch_add(count, 1);
    });
    lab.cpu("looks late", |cpu| {
        for _ in 0..BEFORE {
            cpu.fetch_add(count, 1);
        }
        assert_ne!(cpu.load(mine), 1, "between the stores");
    });
    let report = lab.explore(&Limits::default());
    let found = report.expect_violation(rule::USER);
    assert!(found.shortest);
    // All that the other does before; two additions and a store; the look.
    assert_eq!((found.trace.steps.len() as u64, found.trace.context_switches()), (BEFORE + 3 + 1, 1));
}
