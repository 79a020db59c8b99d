//! `cargo xtask test`: every check there is, in the order in which they are quick to fail.

use std::process::ExitCode;

use anyhow::Result;

use crate::steps;
use crate::summary::{Outcome, Summary};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these steps, in their usual order (all of them if none is named)
    #[arg(value_name = "STEP", value_parser = clap::builder::PossibleValuesParser::new(STEPS.iter().map(|step| step.name)))]
    steps: Vec<String>,
}

struct Step {
    name: &'static str,
    what: &'static str,
    run: fn() -> Result<Outcome>,
}

const STEPS: &[Step] = &[
    Step { name: "format", what: "is every file as rustfmt writes it?", run: steps::lint::format },
    Step { name: "clippy", what: "no warning in any package, tests and benchmarks included", run: steps::lint::clippy },
    Step {
        name: "kernel-clippy",
        what: "no warning in the kernel, as each image compiles it",
        run: steps::lint::kernel_clippy,
    },
    Step { name: "docs", what: "the documentation builds without a warning", run: steps::lint::docs },
    Step { name: "no-std", what: "the engine builds for every installed target of its kind", run: steps::no_std::run },
    Step { name: "unit", what: "all tests of all packages, race files included", run: steps::runners::unit },
    Step { name: "doctest", what: "the examples in the documentation", run: steps::runners::doctest },
    Step { name: "stress", what: "everything at random on threads: contents and counts", run: steps::stress::run },
    Step {
        name: "loom",
        what: "the threads' interrupts and grace periods, under every C11 order",
        run: steps::loom::run,
    },
    Step { name: "miri", what: "the engine's own tests under Miri", run: steps::miri::run },
    Step {
        name: "kernel",
        what: "the engine under an MMU, in QEMU: three images, every load",
        run: steps::kernel::run,
    },
    Step { name: "seed", what: "the release build answers the seed: cargo run --release", run: steps::seed::run },
    Step { name: "mutants", what: "the engine broken on purpose, a few of the edits", run: crate::mutants::step },
];

/// Runs the steps, stops at the first that fails, and prints what was run.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut summary = Summary::default();
    for step in STEPS {
        let wanted = arguments.steps.is_empty() || arguments.steps.iter().any(|name| name == step.name);
        if wanted && !summary.step(step.name, step.what, step.run) {
            break;
        }
    }
    println!("\n{summary}");
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
