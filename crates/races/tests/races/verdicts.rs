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
    // Runs are many where code is long: of the safe ones those count that are decided by few. Every rule that is broken is broken there, too; a run that never ends breaks none.
    let Compared { all, agree, open } = compare(&folder, 40);
    assert!(agree * 5 >= all * 2, "{agree} of {all}");
    assert!(open.iter().all(|why| why.ends_with("runs that never end")), "{open:?}");
}

#[test]
fn of_the_machine() {
    let folder = Folder::decide("machine");
    as_expected(&folder);
    let Compared { all, agree, open } = compare(&folder, 2_000);
    // NMIs of another CPU take it more runs where no rule is broken, and it does not search where walkers read freed tables unasked.
    assert!(agree + 4 >= all && open.is_empty(), "{agree} of {all}; {open:?}");
}
