//! Merges while others write.

use std::sync::atomic::{AtomicU64, Ordering};

use machine::{Access, CpuId, Word};
use mm::Foll;

use super::{AT, ONE, TABLES, audit, end, gup, page};
use crate::memory::{Kernel, anonymous};

/// One CPU merges whatever is equal, others count in the same pages, by user code and by devices: no count is lost, and no page sees another's.
#[test]
fn nothing_that_is_written_meanwhile_is_lost() {
    const WRITERS: u64 = 2;
    const MERGES: u64 = 100;
    let kernel = Kernel::build(1 + WRITERS as u32, TABLES);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.mmap(&cpu, ONE, anonymous(AT, 2 * WRITERS, 0)).expect("a good area");
        kernel.mm.populate(&cpu, kernel.space(0), AT, 2 * WRITERS, Access::Write).expect("memory");
    }
    let merged = AtomicU64::new(0);
    let write = |writer: u64| {
        let cpu = kernel.machine.attach_as(CpuId::new(1 + writer as u32)).expect("nobody else has it");
        kernel.mm.enter(&cpu, kernel.space(0));
        let mut round = 0;
        while merged.load(Ordering::SeqCst) < MERGES {
            // Both of its pages count the same, so that they are equal half of the time.
            for number in [writer, WRITERS + writer] {
                let before = if round % 5 == 0 {
                    let run = gup(&kernel, &cpu, page(number), Foll::PIN | Foll::WRITE);
                    let before = kernel.data.words(run.frame()).expect("data")[0].atomic_fetch_add(1);
                    kernel.mm.release(&cpu, run, Access::Write).expect("held");
                    before
                } else {
                    kernel.increment(&cpu, 0, page(number)).expect("memory")
                };
                assert_eq!(before, round, "page {number}");
            }
            round += 1;
        }
    };
    std::thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        let cpu = kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
        kernel.mm.enter(&cpu, kernel.space(0));
        // A writer that ends before has found something wrong.
        while merged.load(Ordering::SeqCst) < MERGES && !writers.iter().any(|writer| writer.is_finished()) {
            for number in 0..2 * WRITERS {
                let other = (number + WRITERS) % (2 * WRITERS);
                let result = kernel.mm.merge(&cpu, (ONE, page(number)), (ONE, page(other)));
                merged.fetch_add(u64::from(result.is_ok()), Ordering::SeqCst);
            }
        }
    });
    let cpu = kernel.machine.attach().expect("a free CPU");
    audit(&kernel, &cpu, []);
    end(&kernel, &cpu);
}
