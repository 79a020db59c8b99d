//! The x86 files of the catalogue: each says where it comes from and what is observed, and that is what the lab observes.

use races::catalogue::entries;
use races::{MemoryOrder, Options, Race, Verdict};

fn x86() -> Vec<Race> {
    let entries = entries().filter(|entry| entry.folder == "x86");
    entries.map(|entry| Race::of_catalogue(&entry).unwrap_or_else(|error| panic!("{}", error.one_line()))).collect()
}

#[test]
fn every_file_names_its_source_and_expects_something_of_both_orders() {
    for (entry, race) in entries().filter(|entry| entry.folder == "x86").zip(x86()) {
        assert_eq!(entry.name, race.litmus.name.node);
        assert!(race.litmus.quotes.len() >= 2, "{}: what it shows, and its source", entry.name);
        for key in ["TSO", "SC"] {
            assert!(race.litmus.info(key).is_some(), "{}: {key}=...", entry.name);
        }
        assert!(race.litmus.condition.is_some(), "{}: a condition", entry.name);
    }
}

#[test]
fn every_file_is_found_by_its_name() {
    for entry in entries() {
        for name in [entry.name.to_owned(), entry.path(), format!("{}/{}", entry.folder, entry.name)] {
            let found = races::catalogue::entry(&name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((found.name, found.folder), (entry.name, entry.folder), "{name}");
        }
    }
}

/// The list of races of memory management names every file, and no other.
#[test]
fn every_race_is_listed() {
    const LIST: &str = include_str!("../catalogue/mm/README.md");
    let rows = LIST.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(1));
    let mut listed: Vec<&str> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    // What is missing may be explained with names of the engine.
    listed.retain(|name| !name.contains('_'));
    listed.sort_unstable();
    let files: Vec<&str> = entries().filter(|entry| entry.folder == "mm").map(|entry| entry.name).collect();
    assert_eq!(listed, files);
}

#[test]
fn every_observation_is_the_published_one() {
    let races = x86();
    let (mut answers, mut wrong) = (Vec::new(), Vec::new());
    races::decide(&races, &Options::default(), |report| {
        if report.as_expected != Some(true) {
            wrong.push(format!(
                "{} {:?}: {:?}, expected {:?} {:?}",
                report.race, report.memory, report.observation, report.expected, report.message
            ));
        }
        answers.push((report.race, report.memory));
    });
    let expected: Vec<_> =
        races.iter().flat_map(|race| MemoryOrder::ALL.map(|order| (race.litmus.name.node.clone(), order))).collect();
    assert_eq!(answers, expected, "answers come in the order of the files");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_witness_is_shown_where_the_condition_can_be_met() {
    let race = Race::find("n6").expect("it is in the catalogue");
    let options = Options { memory: Some(MemoryOrder::Tso), ..Options::default() };
    races::decide(&[race], &options, |report| {
        assert_eq!(report.verdict, Verdict::Safe);
        let trace = report.trace.as_ref().expect("a run in which Loewenstein's outcome occurs");
        assert_eq!(report.steps, Some(trace.steps.len()));
        assert_eq!(report.shortest, Some(true));
        // Three stores are made and reach memory; two loads.
        assert_eq!(trace.steps.len(), 3 + 3 + 2);
    });
}
