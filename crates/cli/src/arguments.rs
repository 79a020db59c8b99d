//! The command line.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::sweep::{Job, Range};

const EXAMPLES: &str = "\
Examples:
  fastgup                                  decide the question this project began with
  fastgup check                            decide every race of the catalogue
  fastgup check pae-zap-refault SB         decide two of them
  fastgup check my-race.litmus ci/races/   decide files and folders of your own
  fastgup check big --sample 100000        try random schedules where all are too many
  fastgup check RACE --cpus 3..5 --entries 1..3   the same race with more CPUs and more entries, as a table
  fastgup check --json | jq .verdict       one JSON object per variant, one per line
  fastgup needed pae-zap-refault           which fences, locks, re-checks ... the safe variants need
  fastgup boot --mode pae --cpus 4         the engine under an MMU, in QEMU
  fastgup races                            what is in the catalogue
  fastgup races pae-zap-refault            the file itself

Exit codes:
  0  every verdict is what its file expects
  1  a verdict differs
  2  bad input
  3  a limit ended a search before its answer
  130  Ctrl-C; what was decided by then is printed

NO_COLOR, CLICOLOR and CLICOLOR_FORCE are honoured.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  fastgup check pae-zap-refault --variant low-high-low --save-trace torn.run.json
  fastgup replay torn.run.json               step through it with the arrow keys
  fastgup replay torn.run.json --text        all of it, as text for a mail
  fastgup replay torn.run.json --html torn.html

Under a debugger: before each step the function fastgup_step is called (number, CPU, what is going to happen), and after each
step of code fastgup_code (number, CPU), on the stack of that code.
  gdb -ex 'break fastgup_code if $rdi == 10' -ex run -ex backtrace --args fastgup replay torn.run.json

Exit codes:
  0  every step and every state is as it was saved
  1  the run departs from what was saved
  2  no saved run, or one that was cut off, edited, or saved in another format";

/// Decides whether an interleaving of memory-management code can happen, by running the code.
///
/// The engine (page tables, zap, TLB shootdown, fast GUP) runs on a simulated multiprocessor that explores every order in which its CPUs can
/// act. The answer is the shortest interleaving that breaks a rule, or "safe" when there is none.
///
/// Without a sub-command: decides the question this project began with, and shows the answer.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Decide races: every variant, under every memory order
    #[command(after_help = EXAMPLES)]
    Check(Box<Check>),
    /// Put the rows of a scope sweep together that several machines have decided (`check --job I/N --json`)
    Merge(Merge),
    /// Which fences, re-checks, flushes, locks and orders are needed: each is left out in turn, and the variant decided again
    Needed(Needed),
    /// Run the engine as the memory manager of a small kernel, under QEMU: self-check, and races for real
    Boot(Boot),
    /// List the catalogue, or print one of its files
    Races(Races),
    /// Do a saved run again and step through its states; as text where the output is no terminal
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(Replay),
}

#[derive(Args)]
pub(crate) struct Check {
    /// Litmus files, folders of them, or names from the catalogue (`*` and `?` match); without any, the whole catalogue
    #[arg(value_name = "FILE|DIR|NAME")]
    pub(crate) what: Vec<String>,

    /// Print one JSON object per variant, each on its own line
    #[arg(long)]
    pub(crate) json: bool,

    /// Run under this memory order instead of those that the file names
    #[arg(long, value_enum)]
    pub(crate) memory: Option<Memory>,

    /// Only the variants whose name matches (`*` and `?` match)
    #[arg(long, value_name = "GLOB")]
    pub(crate) variant: Vec<String>,

    /// When to show the interleaving
    #[arg(long, value_enum, default_value_t = ShowTrace::Violations)]
    pub(crate) trace: ShowTrace,

    #[command(flatten)]
    pub(crate) limits: Limits,

    /// Keep searches that take long in this folder, now and then and when a limit or Ctrl-C ends them
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sample", "preemptions", "livelock"])]
    pub(crate) checkpoint: Option<PathBuf>,

    /// Go on with the searches that are kept in this folder, and keep them there
    #[arg(long, value_name = "DIR", conflicts_with_all = ["checkpoint", "sample", "preemptions", "livelock"])]
    pub(crate) resume: Option<PathBuf>,

    /// Keep them so often
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    pub(crate) checkpoint_every: Duration,

    /// Also look for runs that never end although everybody gets his turn: broken rule `livelock`
    #[arg(long, conflicts_with_all = ["sample", "preemptions"])]
    pub(crate) livelock: bool,

    /// Explore only the runs in which code is preempted at most so often
    #[arg(long, value_name = "N", conflicts_with = "sample")]
    pub(crate) preemptions: Option<u32>,

    /// Try so many random schedules instead of all: for what is too large to exhaust
    #[arg(long, value_name = "RUNS")]
    pub(crate) sample: Option<u64>,

    /// How random schedules pick their steps
    #[arg(long, value_enum, default_value_t = Schedule::Pos, requires = "sample")]
    pub(crate) schedule: Schedule,

