//! Tests that others have published, with verdicts: what the lab says of each, compared with what its source says.

use std::collections::BTreeMap;

use races::catalogue::entries;
use races::{Observation, Options, Race, VariantReport, Verdict, Witnesses};

/// TransForm's list of enhanced litmus tests by hand, with its verdicts: `util/tests.txt` of github.com/naorinh/TransForm at ff5c052.
const TRANSFORM_FORBIDDEN: [&str; 8] = ["ipi4", "ipi8", "mp", "mrf1", "n5", "n5_synonym", "ptwalk2", "sb_synonym"];
const TRANSFORM_PERMITTED: [&str; 23] = [
    "dirtybit2",
    "dirtybit3",
    "dirtybit4",
    "dirtybit5",
    "dirtybit6",
    "dirtybittest",
    "ghosttest",
    "intelbug",
    "invlpgtest",
    "ipi3",
    "ipi5",
    "ipi6",
    "ipi7",
    "ipi_ordering",
    "n2",
    "new_sb_synonym_permit",
    "null",
    "ptwalk3",
    "ptwalktest",
    "readfrominitial",
    "rftest",
    "sb",
    "sb_synonym_permit",
];

/// The variant that is the published test; another one is a control, in which what forbids the outcome is missing.
const PUBLISHED: &str = "published";

fn folder(folder: &str) -> Vec<Race> {
    let entries = entries().filter(|entry| entry.folder == folder);
    entries.map(|entry| Race::of_catalogue(&entry).unwrap_or_else(|error| panic!("{}", error.one_line()))).collect()
}

fn decided(races: &[Race]) -> Vec<VariantReport> {
    let mut reports = Vec::new();
    races::decide(races, &Options { witnesses: Witnesses::Skipped, ..Options::default() }, |report| {
        reports.push(report)
    });
    for report in &reports {
        assert!(report.message.is_none() || report.verdict == Verdict::Violation, "{report:?}");
        assert_eq!(report.as_expected, Some(true), "{} {:?}: {:?}", report.race, report.variant, report.verdict);
    }
    reports
}

/// What a line of a file says, which every file must have.
fn line<'r>(race: &'r Race, key: &str) -> &'r str {
    race.litmus.info(key).unwrap_or_else(|| panic!("{}: {key}=...", race.source.name())).node.trim()
}

#[test]
fn the_lab_decides_the_shapes_of_transform_as_published() {
    let races = folder("transform");
    let reports = decided(&races);
    let mut found: BTreeMap<&str, &str> = BTreeMap::new();
    for race in &races {
        let name = &race.litmus.name.node;
        let of_race: Vec<&VariantReport> = reports.iter().filter(|report| report.race == *name).collect();
        let published = of_race.iter().find(|report| report.variant.as_deref() == Some(PUBLISHED));
        let is_never = published.expect("a variant `published`").observation == Some(Observation::Never);
        let verdict = if is_never { "Forbidden" } else { "Permitted" };
        assert_eq!(verdict, line(race, "TransForm"), "{name}");
        // An outcome that can never be is a verdict on a typing error, too: without what forbids it, it must be there.
        let mut controls = of_race.iter().filter(|report| report.variant.as_deref() != Some(PUBLISHED));
        assert_eq!(controls.any(|report| report.verdict == Verdict::Violation), is_never, "{name}: a control");
        for test in line(race, "Tests").split(' ') {
            assert_eq!(found.insert(test, verdict), None, "{test} is in two files");
        }
    }
    let forbidden = TRANSFORM_FORBIDDEN.map(|test| (test, "Forbidden"));
    let permitted = TRANSFORM_PERMITTED.map(|test| (test, "Permitted"));
    assert_eq!(found, forbidden.into_iter().chain(permitted).collect());
}

#[test]
fn the_lab_decides_the_tests_of_coatcheck_as_published() {
    let races = folder("coatcheck");
    let reports = decided(&races);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (race, report) in races.iter().zip(&reports) {
        assert_eq!(race.litmus.name.node, report.race);
        let published = line(race, "COATCheck");
        let is_never = report.observation == Some(Observation::Never);
        assert_eq!(is_never, published == "Forbidden", "{}: {published}, {:?}", report.race, report.observation);
        *counts.entry(published).or_default() += 1;
    }
    // As many as tests/x86tso of github.com/daniellustig/coatcheck has at e5cefa6.
    assert_eq!(counts, BTreeMap::from([("Forbidden", 68), ("Permitted", 20), ("Required", 4)]));
}
