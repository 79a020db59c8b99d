//! Schedules of somebody who may use a translation before the accessed flag of its entry is set.

use machine::{Access, CpuId, UserAccess};
use stateless::Followed;
use stateless::schedule::{Act, Age, Passage, What};

use crate::paged::{ENTRY, FRAME, PAGE, Tables, boot, machine};

const ACCESSED: u64 = 0x20;
const DIRTY: u64 = 0x40;
const REACHES: Passage = Passage::Reaches { frame: FRAME, age: Age::Current };

/// Follows these passages of accesses like this.
fn follow(accesses: &'static [Access], passages: &[Passage]) -> Followed {
    let tables = Tables::new();
    let mut simulator = machine(&tables);
    simulator.cpu(|cpu| {
        for access in accesses {
            cpu.user_access(PAGE, *access).expect("it is mapped");
        }
    });
    boot(&mut simulator, &tables, 1);
    let act = |passage: &Passage| Act { cpu: CpuId::new(0), what: What::Access(*passage) };
    simulator.follow(&passages.iter().map(act).collect::<Vec<_>>())
}

fn kept(ahead: Vec<usize>) -> Followed {
    Followed::Kept { observation: None, ahead }
}

#[test]
fn a_flag_that_is_set_ahead_of_the_schedule_is_not_missed_again() {
    let reads = &[Access::Read, Access::Read];
    let sets = Passage::FindsFlags { offset: ENTRY, flags: ACCESSED };
    assert_eq!(follow(reads, &[sets, REACHES, REACHES]), kept(Vec::new()));
    assert_eq!(follow(reads, &[REACHES, sets, REACHES]), kept(Vec::new()));
    // It can be missing once only.
    assert!(matches!(follow(reads, &[REACHES, sets, sets, REACHES]), Followed::Departs { act: 2, .. }));
    assert!(matches!(follow(reads, &[sets, REACHES, sets, REACHES]), Followed::Departs { act: 2, .. }));
}

#[test]
fn what_is_ahead_at_the_end_is_told() {
    assert_eq!(follow(&[Access::Read], &[REACHES]), kept(vec![ENTRY]));
}

#[test]
fn the_dirty_flag_is_still_to_be_set() {
    let sets = Passage::FindsFlags { offset: ENTRY, flags: ACCESSED | DIRTY };
    let accesses = &[Access::Read, Access::Write];
    assert_eq!(follow(accesses, &[REACHES, sets, REACHES]), kept(Vec::new()));
    assert!(matches!(follow(accesses, &[REACHES, REACHES]), Followed::Departs { act: 1, .. }));
}
