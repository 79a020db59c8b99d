//! Pages of zeros give way to the zero page.

use std::sync::atomic::{AtomicU64, Ordering};

use hosted::ThreadCpu;
use machine::{Access, CpuId, Word};
use mm::{AreaRights, FaultError, Foll, MergeError, MergeInto, UnmergeError, Unmergeable, Usage};
use pagetable::{Flags, Level};

use super::{
    AT, EXCLUSIVE, KSM, ONE, TABLES, THREE, TWO, audit, end, frame, gup, page, two_spaces, written, zero_page,
};
use crate::memory::{Kernel, anonymous};

/// How many zeros each address space counts that a merge has left.
fn merged_zeros(kernel: &Kernel, cpu: &ThreadCpu) -> [u64; 3] {
    [0, 1, 2].map(|space| kernel.space(space).merged_zeros(cpu))
}

#[test]
fn zeros_are_kept_for_nobody_and_a_store_gets_a_page() {
    let (kernel, cpu) = two_spaces(0, 2);
    let zero = zero_page(&kernel);
    let counts = kernel.counts(&cpu, zero);
    for (space, number) in [(ONE, 0), (TWO, 1)] {
        let gone = frame(&kernel, &cpu, space.number(), number);
        assert_eq!(kernel.mm.merge(&cpu, MergeInto::ZeroPage, (space, page(number))), Ok(zero));
        assert_eq!((frame(&kernel, &cpu, space.number(), number), kernel.counts(&cpu, gone)), (zero, (0, 0, 0)));
    }
    assert_eq!((kernel.data.in_use(), kernel.counts(&cpu, zero)), (2, counts), "nobody counts who maps it");
    let leaf = kernel.leaf_at(&cpu, 0, page(0)).expect("mapped").entry;
    assert!(!leaf.has(Flags::WRITE) && leaf.has(Flags::soft_dirty(Level::Pte)));
    assert_eq!(merged_zeros(&kernel, &cpu), [1, 1, 0]);
    kernel.mm.fork(&cpu, ONE, THREE).expect("room for a child");
    assert_eq!(merged_zeros(&kernel, &cpu), [1, 1, 1], "a child has what its parent has");
    audit(&kernel, &cpu, []);

    let run = gup(&kernel, &cpu, page(0), Foll::PIN);
    assert_eq!(run.frame(), zero, "who only looks sees zeros");
    kernel.mm.release(&cpu, run, Access::Read).expect("held");
    kernel.store(&cpu, 0, page(0), 8).expect("memory");
    let own = frame(&kernel, &cpu, 0, 0);
    assert_eq!((kernel.data.read(own, 0), kernel.data.read(own, 8)), (8, 0));
    assert_eq!((kernel.flags(&cpu, own) & (EXCLUSIVE | KSM), kernel.counts(&cpu, own)), (EXCLUSIVE, (1, 0, 1)));
    assert_eq!([1, 2].map(|space| kernel.load(&cpu, space, page(0))), [Ok(0); 2]);
    assert_eq!(merged_zeros(&kernel, &cpu), [0, 1, 1], "who has a page of his own does not do without");
    let pinned = gup(&kernel, &cpu, page(1), Foll::PIN | Foll::WRITE);
    assert_ne!(pinned.frame(), zero);
    audit(&kernel, &cpu, [&pinned]);
    kernel.mm.release(&cpu, pinned, Access::Read).expect("held");
    end(&kernel, &cpu);
}

#[test]
fn what_is_used_or_holds_anything_stays() {
    let (kernel, cpu) = two_spaces(0, 3);
    let merge = |number| kernel.mm.merge(&cpu, MergeInto::ZeroPage, (ONE, page(number)));
    kernel.data.write(frame(&kernel, &cpu, 0, 0), 4088, 1);
    let run = gup(&kernel, &cpu, page(1), Foll::PIN);
    let before = audit(&kernel, &cpu, [&run]).stretches;
    assert_eq!(merge(0), Err(MergeError::From(Unmergeable::Different)));
    assert_eq!(merge(1), Err(MergeError::From(Unmergeable::Pinned)));
    assert_eq!(audit(&kernel, &cpu, [&run]).stretches, before);
    kernel.mm.release(&cpu, run, Access::Read).expect("held");
    assert_eq!(merge(2), Ok(zero_page(&kernel)));
    assert_eq!(merge(2), Err(MergeError::From(Unmergeable::Special)), "once is enough");
    let into_zeros = kernel.mm.merge(&cpu, (ONE, page(2)), (ONE, page(1)));
    assert_eq!(into_zeros, Err(MergeError::Into(Unmergeable::Special)));
    // What was merged with others before may go, too.
    kernel.mm.merge(&cpu, (TWO, page(0)), (ONE, page(1))).expect("equal");
    assert_eq!(merge(1), Ok(zero_page(&kernel)));
    audit(&kernel, &cpu, []);
    end(&kernel, &cpu);
}

