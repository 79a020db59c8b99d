//! An address space gets pages of its own again.

use hosted::ThreadCpu;
use mm::{AreaRights, FaultError, UnmergeError};

use super::{AT, EXCLUSIVE, ONE, THREE, TWO, audit, end, frame, page, two_spaces};
use crate::memory::Kernel;

/// Not readable, and merged all the same; and again one's own, and still not readable.
#[test]
fn what_nobody_may_access_stays_so() {
    let (kernel, cpu) = two_spaces(7, 2);
    kernel.mm.mprotect(&cpu, ONE, page(0), 2, AreaRights::None).expect("it is mapped");
    for number in 0..2 {
        kernel.mm.merge(&cpu, (ONE, page(0)), (TWO, page(number))).expect("equal");
    }
    kernel.mm.merge(&cpu, (TWO, page(0)), (ONE, page(1))).expect("equal");
    assert_eq!((kernel.data.in_use(), kernel.load(&cpu, 1, page(1))), (1, Ok(7)));
    let forbidden = |kernel: &Kernel, cpu: &ThreadCpu| {
        (0..2).all(|number| matches!(kernel.load(cpu, 0, page(number)), Err(FaultError::Forbidden { .. })))
    };
    assert!(forbidden(&kernel, &cpu));
    assert_eq!(kernel.mm.unmerge(&cpu, kernel.space(0), AT, 2), Ok(2));
    assert!(forbidden(&kernel, &cpu));
    assert_eq!(kernel.data.in_use(), 3);
    audit(&kernel, &cpu, []);
    kernel.mm.mprotect(&cpu, ONE, page(0), 2, AreaRights::ReadWrite).expect("it is mapped");
    for number in 0..2 {
        let own = frame(&kernel, &cpu, 0, number);
        assert_eq!((kernel.flags(&cpu, own) & EXCLUSIVE, kernel.load(&cpu, 0, page(number))), (EXCLUSIVE, Ok(7)));
        kernel.store(&cpu, 0, page(number), 8).expect("no copy is needed");
        assert_eq!(frame(&kernel, &cpu, 0, number), own);
    }
    end(&kernel, &cpu);
}

/// Every failure of an allocation is said, with the address; what came before is done, and the rest is done by the next call.
#[test]
fn who_unmerges_has_all_his_pages_or_hears_which_not() {
    for failing in 1.. {
        let (kernel, cpu) = two_spaces(7, 6);
        kernel.mm.fork(&cpu, ONE, THREE).expect("room for a child");
        kernel.failures.fail_at(1);
        for number in [1, 2, 4] {
            kernel.mm.merge(&cpu, (TWO, page(0)), (ONE, page(number))).expect("a merge needs no frame");
        }
        kernel.mm.zap(&cpu, kernel.space(0), page(5), 1).expect("whole tables");
        let before = audit(&kernel, &cpu, []).stretches;
        kernel.failures.fail_at(failing);
        let result = kernel.mm.unmerge(&cpu, kernel.space(0), AT, 6);
        kernel.failures.fail_at(0);
        let own = |number| {
            let frame = kernel.frame_at(&cpu, 0, page(number));
            frame.is_some_and(|frame| kernel.flags(&cpu, frame) & EXCLUSIVE != 0)
        };
        let done = failing as usize - 1;
        assert_eq!([1, 2, 4].map(own), [0, 1, 2].map(|index| index < done), "failure {failing}");
        assert_eq!([0, 3].map(own), [false; 2], "what a fork has shared stays shared");
        assert_eq!(kernel.frame_at(&cpu, 0, page(5)), None, "what is not mapped is not looked for");
        if failing == 1 {
            assert_eq!(audit(&kernel, &cpu, []).stretches, before);
        }
        if failing <= 3 {
            let address = page([1, 2, 4][done]);
            assert_eq!(result, Err(UnmergeError::Fault { address, error: FaultError::OutOfFrames }));
            assert_eq!(kernel.mm.unmerge(&cpu, kernel.space(0), AT, 6), Ok(4 - failing));
        } else {
            assert_eq!(result, Ok(3));
        }
        audit(&kernel, &cpu, []);
        assert_eq!((0..5).map(|number| kernel.load(&cpu, 0, page(number))).collect::<Vec<_>>(), vec![Ok(7); 5]);
        let misaligned = kernel.mm.unmerge(&cpu, kernel.space(0), AT.wrapping_add(8), 1);
        assert!(matches!(misaligned, Err(UnmergeError::Range(_))));
        end(&kernel, &cpu);
        if failing > 3 {
            break;
        }
    }
}
