//! What a user sees: exit codes, JSON, plain output in pipes, messages about bad input. Never how long something takes.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const SEED: &str = "pae-zap-refault";
/// A broken and a safe variant of the seed, where all would only take longer.
const FEW: [&str; 4] = ["--variant", "low-high-low", "--variant", "cmpxchg8b"];

/// Store buffering: the one relaxed outcome of x86.
const SB: &str = r#"X86_64 SB
{
}
 P0         | P1         ;
 movl $1,(x) | movl $1,(y) ;
 movl (y),%eax | movl (x),%eax ;
exists (0:eax=0 /\ 1:eax=0)
"#;

/// So many stores in so many columns that no test will see the end of it.
fn endless() -> String {
    let cpus = 8;
    let row = |cell: &dyn Fn(usize) -> String| (0..cpus).map(cell).collect::<Vec<_>>().join(" | ") + " ;\n";
    let mut text = format!("X86_64 endless\n{{\n}}\n {}", row(&|cpu| format!("P{cpu}")));
    for step in 0..8 {
        text.push_str(&row(&|cpu| format!("movl ${},(x{})", step + 1, (cpu + step) % cpus)));
    }
    text + "exists (x0=1)\n"
}

fn fastgup() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fastgup"));
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    fastgup().args(arguments).output().expect("the program starts")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is text")
}

fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
        std::fs::write(path, content).expect("a file can be written");
    }
    folder
}