/// Only where a merge has put it: what was read and never written is nobody's own.
#[test]
fn who_unmerges_gets_zeros_of_his_own() {
    let (kernel, cpu) = two_spaces(0, 4);
    let zero = zero_page(&kernel);
    for number in [0, 2] {
        kernel.mm.merge(&cpu, MergeInto::ZeroPage, (ONE, page(number))).expect("zeros");
    }
    kernel.mm.zap(&cpu, kernel.space(0), page(1), 1).expect("whole tables");
    assert_eq!(kernel.load(&cpu, 0, page(1)), Ok(0));
    kernel.mm.mprotect(&cpu, ONE, page(2), 1, AreaRights::None).expect("it is mapped");
    kernel.mm.fork(&cpu, ONE, THREE).expect("room for a child");
    kernel.failures.fail_at(1);
    let failed = UnmergeError::Fault { address: page(0), error: FaultError::OutOfFrames };
    assert_eq!(kernel.mm.unmerge(&cpu, kernel.space(0), AT, 4), Err(failed));
    assert_eq!(merged_zeros(&kernel, &cpu), [2, 0, 2], "nothing has changed");
    kernel.failures.fail_at(0);
    for space in [0, 2] {
        assert_eq!(kernel.mm.unmerge(&cpu, kernel.space(space), AT, 4), Ok(2));
        assert_eq!(kernel.mm.unmerge(&cpu, kernel.space(space), AT, 4), Ok(0));
        assert_eq!(frame(&kernel, &cpu, space, 1), zero);
        assert_eq!([0, 1].map(|number| kernel.load(&cpu, space, page(number))), [Ok(0); 2]);
        assert!(matches!(kernel.load(&cpu, space, page(2)), Err(FaultError::Forbidden { .. })));
        let own = frame(&kernel, &cpu, space, 0);
        assert_eq!(kernel.flags(&cpu, own) & EXCLUSIVE, EXCLUSIVE);
        kernel.store(&cpu, space, page(0), 8).expect("no copy is needed");
        assert_eq!(frame(&kernel, &cpu, space, 0), own);
    }
    audit(&kernel, &cpu, []);
    end(&kernel, &cpu);
}

/// Wherever they go, and whatever takes them away.
#[test]
fn zeros_are_counted_as_long_as_they_are_there() {
    let (kernel, cpu) = two_spaces(0, 6);
    let merge = |number| kernel.mm.merge(&cpu, MergeInto::ZeroPage, (ONE, page(number))).expect("zeros");
    let is_counted = |expected: [u64; 3], what: &str| {
        assert_eq!(merged_zeros(&kernel, &cpu), expected, "{what}");
        audit(&kernel, &cpu, []);
    };
    (0..6).for_each(|number| {
        merge(number);
    });
    is_counted([6, 0, 0], "merged");
    kernel.mm.mremap(&cpu, ONE, (page(4), 2), (page(1000), 2)).expect("room");
    is_counted([6, 0, 0], "moved to another table");
    kernel.mm.mremap(&cpu, ONE, (page(3), 1), (page(10), 1)).expect("room");
    is_counted([6, 0, 0], "moved within a table");
    for (rights, what) in [(AreaRights::None, "not readable"), (AreaRights::ReadWrite, "again")] {
        kernel.mm.mprotect(&cpu, ONE, page(0), 2, rights).expect("it is mapped");
        is_counted([6, 0, 0], what);
    }
    kernel.mm.fork(&cpu, ONE, THREE).expect("room for a child");
    is_counted([6, 0, 6], "forked");
    kernel.mm.zap(&cpu, kernel.space(0), page(0), 1).expect("whole tables");
    assert_eq!(kernel.load(&cpu, 0, page(0)), Ok(0));
    is_counted([5, 0, 6], "zapped, and read once more: that is no merge's");
    kernel.mm.install_guards(&cpu, kernel.space(0), page(1), 1).expect("an area");
    is_counted([4, 0, 6], "a guard in its place");
    kernel.mm.munmap(&cpu, ONE, page(1000), 1).expect("whole tables");
    is_counted([3, 0, 6], "unmapped");
    kernel.store(&cpu, 2, page(2), 1).expect("memory");
    is_counted([3, 0, 5], "the child has written");
    kernel.mm.exit(&cpu, THREE).expect("whole tables");
    is_counted([3, 0, 0], "the child is gone");
    end(&kernel, &cpu);
    assert_eq!(merged_zeros(&kernel, &cpu), [0; 3]);
}

