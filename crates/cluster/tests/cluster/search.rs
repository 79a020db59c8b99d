//! Processes that explore together come to what one thread comes to.

use std::time::Duration;

use crate::common::{Shelf, assert_same, dekker, mix, report, search, whole};
use cluster::Ended;
use lab::{Limit, Limits, Verdict, rule};

#[test]
fn the_same_verdict_and_counts() {
    let one = whole(4, mix);
    assert_eq!(one.verdict, Verdict::Safe);
    assert!(one.states > 10_000, "too small to be shared: {}", one.states);
    for shape in [(1, 1), (3, 1), (2, 2)] {
        let many = report(search(shape, (4, mix), &Limits::default(), None));
        assert_same(&many, &one, &format!("{shape:?} processes and threads"));
    }
}

#[test]
fn the_same_shortest_run() {
    let one = whole(2, dekker);
    let many = report(search((3, 1), (2, dekker), &Limits::default(), None));
    assert_eq!(many.expect_violation(rule::USER), one.expect_violation(rule::USER));
}

#[test]
fn every_checkpoint_leads_to_the_same_end() {
    let one = whole(4, mix);
    let shelf = Shelf { every: Duration::from_millis(30), ..Shelf::default() };
    let many = report(search((3, 1), (4, mix), &Limits::default(), Some(&shelf)));
    assert_same(&many, &one, "with checkpoints");
    assert!(shelf.files.lock().expect("nobody panics").is_empty(), "what is decided is kept no more");
    let history = shelf.history.into_inner().expect("nobody panics");
    let last = *history.keys().map(|(_, number)| number).max().expect("there were some");
    for number in [1, last / 2, last] {
        let files = history.iter().filter(|((_, of), _)| *of == number.max(1));
        let files = files.map(|(key, file)| (*key, file.clone())).collect();
        let shelf = Shelf { files: std::sync::Mutex::new(files), every: Duration::MAX, ..Shelf::default() };
        let again = report(search((3, 1), (4, mix), &Limits::default(), Some(&shelf)));
        assert_same(&again, &one, &format!("gone on with from checkpoint {number} of {last}"));
    }
}

#[test]
fn what_a_limit_ended_is_kept_by_all_and_gone_on_with() {
    let one = whole(4, mix);
    let shelf = Shelf { every: Duration::MAX, ..Shelf::default() };
    let limits = Limits { states: 5000, ..Limits::default() };
    let ended = search((3, 1), (4, mix), &limits, Some(&shelf));
    assert!(ended.iter().filter(|ended| matches!(ended, Ended::Elsewhere(Some(Limit::States)))).count() == 2);
    assert_eq!(report(ended).verdict, Verdict::Bounded(Limit::States));
    assert_eq!(shelf.files.lock().expect("nobody panics").len(), 3);
    assert_same(&report(search((3, 1), (4, mix), &Limits::default(), Some(&shelf))), &one, "gone on with");
}

#[test]
fn a_checkpoint_that_not_all_have_is_refused_by_all() {
    let shelf = Shelf { every: Duration::MAX, ..Shelf::default() };
    let limits = Limits { states: 2000, ..Limits::default() };
    for _ in 0..2 {
        let limits = Limits { states: limits.states * 2, ..limits };
        search((3, 1), (4, mix), &limits, Some(&shelf));
    }
    shelf.files.lock().expect("nobody panics").retain(|(member, _), _| *member != 1);
    for ended in search((3, 1), (4, mix), &Limits::default(), Some(&shelf)) {
        let Ended::Refused(why) = ended else { panic!("not refused: {ended:?}") };
        assert_eq!(why, "member 1 has no checkpoint of this search, and others have");
    }
}
