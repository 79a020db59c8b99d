//! One run, with a watchdog.

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::console::{Counted, Event, Fault, Line};
use crate::image::Mode;
use crate::monitor;
use crate::qemu::{Accelerator, Qemu, QemuError};

/// What is to run, on what.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The image's paging mode.
    pub mode: Mode,
    /// The image.
    pub image: PathBuf,
    /// The kernel's command line: its README.
    pub words: String,
    /// What a Linux begins with; none for our own kernel.
    pub initial_files: Option<PathBuf>,
    /// What executes instructions.
    pub accelerator: Accelerator,
    /// The CPU as QEMU names it; the one that can do most if `None`.
    pub model: Option<String>,
    /// CPUs.
    pub cpus: u32,
    /// Memory, in MiB.
    pub mebibytes: u32,
    /// The longest run.
    pub limit: Duration,
    /// The longest silence.
    pub silence: Duration,
}

/// How a run ended.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "ended", rename_all = "lowercase")]
pub enum Ended {
    /// All is well.
    Well,
    /// The kernel says that something is not well.
    NotWell,
    /// The kernel refuses: what was asked for, or its machine.
    Refused {
        /// In a sentence.
        message: String,
    },
    /// The kernel stopped itself at a trap that should not be.
    Fault(Fault),
    /// It said nothing for too long, or ran for too long.
    Hung(Fault),
    /// The machine reset itself: a fault while a double fault was delivered (a triple fault), or somebody asked for it.
    Reset(Fault),
    /// QEMU ended without the kernel's last line.
    Lost {
        /// What QEMU said, and how it ended.
        message: String,
    },
    /// The user ended it.
    Cancelled,
}

/// What came of a run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The mode of the image.
    pub mode: &'static str,
    /// What executed instructions.
    pub accelerator: &'static str,
    /// CPUs that ran; none if it did not come so far.
    pub cpus: Option<u32>,
    /// From the start of QEMU to the kernel's first line, in seconds.
    pub boot_seconds: Option<f64>,
    /// The whole run, in seconds.
    pub seconds: f64,
    /// What the self-check and the loads counted.
    pub results: Vec<Counted>,
    /// How it ended.
    #[serde(flatten)]
    pub ended: Ended,
    /// The last lines for people.
    pub said: Vec<String>,
}

/// Why there was no run.
#[derive(thiserror::Error, Debug)]
pub enum RunError {
    /// No QEMU that will do.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// It cannot be started.
    #[error("QEMU cannot be started: {0}")]
    NotStarted(#[from] io::Error),
}

/// Lines for people that are kept.
const KEPT: usize = 40;
/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(100);
/// After so long a silence QEMU is asked, now and then, whether the machine still runs.
const SUSPICION: Duration = Duration::from_secs(1);
/// From the end of the console to the end of QEMU.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs it, and tells of each event as it comes.
///
/// # Errors
/// There is no QEMU, or it cannot be started. What goes wrong later is in the report.
pub fn run(machine: &Machine, cancel: &AtomicBool, mut event: impl FnMut(&Event)) -> Result<Report, RunError> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("monitor");
    let qemu = Qemu::find()?;
    let mut command = qemu.command(machine, &socket)?;
    let mut child = Running(command.spawn()?);
    let began = Instant::now();
    let lines = read_lines(&mut child.0);
    let complaints = read_all(child.0.stderr.take());
    let mut report = Report {
        mode: machine.mode.name(),
        accelerator: machine.accelerator.name(),
        cpus: None,
        boot_seconds: None,
        seconds: 0.0,
        results: Vec::new(),
        ended: Ended::Cancelled,
        said: Vec::new(),
    };
    let mut panicked = None;
    let mut heard = Instant::now();
    let mut asked = heard;
    let located = |why: String| {
        monitor::ask(&socket, machine.mode, &why).unwrap_or_else(|error| Fault {
            message: format!("{why}, and QEMU's monitor does not answer: {error}"),
            registers: Default::default(),
            walk: Vec::new(),
        })
    };
    let ended = loop {
        if cancel.load(Ordering::Relaxed) {
            break Some(Ended::Cancelled);
        }
        let line = match lines.recv_timeout(TICK) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                let why = if began.elapsed() > machine.limit {
                    format!("the run takes longer than {} s", machine.limit.as_secs())
                } else if heard.elapsed() > machine.silence {
                    format!("the kernel has said nothing for {} s", machine.silence.as_secs())
                } else if heard.max(asked).elapsed() > SUSPICION {
                    asked = Instant::now();
                    if monitor::has_reset(&socket) {
                        let why =
                            "the machine reset itself, as a triple fault makes it; these are the first CPU's registers";
                        break Some(Ended::Reset(located(why.to_owned())));
                    }
                    continue;
                } else {
                    continue;
                };
                break Some(Ended::Hung(located(why)));
            }
        };
        heard = Instant::now();
        if began.elapsed() > machine.limit {
            // It talks all the time, but does not come to its end.
            let why = format!("the run takes longer than {} s", machine.limit.as_secs());
            break Some(Ended::Hung(located(why)));
        }
        match Line::of(&line) {
            Line::Text(text) | Line::Garbled(text) => {
                report.said.push(text);
                if report.said.len() > KEPT {
                    report.said.remove(0);
                }
            }
            Line::Event(happened) => {
                event(&happened);
                match happened {
                    Event::Boot { cpus, .. } => {
                        report.cpus = Some(cpus);
                        report.boot_seconds = Some(began.elapsed().as_secs_f64());
                    }
                    Event::Progress { .. } => {}
                    Event::Result(counted) => report.results.push(counted),
                    Event::Fault(fault) => panicked = Some(Ended::Fault(fault)),
                    Event::Panic { message } => panicked = Some(Ended::Refused { message }),
                    Event::End { ok: true } => break Some(Ended::Well),
                    Event::End { ok: false } => break Some(panicked.take().unwrap_or(Ended::NotWell)),
                }
            }
        }
    };
    // Behind its last line a kernel has nothing to do: newer QEMUs stop there, older ones end.
    let status = if ended.is_none() { child.wait(FAREWELL) } else { None };
    drop(child);
    report.seconds = began.elapsed().as_secs_f64();
    report.ended = ended.unwrap_or_else(|| {
        let said = complaints.join().unwrap_or_default();
        let how = status.map_or_else(|| "QEMU did not end".to_owned(), |status| format!("QEMU ended: {status}"));
        let said = said.trim();
        Ended::Lost { message: if said.is_empty() { how } else { format!("{how}; it says: {said}") } }
    });
    Ok(report)
}

/// A QEMU that does not outlive us.
struct Running(Child);

impl Running {
    /// Waits for its end, but not for ever.
    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < patience {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let out = child.stdout.take();
    std::thread::spawn(move || {
        let Some(out) = out else { return };
        let mut out = BufReader::new(out);
        let mut line = Vec::new();
        while out.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

fn read_all(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut from) = from {
            // What could be read is all there is to be said.
            let _ = from.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}
