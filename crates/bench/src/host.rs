//! The machine that measures.

use std::fs;
use std::num::NonZero;
use std::process::Command;
use std::thread::available_parallelism;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// What a reader of results wants to know of the machine.
pub(crate) struct Host {
    date: String,
    /// What was measured.
    commit: String,
    /// How to do it again.
    command: String,
    model: String,
    cores: usize,
    kernel: String,
    huge_pages: String,
    /// How many processes were running or ready, over the last minute, when the run began. Above 0.5 or so others disturb.
    load: String,
}

impl Host {
    /// `arguments` are those that matter to who measures again.
    pub(crate) fn here(arguments: &[String]) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let model = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = model.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value).to_owned()
        };
        let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
        let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Self {
            date: OffsetDateTime::now_utc().date().to_string(),
            commit: commit.unwrap_or_default(),
            command: ["cargo run --release --package fastgup-bench --"]
                .into_iter()
                .chain(arguments.iter().map(String::as_str))
                .collect::<Vec<_>>()
                .join(" "),
            model: format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model\t")),
            cores: available_parallelism().map_or(1, NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let Self { date, commit, command, model, cores, kernel, huge_pages, load } = self;
        format!(
            "Measured on {date} at commit `{commit}` by\n\n```\n{command}\n```\n\n\
             on {model}, {cores} cores, Linux {kernel}, transparent huge pages {huge_pages}, load average {load} at the start.\n"
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "date": self.date,
            "commit": self.commit,
            "command": self.command,
            "model": self.model,
            "cores": self.cores,
            "kernel": self.kernel,
            "transparent_huge_pages": self.huge_pages,
            "load_average": self.load,
        })
    }
}

/// Lets the calling thread, and those it starts from here on, run on any core again.
pub(crate) fn leave_core() {
    let mut cores = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|core| cores.set(core));
    set_cores(&cores);
}

/// Ties the calling thread to one core.
///
/// Fails where the process may not use that core; then the operating system decides.
pub(crate) fn pin_to_core(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    set_cores(&cores);
}

fn set_cores(cores: &CpuSet) {
    if let Err(error) = sched_setaffinity(None, cores) {
        eprintln!("cannot choose cores: {error}");
    }
}
