//! The lab: how long it takes to decide the first family of races, and a published collection of x86 tests.

use std::env;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use races::{MemoryOrder, Options, Race, VariantReport, Verdict, Witnesses, catalogue};

use crate::page_tables::OURS;
use crate::samples::{Key, Samples, Unit};

pub(crate) const FAMILY_A: &str = "races of 32-bit PAE";
pub(crate) const PUBLISHED: &str = "published x86 tests";
pub(crate) const DECIDE_ALL: &str = "decide all";
pub(crate) const STEPS: &str = "steps per second of one core";
pub(crate) const STATES: &str = "states per second of one core";

pub(crate) const ONE_SEARCH: &str = "one search, pae-four-threads cmpxchg8b tso";
pub(crate) const TWO_THREADS: &str = "two threads, times one";

/// Where the collection is: it is not part of the project.
const FOLDER: &str = "FASTGUP_LITMUS_X86";

/// Decides both sets `rounds` times.
pub(crate) fn measure(rounds: usize, samples: &mut Samples) {
    let family_a: Result<Vec<_>, _> = catalogue::entries()
        .filter(|entry| entry.folder == "mm" && entry.name.starts_with("pae-"))
        .map(|entry| Race::of_catalogue(&entry))
        .collect();
    let family_a = family_a.expect("the catalogue's files are right");
    let published = published();
    for round in 0..rounds {
        eprint!("\rlab: round {} of {rounds} ", round + 1);
        decide(FAMILY_A, &family_a, &Options::default(), samples);
        let options = Options { memory: Some(MemoryOrder::Tso), witnesses: Witnesses::Skipped, ..Options::default() };
        decide(PUBLISHED, &published, &options, samples);
        share(samples);
    }
    eprintln!();
}

/// The files of the collection, or nothing where it is not.
fn published() -> Vec<Race> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|above| above.join("shared").join("litmus-x86"));
    let folder = env::var_os(FOLDER).map(PathBuf::from).into_iter().chain(beside);
    let Some(folder) = folder.into_iter().find(|folder| folder.join("verdicts.tsv").is_file()) else {
        eprintln!("no {FOLDER}, and no folder shared/litmus-x86 beside the checkout: nothing published is measured");
        return Vec::new();
    };
    let table = std::fs::read_to_string(folder.join("verdicts.tsv")).expect("a readable table");
    let files = table.lines().filter_map(|line| line.split('\t').next());
    files.map(|file| Race::read(&folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error:?}"))).collect()
}

fn decide(workload: &'static str, races: &[Race], options: &Options, samples: &mut Samples) {
    if races.is_empty() {
        return;
    }
    let (mut states, mut transitions, mut seconds, mut unanswered) = (0, 0, 0.0, 0);
    let began = Instant::now();
    races::decide(races, options, |report: VariantReport| {
        if !matches!(report.verdict, Verdict::Safe | Verdict::Violation) {
            eprintln!("\n{} {:?} has no answer: {:?}", report.race, report.variant, report.message);
            unanswered += 1;
        }
        states += report.states;
        transitions += report.transitions;
        seconds += report.seconds;
    });
    let elapsed = began.elapsed();
    let mut add = |operation, unit, value| {
        samples.add(Key { workload, operation, contestant: OURS }, unit, value);
    };
    add(STATES, Unit::PerSecond, states as f64 / seconds);
    add(STEPS, Unit::PerSecond, transitions as f64 / seconds);
    if unanswered == 0 {
        add(DECIDE_ALL, Unit::Seconds, elapsed.as_secs_f64());
    }
}

/// The same search by one thread and by two.
fn share(samples: &mut Samples) {
    let race = Race::find("pae-four-threads").expect("a race of the catalogue");
    let states_a_second = |team| {
        let options = Options {
            memory: Some(MemoryOrder::Tso),
            variants: vec!["cmpxchg8b".to_owned()],
            team: NonZeroUsize::new(team),
            ..Options::default()
        };
        let mut reports = Vec::new();
        races::decide(std::slice::from_ref(&race), &options, |report| reports.push(report));
        let [report] = &reports[..] else { panic!("one variant, not {}", reports.len()) };
        (report.states, report.states as f64 / report.seconds)
    };
    let (alone, together) = (states_a_second(1), states_a_second(2));
    assert_eq!(alone.0, together.0, "two threads see the states that one does");
    let key = Key { workload: ONE_SEARCH, operation: TWO_THREADS, contestant: OURS };
    samples.add(key, Unit::Times, together.1 / alone.1);
}
