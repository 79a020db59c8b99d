//! Every variant of the catalogue is decided, and as its file expects.

use races::catalogue::entries;
use races::{Options, Race, Verdict, Witnesses};

/// Decides the files of a folder, and demands what they expect.
fn as_expected(folder: &str) {
    let races: Vec<Race> = entries()
        .filter(|entry| entry.folder == folder)
        .map(|entry| Race::of_catalogue(&entry).unwrap_or_else(|error| panic!("{}", error.one_line())))
        .collect();
    assert!(!races.is_empty(), "{folder} holds no race");
    let options = Options { witnesses: Witnesses::Skipped, ..Options::default() };
    let mut unexpected = Vec::new();
    races::decide(&races, &options, |report| {
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
    });
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn of_memory_management() {
    as_expected("mm");
}

#[test]
fn of_the_machine() {
    as_expected("machine");
}
