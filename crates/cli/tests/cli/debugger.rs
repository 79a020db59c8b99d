//! A saved run under a debugger: the session that `fastgup replay --help` and the README show. Skipped where there is no gdb.

use std::process::{Command, Stdio};

use crate::program::{self, as_argument, code};

const FASTGUP: &str = env!("CARGO_BIN_EXE_fastgup");

#[test]
fn gdb_stops_at_a_step_and_shows_the_code_that_makes_it() {
    let gdb = |arguments: &[&str]| Command::new("gdb").args(arguments).stdin(Stdio::null()).output();
    if !gdb(&["--version"]).is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: no gdb is installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = folder.path().join("torn.run.json");
    let words = ["check", "pae-zap-refault", "--variant", "low-high-low", "--memory", "sc", "--save-trace"];
    assert_eq!(code(&program::run(&[&words[..], &[as_argument(&run)]].concat())), Some(0));

    let output = gdb(&[
        "-nx",
        "-batch",
        "-ex",
        "set breakpoint pending on",
        "-ex",
        "break fastgup_code if $rdi == 6",
        "-ex",
        "run",
        "-ex",
        "backtrace",
        "-ex",
        "break fastgup_step",
        "-ex",
        "continue",
        "-ex",
        "print $rdi",
        "-ex",
        "x/s $rdx",
        "--args",
        FASTGUP,
        "replay",
        as_argument(&run),
    ])
    .expect("it was found");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if complaint.contains("ptrace") || said.contains("Could not trace") {
        println!("SKIPPED: gdb may not trace here: {complaint}");
        return;
    }
    // Step 6 clears the entry: the stack is that of the code under test, line by line.
    let backtrace = said.find("fastgup_code").map(|at| &said[at..]).unwrap_or_else(|| panic!("{said}\n{complaint}"));
    for expected in ["zap.rs:", "get_and_clear", "zap_range"] {
        assert!(backtrace.contains(expected), "{expected}: {said}\n{complaint}");
    }
    // The next step is announced before it is made.
    assert!(said.contains("= 7\n") && said.contains("\"load flags of A = 1 ["), "{said}\n{complaint}");
}
