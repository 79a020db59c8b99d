//! The two engines, which share no code, say the same: the same rule is broken or none is, and the final states are the same.
//!
//! Of the folders `mm` and `machine`, which the first engine takes longest to decide, `verdicts.rs` asks both.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::trace::{Act, Passage, What};
use machine::{CpuId, Frame, Invalidation, VirtAddr};
use races::catalogue::entry;
use races::{Ends, Ground, MemoryOrder, Opinion, Options, Race, Samples, SecondEngine, VariantReport, Verdict};

use crate::folder::Folder;

/// How many variants there are, and of how many the second engine says the same as the first.
pub(crate) struct Compared {
    pub(crate) all: usize,
    pub(crate) agree: usize,
    /// Of how many it has compared some runs.
    pub(crate) sampled: usize,
    /// How many.
    pub(crate) runs: Samples,
    /// Those of which it has no opinion.
    pub(crate) open: Vec<String>,
}

/// Asks for a second opinion on every variant, in at most so many runs; where they are not enough, so many random ones of each engine are compared.
///
/// # Panics
/// It is another one.
pub(crate) fn compare(folder: &Folder, runs: u64, samples: u64) -> Compared {
    let engine = SecondEngine { samples, ..engine(runs) };
    let by_file: BTreeMap<&str, &Race> = folder.races.iter().map(|race| (race.source.name(), race)).collect();
    let (mut agree, mut sampled, mut compared) = (0, 0, Samples::default());
    let (mut differ, mut open) = (Vec::new(), Vec::new());
    for report in &folder.reports {
        let name = format!("{} {} {}", report.race, report.variant.as_deref().unwrap_or("-"), report.memory.name());
        let opinion = engine.opinion(by_file[report.file.as_str()], report);
        if std::env::var_os("FASTGUP_OPINIONS").is_some() {
            println!("{name}: {opinion}");
        }
        match opinion {
            Opinion::Agrees(_) => agree += 1,
            Opinion::Differs(how) => differ.push(format!("{name}: {how}")),
            Opinion::Sampled(Samples { own, of_lab, met, ends }) => {
                sampled += 1;
                compared = Samples {
                    own: compared.own + own,
                    of_lab: compared.of_lab + of_lab,
                    met: compared.met + met,
                    ends: compared.ends + ends,
                };
            }
            Opinion::Undecided(cause) => open.push(format!("{name}: {cause}")),
        }
    }
    let all = folder.reports.len();
    println!("{agree} of {all} agree; of {sampled} runs were compared, {compared:?}; undecided: {open:?}");
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    Compared { all, agree, sampled, runs: compared, open }
}

fn engine(runs: u64) -> SecondEngine {
    SecondEngine { runs, time: Duration::MAX, samples: 0 }
}

#[test]
fn on_instructions() {
    let Compared { all, agree, sampled, runs, open } = compare(&Folder::decide("x86"), 20_000, 5);
    // Three files spin, and a search without states has no end where code may spin for ever; each counts twice, once for each memory order. Some runs of those are compared.
    assert!(agree + 6 >= all && agree + sampled == all, "{agree} of {all}; {open:?}");
    assert_eq!(runs.met, runs.ends);
}

#[test]
fn on_published_tests() {
    for folder in ["coatcheck", "transform"] {
        let Compared { all, agree, .. } = compare(&Folder::decide(folder), 20_000, 0);
        assert_eq!(agree, all, "{folder}");
    }
}

/// What the second engine thinks of a variant that breaks a rule, if the lab had found something else.
fn opinion_if(race: &str, variant: &str, change: impl FnOnce(&mut VariantReport)) -> Opinion {
    let race = Race::of_catalogue(&entry(race).expect("it is in the catalogue")).expect("it can be run");
    let memory = Some(MemoryOrder::Tso);
    let options = Options { memory, variants: vec![variant.to_owned()], ..Options::default() };
    let mut reports = Vec::new();
    races::decide(std::slice::from_ref(&race), &options, |report| reports.push(report));
    let mut report = reports.remove(0);
    assert_eq!(report.verdict, Verdict::Violation, "{:?}", report.message);
    change(&mut report);
    engine(1).opinion(&race, &report)
}

/// What it thinks of a variant that is safe after a single run, if the lab had found something else.
fn sampled_if(race: &str, variant: &str, samples: u64, change: impl FnOnce(&mut VariantReport)) -> Opinion {
    let race = Race::of_catalogue(&entry(race).expect("it is in the catalogue")).expect("it can be run");
    let memory = Some(MemoryOrder::Tso);
    let options = Options { memory, variants: vec![variant.to_owned()], ends: Ends::Collected, ..Options::default() };
    let mut reports = Vec::new();
    races::decide(std::slice::from_ref(&race), &options, |report| reports.push(report));
    let mut report = reports.remove(0);
    assert_eq!(report.verdict, Verdict::Safe, "{:?}", report.message);
    change(&mut report);
    SecondEngine { samples, ..engine(1) }.opinion(&race, &report)
}