/// What a fork that fails has given the child is not there any more.
#[test]
fn a_fork_that_fails_counts_for_nobody() {
    for failing in 1.. {
        let (kernel, cpu) = two_spaces(0, 2);
        kernel.mm.merge(&cpu, MergeInto::ZeroPage, (ONE, page(0))).expect("zeros");
        // A pinned page is copied: that may fail after the zeros before it were.
        let pinned = gup(&kernel, &cpu, page(1), Foll::PIN | Foll::WRITE);
        kernel.failures.fail_at(failing);
        let forked = kernel.mm.fork(&cpu, ONE, THREE);
        kernel.failures.fail_at(0);
        assert_eq!(merged_zeros(&kernel, &cpu), [1, 0, u64::from(forked.is_ok())], "failure {failing}");
        audit(&kernel, &cpu, [&pinned]);
        kernel.mm.release(&cpu, pinned, Access::Write).expect("held");
        end(&kernel, &cpu);
        if forked.is_ok() {
            assert!(failing > 3, "three tables and a copy can fail: {failing}");
            break;
        }
    }
}

/// Zeros that were written since somebody last looked count as written, wherever the page is by now.
#[test]
fn written_zeros_count_as_written() {
    let (kernel, cpu) = two_spaces(0, 2);
    written(&kernel, &cpu, Usage::SOFT_DIRTY);
    kernel.store(&cpu, 0, page(1), 0).expect("memory");
    for number in 0..2 {
        kernel.mm.merge(&cpu, MergeInto::ZeroPage, (ONE, page(number))).expect("zeros");
    }
    assert_eq!(written(&kernel, &cpu, Usage::NONE), [page(1)]);
    written(&kernel, &cpu, Usage::ACCESSED.and(Usage::DIRTY));
    assert_eq!(
        kernel.mm.unmerge(&cpu, kernel.space(0), AT, 2),
        Ok(2),
        "who asks for dirty pages leaves the mark of a merge"
    );
    assert_eq!(written(&kernel, &cpu, Usage::NONE), [page(1)], "copies remember");
    kernel.mm.merge(&cpu, MergeInto::ZeroPage, (ONE, page(1))).expect("zeros");
    written(&kernel, &cpu, Usage::SOFT_DIRTY);
    assert_eq!(written(&kernel, &cpu, Usage::NONE), []);
    end(&kernel, &cpu);
}

/// One CPU merges whatever holds zeros, others write zeros and other words in turns: every load finds the last store.
#[test]
fn no_store_is_lost_meanwhile() {
    const WRITERS: u64 = 2;
    const MERGES: u64 = 200;
    let kernel = Kernel::build(1 + WRITERS as u32, TABLES);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.mmap(&cpu, ONE, anonymous(AT, WRITERS, 0)).expect("a good area");
    }
    let merged = AtomicU64::new(0);
    let write = |writer: u64| {
        let cpu = kernel.machine.attach_as(CpuId::new(1 + writer as u32)).expect("nobody else has it");
        kernel.mm.enter(&cpu, kernel.space(0));
        let (mut round, mut last) = (0, 0);
        while merged.load(Ordering::SeqCst) < MERGES {
            round += 1;
            let next = if round % 2 == 0 { 0 } else { round };
            let before = if round % 5 == 0 {
                let run = gup(&kernel, &cpu, page(writer), Foll::PIN | Foll::WRITE);
                let before = kernel.data.words(run.frame()).expect("data")[0].atomic_swap(next);
                kernel.mm.release(&cpu, run, Access::Write).expect("held");
                before
            } else {
                let before = kernel.load(&cpu, 0, page(writer)).expect("memory");
                kernel.store(&cpu, 0, page(writer), next).expect("memory");
                before
            };
            assert_eq!(before, last, "round {round}");
            last = next;
        }
    };
    std::thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        let cpu = kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
        kernel.mm.enter(&cpu, kernel.space(0));
        // A writer that ends before has found something wrong.
        while merged.load(Ordering::SeqCst) < MERGES && !writers.iter().any(|writer| writer.is_finished()) {
            for number in 0..WRITERS {
                let result = kernel.mm.merge(&cpu, MergeInto::ZeroPage, (ONE, page(number)));
                merged.fetch_add(u64::from(result.is_ok()), Ordering::SeqCst);
            }
        }
    });
    let cpu: ThreadCpu = kernel.machine.attach().expect("a free CPU");
    audit(&kernel, &cpu, []);
    end(&kernel, &cpu);
}
