//! What monitors remember belongs to one run.

use lab::{Arena, End, Event, Ghost, Lab, Limits, Machine, MemoryOrder, Monitor, Violation};
use machine::{Cpu, CpuId, Word64};

/// Counts writes; every run has as many.
struct Counts(u64);

impl Monitor for Counts {
    fn on_event(&self, ghost: &mut Ghost<'_>, event: &Event<'_>) -> Result<(), Violation> {
        if let Event::Written { .. } = event {
            ghost.set(0, ghost.get(0) + 1);
        }
        Ok(())
    }

    fn at_rest(&self, ghost: &Ghost<'_>, _: &End<'_>) -> Result<(), Violation> {
        if ghost.get(0) == self.0 { Ok(()) } else { Err(Violation::new("count", format!("{} writes", ghost.get(0)))) }
    }
}

#[test]
fn what_a_monitor_remembers_is_undone_with_the_run() {
    let explore = |writes| {
        let arena = Arena::new();
        let word = arena.alloc(Word64::new(0));
        let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
        // The second monitor has words of its own.
        lab.monitor(1, Counts(writes));
        lab.monitor(1, Counts(writes));
        for number in 1..=2 {
            lab.cpu(format!("cpu {number}"), move |cpu| cpu.report(0, cpu.swap(word, number)));
        }
        lab.observe(|end| [0, 1].map(|cpu| end.reported(CpuId::new(cpu), 0)).to_vec());
        lab.explore(&Limits::default())
    };
    // Two different ends, so that both are judged.
    assert_eq!(explore(2).expect_safe().observations, [vec![0, 1], vec![2, 0]].into());
    explore(1).expect_violation("count");
}
