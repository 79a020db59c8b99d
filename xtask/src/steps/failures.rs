//! What failed and why, read from what the tools print: test runners, the compiler, its relatives, and programs that panic.

use super::listen::Heard;
use crate::tally::Failure;

/// Lines of a reason that are kept.
const KEPT: usize = 10;
/// Under a test that failed, nobody needs to be told these.
const SURPLUS: [&str; 6] = ["stdout ───", "stderr ───", "running 1 test", "test ", "failures:", "(test "];
/// Lines in which cargo and the compiler say once more that there were errors. They count where nothing else says anything.
const CLOSING: [&str; 6] = [
    "error: test failed",
    "error: doctest failed",
    "error: test run failed",
    "error: could not compile",
    "error: could not document",
    "error: aborting due to",
];

/// What failed, in the order in which it was said. Never empty: where nobody says what failed, the command did, and its last words are the reason.
pub(super) fn failures_in(heard: &Heard, command: &str) -> Vec<Failure> {
    let mut sections = sections_of(&heard.out);
    sections.extend(sections_of(&heard.err));
    if sections.iter().any(|section| section.kind != Kind::Closing) {
        sections.retain(|section| section.kind != Kind::Closing);
    }
    let mut failures: Vec<Failure> = Vec::new();
    for Section { what, why, .. } in sections {
        let failure = Failure { what, why: why.join("\n") };
        // A library is compiled twice, with its tests and without, and remarked upon twice.
        if !failures.contains(&failure) {
            failures.push(failure);
        }
    }
    if failures.is_empty() {
        let lines: Vec<&str> =
            heard.out.iter().chain(&heard.err).map(String::as_str).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(KEPT)..].join("\n");
        failures.push(Failure { what: format!("{command}: {}", heard.status), why: last });
    }
    failures
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A test: what it printed follows.
    Test,
    /// A remark of the compiler, of clippy, rustdoc or rustfmt, or a panic outside of tests.
    Remark,
    /// One of [`CLOSING`].
    Closing,
}

struct Section {
    kind: Kind,
    what: String,
    why: Vec<String>,
    /// Whether what follows is about it.
    is_open: bool,
    /// Whether a panic was seen: what a test printed before it is not the reason.
    has_panicked: bool,
    /// Whether the reason is known; a trace of the stack is none.
    is_complete: bool,
}

fn sections_of(lines: &[String]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in lines {
        let open = sections.last_mut().filter(|last| last.is_open);
        let is_in_test = open.as_ref().is_some_and(|open| open.kind == Kind::Test);
        let heading = heading(line, is_in_test);
        if let Some(open) = open {
            // After the last test's words `cargo test` lists all that failed; nextest names the next test, or draws a line.
            let is_end = line == "failures:" || line.starts_with("────") || status_in_nextest(line).is_some();
            open.is_open = heading.is_none() && !is_end;
            if open.is_open {
                open.read(line);
            }
        }
        // Nextest lists once more at the end what failed.
        if let Some((kind, what)) = heading
            && (kind != Kind::Test || sections.iter().all(|section| section.what != what))
        {
            sections.push(Section {
                kind,
                what,
                why: Vec::new(),
                is_open: true,
                has_panicked: false,
                is_complete: false,
            });
        }
    }
    sections
}

/// What a line is the first line of.
fn heading(line: &str, is_in_test: bool) -> Option<(Kind, String)> {
    if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
        return Some((Kind::Test, test.to_owned()));
    }
    match status_in_nextest(line) {
        None | Some(("PASS" | "LEAK" | "SLOW" | "TERMINATING", _)) => {}
        Some(("FAIL", test)) => return Some((Kind::Test, test.to_owned())),
        Some((status, test)) => return Some((Kind::Test, format!("{test}: {status}"))),
    }
    if CLOSING.iter().any(|closing| line.starts_with(closing)) {
        return Some((Kind::Closing, line.to_owned()));
    }
    let is_remark =
        line.starts_with("error: ") || line.starts_with("error[") || line.starts_with("Diff in ") || is_panic(line);
    (is_remark && !is_in_test).then(|| (Kind::Remark, line.to_owned()))
}

fn is_panic(line: &str) -> bool {
    line.starts_with("thread '") && line.contains(" panicked at ")
}

/// The status and the test, in a line of nextest such as `     SIGABRT [   0.018s] (1/6) package module::test`.
fn status_in_nextest(line: &str) -> Option<(&str, &str)> {
    let (status, rest) = line.trim_start().split_once(" [")?;
    let (took, rest) = rest.split_once("s] ")?;
    let is_status = status.chars().all(|one| one.is_ascii_uppercase() || "- ".contains(one));
    // `[> 60.000s]` is said of one that still runs.
    let is_time = took.trim_start_matches('>').trim().parse::<f64>().is_ok();
    let rest = rest.trim();
    let test = rest.strip_prefix('(').and_then(|rest| rest.split_once(") ")).map_or(rest, |(_, test)| test.trim());
    (is_status && is_time).then_some((status, test))
}

