//! A saved run, as a user sees it: saved by `check`, done again by `replay`.

use crate::program::{SEED, as_argument, code, run, text};

const TORN: [&str; 4] = ["check", SEED, "--variant", "low-high-low"];

#[test]
fn a_run_is_saved_and_done_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runs = folder.path().join("runs/");
    let words = ["--trace", "never", "--save-trace", as_argument(&runs)];
    let output = run(&[&TORN[..], &words].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let mut files: Vec<_> = std::fs::read_dir(&runs).expect("it was made").map(|file| file.expect("").path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|file| file.file_name().and_then(|name| name.to_str())).collect();
    assert_eq!(
        names,
        [Some("pae-zap-refault.low-high-low.sc.run.json"), Some("pae-zap-refault.low-high-low.tso.run.json")]
    );
    assert!(text(&output.stdout).contains(&format!("saved: fastgup replay {}", files[1].display())));

    let output = run(&["replay", as_argument(&files[1])]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("Replayed: every step and every state is as it was saved."), "{said}");
    let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "table 0x105 [0] pte(x): 0x8000000123456827 [A P W U A NX] -> 0 [none]",
        "CPU2 TLB 0x40000000 4K -> frame 0x123456 WUX: may be held -> (gone)",
        "CPU1 store buffer oldest: (new) PTL of table 0x105 := 0",
        "words mapcount of A: 1 -> 2",
        "phantom-frame: CPU0 takes frame 0x23456",
    ] {
        assert!(flat.contains(words), "{words}\n{said}");
    }
    assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");

    let whole = std::fs::read_to_string(&files[1]).expect("it was written");
    for (broken, expected) in [
        (whole[..whole.len() / 2].to_owned(), "has been cut off in line"),
        (whole.replace("phantom-frame", "stale-tlb"), "has been edited"),
        (whole.replace("\"version\": 1", "\"version\": 2"), "version 2 of the format"),
        ("X86_64 SB\n{\n}\n".to_owned(), "is no saved run"),
    ] {
        let path = folder.path().join("broken.json");
        std::fs::write(&path, broken).expect("a file can be written");
        let output = run(&["replay", as_argument(&path)]);
        assert_eq!(code(&output), Some(2));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
    assert_eq!(code(&run(&["replay", "no-such-file"])), Some(2));
}

#[test]
fn one_file_takes_one_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("torn.json");
    let words = ["--trace", "never", "--save-trace", as_argument(&file)];
    let output = run(&[&TORN[..], &["--memory", "tso"], &words].concat());
    assert_eq!((code(&output), file.is_file()), (Some(0), true));
    let output = run(&[&TORN[..], &words].concat());
    assert_eq!(code(&output), Some(2));
    assert!(text(&output.stderr).contains("name a folder"), "{}", text(&output.stderr));
    let nowhere = folder.path().join("torn.json/runs/");
    assert_eq!(code(&run(&["check", SEED, "--save-trace", as_argument(&nowhere)])), Some(2));
}
