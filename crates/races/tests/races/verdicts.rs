//! Every variant of the catalogue is decided, and as its file expects; and the second engine, where it decides, says the same. One decision is for both: it
//! takes nine tenths of the time.

use races::Verdict;

use crate::folder::Folder;
use crate::second_engine::{Compared, compare};

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
    // Runs are many where code is long: those races count that are decided by few.
    let Compared { all, agree } = compare(&folder, 40);
    assert!(agree * 7 >= all, "{agree} of {all}");
}

#[test]
fn of_the_machine() {
    let folder = Folder::decide("machine");
    as_expected(&folder);
    let Compared { all, agree } = compare(&folder, 2_000);
    // It has no threads that are moved, and no walkers that read freed tables unasked; and NMIs of another CPU take it more runs.
    assert!(agree + 10 >= all, "{agree} of {all}");
}
