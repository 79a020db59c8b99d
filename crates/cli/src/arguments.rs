//! The command line.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  fastgup                                  decide the question this project began with
  fastgup check                            decide every race of the catalogue
  fastgup check pae-zap-refault SB         decide two of them
  fastgup check my-race.litmus ci/races/   decide files and folders of your own
  fastgup check --json | jq .verdict       one JSON object per variant, one per line
  fastgup races                            what is in the catalogue
  fastgup races pae-zap-refault            the file itself

Exit codes:
  0  every verdict is what its file expects
  1  a verdict differs
  2  bad input
  3  a limit ended a search before its answer
  130  Ctrl-C; what was decided by then is printed

NO_COLOR, CLICOLOR and CLICOLOR_FORCE are honoured.";

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
    Check(Check),
    /// List the catalogue, or print one of its files
    Races(Races),
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

    /// Give up a variant after so many states
    #[arg(long, value_name = "N")]
    pub(crate) limit_states: Option<u64>,

    /// Give up a variant after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) limit_seconds: Option<Duration>,

    /// Ask the second engine as well, which stores no states and shares no code with the first; it gives up after so many runs
    #[arg(long, value_name = "RUNS")]
    pub(crate) second_engine: Option<u64>,

    /// How many threads work (default: one per core)
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
}

#[derive(Args)]
pub(crate) struct Races {
    /// Print the file of this race
    pub(crate) name: Option<String>,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
