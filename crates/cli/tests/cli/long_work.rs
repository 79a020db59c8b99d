//! Searches that take long: they are kept, and go on after they were killed or stopped.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::program::{SEED, code, fastgup, one_report, run, text};

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
