//! A saved run is the same run wherever it is done again, and what is no saved run is refused with the reason.

use std::path::Path;

use races::{BadRun, MemoryOrder, Options, Outcome, Race, SavedRun, VariantReport, Verdict, Witnesses};

fn decide(race: &Race, variants: &[&str], memory: MemoryOrder) -> Vec<VariantReport> {
    let options = Options {
        memory: Some(memory),
        variants: variants.iter().map(|name| (*name).to_owned()).collect(),
        witnesses: Witnesses::Shown,
        ..Options::default()
    };
    let mut reports = Vec::new();
    races::decide(std::slice::from_ref(race), &options, |report| reports.push(report));
    reports
}

/// The seed, under TSO.
fn torn_read() -> SavedRun {
    let race = Race::find("pae-zap-refault").expect("it is in the catalogue");
    let report = &decide(&race, &["low-high-low"], MemoryOrder::Tso)[0];
    SavedRun::of(&race, report).expect("it goes the same way again").expect("it is broken").0
}

fn again(run: &SavedRun) -> SavedRun {
    SavedRun::from_bytes(Path::new("torn.run.json"), run.to_text().as_bytes()).expect("it was just written")
}

fn refused(text: &str) -> String {
    let path = Path::new("torn.run.json");
    let error = SavedRun::from_bytes(path, text.as_bytes()).expect_err("it is no saved run");
    error.to_string()
}

fn departure(run: &SavedRun) -> String {
    let replayed = again(run).replay().expect("the machine can be built");
    match replayed.outcome {
        Outcome::Departed(departed) => departed.to_string(),
        Outcome::Same(_) => panic!("the run should depart"),
    }
}

#[test]
fn a_run_survives_its_file_and_is_the_same_when_it_is_done_again() {
    let saved = torn_read();
    let read = again(&saved);
    assert_eq!(read, saved);
    let replayed = read.replay().expect("the machine can be built");
    assert!(replayed.same_code);
    let Outcome::Same(done) = replayed.outcome else { panic!("{:?}", replayed.outcome) };
    // Acts are not saved.
    assert_eq!(lab::Trace { acts: Vec::new(), ..done.trace.clone() }, saved.trace());
    assert_eq!(done.history, saved.history());
    assert_eq!(done.history.states.len(), saved.steps.len() + 1);
}

/// Whatever kind of file: every run that deciding shows can be saved and done again. Instructions, operations on mapped pages, the engine; broken rules,
/// deadlocks, claims of the file, final states that were asked for.
#[test]
fn every_run_that_is_shown_can_be_done_again() {
    let names = [
        "SB",
        "pae-zap-refault",
        "table-free",
        "flush-flag",
        "accessed-unasked",
        "pcid-kept",
        "nmi-gup",
        "invlpgb-tlbsync",
        "walker-updates-stray",
        "store-outlives-translation",
        "pud-split-refault",
    ];
    let mut shown = 0;
    for name in names {
        let entry = races::catalogue::entry(name).expect("it is in the catalogue");
        let race = Race::of_catalogue(&entry).expect("the catalogue is right");
        for memory in MemoryOrder::ALL {
            for report in decide(&race, &[], memory) {
                let name = format!("{} {:?} {}", entry.name, report.variant, memory.name());
                let saved = SavedRun::of(&race, &report).unwrap_or_else(|error| panic!("{name}: {error}"));
                let Some((saved, _)) = saved else { continue };
                let replayed = again(&saved).replay().unwrap_or_else(|error| panic!("{name}: {error}"));
                match replayed.outcome {
                    Outcome::Same(_) => shown += 1,
                    Outcome::Departed(departed) => panic!("{name}: {departed}"),
                }
                assert!(matches!(report.verdict, Verdict::Violation | Verdict::Safe), "{name}");
            }
        }
    }
    assert!(shown >= 25, "only {shown} runs were shown");
}

