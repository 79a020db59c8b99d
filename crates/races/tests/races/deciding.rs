//! How races are decided: verdicts, limits, order of answers, JSON.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use races::{Limits, MemoryOrder, Observation, Options, Race, Source, VariantReport, Verdict, Witnesses};

fn race(text: &str) -> Race {
    Race::new(Source::new("test.litmus", text)).unwrap_or_else(|error| panic!("{}\n{text}", error.one_line()))
}

fn decide(races: &[Race], options: &Options) -> Vec<VariantReport> {
    let mut reports = Vec::new();
    races::decide(races, options, |report| reports.push(report));
    reports
}

fn one(text: &str, options: &Options) -> VariantReport {
    let mut reports = decide(&[race(text)], options);
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

const SB: &str = "X86_64 SB\n{}\nP0|P1;\nmovl $1,(x)|movl $1,(y);\nmovl (y),%eax|movl (x),%eax;\n";

#[test]
fn exists_asks_and_shows_a_witness() {
    let asked = format!("{SB}exists (0:rax=0 /\\ 1:rax=0)\n");
    let report = one(&asked, &Options::default());
    assert_eq!(report.verdict, Verdict::Safe);
    assert_eq!((report.observation, report.final_states), (Some(Observation::Sometimes), Some(4)));
    assert_eq!((report.expected, report.as_expected), (None, None));
    assert_eq!(report.memory, MemoryOrder::Tso);
    // Two stores that wait, two loads that miss them, two stores that arrive; one CPU's steps lie within the other's.
    assert_eq!(report.steps, Some(6));
    assert_eq!(report.trace.expect("a witness").context_switches(), 2);

    let skipped = Options { witnesses: Witnesses::Skipped, ..Options::default() };
    assert_eq!(one(&asked, &skipped).trace, None);

    let strong = Options { memory: Some(MemoryOrder::Sc), ..Options::default() };
    let report = one(&asked, &strong);
    assert_eq!((report.observation, report.final_states), (Some(Observation::Never), Some(3)));
    assert_eq!((report.memory, report.trace), (MemoryOrder::Sc, None));
}

#[test]
fn what_is_claimed_and_untrue_is_a_violation() {
    for claim in ["~exists (0:rax=0 /\\ 1:rax=0)", "forall (0:rax=1 \\/ 1:rax=1)"] {
        let report = one(&format!("{SB}{claim}\n"), &Options::default());
        assert_eq!((report.verdict, report.rule.as_deref()), (Verdict::Violation, Some("user")), "{claim}");
        assert_eq!((report.expected.as_deref(), report.as_expected), (Some("safe"), Some(false)));
        assert_eq!((report.steps, report.final_states), (Some(6), Some(4)));
        // Only runs to the one state that breaks the claim need two switches.
        assert_eq!(report.trace.expect("how it comes to be").context_switches(), 2);
        let strong = Options { memory: Some(MemoryOrder::Sc), ..Options::default() };
        let report = one(&format!("{SB}{claim}\n"), &strong);
        assert_eq!((report.verdict, report.as_expected), (Verdict::Safe, Some(true)));
    }
}

#[test]
fn info_lines_say_what_is_expected_of_which_order() {
    let with = |tso: &str| SB.replace("SB\n", &format!("SB\nTSO={tso}\nSC=Never\n")) + "exists (0:rax=0 /\\ 1:rax=0)\n";
    let reports = decide(&[race(&with("Sometimes"))], &Options::default());
    let orders: Vec<_> = reports.iter().map(|report| (report.memory, report.as_expected)).collect();
    assert_eq!(orders, [(MemoryOrder::Sc, Some(true)), (MemoryOrder::Tso, Some(true))]);
    let reports = decide(&[race(&with("Never"))], &Options::default());
    assert_eq!(reports[1].as_expected, Some(false));
    assert_eq!(reports[1].expected.as_deref(), Some("Never"));
    // One order asked for twice is decided once.
    let strong = Options { memory: Some(MemoryOrder::Sc), ..Options::default() };
    assert_eq!(decide(&[race(&with("Sometimes"))], &strong).len(), 1);
}

#[test]
fn final_states_are_told_apart_by_what_is_named_and_not_filtered() {
    let count = |tail: &str| one(&format!("{SB}{tail}\n"), &Options::default()).final_states;
    assert_eq!(count("exists (0:rax=0)"), Some(2));
    assert_eq!(count("locations [1:rax;] exists (0:rax=0)"), Some(4));
    assert_eq!(count("locations [x; 0:rax; y int;]"), Some(2));
    assert_eq!(count("filter (1:rax=1) exists (0:rax=0)"), Some(2));
    assert_eq!(count("locations [1:rax;] filter (1:rax=1 \\/ 0:rax=1) exists (0:rax=0)"), Some(3));
    assert_eq!(count(""), None);
    let filtered =
        one(&format!("{SB}filter (0:rax=1 \\/ 1:rax=1) exists (0:rax=0 /\\ 1:rax=0)\n"), &Options::default());
    assert_eq!(filtered.observation, Some(Observation::Never));
    assert_eq!(filtered.trace, None);
    let switches = |tail: &str| {
        let report = one(&format!("{SB}{tail}\n"), &Options::default());
        report.trace.expect("a witness").context_switches()
    };
    assert_eq!(switches("exists true"), 1);
    assert_eq!(switches("filter (0:rax=0 /\\ 1:rax=0) exists true"), 2);
}

#[test]
fn flags_are_part_of_what_a_cpu_remembers() {
    // Between the comparison and the look at its flags another CPU may step; then only the flags tell what was seen.
    let text = "X86_64 t\n{}\nP0|P1;\ncmpl $0,(x)|movl $1,(x);\nmovl (y),%ebx|;\nsete %al|;\nlocations [0:al;]\n";
    assert_eq!(one(text, &Options::default()).final_states, Some(2));
}

#[test]
fn final_states_have_their_values_in_words() {
    let report = one(
        "X86_64 t\n{ int x=-3; uint64_t p=x; }\nP0;\nmovq (p),%rax;\nlocations [x; p; 0:rax;]\n",
        &Options::default(),
    );
    let [state] = &report.finals[..] else { panic!("one state: {:?}", report.finals) };
    let values: Vec<_> = state.values.iter().map(|(place, value)| (place.as_str(), value.as_str())).collect();
    assert_eq!(values, [("x", "-3"), ("p", "x"), ("0:rax", "x")]);
}

#[test]
fn a_limit_ends_a_search_without_an_answer() {
    let counter = "X86_64 t\n{}\nP0;\nL: incl (x);\njmp L;\nexists (x=0)\n";
    let limited = Limits { states: Some(1000), ..Limits::default() };
    let report = one(counter, &Options { limits: limited, ..Options::default() });
    assert_eq!(report.verdict, Verdict::Bounded);
    assert_eq!((report.observation, report.final_states, report.as_expected), (None, None, None));
    assert!(report.states >= 1000, "{}", report.states);
    assert!(report.message.is_some());

    let expecting = counter.replace("t\n{}", "t\nTSO=Sometimes\n{}");
    let report = one(&expecting, &Options { limits: limited, ..Options::default() });
    assert_eq!((report.expected.as_deref(), report.as_expected), (Some("Sometimes"), None));

    let cancelled = Options { cancel: Some(Arc::new(AtomicBool::new(true))), ..Options::default() };
    assert_eq!(one(counter, &cancelled).verdict, Verdict::Bounded);
}

#[test]
fn threads_that_share_a_search_say_what_one_says() {
    for name in ["pae-zap-refault", "munmap-flush-free", "SB"] {
        let races = [Race::find(name).expect("in the catalogue")];
        let decided = |team: usize| {
            let options = Options { team: team.try_into().ok(), ..Options::default() };
            let reports = decide(&races, &options);
            assert!(!reports.is_empty(), "{name}");
            let counts = |report: &VariantReport| {
                let is_whole = report.verdict == Verdict::Safe;
                is_whole.then_some((report.states, report.transitions))
            };
            let said = reports.iter().map(|report| {
                let answer = (report.verdict, report.rule.clone(), report.shortest, report.finals.clone());
                (report.variant.clone(), answer, report.trace.clone(), counts(report))
            });
            said.collect::<Vec<_>>()
        };
        let alone = decided(1);
        for team in [2, 3] {
            assert_eq!(decided(team), alone, "{name} by {team} threads");
        }
    }
}

#[test]
fn answers_come_in_order_whatever_the_number_of_threads() {
    let texts: Vec<Race> = (0..30).map(|number| race(&SB.replace("SB\n", &format!("t{number}\n")))).collect();
    let names = |threads: usize| {
        let options = Options { threads: threads.try_into().ok(), ..Options::default() };
        decide(&texts, &options).into_iter().map(|report| report.race).collect::<Vec<_>>()
    };
    let expected: Vec<String> = (0..30).map(|number| format!("t{number}")).collect();
    assert_eq!(names(1), expected);
    assert_eq!(names(7), expected);
    assert_eq!(decide(&[], &Options::default()).len(), 0);
}

#[test]
fn runs_are_deterministic() {
    let race = race(&format!("{SB}~exists (0:rax=0 /\\ 1:rax=0)\n"));
    let run = || {
        let mut report = decide(std::slice::from_ref(&race), &Options::default()).remove(0);
        report.seconds = 0.0;
        serde_json::to_string(&report).expect("a report is JSON")
    };
    assert_eq!(run(), run());
}

#[test]
fn progress_is_told_while_work_is_long() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::new(AtomicUsize::new(0));
    let (into, counted) = (seen.clone(), calls.clone());
    let cancel = Arc::new(AtomicBool::new(false));
    let stop = cancel.clone();
    let options = Options {
        progress: Some(Arc::new(move |progress: &races::Progress| {
            into.lock().expect("no one panics").push((progress.race.clone(), progress.total, progress.search.states));
            // Endless work ends after the third news.
            if counted.fetch_add(1, Ordering::Relaxed) == 2 {
                stop.store(true, Ordering::Relaxed);
            }
        })),
        cancel: Some(cancel),
        ..Options::default()
    };
    let endless = "X86_64 endless\n{}\nP0|P1;\nL: incq (x)|M: incq (y);\njmp L|jmp M;\nexists (x=0)\n";
    assert_eq!(one(endless, &options).verdict, Verdict::Bounded);
    let seen = seen.lock().expect("no one panics");
    assert!(seen.len() >= 3);
    assert!(seen.iter().all(|(race, total, _)| race == "endless" && *total == 1));
    assert!(seen[2].2 > seen[0].2, "states grow: {seen:?}");
}

