//! `cargo xtask setup`: what this machine lacks.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo::succeeds;

/// One tool, and who asks for it.
struct Tool {
    name: &'static str,
    needed_by: &'static str,
    need: Need,
    /// A command that succeeds where the tool is installed.
    probe: &'static [&'static str],
    /// How to get it on Debian or Ubuntu.
    install: &'static str,
}

enum Need {
    Required,
    Optional,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "C compiler",
        needed_by: "linking",
        need: Need::Required,
        probe: &["cc", "--version"],
        install: "apt-get install gcc",
    },
    Tool {
        name: "rustfmt",
        needed_by: "cargo xtask test format",
        need: Need::Required,
        probe: &["cargo", "fmt", "--version"],
        install: "rustup component add rustfmt",
    },
    Tool {
        name: "clippy",
        needed_by: "cargo xtask test clippy",
        need: Need::Required,
        probe: &["cargo", "clippy", "--version"],
        install: "rustup component add clippy",
    },
    Tool {
        name: "nextest",
        needed_by: "cargo xtask test unit, faster",
        need: Need::Optional,
        probe: &["cargo", "nextest", "--version"],
        install: "cargo install --locked cargo-nextest",
    },
    Tool {
        name: "Miri",
        needed_by: "cargo xtask test miri",
        need: Need::Optional,
        probe: &["cargo", "+nightly", "miri", "--version"],
        install: "rustup toolchain install nightly --component miri,rust-src",
    },
    Tool {
        name: "Chromium",
        needed_by: "cargo xtask test unit, for the page of `fastgup check --html`",
        need: Need::Optional,
        probe: &["chromium", "--version"],
        install: "apt-get install chromium",
    },
    Tool {
        name: "gdb",
        needed_by: "cargo xtask test unit, for `fastgup replay` under a debugger",
        need: Need::Optional,
        probe: &["gdb", "--version"],
        install: "apt-get install gdb",
    },
];

/// Says which tools are there. Fails if a required one is not.
pub(crate) fn run() -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for tool in TOOLS {
        let is_there =
            tool.probe.split_first().is_some_and(|(program, rest)| succeeds(Command::new(program).args(rest)));
        let state = match (is_there, &tool.need) {
            (true, _) => "ok",
            (false, Need::Optional) => "optional",
            (false, Need::Required) => {
                code = ExitCode::FAILURE;
                "MISSING"
            }
        };
        let hint = if is_there { String::new() } else { format!("    {}", tool.install) };
        println!("{state:9} {:12} {}{hint}", tool.name, tool.needed_by);
    }
    Ok(code)
}
