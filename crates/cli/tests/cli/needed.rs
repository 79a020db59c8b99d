//! `fastgup needed`, as a user sees it.

use serde_json::Value;

use crate::program::{SEED, as_argument, code, one_report, run, text};

/// The answers about the seed's race, by what and where, from JSON.
fn needs(arguments: &[&str]) -> Vec<(String, Option<bool>, Option<String>)> {
    let output = run(&[&["needed", SEED, "--json", "--memory", "tso"], arguments].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let asked = one_report(&output);
    let needs = asked["needs"].as_array().expect("answers");
    let answer = |need: &Value| {
        let places = need["places"].as_array().expect("places");
        let names: Vec<String> = places
            .iter()
            .map(|place| {
                format!("{} {}", place["what"].as_str().expect("a word"), place["file"].as_str().expect("a path"))
            })
            .collect();
        let steps = need["trace"]["steps"].as_array().map(Vec::len);
        assert_eq!(steps.is_some(), need["needed"] == true, "a run shows why: {need}");
        (names.join(" + "), need["needed"].as_bool(), need["breaks"].as_str().map(str::to_owned))
    };
    needs.iter().map(answer).collect()
}

#[test]
fn what_is_needed_is_told_place_by_place() {
    let needs = needs(&["--variant", "cmpxchg8b"]);
    let of = |name: &str| -> Vec<_> { needs.iter().filter(|need| need.0.starts_with(name)).collect() };
    // A CPU is asked by a locked operation: by a plain one it could be asked before there is anything that it could answer.
    assert!(of("lock prefix crates/mm/src/shootdown.rs").iter().any(|need| need.2.as_deref() == Some("deadlock")));
    assert_eq!(of("IPI")[0].2.as_deref(), Some("deadlock"));
    // Entries are taken out by a locked exchange, or a flag that a walker sets meanwhile is lost.
    assert!(
        of("atomicity crates/mm/src/zap.rs").iter().any(|need| need.2.as_deref() == Some("lost-accessed-dirty-update"))
    );
    assert!(needs.iter().any(|need| need.1 == Some(false)), "this race does not need everything");
}

#[test]
fn pairs_do_the_work_of_each_other() {
    let pairs = needs(&["--variant", "cmpxchg8b", "--pairs", "--place", "re-check"]);
    assert!(pairs.iter().any(|pair| pair.0.contains(" + ")), "{pairs:?}");
    assert!(pairs.iter().filter(|pair| !pair.0.contains(" + ")).all(|single| single.1 == Some(false)));
}

#[test]
fn what_shows_that_it_is_needed_can_be_saved_and_done_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runs = folder.path().join("runs");
    let asked = ["needed", SEED, "--variant", "cmpxchg8b", "--memory", "sc", "--place", "IPI", "--save"];
    let output = run(&[&asked[..], &[as_argument(&runs), "--json"]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let asked = one_report(&output);
    let (need, saved) = (&asked["needs"][0], &asked["saved"][0]);
    assert_eq!(need["breaks"], "deadlock");
    let saved = saved.as_str().expect("a run shows why");
    assert!(saved.contains("pae-zap-refault.cmpxchg8b.sc.without-IPI-shootdown.rs-"), "{saved}");
    let replayed = run(&["replay", saved]);
    let said = text(&replayed.stdout);
    assert_eq!(code(&replayed), Some(0), "{said}");
    for expected in
        ["every step and every state is as it was saved", "without IPI crates/mm/src/shootdown.rs:", "deadlock:"]
    {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    // What is left out is sealed with the run.
    let edited = std::fs::read_to_string(saved).expect("a file").replace("\"IPI\"", "\"fence\"");
    std::fs::write(saved, edited).expect("it can be written");
    let refused = run(&["replay", saved]);
    assert_eq!(code(&refused), Some(2));
    assert!(text(&refused.stderr).contains("has been edited"), "{}", text(&refused.stderr));
}

#[test]
fn what_one_variant_needs_is_needed() {
    let asked = ["needed", SEED, "--variant", "cmpxchg8b", "--variant", "cmpxchg8b-paravirtual", "--memory", "sc"];
    let output = run(&[&asked[..], &["--place", "shootdown.rs", "--json"]].concat());
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let [by_ipi, by_hypercall, all] = &lines[..] else { panic!("two variants, and both together: {lines:?}") };
    assert_eq!(all["variants"], 2);
    // Each place by the variants that come to it, and by those that need it.
    let by = |asked: &Value| -> Vec<(String, bool)> {
        let needs = asked["needs"].as_array().expect("answers").iter();
        needs.map(|need| (need["places"].to_string(), need["needed"] == true)).collect()
    };
    let answers = [by(by_ipi), by(by_hypercall)].concat();
    let together = all["overall"].as_array().expect("answers");
    assert!(!together.is_empty());
    for place in together {
        let places = place["places"].to_string();
        let of_it: Vec<bool> = answers.iter().filter(|answer| answer.0 == places).map(|answer| answer.1).collect();
        assert_eq!(place["asked"], of_it.len(), "{place}");
        let is_needed = of_it.contains(&true);
        assert_eq!(place["standing"], if is_needed { "needed" } else { "not-needed" }, "{place}");
        assert_eq!(place["needed_by"].as_array().map(|by| !by.is_empty()), Some(is_needed), "{place}");
    }
    let is_split = |place: &&Value| place["needed_by"].as_array().is_some_and(|by| by.len() == 1);
    assert!(together.iter().any(|place| is_split(&place)), "some are needed by one of the two: {together:?}");
    let spoken = run(&[&asked[..], &["--place", "shootdown.rs"]].concat());
    assert!(
        text(&spoken.stdout).contains("all 2 together: needed is what one of them needs"),
        "{}",
        text(&spoken.stdout)
    );
}

#[test]
fn what_is_broken_already_is_not_asked() {
    let output = run(&["needed", SEED, "--variant", "read-once", "--memory", "sc"]);
    assert_eq!(code(&output), Some(2));
    assert!(text(&output.stdout).contains("not asked: it breaks phantom-frame as it is"), "{}", text(&output.stdout));
    let bounded = run(&["needed", SEED, "--variant", "cmpxchg8b", "--memory", "sc", "--limit-states", "100"]);
    assert_eq!(code(&bounded), Some(3));
}
