//! Our kernel and a Linux on the same machine: both do the work of the load `bench`, in turns, and the best of each is compared.
//!
//! What one of ours does is a function of the engine's; what Linux does is a system call. [`Measure::ALL`] begins with what the way there and back costs.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::console::Event;
use crate::image::Mode;
use crate::run::{Ended, Machine, Report, RunError, run};

/// The command line of the Linux. What it does against other people's attacks is switched off: our kernel does nothing of the kind.
pub fn words(mode: Mode) -> String {
    let levels = if mode == Mode::X86_64 { " no5lvl" } else { "" };
    format!("console=ttyS0 rdinit=/init quiet panic=-1 mitigations=off init_on_alloc=0 nokaslr{levels}")
}

/// One thing that both do.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// What, in words.
    pub what: &'static str,
    /// Our kernel's count of it, in picoseconds.
    ours: &'static str,
    /// Linux's: by the system call that is the quickest of these.
    linux: &'static [(&'static str, &'static str)],
    /// How many times as fast ours should be, at least.
    pub target: Option<f64>,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self {
            what: "way to the kernel and back",
            ours: "empty_call_ps",
            linux: &[("empty_call_ps", "getppid")],
            target: None,
        },
        Self {
            what: "store that faults, per page",
            ours: "fault_ps",
            linux: &[("fault_ps", "page fault")],
            target: Some(1.0),
        },
        Self {
            what: "mprotect of 256 pages, per page",
            ours: "mprotect_ps",
            linux: &[("mprotect_ps", "mprotect")],
            target: Some(1.0),
        },
        Self {
            what: "munmap of a page, with shootdown",
            ours: "munmap_shootdown_ps",
            linux: &[("munmap_shootdown_ps", "munmap")],
            target: Some(1.0),
        },
        Self { what: "fork of next to nothing", ours: "fork_ps", linux: &[("fork_ps", "fork")], target: None },
        Self {
            what: "fork of 1000 pages",
            ours: "fork_1000_pages_ps",
            linux: &[("fork_1000_pages_ps", "fork")],
            target: Some(1.0),
        },
        Self {
            what: "GUP of 512 pages, per 4 KiB page",
            ours: "gup_4k_ps",
            linux: &[("gup_4k_vmsplice_ps", "vmsplice"), ("gup_4k_io_uring_ps", "io_uring_register")],
            target: Some(1.0),
        },
        Self {
            what: "GUP of 8 pages, per 2 MiB page",
            ours: "gup_2m_ps",
            linux: &[("gup_2m_vmsplice_ps", "vmsplice"), ("gup_2m_io_uring_ps", "io_uring_register")],
            target: Some(5.0),
        },
    ];
}

/// A measure's two best numbers.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: &'static str,
    /// Nanoseconds of our kernel.
    pub ours_ns: f64,
    /// Nanoseconds of Linux.
    pub linux_ns: f64,
    /// By which system call.
    pub linux_by: &'static str,
    /// How many times as fast ours is.
    pub ratio: f64,
    /// How many times as fast it should be, at least.
    pub target: Option<f64>,
}

/// Our kernel and a Linux, on machines that differ in nothing else.
#[derive(Clone, Debug)]
pub struct Pair {
    /// With our image.
    pub ours: Machine,
    /// With Linux's.
    pub linux: Machine,
}

impl Pair {
    /// Gives our machine to a Linux, too.
    pub fn with_linux(ours: Machine, image: PathBuf, initial_files: PathBuf) -> Self {
        let linux = Machine { image, initial_files: Some(initial_files), words: words(ours.mode), ..ours.clone() };
        Self { ours, linux }
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Debug)]
pub enum Compared {
    /// Both did everything, in every turn.
    Both(Vec<Row>),
    /// A run did not end well, so there is nothing to compare.
    Ended {
        /// Whose.
        who: Contestant,
        /// How.
        report: Box<Report>,
    },
    /// A run ended well and did not say this.
    Missing {
        /// Whose.
        who: Contestant,
        /// Its name for what is missing.
        count: &'static str,
    },
}

/// Who runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contestant {
    /// Our kernel.
    Ours,
    /// The Linux.
    Linux,
}