impl Section {
    fn read(&mut self, line: &str) {
        let is_test = self.kind == Kind::Test;
        // Nextest indents what a test printed.
        let line = line.strip_prefix("    ").filter(|_| is_test).unwrap_or(line);
        let words = line.trim_start();
        if is_test && !self.has_panicked {
            if is_panic(line) {
                self.has_panicked = true;
                self.why.clear();
            } else if SURPLUS.iter().any(|surplus| words.starts_with(surplus)) || self.what.ends_with(words) {
                return;
            }
        }
        if words == "stack backtrace:" || words.starts_with("note: ") {
            self.is_complete = !is_test || self.has_panicked;
        }
        if !self.is_complete && !words.is_empty() && self.why.len() < KEPT {
            self.why.push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn read(out: &str, err: &str) -> Vec<(String, String)> {
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        let heard = Heard { out: lines(out), err: lines(err), status: ExitStatus::from_raw(0x300) };
        failures_in(&heard, "cargo x").into_iter().map(|Failure { what, why }| (what, why)).collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(what, why)| ((*what).to_owned(), (*why).to_owned())).collect()
    }

    #[test]
    fn nextest_says_what_failed_and_why() {
        let said = "\
     SIGABRT [   0.018s] (1/6) small inner::abort
  stdout ───

    running 1 test

    (test aborted with signal 6: SIGABRT)

        FAIL [   0.032s] (3/6) small inner::err
  stdout ───

    running 1 test
    test inner::err ... FAILED

    failures:

    failures:
        inner::err

    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.00s

  stderr ───
    Error: \"no good\"

        SLOW [> 60.000s] (───) small inner::slow
        PASS [  61.000s] (4/6) small inner::slow
        FAIL [   0.742s] (5/6) small inner::bad
  stdout ───

    running 1 test
    so far it is good
    test inner::bad ... FAILED

  stderr ───

    thread 'inner::bad' (12786) panicked at src/lib.rs:8:12:
    assertion `left == right` failed: because
    of this
      left: 1
     right: 2
    stack backtrace:
       0: __rustc::rust_begin_unwind

    thread 'main' (12786) panicked at src/lib.rs:9:1:
    and again
    note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.

────────────
     Summary [   0.766s] 6 tests run: 1 passed, 3 failed, 0 skipped
     SIGABRT [   0.018s] (1/6) small inner::abort
        FAIL [   0.032s] (3/6) small inner::err
        FAIL [   0.742s] (5/6) small inner::bad
error: test run failed
";
        let bad = "thread 'inner::bad' (12786) panicked at src/lib.rs:8:12:\nassertion `left == right` failed: because\nof this\n  left: 1\n right: 2";
        let failed = [
            ("small inner::abort: SIGABRT", ""),
            ("small inner::err", "Error: \"no good\""),
            ("small inner::bad", bad),
        ];
        assert_eq!(read("", said), owned(&failed));
    }

    #[test]
    fn cargo_test_says_what_failed_and_why() {
        let out = "\
running 3 tests
test inner::err ... FAILED
test src/lib.rs - (line 1) ... FAILED

failures:

---- inner::err stdout ----
Error: \"no good\"

---- src/lib.rs - (line 1) stdout ----
error[E0425]: cannot find value `x`
 --> src/lib.rs:2:1

---- inner::thread stdout ----

thread '<unnamed>' (12803) panicked at src/lib.rs:12:51:
in thread
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace

thread 'inner::thread' (12802) panicked at src/lib.rs:12:79:
called `Result::unwrap()`

failures:
    inner::err
    inner::thread

test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.21s
";
        let failed = [
            ("inner::err", "Error: \"no good\""),
            ("src/lib.rs - (line 1)", "error[E0425]: cannot find value `x`\n --> src/lib.rs:2:1"),
            ("inner::thread", "thread '<unnamed>' (12803) panicked at src/lib.rs:12:51:\nin thread"),
        ];
        assert_eq!(read(out, "error: test failed, to rerun pass `--lib`"), owned(&failed));
    }

    #[test]
    fn a_test_program_that_dies_is_named_by_cargo() {
        let err = "\
error: test failed, to rerun pass `--lib`

Caused by:
  process didn't exit successfully: `target/debug/deps/small abort` (signal: 6, SIGABRT: process abort signal)
";
        let why = err.lines().skip(2).collect::<Vec<_>>().join("\n");
        assert_eq!(
            read("running 1 test\n", err),
            owned(&[("error: test failed, to rerun pass `--lib`", why.as_str())])
        );
    }

    #[test]
    fn remarks_of_the_compiler_and_of_rustfmt_are_failures() {
        let remark = "\
error: unused variable: `x`
 --> src/lib.rs:3:9
  |
3 |     let x = 1;
  |         ^

";
        let closing = "error: could not compile `small` (lib) due to 1 previous error\n";
        let twice = format!("{remark}{closing}{remark}{closing}");
        let why = " --> src/lib.rs:3:9\n  |\n3 |     let x = 1;\n  |         ^";
        assert_eq!(read("", &twice), owned(&[("error: unused variable: `x`", why)]));
        let diff = "Diff in src/lib.rs:4:\n fn good() {}\n-mod  inner;\n+mod inner;\n";
        let why = " fn good() {}\n-mod  inner;\n+mod inner;";
        assert_eq!(read(diff, ""), owned(&[("Diff in src/lib.rs:4:", why)]));
    }

    #[test]
    fn a_program_that_panics_says_why() {
        let err =
            "thread 'main' (7) panicked at src/main.rs:1:1:\ncontents differ\nnote: run with `RUST_BACKTRACE=1`\n";
        let what = "thread 'main' (7) panicked at src/main.rs:1:1:";
        assert_eq!(read("", err), owned(&[(what, "contents differ")]));
    }

    #[test]
    fn a_command_that_fails_without_saying_what_is_named_with_its_last_words() {
        assert_eq!(read("a\n\nb", ""), owned(&[("cargo x: exit status: 3", "a\nb")]));
    }
}
