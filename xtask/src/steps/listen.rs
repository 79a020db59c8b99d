//! Running a command whose words matter: they are passed on as they come, and kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

/// What a command printed, line by line and without colours, and how it ended.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) out: Vec<String>,
    pub(super) err: Vec<String>,
    pub(super) status: ExitStatus,
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or our own output is closed.
pub(super) fn listen(command: &mut Command) -> Result<Heard> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = std::thread::scope(|scope| {
        let out = scope.spawn(|| pass_on(out, &mut std::io::stdout()));
        let err = scope.spawn(|| pass_on(err, &mut std::io::stderr()));
        (out.join().expect("the reader does not panic"), err.join().expect("the reader does not panic"))
    });
    let status = child.wait()?;
    Ok(Heard { out: out?, err: err?, status })
}

fn pass_on(from: Option<impl Read>, to: &mut dyn Write) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    let Some(from) = from else { return Ok(kept) };
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        kept.push(without_colours(String::from_utf8_lossy(&line).trim_end()));
        line.clear();
    }
    Ok(kept)
}

/// The line without what a terminal does not show: escape sequences that end with a letter, and the choice of a character set (`ESC ( B`).
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = match after.strip_prefix('[') {
            Some(sequence) => sequence.split_once(|end: char| end.is_ascii_alphabetic()).map_or("", |(_, after)| after),
            None => after.strip_prefix("(B").unwrap_or(after),
        };
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_are_kept_and_the_end_is_known() {
        let heard = listen(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"])).expect("sh is there");
        assert_eq!(
            (&heard.out[..], &heard.err[..], heard.status.code()),
            (&["one".to_owned()][..], &["two".to_owned()][..], Some(3))
        );
    }

    #[test]
    fn colours_are_taken_away() {
        assert_eq!(
            without_colours("\x1b[32;1m  Summary\x1b[0m [ 0.0s] \x1b[1m7\x1b[0m tests"),
            "  Summary [ 0.0s] 7 tests"
        );
        assert_eq!(without_colours("\x1b[31m-fn a()\x1b(B\x1b[m"), "-fn a()");
    }
}