    /// The depth of bugs that PCT looks for: the pairs of steps whose order matters
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::new(3).expect("not 0"), requires = "sample")]
    pub(crate) pct_depth: NonZeroU32,

    /// The same seed gives the same random schedules
    #[arg(long, value_name = "N", default_value_t = 1, requires = "sample")]
    pub(crate) seed: u64,

    /// Ask the second engine as well, which stores no states and shares no code with the first: it searches in so many runs at most, does again what the first has seen break a rule, and where neither says enough, runs of each are compared with the other
    #[arg(long, value_name = "RUNS")]
    pub(crate) second_engine: Option<u64>,

    /// Save each run that is found, as a file that `fastgup replay` reads: in this folder (with a `/` at its end), or, if there is one run, as this file
    #[arg(long, value_name = "FILE|DIR/")]
    pub(crate) save_trace: Option<PathBuf>,

    /// Write the runs that are found as one page for a browser, which needs no network: step through them with the arrow keys
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) scopes: Scopes,

    /// How many threads work (default: one per core)
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,

    /// How many of them share the search of one variant (default: as many as would be idle, all if there is one variant; with `--hosts` one of each process)
    #[arg(long, value_name = "N")]
    pub(crate) team: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

/// Several processes that share each search.
#[derive(Args)]
pub(crate) struct Cluster {
    /// Share each search with other processes, on this or other machines: a file with a line `host:port` for each. All are started with the same arguments, but for `--process`
    #[arg(long, value_name = "FILE", requires = "process", conflicts_with_all = ["jobs", "sample", "preemptions", "livelock"])]
    pub(crate) hosts: Option<PathBuf>,

    /// Which line of the hosts file this process is, from 0 on; process 0 has the answers
    #[arg(long, value_name = "N", requires = "hosts")]
    pub(crate) process: Option<usize>,

    /// How long the other processes are waited for in the beginning
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "120", requires = "hosts")]
    pub(crate) wait: Duration,
}

/// A race at several scopes.
#[derive(Args)]
#[command(next_help_heading = "Scope sweep (one race)")]
pub(crate) struct Scopes {
    /// Decide the race with so many CPUs, for example 3..5; its file says what more of them do
    #[arg(long, value_name = "RANGE", value_parser = Range::parse)]
    pub(crate) cpus: Option<Range>,

    /// Decide the race with so many entries, for example 1..3; its file says of what
    #[arg(long, value_name = "RANGE", value_parser = Range::parse)]
    pub(crate) entries: Option<Range>,

    /// Decide only each N-th row, from the I-th on: N machines share the work, and `fastgup merge` puts their `--json` together
    #[arg(long, value_name = "I/N", value_parser = Job::parse)]
    pub(crate) job: Option<Job>,

    /// Decide nothing; print for each row the command that decides it
    #[arg(long, conflicts_with = "job")]
    pub(crate) list_jobs: bool,
}

impl Scopes {
    /// Whether the arguments name a scope, or several.
    pub(crate) const fn is_named(&self) -> bool {
        self.cpus.is_some() || self.entries.is_some()
    }
}

#[derive(Args)]
pub(crate) struct Merge {
    /// What `fastgup check --json` has printed of rows of one sweep
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// Print the rows, each as one JSON object on its own line
    #[arg(long)]
    pub(crate) json: bool,
}

/// When a search gives up.
#[derive(Args)]
pub(crate) struct Limits {
    /// Give up a variant after so many states
    #[arg(long, value_name = "N")]
    pub(crate) limit_states: Option<u64>,

    /// Give up a variant after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) limit_seconds: Option<Duration>,

    /// Give up a variant when its search needs so much memory (for example 512M, 8G; default 4G)
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) limit_memory: Option<u64>,

    /// How many bits are kept of each visited state. With 64, searches take half the memory, and `safe` comes with the chance that a state was missed
    #[arg(long, value_enum, default_value_t = Fingerprints::Bits128)]
    pub(crate) fingerprints: Fingerprints,
}

/// Bits of a visited state.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fingerprints {
    /// 20 to 24 bytes a state in all
    #[value(name = "128")]
    Bits128,
    /// 10 to 12 bytes a state in all
    #[value(name = "64")]
    Bits64,
}

#[derive(Args)]
pub(crate) struct Needed {
    /// Litmus files, folders of them, or names from the catalogue (`*` and `?` match)
    #[arg(value_name = "FILE|DIR|NAME", required = true)]
    pub(crate) what: Vec<String>,

    /// Only the variants whose name matches (`*` and `?` match); without any, those that are expected to be safe
    #[arg(long, value_name = "GLOB")]
    pub(crate) variant: Vec<String>,

    /// Run under this memory order instead of those that the file names
    #[arg(long, value_enum)]
    pub(crate) memory: Option<Memory>,

    /// Ask also about two places together of which neither is needed alone
    #[arg(long)]
    pub(crate) pairs: bool,

