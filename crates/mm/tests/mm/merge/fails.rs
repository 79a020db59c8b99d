//! The memory of a merged page fails.

use mm::reclaim::{Contents, Failure};
use mm::{FaultError, MergeError, ReclaimError, Unmergeable};

use super::{ONE, THREE, TWO, end, page, two_spaces};

/// Its record tells of one place at most; it is taken out at all of them, and nobody merges it again.
#[test]
fn it_is_taken_out_wherever_it_is_mapped() {
    let (kernel, cpu) = two_spaces(7, 4);
    let kept = kernel.mm.merge(&cpu, (ONE, page(0)), (TWO, page(1))).expect("equal");
    kernel.mm.merge(&cpu, (ONE, page(0)), (ONE, page(2))).expect("equal");
    kernel.mm.fork(&cpu, ONE, THREE).expect("room for a child");
    // One place is left that the record does not tell of.
    kernel.mm.zap(&cpu, kernel.space(0), page(0), 1).expect("whole tables");
    assert_eq!(kernel.counts(&cpu, kept), (4, 0, 4));
    assert_eq!(kernel.mm.memory_failure(&cpu, kept), Ok(Failure { contents: Contents::Lost, still_used: 0 }));
    assert_eq!(kernel.counts(&cpu, kept), (1, 0, 0), "one reference keeps it out of use");
    for (space, number) in [(0, 2), (1, 1), (2, 0), (2, 2)] {
        let address = page(number);
        assert_eq!(kernel.load(&cpu, space, address), Err(FaultError::Poisoned { address }));
    }
    assert_eq!(
        (kernel.load(&cpu, 0, page(0)), kernel.load(&cpu, 0, page(1))),
        (Ok(0), Ok(7)),
        "the others have theirs"
    );
    let again = kernel.mm.merge(&cpu, (ONE, page(2)), (TWO, page(2)));
    assert_eq!(again, Err(MergeError::Into(Unmergeable::NotMapped)));
    let twice = kernel.mm.memory_failure(&cpu, kept);
    assert_eq!(twice, Err(ReclaimError::Unmovable { frame: kept }));
    kernel.mm.free_folio(&cpu, kept).expect("the failure's reference");
    end(&kernel, &cpu);
}
