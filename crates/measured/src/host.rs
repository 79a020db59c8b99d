//! The machine that measures, and what it was asked.

use std::fs;
use std::num::NonZero;
use std::process::Command;
use std::thread::available_parallelism;

use serde_json::{Value, json};
use time::OffsetDateTime;

/// What a reader of results wants to know of the machine.
pub struct Host {
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
    /// This machine, now. `command` is what to type to measure again.
    pub fn here(command: String) -> Self {
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
            command,
            model: format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model\t")),
            cores: available_parallelism().map_or(1, NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// In words.
    pub fn markdown(&self) -> String {
        let Self { date, commit, command, model, cores, kernel, huge_pages, load } = self;
        format!(
            "Measured on {date} at commit `{commit}` by\n\n```\n{command}\n```\n\n\
             on {model}, {cores} cores, Linux {kernel}, transparent huge pages {huge_pages}, load average {load} at the start.\n"
        )
    }

    /// As an object.
    pub fn json(&self) -> Value {
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