fn as_argument(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

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
    let relaxed: Value = serde_json::from_str(text(&output.stdout)).expect("one object");
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
        let report: Value = serde_json::from_str(text(&output.stdout)).expect("one object");
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
        let report: Value = serde_json::from_str(text(&output.stdout)).expect("one object");
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
        let report: Value = serde_json::from_str(text(&output.stdout)).expect("one object");
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

/// The answers about the seed's race, by what and where, from JSON.
fn needs(arguments: &[&str]) -> Vec<(String, Option<bool>, Option<String>)> {
    let output = run(&[&["needed", SEED, "--json", "--memory", "tso"], arguments].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let asked: Value = serde_json::from_str(text(&output.stdout)).expect("one object");
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
    // The fence before the IPI: without it a CPU that comes to use the space is not seen, and never answers.
    assert_eq!(of("fence crates/mm/src/shootdown.rs")[0].1, Some(true));
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

/// What is said, however wide the page.
fn in_one_line(output: &Output) -> String {
    text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A search that takes some seconds.
const LONG: [&str; 6] = ["check", "pae-four-threads", "--variant", "cmpxchg8b", "--memory", "tso"];

/// Begins the long search, and waits until a checkpoint is there.
fn begin_long(folder: &Path) -> (std::process::Child, std::path::PathBuf) {
    let folder_name = folder.to_str().expect("a path that is text");
    let mut command = fastgup();
    command.args(LONG).args(["--json", "--checkpoint", folder_name, "--checkpoint-every", "0.1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let file = folder.join("pae-four-threads.cmpxchg8b.tso.checkpoint");
    while !file.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    (child, file)
}

fn one_report(output: &Output) -> Value {
    serde_json::from_str(text(&output.stdout)).expect("one object")
}

#[test]
fn a_search_that_was_killed_goes_on() {
    let whole = one_report(&run(&[&LONG[..], &["--json"]].concat()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut child, file) = begin_long(folder.path());
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    assert!(file.exists(), "a kill leaves the checkpoint");
    let name = folder.path().to_str().expect("text");

    let again = run(&[&LONG[..], &["--checkpoint", name]].concat());
    assert_eq!(code(&again), Some(2), "what is there is not overwritten");
    assert!(in_one_line(&again).contains("`--resume` goes on with it"), "{}", text(&again.stdout));

    let resumed = run(&[&LONG[..], &["--json", "--resume", name]].concat());
    assert_eq!(code(&resumed), Some(0), "{}", text(&resumed.stderr));
    let resumed = one_report(&resumed);
    for field in ["verdict", "states", "transitions"] {
        assert_eq!(resumed[field], whole[field], "{field}");
    }
    assert!(!file.exists(), "what is decided needs no checkpoint");
}

/// Killed again and again, most of the time while it writes: each time what is there is whole, and the end is the same.
#[test]
fn a_search_that_is_killed_at_any_moment_goes_on() {
    let whole = one_report(&run(&[&LONG[..], &["--json"]].concat()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let name = folder.path().to_str().expect("text");
    let (mut child, file) = begin_long(folder.path());
    for round in 0..6_u64 {
        // Another moment each time.
        std::thread::sleep(std::time::Duration::from_millis(37 * round * round % 200));
        child.kill().expect("it can be killed, or is done");
        child.wait().expect("it ends");
        if !file.exists() {
            // It was done before.
            break;
        }
        let mut resumed = fastgup();
        resumed.args(LONG).args(["--json", "--resume", name, "--checkpoint-every", "0.01"]);
        child = resumed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    }
    child.kill().expect("it can be killed, or is done");
    child.wait().expect("it ends");
    let resumed = run(&[&LONG[..], &["--json", "--resume", name]].concat());
    assert_eq!(code(&resumed), Some(0), "{}", text(&resumed.stderr));
    let resumed = one_report(&resumed);
    for field in ["verdict", "states", "transitions"] {
        assert_eq!(resumed[field], whole[field], "{field}");
    }
}

#[test]
fn a_full_disk_ends_the_run_with_the_answer_so_far() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let name = folder.path().to_str().expect("text");
    // No file may have more than a few blocks; the shell sees to it that this is an error, and no signal.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_fastgup")]).args(LONG);
    command.args(["--json", "--checkpoint", name, "--checkpoint-every", "0.1"]);
    let output = command.stdin(Stdio::null()).output().expect("a shell starts");
    assert_eq!(code(&output), Some(3), "{}", text(&output.stderr));
    let report = one_report(&output);
    assert_eq!(report["verdict"], "bounded");
    let message = report["message"].as_str().expect("why");
    assert!(message.starts_with("a checkpoint could not be written: "), "{message}");
    assert!(report["states"].as_u64().is_some_and(|states| states > 0), "what it has seen by then: {report}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").collect();
    assert!(left.is_empty(), "half a checkpoint only takes room: {left:?}");
}

#[test]
fn output_that_cannot_be_written_is_said() {
    for arguments in [&["check", SEED, "--json", "--variant", "read-once"][..], &["races"], &[]] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let output = fastgup().args(arguments).stdout(full).output().expect("the program starts");
        assert_eq!(code(&output), Some(141), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.starts_with("error: cannot write the output: "), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn control_c_keeps_the_search() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (child, file) = begin_long(folder.path());
    let before = std::fs::metadata(&file).expect("it is there").len();
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(interrupted.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(code(&output), Some(130));
    assert!(std::fs::metadata(&file).expect("it is still there").len() >= before);
    assert_eq!(one_report(&output)["verdict"], "bounded");
    let name = folder.path().to_str().expect("text");
    assert_eq!(code(&run(&[&LONG[..], &["--resume", name]].concat())), Some(0));
}

#[test]
fn what_is_no_checkpoint_of_this_search_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut child, file) = begin_long(folder.path());
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let name = folder.path().to_str().expect("text");
    let whole = std::fs::read(&file).expect("it can be read");
    let refused = |bytes: &[u8], why: &str| {
        std::fs::write(&file, bytes).expect("it can be written");
        let output = run(&[&LONG[..], &["--resume", name]].concat());
        assert_eq!(code(&output), Some(2), "{why}");
        let said = in_one_line(&output);
        assert!(said.contains(why), "{why}: {said}");
    };
    refused(&whole[..whole.len() / 2], "it is cut off");
    let mut edited = whole.clone();
    *edited.last_mut().expect("not empty") ^= 1;
    refused(&edited, "it was changed after it was written");
    refused(b"\x7fELF and so on", "it is no checkpoint");
    // The checkpoint of the question under another name.
    let other = folder.path().join("pae-four-threads.cmpxchg8b.sc.checkpoint");
    std::fs::write(&other, &whole).expect("it can be written");
    let output = run(&["check", "pae-four-threads", "--variant", "cmpxchg8b", "--memory", "sc", "--resume", name]);
    let said = in_one_line(&output);
    assert!(said.contains("the race has changed since"), "{said}");

    let not_there = folder.path().join("file");
    std::fs::write(&not_there, "").expect("it can be written");
    let output = run(&[&LONG[..], &["--checkpoint", not_there.to_str().expect("text")]].concat());
    assert_eq!(code(&output), Some(2));
    assert!(in_one_line(&output).contains("is no folder for checkpoints"), "{}", text(&output.stdout));
}
