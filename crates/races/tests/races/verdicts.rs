//! Every variant of the catalogue is decided, and as its file expects; and the second engine, where it decides, says the same, and knows some runs where it does not. One decision is for both: it
//! takes nine tenths of the time.

use races::Verdict;

use crate::folder::Folder;
use crate::second_engine::{Compared, compare};

/// How many random runs of each engine the other one is asked about, where the second engine cannot go through all. More take longer.
const SAMPLES: u64 = 5;

/// Demands of each variant what its file expects.
fn as_expected(folder: &Folder) {
    let mut unexpected = Vec::new();
    for report in &folder.reports {
        let is_decided = matches!(report.verdict, Verdict::Safe | Verdict::Violation);
        if !is_decided || report.as_expected != Some(true) {
            let variant = report.variant.as_deref().unwrap_or("-");
            let found = report.rule.as_deref().unwrap_or(report.verdict.name());
            let expected = report.expected.as_deref().unwrap_or("nothing");
            let message = report.message.as_deref().unwrap_or("");
            unexpected.push(format!(
                "{} {variant} {}: {found}, and the file expects {expected}; {message}",
                report.race,
                report.memory.name()
            ));
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn of_memory_management() {
    let folder = Folder::decide("mm");
    as_expected(&folder);
    // Runs are many where code is long: of the safe ones those are decided that few are enough for, and of the others some runs are compared. Every rule that is broken is broken there, too; a run that
    // never ends breaks none.
    let Compared { all, agree, sampled, runs, open } = compare(&folder, 40, SAMPLES);
    assert!(agree * 5 >= all * 2, "{agree} of {all}");
    assert_eq!(agree + sampled + open.len(), all);
    // To each final state of the lab's, and random ones; none is cut off.
    let random = sampled as u64 * SAMPLES;
    assert_eq!((runs.own, runs.of_lab), (random, random + runs.ends as u64));
    assert_eq!(runs.met, runs.ends);
    assert!(open.iter().all(|why| why.ends_with("runs that never end")), "{open:?}");
}

#[test]
fn of_the_machine() {
    let folder = Folder::decide("machine");
    as_expected(&folder);
    let Compared { all, agree, sampled, runs, open } = compare(&folder, 2_000, SAMPLES);
    // NMIs of another CPU take it more runs where no rule is broken, and it does not search where walkers read freed tables unasked.
    assert!(agree + 4 >= all && agree + sampled == all, "{agree} of {all}; {open:?}");
    assert_eq!(runs.met, runs.ends);
}