#[test]
fn a_file_that_was_cut_off_or_edited_or_is_of_another_version_is_refused_with_the_reason() {
    let text = torn_read().to_text();
    for part in [1, 3, 10, text.len() / 2, text.len() - 3] {
        let said = refused(&text[..part]);
        assert!(said.contains("torn.run.json has been cut off in line"), "{part}: {said}");
    }
    let (rule, other) = ("phantom-frame", "stale-tlb");
    assert!(text.contains(rule));
    assert!(refused(&text.replacen(rule, other, 1)).contains("edited since it was saved"));
    assert!(refused(&text.replacen("\"version\": 1", "\"version\": 7", 1)).contains("version 7 of the format"));
    assert!(refused(&text.replacen("fastgup run", "something else", 1)).contains("no saved run"));
    for text in ["", "  ", "{}", "[1]", "no JSON", "\u{0}", "{\"format\": \"fastgup run\"}"] {
        assert!(refused(text).contains("no saved run"), "{text:?}");
    }
    let missing = SavedRun::read(Path::new("no/such/file")).expect_err("there is none");
    assert!(matches!(missing, BadRun::Read { .. }));
    // Blanks and line ends are not the run: mails and editors may change them.
    let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert!(SavedRun::from_bytes(Path::new("x"), value.to_string().as_bytes()).is_ok());
    assert!(SavedRun::from_bytes(Path::new("x"), text.replace('\n', "\r\n").as_bytes()).is_ok());
}

/// A file that is sealed and makes no sense was written by another program.
#[test]
fn a_sealed_file_that_makes_no_sense_is_refused_too() {
    type Change = fn(&mut SavedRun);
    let changes: [(Change, &str); 6] = [
        (|run| run.recording = "r0 q9 |".into(), "`q9` is no step"),
        (|run| run.recording.truncate(8), "cut"),
        (|run| run.states[1].push((1 << 40, None)), "a row that there is not"),
        (|run| run.cpus.truncate(1), "a CPU that there is not"),
        (|run| run.variant = Some("no-such".into()), "no variant `no-such`"),
        (|run| run.litmus.truncate(40), "cannot be run any more"),
    ];
    for (change, expected) in changes {
        let mut run = torn_read();
        change(&mut run);
        let said = refused(&run.to_text());
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn code_that_has_changed_is_named_and_so_is_the_first_step_that_differs() {
    let saved = torn_read();
    let mut other_code = saved.clone();
    other_code.code = "0".repeat(64);
    let replayed = again(&other_code).replay().expect("the machine can be built");
    assert!(!replayed.same_code && matches!(replayed.outcome, Outcome::Same(_)));

    let mut step = saved.clone();
    step.steps[3].what = "store".into();
    let said = departure(&step);
    assert!(
        said.starts_with("at step 4, it was `CPU1 store pte(x).low") && said.contains("is `CPU1 load pte"),
        "{said}"
    );

    let mut lines = saved.clone();
    lines.steps.iter_mut().for_each(|step| step.place = None);
    assert!(matches!(again(&lines).replay().expect("it can be built").outcome, Outcome::Same(_)), "lines may move");

    let mut state = saved.clone();
    let row = state.rows.iter().position(|row| row.label == "refcount of A").expect("it is accessed");
    let change = state.states.iter_mut().flatten().find(|(of, value)| *of == row && value.as_deref() == Some("3"));
    change.expect("the fault takes a reference").1 = Some("4".into());
    let said = departure(&state);
    assert!(said.contains("refcount of A was `4` and is `3` now"), "{said}");

    let mut end = saved.clone();
    end.rule = Some("stale-tlb".into());
    assert!(departure(&end).contains("broke `stale-tlb` and breaks `phantom-frame` now"));

    // Another engine: the read of the entry that the variant chooses is another.
    let mut engine = saved.clone();
    engine.variant = Some("cmpxchg8b".into());
    let said = departure(&engine);
    assert_eq!(said, "after step 1, next of CPU0 was `load pte(x).low` and is `load pte(x)` now");

    let mut memory = saved;
    memory.recording = memory.recording.replace('|', "| 4000000000+7:1w");
    assert!(departure(&memory).contains("another memory"));
}