    /// Only the places whose line contains this, for example `fence`, `gather.rs` or `fast.rs:210`
    #[arg(long, value_name = "TEXT")]
    pub(crate) place: Option<String>,

    /// When to show the interleaving that makes a place needed
    #[arg(long, value_enum, default_value_t = ShowNeeds::Never)]
    pub(crate) trace: ShowNeeds,

    /// Save each run that shows why a place is needed, as a file in this folder that `fastgup replay` reads
    #[arg(long, value_name = "DIR")]
    pub(crate) save: Option<PathBuf>,

    /// Print one JSON object per variant, each on its own line, interleavings included; of several variants also one that puts them together
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) limits: Limits,

    /// How many threads work (default: one per core)
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShowNeeds {
    /// For each
    Always,
    /// Answers only
    Never,
}

#[derive(Args)]
pub(crate) struct Boot {
    /// Which paging (default: pae; with --beside-linux pae and x86_64, one after the other)
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,

    /// How many CPUs
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::new(2).expect("not 0"))]
    pub(crate) cpus: NonZeroU32,

    /// What is done after the self-check: none, torn, shootdown, tables, fork, special, bench, all
    #[arg(long, value_name = "NAME", default_value = "all", value_parser = word)]
    pub(crate) load: String,

    /// Operations of each load
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) ops: u64,

    /// Where random numbers begin
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Random mappings of the self-check
    #[arg(long, value_name = "N")]
    pub(crate) checks: Option<u64>,

    /// Memory of the machine, in MiB (default: 512; 768 with --beside-linux, which has no huge pages below that)
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: Option<NonZeroU32>,

    /// What executes instructions
    #[arg(long, value_enum, default_value_t = Accel::Tcg)]
    pub(crate) accel: Accel,

    /// The CPU, as QEMU names it, for example `max,-la57` (default: the one that can do most)
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,

    /// Build with all optimisations, for measuring
    #[arg(long)]
    pub(crate) release: bool,

    /// Run this image instead of building one
    #[arg(long, value_name = "FILE", conflicts_with = "release")]
    pub(crate) image: Option<PathBuf>,

    /// Measure the load bench beside Debian's own kernel on the same machine, and print both: fetches its package, builds with all optimisations
    #[arg(long, conflicts_with_all = ["load", "ops", "seed", "checks", "image", "release"])]
    pub(crate) beside_linux: bool,

    /// The Linux of --beside-linux: a compressed kernel (default: Debian's)
    #[arg(long, value_name = "FILE", requires = "beside_linux", requires = "mode")]
    pub(crate) linux: Option<PathBuf>,

    /// How often each of the two runs; the best counts
    #[arg(long, value_name = "N", requires = "beside_linux", default_value_t = NonZeroU32::new(2).expect("not 0"))]
    pub(crate) turns: NonZeroU32,

    /// End a run after so many seconds, and say where it was
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "600")]
    pub(crate) limit_seconds: Duration,

    /// End a run that says nothing for so many seconds, and say where it was
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "120")]
    pub(crate) limit_silence: Duration,

    /// Write what the load counted to this file, between its lines `<!-- measured: boot MODE LOAD begin -->` and `end`; with --beside-linux the table, between those of `beside linux`
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// 32-bit PAE
    Pae,
    /// x86-64, four levels
    #[value(name = "x86_64")]
    X86_64,
    /// x86-64, five levels
    La57,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// QEMU, in software
    Tcg,
    /// QEMU, one instruction at a time: other CPUs can come between any two, which the load torn needs
    TcgSingleStep,
    /// The host's CPU
    Kvm,
}

#[derive(Args)]
pub(crate) struct Races {
    /// Print the file of this race
    pub(crate) name: Option<String>,
}

#[derive(Args)]
pub(crate) struct Replay {
    /// A run that `fastgup check --save-trace` has saved
    pub(crate) file: PathBuf,

    /// Write the run as one page for a browser, which needs no network: step through it with the arrow keys
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Print the run and its states, also on a terminal: text that survives a mail
    #[arg(long)]
    pub(crate) text: bool,
}

/// In which order CPUs see each other's stores.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Memory {
    /// Sequential consistency: at once
    Sc,
    /// x86-TSO: through a store buffer
    Tso,
    /// One after the other
    Both,
}

/// How a random schedule picks its steps.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Schedule {
    /// Partial order sampling: priorities that are drawn anew where steps do not commute
    Pos,
    /// Probabilistic concurrency testing: priorities that change a few times in a run
    Pct,
    /// A random walk
    Uniform,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShowTrace {
    /// Whenever there is one, also that of a final state that was asked for
    Always,
    /// Of broken rules
    Violations,
    /// Verdicts only
    Never,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// One word of a command line: no space may smuggle in another.
fn word(text: &str) -> Result<String, String> {
    let is_word = !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if is_word { Ok(text.to_owned()) } else { Err("not the name of a load".to_owned()) }
}

fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number of bytes, such as 512M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "more bytes than there can be".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