/// A CPU that waits for a lock takes the interrupt of who holds it. The search is to see the runs, too, in which it has the lock before that one.
#[test]
fn who_is_interrupted_while_he_waits_may_have_come_first() {
    let race =
        Race::of_catalogue(&entry("shadow-stack-harvest").expect("it is in the catalogue")).expect("it can be run");
    let (memory, ends) = (Some(MemoryOrder::Sc), Ends::Collected);
    let options = Options { memory, ends, variants: vec!["nothing-is-saved".to_owned()], ..Options::default() };
    let mut reports = Vec::new();
    races::decide(std::slice::from_ref(&race), &options, |report| reports.push(report));
    let report = reports.remove(0);
    assert!(report.verdict == Verdict::Safe && report.finals.len() > 1, "{report:?}");
    let opinion = engine(1000).opinion(&race, &report);
    assert!(matches!(opinion, Opinion::Agrees(Ground::Search { .. })), "{opinion}");
}

fn acts(report: &mut VariantReport) -> &mut Vec<Act> {
    &mut report.trace.as_mut().expect("a rule is broken").acts
}

/// That it differs, and why.
fn difference(opinion: Opinion) -> String {
    match opinion {
        Opinion::Differs(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn what_the_lab_has_seen_is_done_again() {
    let mut steps = 0;
    let opinion = opinion_if("free-before-clear", "free-then-clear", |report| steps = report.steps.expect("a run"));
    assert_eq!(opinion, Opinion::Agrees(Ground::Run { steps }));
    assert_eq!(opinion.to_string(), format!("agrees: the lab's {steps} steps break the rule there, too"));
}

#[test]
fn a_step_that_is_not_possible_is_a_difference() {
    let why = difference(opinion_if("free-before-clear", "free-then-clear", |report| {
        let is_access = |act: &&mut Act| matches!(act.what, What::Access(_));
        let act = acts(report).iter_mut().rfind(is_access).expect("user code finds the stale translation");
        act.what = What::Access(Passage::FreedTable(Frame::new(1)));
    }));
    assert!(why.starts_with("step ") && why.contains("the access can only go on so"), "{why}");
    let why = difference(opinion_if("free-before-clear", "free-then-clear", |report| {
        let last = acts(report).len() - 1;
        acts(report)[last].what = What::Drain { offset: 8 };
    }));
    assert!(why.ends_with("no such store is the oldest one"), "{why}");
}

#[test]
fn a_lab_whose_flushes_have_no_effect_is_noticed() {
    let why = difference(opinion_if("invlpgb-tlbsync", "sends", |report| {
        let acts = acts(report);
        let used = acts.iter().rposition(|act| matches!(act.what, What::Access(_))).expect("it is loaded from");
        let what = Invalidation::Pages { start: VirtAddr::new(0x4000_0000), pages: 1 };
        acts.insert(used, Act { cpu: acts[used].cpu, what: What::Arrival { from: CpuId::new(0), what } });
    }));
    assert!(why.contains("the access can only go on so: [Fault(NotPresent)]"), "{why}");
}

#[test]
fn a_run_that_breaks_no_rule_is_a_difference() {
    let why = difference(opinion_if("free-before-clear", "free-then-clear", |report| {
        acts(report).pop();
    }));
    assert_eq!(why, "the lab's steps break no rule");
    let why = difference(opinion_if("free-before-clear", "free-then-clear", |report| {
        report.rule = Some("lost-dirty".to_owned());
    }));
    assert!(why.starts_with("the lab's steps break another rule: "), "{why}");
}

#[test]
fn what_is_too_much_for_a_search_is_sampled() {
    // In some of the lab's runs a translation is used before the accessed flag of its entry is set.
    let opinion = sampled_if("protect-no-flush", "idle", 20, |_| ());
    let Opinion::Sampled(Samples { own: 20, of_lab, met, ends }) = opinion else { panic!("{opinion}") };
    assert!(met == ends && of_lab == 20 + ends as u64, "{opinion}");
    let said = format!(
        "agrees as far as it was asked: 20 random runs end as the lab knows, and {of_lab} of the lab's were done again; they meet {ends} of {ends} final states"
    );
    assert_eq!(opinion.to_string(), said);
}

#[test]
fn what_was_not_collected_is_not_compared() {
    let undecided = Opinion::Undecided("1 runs were not enough".to_owned());
    assert_eq!(sampled_if("protect-no-flush", "idle", 20, |report| report.ends = None), undecided);
    assert_eq!(sampled_if("protect-no-flush", "idle", 0, |_| ()), undecided);
}

#[test]
fn final_states_that_the_lab_has_lost_are_noticed() {
    let mut said = Vec::new();
    let mut all = 1;
    while said.len() < all {
        said.push(difference(sampled_if("protect-no-flush", "idle", 20, |report| {
            let ends = report.ends.as_mut().expect("they are collected");
            all = ends.count();
            ends.keep_only(said.len());
        })));
    }
    // By the one run of the search, or by random ones, which are told.
    assert!(said.iter().any(|why| why == "final states that the lab has not: 1"), "{said:?}");
    let is_told = |why: &String| why.contains("none of the lab's 1\nCPU") && why.contains("CPU1: User(");
    assert!(said.iter().any(is_told), "{said:?}");
}
