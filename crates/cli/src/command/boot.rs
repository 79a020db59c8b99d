//! `fastgup boot`: the engine under a real MMU.

use std::io::{self, Write};
use std::path::PathBuf;

use boot::console::{Counted, Event, Fault};
use boot::image::Profile;
use boot::{Ended, Machine, Mode, Report};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use races::{MemoryOrder, Options, Race, VariantReport, Witnesses};
use serde::Serialize;

use crate::arguments::{self, Boot};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::show::number::Count;
use crate::show::palette::{ASIDE, BROKEN, HEADING, SAFE, UNDECIDED};

/// Builds the kernel if needed, runs it, and says what came of it.
pub(crate) fn run(arguments: &Boot) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    let mode = match arguments.mode {
        arguments::Mode::Pae => Mode::Pae,
        arguments::Mode::X86_64 => Mode::X86_64,
        arguments::Mode::La57 => Mode::La57,
    };
    let bar = Bar::new();
    let image = match &arguments.image {
        Some(image) => image.clone(),
        None => {
            bar.says(format!("building the {} image", mode.name()));
            let profile = if arguments.release { Profile::Release } else { Profile::Dev };
            boot::image::build(mode, profile, &target()).map_err(|error| Failure::Boot(error.to_string()))?
        }
    };
    bar.says(format!("booting {}", mode.name()));
    let machine = Machine {
        mode,
        image,
        words: words(arguments),
        accelerator: match arguments.accel {
            arguments::Accel::Tcg => boot::Accelerator::Emulation,
            arguments::Accel::Kvm => boot::Accelerator::Kvm,
        },
        model: arguments.model.clone(),
        cpus: arguments.cpus.get(),
        mebibytes: arguments.memory.get(),
        limit: arguments.limit_seconds,
        silence: arguments.limit_silence,
    };
    let cancel = interrupt.flag();
    let report = boot::run(&machine, &cancel, |event| {
        if let Event::Progress { load, done, of } = event {
            bar.is_at(load, *done, *of);
        }
    });
    drop(bar);
    let report = report.map_err(|error| Failure::Boot(error.to_string()))?;
    let beside = beside_the_lab(&report);
    print(arguments, &report, &beside)?;
    Ok(match &report.ended {
        Ended::Well => Exit::AsExpected,
        Ended::NotWell | Ended::Fault(_) => Exit::Differs,
        Ended::Refused { .. } | Ended::Lost { .. } => Exit::BadInput,
        Ended::Hung(_) => Exit::Bounded,
        Ended::Cancelled => Exit::Interrupted,
    })
}

fn words(arguments: &Boot) -> String {
    let mut words = format!("load={} ops={} seed={}", arguments.load, arguments.ops, arguments.seed);
    if let Some(checks) = arguments.checks {
        words.push_str(&format!(" checks={checks}"));
    }
    words
}

/// Where images are built.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || boot::image::source().parent().map_or_else(|| PathBuf::from("target"), |above| above.join("target")),
        PathBuf::from,
    )
}

/// What the lab says of a reader, beside what was counted.
#[derive(Serialize)]
struct Beside {
    reader: &'static str,
    mixtures: u64,
    per_million: f64,
    lab: String,
}

/// The readers of the load `torn`: the count's name, and the variant of the seed's race that asks about it.
const READERS: [(&str, &str); 4] = [
    ("read_once", "read-once"),
    ("low_high_low", "low-high-low"),
    ("cmpxchg8b", "cmpxchg8b"),
    ("sequence", "sequence-count"),
];

/// The lab's verdicts on what the load `torn` counted. Only where an entry is read in halves.
fn beside_the_lab(report: &Report) -> Vec<Beside> {
    let torn = report.results.iter().find(|counted| counted.load == "torn");
    let Some(torn) = torn.filter(|_| report.mode == Mode::Pae.name()) else { return Vec::new() };
    let Ok(race) = Race::find("pae-zap-refault") else { return Vec::new() };
    let options = Options {
        memory: Some(MemoryOrder::Tso),
        variants: READERS.iter().map(|reader| reader.1.to_owned()).collect(),
        witnesses: Witnesses::Skipped,
        ..Options::default()
    };
    let mut verdicts: Vec<VariantReport> = Vec::new();
    races::decide(&[race], &options, |report| verdicts.push(report));
    let reads = torn.counts.get("reads_each").copied().unwrap_or(0).max(1);
    let readers = READERS.iter().filter_map(|&(count, variant)| {
        let mixtures = *torn.counts.get(count)?;
        let verdict = verdicts.iter().find(|report| report.variant.as_deref() == Some(variant))?;
        let lab = match &verdict.rule {
            Some(rule) => format!("breaks {rule} in {} steps", verdict.steps.unwrap_or(0)),
            None => verdict.verdict.name().to_owned(),
        };
        Some(Beside { reader: variant, mixtures, per_million: mixtures as f64 * 1e6 / reads as f64, lab })
    });
    readers.collect()
}

