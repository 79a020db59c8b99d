//! The two engines, which share no code, say the same: the same rule is broken or none is, and the final states are the same.

use std::collections::BTreeMap;
use std::time::Duration;

use races::catalogue::entries;
use races::{Opinion, Options, Race, SecondEngine, VariantReport, Witnesses};

/// Asks for a second opinion on every variant of these races, and returns how many there are, and how many agree.
fn compare(races: &[Race], engine: SecondEngine) -> (usize, usize) {
    let options = Options { witnesses: Witnesses::Skipped, ..Options::default() };
    let mut reports: Vec<VariantReport> = Vec::new();
    races::decide(races, &options, |report| reports.push(report));
    let by_file: BTreeMap<&str, &Race> = races.iter().map(|race| (race.source.name(), race)).collect();
    let (mut agree, mut differ, mut why) = (0, Vec::new(), BTreeMap::<String, usize>::new());
    for report in &reports {
        let name = format!("{} {} {}", report.race, report.variant.as_deref().unwrap_or("-"), report.memory.name());
        let opinion = engine.opinion(by_file[report.file.as_str()], report);
        if std::env::var_os("FASTGUP_OPINIONS").is_some() {
            println!("{name}: {opinion}");
        }
        match opinion {
            Opinion::Agrees { .. } => agree += 1,
            Opinion::Differs(how) => differ.push(format!("{name}: {how}")),
            Opinion::Undecided(cause) => *why.entry(cause).or_default() += 1,
        }
    }
    println!("{agree} of {} agree; undecided: {why:?}", reports.len());
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    (reports.len(), agree)
}

fn folder(folder: &str) -> Vec<Race> {
    let entries = entries().filter(|entry| entry.folder == folder);
    entries.map(|entry| Race::of_catalogue(&entry).unwrap_or_else(|error| panic!("{}", error.one_line()))).collect()
}

fn engine(runs: u64) -> SecondEngine {
    SecondEngine { runs, time: Duration::MAX }
}

#[test]
fn on_instructions() {
    let (all, agree) = compare(&folder("x86"), engine(20_000));
    // Three files spin, and a search without states has no end where code may spin for ever; each counts twice, once for each memory order.
    assert!(agree + 6 >= all, "{agree} of {all}");
}

#[test]
fn on_the_machines_own_operations() {
    let (all, agree) = compare(&folder("machine"), engine(2_000));
    // It has no threads that are moved, and no walkers that read freed tables unasked; and NMIs of another CPU take it more runs.
    assert!(agree + 10 >= all, "{agree} of {all}");
}

#[test]
fn on_published_tests() {
    let (all, agree) = compare(&folder("coatcheck"), engine(20_000));
    assert_eq!(agree, all);
    let (all, agree) = compare(&folder("transform"), engine(20_000));
    assert_eq!(agree, all);
}

#[test]
fn on_memory_management() {
    // Runs are many where code is long: those races count that are decided by few.
    let (all, agree) = compare(&folder("mm"), engine(40));
    assert!(agree * 7 >= all, "{agree} of {all}");
}
