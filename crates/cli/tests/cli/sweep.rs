//! A scope sweep, as a user sees it: a table, jobs for several machines, and their answers put together.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::program::{code, fastgup, run, text};

/// Two CPUs or more that add one without a lock. Broken however many there are; one CPU alone is not.
const LOST: &str = "X86_64 lost\nReplicate=P0\n{ uint64_t x; }\n P0 | P1 ;\n incq (x) | incq (x) ;\n~exists (x=1)\n";
/// The same with the lock.
const KEPT: &str =
    "X86_64 kept\nReplicate=P0\n{ uint64_t x; }\n P0 | P1 ;\n lock incq (x) | lock incq (x) ;\n~exists (x=1)\n";
/// A broken and a safe variant, of one or more entries.
const PROTECT: &str = "MM_X86_64 protect\nReplicate=P0\n{ memory=sc,tso; entries=1; frame A = 0x1000 copies=entries; file f = A; \
    area x file=f at=0x40000000 pages=entries; mapped x; }\n\
    P0 | P1 ;\n r0 = gup_fast(x, pin) | munmap(x) ;\n\
    variant rcu : lifetime=rcu, remote=paravirtual => safe\n\
    variant at-once : lifetime=at-once, remote=paravirtual => freed-table\n";

/// The races, as files of a folder.
fn races() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in [("lost", LOST), ("kept", KEPT), ("protect", PROTECT)] {
        std::fs::write(folder.path().join(name), content).expect("a file can be written");
    }
    folder
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("temporary paths are text").to_owned()
}

fn rows(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a line is one object")).collect()
}

/// What a row says, without how long it took.
fn said(row: &Value) -> Value {
    let mut row = row.clone();
    row.as_object_mut().expect("an object").remove("seconds");
    row
}

