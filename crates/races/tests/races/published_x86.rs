//! A published collection of x86 tests, with the observations and numbers of final states that another tool computed.
//!
//! The collection is not part of the project. It is looked for in the folder that `FASTGUP_LITMUS_X86` names, or else in a
//! folder `shared/litmus-x86` beside the checkout. `verdicts.tsv` in it has, for each file, its path, the observation, and the
//! number of final states, separated by tabs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use races::{MemoryOrder, Opinion, Options, Race, SecondEngine, Verdict, Witnesses};

fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("FASTGUP_LITMUS_X86") {
        return Some(PathBuf::from(folder));
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = manifest.ancestors().skip(1).map(|above| above.join("shared").join("litmus-x86"));
    beside.into_iter().find(|folder| folder.join("verdicts.tsv").is_file())
}

#[test]
fn every_published_observation_and_number_of_final_states() {
    let Some(folder) = folder() else {
        println!("SKIPPED: no FASTGUP_LITMUS_X86, and no folder shared/litmus-x86 beside the checkout");
        return;
    };
    let table = std::fs::read_to_string(folder.join("verdicts.tsv")).expect("the folder has verdicts.tsv");
    let published: BTreeMap<String, (&str, usize)> = table
        .lines()
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [file, observation, states] = columns[..] else { panic!("three columns: {line}") };
            let file = folder.join(file).display().to_string();
            (file, (observation, states.parse().expect("a number of states")))
        })
        .collect();
    assert!(!published.is_empty(), "an empty table");

    let races: Vec<Race> = published
        .keys()
        .map(|file| Race::read(Path::new(file)).unwrap_or_else(|error| panic!("{file}: {error:?}")))
        .collect();
    let options = Options { memory: Some(MemoryOrder::Tso), witnesses: Witnesses::Skipped, ..Options::default() };
    let by_file: BTreeMap<&str, &Race> = races.iter().map(|race| (race.source.name(), race)).collect();
    let engine = SecondEngine { runs: 20_000, time: Duration::MAX, samples: 0 };
    let mut wrong = Vec::new();
    let (mut compared, mut agree) = (0, 0);
    races::decide(&races, &options, |report| {
        let (observation, states) = published[&report.file];
        let found = report.observation.map(|observation| observation.name());
        let claim_is_kept = matches!(report.verdict, Verdict::Safe | Verdict::Violation);
        if found != Some(observation) || report.final_states != Some(states) || !claim_is_kept {
            wrong.push(format!(
                "{}: {found:?} with {:?} final states, published {observation} with {states} {:?}",
                report.file, report.final_states, report.message
            ));
        }
        match engine.opinion(by_file[report.file.as_str()], &report) {
            Opinion::Agrees(_) => agree += 1,
            Opinion::Differs(how) => wrong.push(format!("{}: the second engine {how}", report.file)),
            Opinion::Sampled(_) => {}
            Opinion::Undecided(why) => println!("{}: the second engine is undecided: {why}", report.file),
        }
        compared += 1;
    });
    assert_eq!(compared, published.len());
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    println!("{compared} published tests agree, {agree} with the second engine, too");
    assert!(agree * 100 >= compared * 95, "the second engine decides {agree} of {compared}");
}
