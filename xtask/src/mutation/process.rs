//! A program that a mutant may make crash, hang, or take all memory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How much memory a program may have, in pages of 4 KiB: a mutant must not take the machine's. Not a limit of its address space: tests reserve much of it.
const MEMORY: u64 = (6 << 30) >> 12;
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How much longer a program may take than its processor time may be: others may have the processors.
const WAITING: u32 = 10;
/// What Linux calls a second in `/proc`: `USER_HZ`.
const TICKS: u64 = 100;

/// How a program ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself.
    With(ExitStatus),
    /// By us: a line said enough.
    Enough,
    /// By us: it took too long, or too much memory.
    TooMuch,
}

/// What a program did.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) ended: Ended,
    /// What it printed; the last line may be the beginning of one.
    pub(super) lines: Vec<String>,
}

/// Runs `command` until it ends, a line is `enough`, or it takes more processor time than `limit`.
///
/// # Errors
/// It cannot be started.
pub(super) fn run(command: &mut Command, limit: Duration, enough: impl Fn(&str) -> bool) -> Result<Ran> {
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
    let start = Instant::now();
    let mut looked = start;
    loop {
        match receive.recv_timeout(LOOK) {
            Ok(line) => {
                let is_enough = enough(&line);
                lines.push(line);
                if is_enough {
                    kill(&mut child)?;
                    return Ok(Ran { ended: Ended::Enough, lines });
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if start.elapsed() > limit * WAITING || processor_time(&child) > limit || resident(&child) > MEMORY {
                kill(&mut child)?;
                // What it had begun to print comes when its end of the pipe is closed.
                lines.extend(receive.iter());
                return Ok(Ran { ended: Ended::TooMuch, lines });
            }
        }
    }
    Ok(Ran { ended: Ended::With(child.wait()?), lines })
}

/// How much processor time it has had; none if it has ended.
fn processor_time(child: &Child) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // The name comes second, in parentheses, and may have anything in it; `utime` and `stime` are fields 14 and 15.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// How many pages of memory it has; none if it has ended.
fn resident(child: &Child) -> u64 {
    let sizes = fs::read_to_string(format!("/proc/{}/statm", child.id())).unwrap_or_default();
    sizes.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
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
        let mut command = Command::new("sh");
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
        for endless in ["printf begun; exec sleep 600", "printf begun; while :; do :; done"] {
            let ran = shell(endless, 300);
            assert!(matches!(ran.ended, Ended::TooMuch), "{ran:?}");
            assert_eq!(ran.lines, ["begun"], "what hangs is known");
        }
    }
}
