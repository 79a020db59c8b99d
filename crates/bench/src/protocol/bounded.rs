//! Runs a contestant as a process of its own, with bounds, and says what it used.

use std::io::{self, Read, Seek};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fmt, fs};

/// What a contestant may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes that are resident.
    pub(crate) memory: u64,
    /// By the clock on the wall.
    pub(crate) time: Duration,
}

/// How a contestant ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Exited(ExitStatus),
    OverMemory,
    OverTime,
}

/// What a contestant has said and used.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ended: Ended,
    /// Both streams.
    pub(crate) output: String,
    /// Of all its threads, in user and in kernel mode, by the kernel's ticks of 10 ms.
    pub(crate) processor_seconds: f64,
    /// The most bytes that were resident.
    pub(crate) peak: u64,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "{status}"),
            Self::OverMemory => f.write_str("out of memory"),
            Self::OverTime => f.write_str("out of time"),
        }
    }
}

/// How often the process is looked at.
const PERIOD: Duration = Duration::from_millis(5);

/// # Errors
/// If it cannot be started or looked at.
pub(crate) fn run(command: &mut Command, bounds: Bounds) -> io::Result<Ran> {
    let mut output = tempfile::tempfile()?;
    command.stdout(output.try_clone()?).stderr(output.try_clone()?);
    let began = Instant::now();
    let mut child = command.spawn()?;
    let watched = watch(&child, began, bounds);
    if !matches!(watched, Ok(Watched { cut: None, .. })) {
        child.kill()?;
    }
    let status = child.wait()?;
    let Watched { cut, processor_seconds, peak } = watched?;
    let mut text = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut text)?;
    Ok(Ran {
        ended: cut.unwrap_or(Ended::Exited(status)),
        output: String::from_utf8_lossy(&text).into_owned(),
        processor_seconds,
        peak,
    })
}

struct Watched {
    cut: Option<Ended>,
    processor_seconds: f64,
    peak: u64,
}

/// Until the process has ended, but is still there to be asked what it used, or has to be.
fn watch(child: &Child, began: Instant, bounds: Bounds) -> io::Result<Watched> {
    let folder = format!("/proc/{}", child.id());
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(format!("{folder}/status"))?;
        peak = peak.max(kibibytes(&status, "VmHWM:") * 1024);
        let (state, processor_seconds) = times(&fs::read_to_string(format!("{folder}/stat"))?)?;
        let cut = if peak > bounds.memory {
            Some(Ended::OverMemory)
        } else if began.elapsed() > bounds.time {
            Some(Ended::OverTime)
        } else {
            None
        };
        if state == 'Z' || cut.is_some() {
            return Ok(Watched { cut: if state == 'Z' { None } else { cut }, processor_seconds, peak });
        }
        sleep(PERIOD);
    }
}

/// 0 for a process that has ended.
fn kibibytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The state, and the time in user and kernel mode: fields 3, 14 and 15 of proc_pid_stat(5). The second, a name, can have any characters.
fn times(stat: &str) -> io::Result<(char, f64)> {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let read = || {
        let state = fields.first()?.chars().next()?;
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some((state, ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    };
    read().ok_or_else(|| io::Error::other(format!("not a line of proc_pid_stat(5): {stat}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMPLE: Bounds = Bounds { memory: 1 << 30, time: Duration::from_secs(60) };

    fn shell(text: &str, bounds: Bounds) -> Ran {
        run(Command::new("sh").args(["-c", text]), bounds).unwrap()
    }

    #[test]
    fn time_used_and_both_streams_are_known() {
        let ran = shell("i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; echo one; echo two >&2; exit 3", AMPLE);
        assert!(matches!(ran.ended, Ended::Exited(status) if status.code() == Some(3)), "{ran:?}");
        assert_eq!(ran.output, "one\ntwo\n");
        assert!(ran.processor_seconds >= 0.01 && ran.peak > 0, "{ran:?}");
    }

    #[test]
    fn who_waits_for_ever_is_ended() {
        let bounds = Bounds { time: Duration::from_millis(50), ..AMPLE };
        let ran = run(Command::new("sleep").arg("1000"), bounds).unwrap();
        assert_eq!(ran.ended, Ended::OverTime);
        assert!(ran.processor_seconds < 0.05);
    }

    #[test]
    fn who_takes_too_much_memory_is_ended() {
        let bounds = Bounds { memory: 64 << 20, ..AMPLE };
        let ran = run(Command::new("tail").arg("/dev/zero"), bounds).unwrap();
        assert_eq!(ran.ended, Ended::OverMemory);
        assert!(ran.peak > 64 << 20);
    }
}
