//! A program that a mutant may make crash, hang, or take all memory.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How much address space a program may take, in KiB: a mutant must not take the machine's memory.
const MEMORY: &str = "8388608";

/// How a program ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself.
    With(ExitStatus),
    /// By us: a line said enough.
    Enough,
    /// By us: it took too long.
    TooLong,
}

/// What a program did.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) ended: Ended,
    /// What it printed; the last line may be the beginning of one.
    pub(super) lines: Vec<String>,
}

/// `program`, with limited memory.
pub(super) fn limited(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", MEMORY]).arg(program);
    command
}

/// Runs `command` until it ends, a line is `enough`, or the time is up.
///
/// # Errors
/// It cannot be started.
pub(super) fn run(command: &mut Command, limit: Duration, enough: impl Fn(&str) -> bool) -> Result<Ran> {
    let until = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let output = child.stdout.take().context("its output is piped")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if send.send(text).is_err() {
                return;
            }
        }
    });
    let mut lines = Vec::new();
    loop {
        match receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let is_enough = enough(&line);
                lines.push(line);
                if is_enough {
                    kill(&mut child)?;
                    return Ok(Ran { ended: Ended::Enough, lines });
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                kill(&mut child)?;
                // What it had begun to print comes when its end of the pipe is closed.
                lines.extend(receive.iter());
                return Ok(Ran { ended: Ended::TooLong, lines });
            }
        }
    }
    Ok(Ran { ended: Ended::With(child.wait()?), lines })
}

fn kill(child: &mut Child) -> Result<()> {
    child.kill().context("cannot end it")?;
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, milliseconds: u64) -> Ran {
        let mut command = limited("sh");
        command.args(["-c", script]);
        run(&mut command, Duration::from_millis(milliseconds), |line| line == "enough").expect("there is a shell")
    }

    #[test]
    fn each_end_is_told_apart() {
        let ran = shell("echo one; exit 3", 60_000);
        assert!(matches!(ran.ended, Ended::With(status) if status.code() == Some(3)), "{ran:?}");
        assert_eq!(ran.lines, ["one"]);
        let ran = shell("echo enough; exec sleep 600", 60_000);
        assert!(matches!(ran.ended, Ended::Enough), "{ran:?}");
        let ran = shell("printf begun; exec sleep 600", 500);
        assert!(matches!(ran.ended, Ended::TooLong), "{ran:?}");
        assert_eq!(ran.lines, ["begun"], "what hangs is known");
    }
}
