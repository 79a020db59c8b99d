//! The two engines, which share no code, say the same: the same rule is broken or none is, and the final states are the same.
//!
//! Of the folders `mm` and `machine`, which the first engine takes longest to decide, `verdicts.rs` asks both.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::trace::{Act, Passage, What};
use machine::{CpuId, Frame, Invalidation, VirtAddr};
use races::catalogue::entry;
use races::{Ground, MemoryOrder, Opinion, Options, Race, SecondEngine, VariantReport, Verdict};

use crate::folder::Folder;

/// How many variants there are, and of how many the second engine says the same as the first.
pub(crate) struct Compared {
    pub(crate) all: usize,
    pub(crate) agree: usize,
    /// Those that break a rule, of which the second engine has no opinion.
    pub(crate) open: Vec<String>,
}

/// Asks for a second opinion on every variant, in at most so many runs.
///
/// # Panics
/// It is another one.
pub(crate) fn compare(folder: &Folder, runs: u64) -> Compared {
    let engine = engine(runs);
    let by_file: BTreeMap<&str, &Race> = folder.races.iter().map(|race| (race.source.name(), race)).collect();
    let (mut agree, mut differ, mut open, mut why) = (0, Vec::new(), Vec::new(), BTreeMap::<String, usize>::new());
    for report in &folder.reports {
        let name = format!("{} {} {}", report.race, report.variant.as_deref().unwrap_or("-"), report.memory.name());
        let opinion = engine.opinion(by_file[report.file.as_str()], report);
        if std::env::var_os("FASTGUP_OPINIONS").is_some() {
            println!("{name}: {opinion}");
        }
        match opinion {
            Opinion::Agrees(_) => agree += 1,
            Opinion::Differs(how) => differ.push(format!("{name}: {how}")),
            Opinion::Undecided(cause) => {
                if report.verdict == Verdict::Violation {
                    open.push(format!("{name}: {cause}"));
                }
                *why.entry(cause).or_default() += 1;
            }
        }
    }
    let all = folder.reports.len();
    println!("{agree} of {all} agree; undecided: {why:?}");
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    Compared { all, agree, open }
}

fn engine(runs: u64) -> SecondEngine {
    SecondEngine { runs, time: Duration::MAX }
}

#[test]
fn on_instructions() {
    let Compared { all, agree, open } = compare(&Folder::decide("x86"), 20_000);
    // Three files spin, and a search without states has no end where code may spin for ever; each counts twice, once for each memory order.
    assert!(agree + 6 >= all && open.is_empty(), "{agree} of {all}; {open:?}");
}

#[test]
fn on_published_tests() {
    for folder in ["coatcheck", "transform"] {
        let Compared { all, agree, .. } = compare(&Folder::decide(folder), 20_000);
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
