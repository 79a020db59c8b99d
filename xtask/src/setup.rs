//! `cargo xtask setup`: what this machine lacks.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo::succeeds;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install with apt-get what is missing and can be had there
    #[arg(long)]
    install: bool,
}

/// What the kernel's steps need, as packages of Debian and Ubuntu: an emulator, and a compiler whose `core` can be built for any target, with its clippy.
const KERNEL_PACKAGES: [&str; 5] = ["qemu-system-x86", "rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];

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
        name: "QEMU",
        needed_by: "fastgup boot, cargo xtask test kernel",
        need: Need::Optional,
        probe: &["qemu-system-x86_64", "--version"],
        install: "apt-get install qemu-system-x86",
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
    Tool {
        name: "SPIN",
        needed_by: "cargo xtask test unit, and cargo xtask bench spin, for a second checker's verdicts",
        need: Need::Optional,
        probe: &["spin", "-V"],
        install: "apt-get install spin",
    },
    Tool {
        name: "Rumur",
        needed_by: "cargo xtask test unit, and cargo xtask bench protocol, for a second checker's number of states",
        need: Need::Optional,
        probe: &["rumur", "--version"],
        install: "apt-get install rumur",
    },
];

/// Says which tools are there. Fails if a required one is not.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.install {
        install_for_kernel()?;
    }
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
    for mode in boot::Mode::ALL {
        match boot::Toolchain::find(mode.target()) {
            Ok(toolchain) => {
                println!("{:9} {:12} the {} image ({})", "ok", "cross core", mode.name(), toolchain.name());
                if let Err(lack) = toolchain.clippy(mode.target()) {
                    println!("{:9} {:12} the {} image    {lack}", "optional", "clippy", mode.name());
                }
            }
            Err(error) => println!("{:9} {:12} the {} image    {error}", "optional", "cross core", mode.name()),
        }
    }
    Ok(code)
}

/// Whether the three images can be built and run here.
pub(crate) fn lacks_for_kernel() -> Option<String> {
    let qemu = boot::Qemu::find().err().map(|error| error.to_string());
    let core = boot::Mode::ALL.iter().find_map(|mode| boot::Toolchain::find(mode.target()).err());
    qemu.or_else(|| core.map(|error| error.to_string()))
}

/// Whether an image's compiler is Debian's, and its clippy is not there.
fn lacks_clippy(mode: boot::Mode) -> bool {
    let toolchain = boot::Toolchain::find(mode.target());
    toolchain.is_ok_and(|found| found == boot::Toolchain::Debian && found.clippy(mode.target()).is_err())
}

/// Installs what the kernel needs and is not there, and says what.
///
/// # Errors
/// There is no apt-get, we may not, or it fails.
pub(crate) fn install_for_kernel() -> Result<()> {
    let mut missing = Vec::new();
    if boot::Qemu::find().is_err() {
        missing.push(KERNEL_PACKAGES[0]);
    }
    if boot::Mode::ALL.iter().any(|mode| boot::Toolchain::find(mode.target()).is_err()) {
        missing.extend(&KERNEL_PACKAGES[1..]);
    } else if boot::Mode::ALL.iter().any(|mode| lacks_clippy(*mode)) {
        missing.push(KERNEL_PACKAGES[4]);
    }
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(", "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().context("cannot start apt-get")?;
        ensure!(status.success(), "apt-get {}: {status}", arguments.join(" "));
        Ok(())
    };
    apt(&["update", "-qq"])?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    apt(&[&install[..], &missing].concat())
}