#[test]
fn json_has_the_fields_that_are_promised() {
    let report = one(&format!("{SB}~exists (0:rax=0 /\\ 1:rax=0)\n"), &Options::default());
    let json = serde_json::to_value(&report).expect("a report is JSON");
    let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("{key} is no text: {}", json[key]));
    assert_eq!(text("file"), "test.litmus");
    assert_eq!(text("race"), "SB");
    assert!(json["variant"].is_null());
    assert_eq!((text("verdict"), text("rule"), text("expected")), ("violation", "user", "safe"));
    assert_eq!(json["as_expected"], false);
    assert_eq!((json["cpus"].as_u64(), text("memory")), (Some(2), "tso"));
    assert!(json["states"].as_u64() > Some(0) && json["transitions"].as_u64() > Some(0));
    assert!(json["seconds"].as_f64().is_some());
    assert_eq!((text("observation"), json["final_states"].as_u64()), ("Sometimes", Some(4)));
    let steps = json["trace"]["steps"].as_array().expect("a trace has steps");
    assert_eq!(json["steps"].as_u64(), Some(steps.len() as u64));
    assert!(steps.iter().all(|step| step["cpu"].as_u64() < Some(2) && step["what"].is_string()));
    assert!(!serde_json::to_string(&report).expect("a report is JSON").contains('\n'));
}
