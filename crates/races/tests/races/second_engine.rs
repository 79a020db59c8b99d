//! The two engines, which share no code, say the same: the same rule is broken or none is, and the final states are the same.
//!
//! Of the folders `mm` and `machine`, which the first engine takes longest to decide, `verdicts.rs` asks both.

use std::collections::BTreeMap;
use std::time::Duration;

use races::{Opinion, Race, SecondEngine};

use crate::folder::Folder;

/// How many variants there are, and of how many the second engine says the same as the first.
pub(crate) struct Compared {
    pub(crate) all: usize,
    pub(crate) agree: usize,
}

/// Asks for a second opinion on every variant, in at most so many runs.
///
/// # Panics
/// It is another one.
pub(crate) fn compare(folder: &Folder, runs: u64) -> Compared {
    let engine = SecondEngine { runs, time: Duration::MAX };
    let by_file: BTreeMap<&str, &Race> = folder.races.iter().map(|race| (race.source.name(), race)).collect();
    let (mut agree, mut differ, mut why) = (0, Vec::new(), BTreeMap::<String, usize>::new());
    for report in &folder.reports {
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
    let all = folder.reports.len();
    println!("{agree} of {all} agree; undecided: {why:?}");
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    Compared { all, agree }
}

#[test]
fn on_instructions() {
    let Compared { all, agree } = compare(&Folder::decide("x86"), 20_000);
    // Three files spin, and a search without states has no end where code may spin for ever; each counts twice, once for each memory order.
    assert!(agree + 6 >= all, "{agree} of {all}");
}

#[test]
fn on_published_tests() {
    for folder in ["coatcheck", "transform"] {
        let Compared { all, agree } = compare(&Folder::decide(folder), 20_000);
        assert_eq!(agree, all, "{folder}");
    }
}
