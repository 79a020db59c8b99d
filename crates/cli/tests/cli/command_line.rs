//! What a user sees: exit codes, JSON, plain output in pipes, messages about bad input. Never how long something takes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::program::{SB, SEED, as_argument, code, endless, fastgup, folder_with, one_report, run, text};

/// A broken and a safe variant of the seed, where all would only take longer.
const FEW: [&str; 4] = ["--variant", "low-high-low", "--variant", "cmpxchg8b"];

#[test]
fn help_and_version_go_to_standard_output() {
    let help = run(&["--help"]);
    assert_eq!(code(&help), Some(0));
    for word in ["check", "races", "Examples:", "Exit codes:", "130"] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
    let version = run(&["--version"]);
    assert_eq!(text(&version.stdout), format!("fastgup {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn unknown_words_are_bad_input_with_a_suggestion() {
    for (arguments, expected) in [
        (&["check", "pae-zap-refalt"][..], SEED),
        (&["races", "pae-zap-refalt"], SEED),
        (&["check", "no-such-*"], "fastgup races"),
        (&["check", SEED, "--variant", "no-such-variant"], "there are:"),
        (&["chek"], "check"),
        (&["check", "--limit-seconds=-1", SEED], "limit-seconds"),
        (&["check", "--jobs", "0"], "jobs"),
    ] {
        let output = run(arguments);
        let said = text(&output.stderr);
        assert_eq!(code(&output), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains('\x1b'), "{arguments:?}: {said}");
    }
}

#[test]
fn a_bad_file_is_named_with_line_and_column_and_the_others_are_decided() {
    let folder =
        folder_with(&[("bad.litmus", "X86_64 bad\n{\n}\n P0 ;\n mvol $1,(x) ;\nexists (x=1)\n"), ("good.litmus", SB)]);
    let output = run(&["check", as_argument(folder.path())]);
    assert_eq!(code(&output), Some(2));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "one line for one error: {said}");
    assert!(said.contains("bad.litmus:5:2: "), "{said}");
    assert!(text(&output.stdout).contains("good.litmus"));
}

#[test]
fn what_is_no_text_or_not_there_is_bad_input() {
    let folder = folder_with(&[("empty/readme.txt", "nothing here"), ("empty.litmus", "")]);
    std::fs::write(folder.path().join("binary.litmus"), [0xff, 0xfe, 0, 7]).expect("a file can be written");
    for name in ["empty", "empty.litmus", "binary.litmus", "missing.litmus"] {
        let output = run(&["check", as_argument(&folder.path().join(name))]);
        let said = text(&output.stderr);
        assert_eq!(code(&output), Some(2), "{name}: {said}");
        assert!(said.starts_with("error: ") && said.contains(name), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
}

#[test]
fn json_is_one_object_a_line_with_the_promised_fields() {
    let output = run(&[&["check", "--json", SEED], &FEW[..]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let verdicts: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a line is one object")).collect();
    assert!(verdicts.len() >= 4, "several variants, several memory orders");
    for verdict in &verdicts {
        for field in [
            "file",
            "race",
            "variant",
            "verdict",
            "rule",
            "expected",
            "as_expected",
            "cpus",
            "memory",
            "states",
            "transitions",
            "steps",
            "seconds",
            "trace",
        ] {
            assert!(verdict.get(field).is_some(), "{field} in {verdict}");
        }
        let is_violation = verdict["verdict"] == "violation";
        assert_eq!(is_violation, verdict["rule"].is_string(), "{verdict}");
        assert_eq!(is_violation, verdict["trace"].is_object(), "traces of violations only: {verdict}");
    }
}

#[test]
fn json_of_a_file_with_a_condition_says_what_herd_says() {
    let folder = folder_with(&[("SB.litmus", SB)]);
    let output = run(&["check", "--json", "--memory", "tso", as_argument(&folder.path().join("SB.litmus"))]);
    let relaxed = one_report(&output);
    assert_eq!(relaxed["observation"], "Sometimes");
    assert_eq!(relaxed["final_states"], 4);
    assert_eq!(relaxed["variant"], Value::Null);
}

#[test]
fn traces_come_when_they_are_asked_for() {
    let count = |when: &str| {
        let output = run(&[&["check", SEED, "--json", "--trace", when], &FEW[..]].concat());
        text(&output.stdout).lines().filter(|line| !line.contains("\"trace\":null")).count()
    };
    assert_eq!(count("never"), 0);
    assert!(count("violations") > 0);
    assert!(count("always") >= count("violations"));
}

#[test]
fn memory_orders_can_be_chosen() {
    let folder = folder_with(&[("SB.litmus", SB)]);
    let file = folder.path().join("SB.litmus");
    let orders = |memory: &str| -> Vec<(String, String)> {
        let output = run(&["check", "--json", "--memory", memory, as_argument(&file)]);
        let verdicts = text(&output.stdout).lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
        verdicts.map(|one| (one["memory"].to_string(), one["observation"].to_string())).collect()
    };
    let answer = |memory: &str, observation: &str| (format!("{memory:?}"), format!("{observation:?}"));
    assert_eq!(orders("sc"), [answer("sc", "Never")]);
    assert_eq!(orders("tso"), [answer("tso", "Sometimes")]);
    assert_eq!(orders("both"), [answer("sc", "Never"), answer("tso", "Sometimes")]);
}

#[test]
fn what_a_variant_says_of_one_memory_order_is_not_expected_of_another() {
    let as_expected = |memory: &str, variant: &str| {
        let output = run(&["check", "ipi-overtakes-store", "--json", "--memory", memory, "--variant", variant]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let verdict: Value = serde_json::from_str(text(&output.stdout)).expect("one verdict");
        verdict["as_expected"].clone()
    };
    assert_eq!(as_expected("tso", "overtaken"), true);
    // Of TSO nothing is said, and there it is not safe.
    assert_eq!(as_expected("tso", "no-buffer"), Value::Null);
    assert_eq!(as_expected("sc", "overtaken"), Value::Null);
    assert_eq!(as_expected("sc", "no-buffer"), true);
    // Said of both.
    assert_eq!(as_expected("sc", "fenced"), true);
}

#[test]
fn a_verdict_that_differs_has_its_own_exit_code() {
    let race = run(&["races", SEED]);
    let turned: String = text(&race.stdout)
        .lines()
        .map(|line| match line.split_once("=>") {
            Some((variant, _)) => format!("{variant}=> lost-dirty\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let folder = folder_with(&[("turned.litmus", &turned)]);
    let output = run(&[&["check", as_argument(&folder.path().join("turned.litmus"))], &FEW[..]].concat());
    assert_eq!(code(&output), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("UNEXPECTED: the file expects lost-dirty"), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.ends_with("UNEXPECTED")), "{said}");
}

#[test]
fn limits_end_the_search_with_their_own_exit_code() {
    let folder = folder_with(&[("endless.litmus", &endless())]);
    let file = folder.path().join("endless.litmus");
    for limit in [["--limit-states", "1000"], ["--limit-seconds", "0.2"]] {
        let output = run(&["check", "--json", limit[0], limit[1], as_argument(&file)]);
        assert_eq!(code(&output), Some(3), "{limit:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("\"verdict\":\"bounded\""), "{limit:?}");
    }
}

#[test]
fn control_c_prints_what_is_decided() {
    let folder = folder_with(&[("1.litmus", SB), ("2.litmus", &endless())]);
    let mut child = fastgup()
        .args(["check", "--json", "--memory", "sc", as_argument(folder.path())])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut first = String::new();
    // The first answer is out, so the program listens for signals and works on the second.
    lines.read_line(&mut first).expect("the first answer comes");
    assert!(first.contains("\"race\":\"SB\""), "{first}");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill can be started");
    assert!(killed.success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("the rest comes");
    assert!(rest.contains("\"verdict\":\"bounded\""), "{rest}");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn colours_are_for_terminals_unless_forced() {
    let arguments = [&["check", SEED], &FEW[..]].concat();
    let coloured = |variables: &[(&str, &str)]| {
        let output = fastgup().args(&arguments).envs(variables.iter().copied()).output().expect("the program starts");
        output.stdout.contains(&b'\x1b')
    };
    assert!(!coloured(&[]), "a pipe is no terminal");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn a_reader_who_leaves_is_no_reason_to_panic() {
    for arguments in [&[][..], &["check", SEED], &["check", "--json", SEED], &["races"], &["races", SEED]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = fastgup().args(arguments).stdout(writer).output().expect("the program starts");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
        assert_eq!(code(&output), Some(141), "{arguments:?}");
    }
}

#[test]
fn narrow_terminals_get_a_list_of_steps() {
    let output = fastgup().args(["check", SEED]).args(FEW).env("COLUMNS", "50").output().expect("the program starts");
    let said = text(&output.stdout);
    assert!(!said.contains("CPU0 |"), "no columns: {said}");
    assert!(said.lines().any(|line| line.contains("1  CPU")), "a list: {said}");
    let steps = said.lines().filter(|line| line.contains("  CPU"));
    assert!(steps.clone().count() > 0 && steps.clone().all(|line| line.chars().count() <= 50), "{said}");
}

#[test]
fn the_catalogue_is_listed_and_printed_as_it_is() {
    let list = run(&["races"]);
    assert_eq!(code(&list), Some(0));
    let line = text(&list.stdout).lines().find(|line| line.contains(SEED)).expect("the seed is listed");
    assert!(line.contains("MM_PAE") && line.contains("3 CPUs"), "{line}");

    let printed = run(&["races", SEED]);
    assert!(text(&printed.stdout).starts_with(&format!("MM_PAE {SEED}\n")), "the file, nothing before it");
    let folder = folder_with(&[("copy.litmus", text(&printed.stdout))]);
    let copy =
        run(&[&["check", "--trace", "never", as_argument(&folder.path().join("copy.litmus"))], &FEW[..]].concat());
    assert_eq!(code(&copy), Some(0), "what was printed can be checked: {}", text(&copy.stderr));
}

#[test]
fn without_arguments_the_seed_is_answered() {
    let output = run(&[]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for expected in
        ["CPU0", "CPU1", "CPU2", "breaks phantom-frame", "safe: every order", "yes, it may", "fastgup check"]
    {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    let line =
        |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start} in {said}"));
    let closing = line("Any one of these changes closes it:");
    assert!(closing.contains("flush=before-unlock") && closing.contains("read=cmpxchg8b"), "{closing}");
    assert!(!closing.contains("read=read-once"), "{closing}");
    assert!(line("These alone do not:").contains("read=read-once"));
}

#[test]
fn names_can_be_patterns_and_nothing_is_decided_twice() {
    let files = |arguments: &[&str]| {
        let output = run(&[&["check", "--json", "--trace", "never"], arguments, &FEW[..]].concat());
        let mut files: Vec<String> = text(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("an object")["race"].to_string())
            .collect();
        files.dedup();
        files
    };
    assert_eq!(files(&["pae-zap-ref?ult", SEED, SEED]), [format!("{SEED:?}")]);
}

#[test]
fn what_is_not_exhausted_is_never_called_safe() {
    for way in [&["--sample", "500"][..], &["--sample", "500", "--schedule", "pct"], &["--preemptions", "0"]] {
        let output = run(&[&["check", SEED, "--json", "--variant", "cmpxchg8b", "--memory", "sc"], way].concat());
        assert_eq!(code(&output), Some(3), "{way:?}");
        let report = one_report(&output);
        assert_eq!(report["verdict"], "bounded", "{way:?}");
        let sampled = &report["sampled"];
        assert_eq!(sampled.is_object(), way[0] == "--sample", "{way:?}");
        if sampled.is_object() {
            assert_eq!(sampled["runs"], 500);
            let missed = sampled["most_missed"].as_f64().expect("a number");
            assert!((0.005..0.007).contains(&missed), "three in five hundred: {missed}");
        }
    }
}

#[test]
fn random_schedules_and_few_preemptions_find_the_seed() {
    let exhausted = run(&["check", SEED, "--json", "--variant", "read-once", "--memory", "tso", "--trace", "always"]);
    let steps = |output: &Output| {
        let report = one_report(output);
        (report["verdict"].clone(), report["steps"].clone(), report["trace"].clone())
    };
    for way in [["--sample", "10000"], ["--preemptions", "2"]] {
        let output = run(&[
            &["check", SEED, "--json", "--variant", "read-once", "--memory", "tso", "--trace", "always"],
            &way[..],
        ]
        .concat());
        assert_eq!(code(&output), Some(0), "{way:?}");
        assert_eq!(steps(&output), steps(&exhausted), "the shortest run does not depend on how the first was found");
    }
}

#[test]
fn memory_is_given_in_bytes() {
    let limited = |memory| run(&["check", SEED, "--variant", "cmpxchg8b", "--limit-memory", memory]);
    assert_eq!(code(&limited("64k")), Some(3));
    assert_eq!(code(&limited("1G")), Some(0));
    for wrong in ["", "G", "one", "99999999999G", "-1"] {
        assert_eq!(code(&limited(wrong)), Some(2), "{wrong:?}");
    }
}

#[test]
fn with_64_bits_a_state_the_answer_says_what_that_costs() {
    let check = |bits| {
        let output =
            run(&["check", SEED, "--json", "--variant", "cmpxchg8b", "--memory", "tso", "--fingerprints", bits]);
        serde_json::from_str::<Value>(text(&output.stdout)).expect("one object")
    };
    let (wide, narrow) = (check("128"), check("64"));
    assert_eq!(wide["states"], narrow["states"]);
    let bytes = |report: &Value| report["visited_bytes"].as_u64().expect("a number");
    assert!(bytes(&narrow) * 2 <= bytes(&wide), "{} and {}", bytes(&narrow), bytes(&wide));
    assert!(wide["missed"].is_null());
    assert!((0.0..1e-6).contains(&narrow["missed"].as_f64().expect("a chance")));
    let output = run(&["check", SEED, "--variant", "cmpxchg8b", "--memory", "tso", "--fingerprints", "64"]);
    assert!(text(&output.stdout).contains("the chance that one was missed is at most"));
}

#[test]
fn runs_that_never_end_are_looked_for_on_request() {
    let check = |variant, way: &[&str]| {
        run(&[&["check", "pud-split-refault", "--json", "--variant", variant, "--memory", "sc"], way].concat())
    };
    let rule = |output: &Output| {
        let report = one_report(output);
        report["rule"].clone()
    };
    let unasked = check("looks-again", &[]);
    assert_eq!((code(&unasked), rule(&unasked)), (Some(0), Value::Null));
    let asked = check("looks-again", &["--livelock"]);
    assert_eq!((code(&asked), rule(&asked)), (Some(1), "livelock".into()), "the file expects `safe`");
    let by_file = check("looks-again-for-ever", &[]);
    assert_eq!((code(&by_file), rule(&by_file)), (Some(0), "livelock".into()));
    let ended = run(&["check", SEED, "--variant", "cmpxchg8b", "--livelock"]);
    assert_eq!(code(&ended), Some(0), "every run of the seed ends");
}
