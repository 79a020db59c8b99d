//! The engine builds where there is no operating system.

use std::process::Command;

use anyhow::Result;

use super::{ENGINE, whole};
use crate::cargo::{cargo, output, workspace};
use crate::summary::Outcome;
use crate::tally::Tally;

/// Targets for which a kernel would build the engine; those that are not installed are named and passed over.
const TARGETS: [&str; 4] =
    ["x86_64-unknown-linux-gnu", "x86_64-unknown-none", "i686-unknown-linux-gnu", "i586-unknown-linux-gnu"];

pub(crate) fn run() -> Result<Outcome> {
    let mut tally = Tally::default();
    for target in TARGETS {
        if !is_installed(target)? {
            eprintln!("{target}: not installed (rustup target add {target})");
            tally.skip();
            continue;
        }
        let mut command = cargo(&workspace());
        command.args(["build", "--quiet", "--lib", "--target", target]);
        for package in ENGINE {
            command.args(["-p", package]);
        }
        let built = whole(&mut command)?;
        eprintln!("{target}: {}", if built.counts.failed == 0 { "builds" } else { "does not build" });
        tally += built;
    }
    Ok(Outcome::Ran(tally))
}

/// Whether the compiler has a core library for the target; rustup is not asked, because not everybody has it.
fn is_installed(target: &str) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let folder = output(Command::new(rustc).args(["--print", "target-libdir", "--target", target]))?;
    Ok(std::path::Path::new(folder.trim()).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate that says `no_std` can still ask for the rest by name.
    #[test]
    fn engine_sources_ask_for_neither_std_nor_alloc() {
        for package in ENGINE {
            let source = workspace().join("crates").join(package.trim_start_matches("fastgup-")).join("src");
            let root = std::fs::read_to_string(source.join("lib.rs")).expect("an engine crate has a lib.rs");
            assert!(root.contains("\n#![no_std]\n"), "{package} is not no_std without conditions");
            for file in rust_files(&source) {
                let text = std::fs::read_to_string(&file).expect("a source file can be read");
                for name in ["std", "alloc"] {
                    let ask = format!("extern crate {name}");
                    assert!(!text.contains(&ask), "{} says `{ask}`", file.display());
                }
            }
        }
    }

    fn rust_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).expect("a source folder can be read") {
            let path = entry.expect("an entry of a source folder can be read").path();
            if path.is_dir() {
                files.extend(rust_files(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
        files
    }
}
