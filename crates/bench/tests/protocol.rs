//! The suite `protocol`, in its quick form: all checkers that are there count the same states.

use std::process::Command;

#[test]
fn everybody_counts_the_same_states() {
    let output = Command::new(env!("CARGO_BIN_EXE_fastgup-bench")).args(["protocol", "--quick"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for (who, count) in [
        ("| fastgup  ", "| 443768 "),
        ("| fastgup, interchangeable CPUs ", "| 57601 "),
        ("| stateright ", "| 443768 "),
        ("| loom ", "| 2,3,2 "),
    ] {
        let row = said.lines().find(|line| line.starts_with(who));
        assert!(row.is_some_and(|row| row.contains(count)), "{who}{count}\n{said}");
    }
    assert!(!said.contains("no answer"), "{said}");
    // They are optional: without them there is a row that says so.
    for (who, count) in [("| SPIN", "| 443768 "), ("| Rumur  ", "| 443768 "), ("| Rumur, scalarsets ", "| 57601 ")] {
        let row = said.lines().find(|line| line.starts_with(who));
        assert!(row.is_some_and(|row| row.contains(count) || row.contains("left out")), "{who}{count}\n{said}");
    }
}