#[derive(Serialize)]
struct Object<'r> {
    #[serde(flatten)]
    report: &'r Report,
    #[serde(skip_serializing_if = "<[Beside]>::is_empty")]
    beside_the_lab: &'r [Beside],
}

fn print(arguments: &Boot, report: &Report, beside: &[Beside]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &Object { report, beside_the_lab: beside })?;
        writeln!(out)?;
        return out.flush();
    }
    write!(out, "{HEADING}{}{HEADING:#}", report.mode)?;
    if let (Some(cpus), Some(seconds)) = (report.cpus, report.boot_seconds) {
        write!(out, "{ASIDE}, {cpus} CPUs, {}, up in {seconds:.1} s{ASIDE:#}", report.accelerator)?;
    }
    writeln!(out)?;
    for counted in &report.results {
        result(&mut out, counted)?;
    }
    if !beside.is_empty() {
        writeln!(
            out,
            "  mixtures of two values of an entry, per million reads, and what the lab says of the same question:"
        )?;
        for Beside { reader, mixtures, per_million, lab } in beside {
            writeln!(out, "    {reader:14} {per_million:12.3}  {ASIDE}({}){ASIDE:#}  {lab}", Count(*mixtures))?;
        }
    }
    match &report.ended {
        Ended::Well => writeln!(out, "  {SAFE}all is well{SAFE:#}{ASIDE}, {:.1} s{ASIDE:#}", report.seconds)?,
        Ended::NotWell => writeln!(out, "  {BROKEN}not well{BROKEN:#}: see above")?,
        Ended::Refused { message } => writeln!(out, "  {UNDECIDED}refused{UNDECIDED:#}: {message}")?,
        Ended::Fault(where_) => fault(&mut out, "stopped", where_, report)?,
        Ended::Hung(where_) => fault(&mut out, "hangs", where_, report)?,
        Ended::Lost { message } => {
            writeln!(out, "  {BROKEN}lost{BROKEN:#}: {message}")?;
            said(&mut out, report)?;
        }
        Ended::Cancelled => writeln!(out, "  {UNDECIDED}ended by Ctrl-C{UNDECIDED:#} after {:.1} s", report.seconds)?,
    }
    out.flush()
}

fn result(out: &mut dyn Write, counted: &Counted) -> io::Result<()> {
    let (style, word) = if counted.ok { (SAFE, "ok") } else { (BROKEN, "WRONG") };
    write!(out, "  {:10} {style}{word:5}{style:#}", counted.load)?;
    for (name, count) in &counted.counts {
        write!(out, "  {ASIDE}{name}{ASIDE:#} {}", Count(*count))?;
    }
    writeln!(out)
}

fn fault(out: &mut dyn Write, how: &str, fault: &Fault, report: &Report) -> io::Result<()> {
    writeln!(out, "  {BROKEN}{how}{BROKEN:#}: {}", fault.message)?;
    let registers: Vec<String> = fault.registers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    for line in registers.chunks(4) {
        writeln!(out, "    {}", line.join("  "))?;
    }
    if !fault.walk.is_empty() {
        writeln!(out, "    walk: {}", fault.walk.join(", "))?;
    }
    said(out, report)
}

/// The last lines of the kernel for people.
fn said(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    report.said.iter().try_for_each(|line| writeln!(out, "    | {line}"))
}

/// A line at the bottom of the terminal; nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{elapsed} [{bar:20}] {pos}/{len} {wide_msg}")
            .expect("the template is a constant");
        bar.set_style(style.progress_chars("=> "));
        Self(bar)
    }

    fn says(&self, what: String) {
        self.0.set_message(what);
        self.0.tick();
    }

    fn is_at(&self, load: &str, done: u64, of: u64) {
        self.0.set_length(of);
        self.0.set_position(done);
        self.0.set_message(load.to_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
