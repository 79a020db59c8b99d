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

/// The lists of races name every file, and no other.
#[test]
fn every_race_is_listed() {
    const LISTS: [(&str, &str); 2] = [
        ("mm", include_str!("../../catalogue/mm/README.md")),
        ("machine", include_str!("../../catalogue/machine/README.md")),
    ];
    for (folder, list) in LISTS {
        let rows = list.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(1));
        let mut listed: Vec<&str> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        // What is missing may be explained with names of the engine.
        listed.retain(|name| !name.contains('_'));
        listed.sort_unstable();
        let files: Vec<&str> = entries().filter(|entry| entry.folder == folder).map(|entry| entry.name).collect();
        assert_eq!(listed, files, "{folder}");
    }
}

/// Every option of the machine is named by a file that is safe with one choice and broken with another, and every verdict is the expected one.
#[test]
fn every_option_of_the_machine_is_needed() {
    const WORDS: &str = include_str!("../../README.md");
    let table = WORDS.split("### Options of the machine").nth(1).and_then(|rest| rest.split("A column `NMI`").next());
    let rows = table.expect("README.md lists the options").lines().filter_map(|line| line.strip_prefix("| `"));
    let options: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(options.len() > 9, "{options:?}");
    let files: Vec<_> = entries().filter(|entry| entry.folder == "machine").collect();
    let races: Vec<Race> = files
        .iter()
        .map(|entry| Race::of_catalogue(entry).unwrap_or_else(|error| panic!("{}", error.one_line())))
        .collect();
    let (mut safe, mut broken, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    races::decide(&races, &Options::default(), |report| {
        if report.as_expected != Some(true) {
            wrong.push(format!("{} {:?}: {:?} {:?}", report.race, report.variant, report.verdict, report.message));
        }
        if report.verdict == Verdict::Safe { safe.push(report.race) } else { broken.push(report.race) }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for option in options {
        let names = |text: &str| {
            let named = text.split("machine=").skip(1).filter_map(|rest| rest.split([';', ' ']).next());
            named.flat_map(|list| list.split(',')).any(|name| name == option)
        };
        let decides = |name: &String| safe.contains(name) && broken.contains(name);
        let needed = files.iter().filter(|entry| names(entry.text)).any(|entry| decides(&entry.name.to_owned()));
        assert!(needed, "no verdict changes with {option}");
    }
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