impl Contestant {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "fastgup",
            Self::Linux => "Linux",
        }
    }
}

/// Runs both in turns, and compares the best of each.
///
/// # Errors
/// As [`run`].
pub fn compare(
    pair: &Pair,
    turns: u32,
    cancel: &AtomicBool,
    mut begins: impl FnMut(Contestant, u32),
    mut event: impl FnMut(&Event),
) -> Result<Compared, RunError> {
    let (mut ours, mut linux) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        for (who, machine, reports) in
            [(Contestant::Ours, &pair.ours, &mut ours), (Contestant::Linux, &pair.linux, &mut linux)]
        {
            begins(who, turn);
            let report = run(machine, cancel, &mut event)?;
            if report.ended != Ended::Well {
                return Ok(Compared::Ended { who, report: Box::new(report) });
            }
            reports.push(report);
        }
    }
    Ok(rows(&ours, &linux))
}

fn rows(ours: &[Report], linux: &[Report]) -> Compared {
    let mut rows = Vec::new();
    for measure in Measure::ALL {
        let Some(own) = best(ours, measure.ours) else {
            return Compared::Missing { who: Contestant::Ours, count: measure.ours };
        };
        let mut quickest: Option<(u64, &'static str)> = None;
        for &(count, by) in measure.linux {
            let Some(best) = best(linux, count) else {
                return Compared::Missing { who: Contestant::Linux, count };
            };
            quickest = Some(quickest.map_or((best, by), |before| before.min((best, by))));
        }
        let Some((theirs, linux_by)) = quickest else { continue };
        rows.push(Row {
            what: measure.what,
            ours_ns: own as f64 / 1000.0,
            linux_ns: theirs as f64 / 1000.0,
            linux_by,
            ratio: theirs as f64 / own.max(1) as f64,
            target: measure.target,
        });
    }
    Compared::Both(rows)
}

/// The least of a count in all runs.
fn best(reports: &[Report], count: &str) -> Option<u64> {
    let counted = reports.iter().flat_map(|report| &report.results).filter(|counted| counted.load == "bench");
    counted.filter_map(|counted| counted.counts.get(count).copied()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Counted;

    fn report(counts: &[(&str, u64)]) -> Report {
        let counts = counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Report {
            mode: "pae",
            accelerator: "tcg",
            cpus: Some(2),
            boot_seconds: None,
            seconds: 1.0,
            results: vec![Counted { load: "bench".to_owned(), ok: true, counts }],
            ended: Ended::Well,
            said: Vec::new(),
        }
    }

    fn everything(value: u64) -> Vec<(&'static str, u64)> {
        Measure::ALL.iter().flat_map(|measure| measure.linux).map(|&(count, _)| (count, value)).collect()
    }

    #[test]
    fn the_best_of_all_turns_counts_and_of_two_calls_the_quicker() {
        let own: Vec<(&str, u64)> = Measure::ALL.iter().map(|measure| (measure.ours, 1000)).collect();
        let mut slow = everything(9000);
        let mut quick = everything(8000);
        slow.push(("gup_2m_io_uring_ps", 3000));
        quick.push(("fault_ps", 500));
        let Compared::Both(rows) = rows(&[report(&own)], &[report(&slow), report(&quick)]) else {
            panic!("all is there")
        };
        let row = |what: &str| rows.iter().find(|row| row.what.contains(what)).unwrap();
        assert_eq!((row("2 MiB").ratio, row("2 MiB").linux_by), (3.0, "io_uring_register"));
        assert_eq!((row("4 KiB").ratio, row("faults").ratio), (8.0, 0.5));
        assert_eq!((row("fork of 1000").ours_ns, row("fork of 1000").linux_ns), (1.0, 8.0));
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let own: Vec<(&str, u64)> = Measure::ALL.iter().map(|measure| (measure.ours, 1)).collect();
        let found = rows(&[report(&own)], &[report(&[("empty_call_ps", 1), ("fault_ps", 1)])]);
        assert_eq!(found, Compared::Missing { who: Contestant::Linux, count: "mprotect_ps" });
    }
}