#[test]
fn there_is_a_row_for_each_scope() {
    let folder = races();
    let lost = run(&["check", &path(folder.path(), "lost"), "--cpus", "1..3"]);
    let table = text(&lost.stdout);
    assert_eq!(code(&lost), Some(1), "the file claims that nothing is lost: {table}");
    for expected in [
        "cpus  entries  memory  verdict",
        "     1        -  not asked: the race has 2 CPUs that do different things",
        "     2        1  tso     breaks user",
        "     3        1  tso     breaks user",
        "UNEXPECTED",
        "2 rows: 2 broken; 2 UNEXPECTED",
    ] {
        assert!(table.contains(expected), "{expected} in {table}");
    }

    let kept = rows(&run(&["check", &path(folder.path(), "kept"), "--cpus", "2..4", "--json"]));
    assert!(kept.iter().all(|row| row["verdict"] == "safe" && row["as_expected"] == true), "{kept:?}");
    let states: Vec<u64> = kept.iter().map(|row| row["states"].as_u64().expect("a number")).collect();
    assert!(states.len() == 3 && states.is_sorted_by(|fewer, more| fewer < more), "more is more: {states:?}");

    let output = run(&["check", &path(folder.path(), "protect"), "--entries", "1..2", "--json"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let rows = rows(&output);
    let entries: Vec<u64> = rows.iter().map(|row| row["entries"].as_u64().expect("a number")).collect();
    assert_eq!(entries, [1, 1, 1, 1, 2, 2, 2, 2], "variants and memory orders within each");
    for row in &rows {
        let expected = if row["variant"] == "rcu" { "safe" } else { "violation" };
        assert_eq!(row["verdict"], expected, "{row}");
        assert_eq!((&row["as_expected"], &row["cpus"]), (&true.into(), &2.into()), "{row}");
    }
}

#[test]
fn the_scope_of_the_file_says_what_the_file_says() {
    let folder = races();
    let file = path(folder.path(), "protect");
    let plain = rows(&run(&["check", &file, "--json", "--trace", "never"]));
    let swept = rows(&run(&["check", &file, "--json", "--cpus", "2", "--entries", "1..2"]));
    for (plain, swept) in plain.iter().zip(&swept) {
        for field in ["variant", "memory", "verdict", "rule", "states", "transitions", "steps", "cpus"] {
            assert_eq!(plain[field], swept[field], "{field}");
        }
    }
}

#[test]
fn one_scope_is_a_race_as_others_are() {
    let folder = races();
    let file = path(folder.path(), "protect");
    let saved = path(folder.path(), "run.json");
    let output =
        run(&["check", &file, "--cpus", "3", "--variant", "at-once", "--memory", "tso", "--save-trace", &saved]);
    let said = text(&output.stdout);
    assert_eq!(code(&output), Some(0), "{said}");
    assert!(said.contains("at 3 CPUs, 1 entry") && said.contains("freed-table: "), "with its run: {said}");
    let replayed = run(&["replay", &saved]);
    assert_eq!(code(&replayed), Some(0), "{}", text(&replayed.stderr));
    assert!(text(&replayed.stdout).contains("CPU2"), "all CPUs are there");
}

#[test]
fn which_limit_cut_a_row_is_said() {
    let folder = races();
    let file = path(folder.path(), "protect");
    let output =
        run(&["check", &file, "--entries", "1..2", "--variant", "rcu", "--memory", "sc", "--limit-states", "10"]);
    let said = text(&output.stdout);
    assert_eq!(code(&output), Some(3), "{said}");
    assert_eq!(said.matches("    the limit of states was reached").count(), 2, "{said}");
    assert!(said.contains("2 rows: 2 cut (the limit of states was reached)"), "{said}");
}

#[test]
fn machines_share_the_work_and_their_answers_are_merged() {
    let folder = races();
    let file = path(folder.path(), "protect");
    // Of a broken row, how many states several threads had seen when one of them found it is another number each time.
    let sweep = ["check", &file, "--entries", "1..4", "--memory", "sc", "--team", "1"];
    let whole = run(&sweep);
    let whole_rows = rows(&run(&[&sweep[..], &["--json"]].concat()));

    let listed = run(&[&sweep[..], &["--list-jobs", "--json"]].concat());
    assert_eq!(code(&listed), Some(0), "{}", text(&listed.stderr));
    let commands: Vec<&str> = text(&listed.stdout).lines().collect();
    assert_eq!(commands.len(), whole_rows.len());
    let mut answers = Vec::new();
    for (number, command) in commands.iter().enumerate() {
        // As a shell on another machine would read it.
        let mut words = shlex::split(command).expect("a command line").into_iter();
        assert_eq!(words.next().as_deref(), Some("fastgup"));
        let output = fastgup().args(words).output().expect("the program starts");
        let row = rows(&output);
        assert_eq!(row.len(), 1, "{command}: {}", text(&output.stderr));
        assert_eq!(said(&row[0]), said(&whole_rows[number]), "{command}");
        let answer = path(folder.path(), &format!("{number}.json"));
        std::fs::write(&answer, &output.stdout).expect("a file can be written");
        answers.push(answer);
    }

    let merge = |files: &[String]| {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        run(&[&["merge"], &files[..]].concat())
    };
    // How long it took differs; so does how many blanks that takes.
    let without_time = |output: &Output| -> Vec<String> {
        let lines = text(&output.stdout).lines();
        lines
            .map(|line| {
                line.rsplit_once("  ")
                    .filter(|(_, time)| time.ends_with(" s"))
                    .map_or(line, |(line, _)| line)
                    .trim_end()
                    .to_owned()
            })
            .collect()
    };
    answers.reverse();
    let merged = merge(&answers);
    assert_eq!(code(&merged), Some(0), "{}", text(&merged.stderr));
    assert_eq!(without_time(&merged), without_time(&whole), "the same table, whatever the order of the files");

    let some = merge(&answers[2..]);
    assert_eq!(code(&some), Some(3), "what nobody has decided is not decided");
    assert!(text(&some.stdout).contains("missing, to be had by --job: 7/8, 8/8"), "{}", text(&some.stdout));

    // Two machines that each do half.
    let halves: Vec<String> = (1..=2)
        .map(|number| {
            let job = format!("{number}/2");
            let output = run(&[&sweep[..], &["--json", "--job", &job]].concat());
            let answer = path(folder.path(), &format!("half-{number}.json"));
            std::fs::write(&answer, &output.stdout).expect("a file can be written");
            answer
        })
        .collect();
    assert_eq!(without_time(&merge(&halves)), without_time(&whole));
    let numbers: BTreeSet<u64> = rows(&run(&["merge", "--json", &halves[0], &halves[1]]))
        .iter()
        .map(|row| row["row"].as_u64().expect("a number"))
        .collect();
    assert_eq!(numbers, (1..=8).collect());
}

#[test]
fn a_row_that_was_cut_gives_way_to_one_that_was_not() {
    let folder = races();
    let file = path(folder.path(), "protect");
    let sweep = ["check", &file, "--entries", "1..2", "--variant", "rcu", "--memory", "sc", "--json"];
    let (cut, whole) = (path(folder.path(), "cut.json"), path(folder.path(), "whole.json"));
    std::fs::write(&cut, run(&[&sweep[..], &["--limit-states", "10"]].concat()).stdout).expect("a file can be written");
    std::fs::write(&whole, run(&sweep).stdout).expect("a file can be written");
    for files in [[&cut, &whole], [&whole, &cut]] {
        let merged = run(&["merge", files[0], files[1]]);
        assert_eq!(code(&merged), Some(0));
        assert!(text(&merged.stdout).contains("2 rows: 2 safe; nothing unexpected"), "{}", text(&merged.stdout));
    }
}

#[test]
fn what_does_not_belong_together_is_not_merged() {
    let folder = races();
    let file = path(folder.path(), "protect");
    let sweep = ["check", &file, "--entries", "1..2", "--variant", "rcu", "--json"];
    let refused = |name: &str, content: &str, why: &str| {
        let (good, bad) = (path(folder.path(), "good.json"), path(folder.path(), name));
        std::fs::write(&bad, content).expect("a file can be written");
        let output = run(&["merge", &good, &bad]);
        assert_eq!(code(&output), Some(2), "{name}");
        let said = text(&output.stderr);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(why) && said.contains(name), "{why}: {said}");
    };
    let good = run(&sweep);
    std::fs::write(path(folder.path(), "good.json"), &good.stdout).expect("a file can be written");
    let good = text(&good.stdout);
    let first = good.lines().next().expect("a row");
    let another = ["check", &file, "--entries", "1..3", "--variant", "rcu", "--json"];
    refused("another-range.json", text(&run(&another).stdout), "--entries differs");
    refused("another-order.json", text(&run(&[&sweep[..], &["--memory", "sc"]].concat()).stdout), "--memory differs");
    refused(
        "another-way.json",
        text(&run(&[&sweep[..], &["--preemptions", "1"]].concat()).stdout),
        "what is searched for differs",
    );
    refused("contradicts.json", &first.replace("\"safe\"", "\"violation\""), "decide row 1 in two ways");
    refused("half.json", &first[..first.len() / 2], "this is no row of a sweep");
    refused("text.json", "hello", "this is no row of a sweep");
    refused("row.json", &first.replace("\"row\":1", "\"row\":99"), "row 99 of");
    let missing = run(&["merge", &path(folder.path(), "nowhere.json")]);
    assert_eq!(code(&missing), Some(2));
    assert!(text(&missing.stderr).contains("cannot read"), "{}", text(&missing.stderr));
    let empty = path(folder.path(), "empty.json");
    std::fs::write(&empty, "").expect("a file can be written");
    assert_eq!(code(&run(&["merge", &empty])), Some(2));
}

#[test]
fn what_cannot_be_swept_is_said_in_one_line() {
    let folder = races();
    let silent = path(folder.path(), "silent");
    std::fs::write(&silent, LOST.replace("Replicate=P0\n", "")).expect("a file can be written");
    let (lost, protect) = (path(folder.path(), "lost"), path(folder.path(), "protect"));
    for (arguments, expected) in [
        (&[silent.as_str(), "--cpus", "2..3"][..], "add the line `Replicate=P1` under its heading"),
        (&[lost.as_str(), "--entries", "1..3"], "add `entries=1;` to its init block"),
        (&[lost.as_str(), "--cpus", "1"], "the race has 2 CPUs that do different things"),
        (&[lost.as_str(), protect.as_str(), "--cpus", "2..3"], "a sweep is of one race"),
        (&["--cpus", "2..3"], "a sweep is of one race"),
        (&["no-such-race", "--cpus", "2..3"], "no-such-race"),
        (&[lost.as_str(), "--cpus", "2..3", "--html", "page.html"], "a sweep shows no runs"),
        (&[lost.as_str(), "--cpus", "5..2"], "the range ends before it begins (did you mean 2..5?)"),
        (&[lost.as_str(), "--cpus", "0..3"], "0 is out of range (from 1 to 64)"),
        (&[lost.as_str(), "--cpus", "x"], "neither a number nor a range such as 2..5"),
        (&[protect.as_str(), "--entries", "0..3"], "0 is out of range (from 1 to 64)"),
        (&[lost.as_str(), "--cpus", "2..3", "--job", "4/3"], "there is no part 4 of 3"),
    ] {
        let output = run(&[&["check"], arguments].concat());
        let said = text(&output.stderr);
        assert_eq!(code(&output), Some(2), "{arguments:?}: {said}");
        let errors = said.lines().filter(|line| !line.is_empty() && !line.starts_with("For more information"));
        assert_eq!(errors.count(), 1, "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}
