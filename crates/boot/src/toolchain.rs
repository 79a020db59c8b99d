//! A compiler that has a `core` for a target without an operating system.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where `core` comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Toolchain {
    /// It is installed for the target (`rustup target add`).
    Installed,
    /// It is built from the source that came with the compiler (`rustup component add rust-src`).
    FromSource,
    /// It is built by Debian's compiler, from Debian's source.
    Debian,
}

/// Where Debian's `rustc-web`, `cargo-web` and `rust-web-src` are.
const DEBIAN: [&str; 3] = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust/library/core/src/lib.rs"];
/// Where Debian's `rust-web-clippy` is.
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
/// Edition 2024, and what the engine uses of `core`.
const OLDEST_MINOR: u32 = 90;

/// No compiler will do.
#[derive(thiserror::Error, Debug)]
pub enum ToolchainError {
    /// None has a `core`.
    #[error(
        "no core library for {target}: `rustup target add {target}`, or `rustup component add rust-src`, or on Debian `apt-get install rustc-web cargo-web rust-web-src`"
    )]
    NoCore {
        /// For what.
        target: &'static str,
    },
    /// There is a compiler, but no clippy of its version.
    #[error("no clippy that belongs to the kernel's compiler: `{install}`")]
    NoClippy {
        /// What brings it.
        install: &'static str,
    },
    /// There is a compiler, but no linker.
    #[error("no rust-lld beside {rustc} nor in PATH: it comes with the toolchains of rustup")]
    NoLinker {
        /// Where it was looked for.
        rustc: PathBuf,
    },
}

impl Toolchain {
    /// The first that will do for a target.
    ///
    /// # Errors
    /// None will, with what to install.
    pub fn find(target: &'static str) -> Result<Self, ToolchainError> {
        Self::find_in(&own_rustc(), DEBIAN.map(Path::new), target)
    }

    fn find_in(own: &Path, debian: [&Path; 3], target: &'static str) -> Result<Self, ToolchainError> {
        if output(Command::new(own).args(["--print", "target-libdir", "--target", target]))
            .is_some_and(|folder| Path::new(folder.trim()).is_dir())
        {
            return Ok(Self::Installed);
        }
        if sysroot(own).is_some_and(|root| root.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()) {
            return Ok(Self::FromSource);
        }
        let is_new_enough = || {
            let version = output(Command::new(debian[0]).arg("--version"))?;
            let minor = version.split_whitespace().nth(1)?.split('.').nth(1)?.parse::<u32>().ok()?;
            Some(minor >= OLDEST_MINOR)
        };
        if debian.iter().all(|file| file.is_file()) && is_new_enough() == Some(true) {
            return Ok(Self::Debian);
        }
        Err(ToolchainError::NoCore { target })
    }

    /// A `cargo` that compiles for `target`, with the linker that comes with a toolchain.
    ///
    /// # Errors
    /// There is no such linker.
    pub fn cargo(&self, target: &str) -> Result<Command, ToolchainError> {
        let program = match self {
            Self::Installed | Self::FromSource => own_cargo(),
            Self::Debian => DEBIAN[1].into(),
        };
        self.prepared(Command::new(program), "build", target)
    }

    /// Clippy for `target`: of the same version as the compiler, or it cannot read the compiler's `core`.
    ///
    /// # Errors
    /// There is none, with what to install; or there is no linker.
    pub fn clippy(&self, target: &str) -> Result<Command, ToolchainError> {
        let command = match self {
            Self::Installed | Self::FromSource => {
                let is_there = output(Command::new(own_cargo()).args(["clippy", "--version"])).is_some();
                is_there.then(|| Command::new(own_cargo()))
            }
            Self::Debian => Path::new(DEBIAN_CLIPPY).is_file().then(|| {
                let mut command = Command::new(DEBIAN_CLIPPY);
                // Which cargo it starts.
                command.env("CARGO", DEBIAN[1]);
                command
            }),
        };
        let install =
            if *self == Self::Debian { "apt-get install rust-web-clippy" } else { "rustup component add clippy" };
        self.prepared(command.ok_or(ToolchainError::NoClippy { install })?, "clippy", target)
    }

    fn prepared(&self, mut command: Command, what: &str, target: &str) -> Result<Command, ToolchainError> {
        if *self == Self::Debian {
            // Whoever runs us may have been started by another cargo.
            command.env("RUSTC", DEBIAN[0]).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTDOC");
        }
        command.stdin(Stdio::null()).env("PATH", path_with_linker()?).args([what, "--target", target]);
        for inherited in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"]
        {
            command.env_remove(inherited);
        }
        if *self != Self::Installed {
            // The only thing that is not stable here is building `core` itself.
            command.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=core");
        }
        Ok(command)
    }

    /// In a word, for folders of build products.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::FromSource => "from-source",
            Self::Debian => "debian",
        }
    }
}

fn own_cargo() -> PathBuf {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()
}

fn own_rustc() -> PathBuf {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()).into()
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    output(Command::new(rustc).args(["--print", "sysroot"])).map(|root| PathBuf::from(root.trim()))
}

/// `PATH`, with the folder of a `rust-lld` in front if there is none in it. Debian's compiler has a name for it that may lead nowhere.
fn path_with_linker() -> Result<std::ffi::OsString, ToolchainError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let has_linker = |folder: &Path| folder.join("rust-lld").metadata().is_ok_and(|file| file.is_file());
    if folders.iter().any(|folder| has_linker(folder)) {
        return Ok(path);
    }
    let rustc = own_rustc();
    let host = output(Command::new(&rustc).arg("-vV"))
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("host: ").map(str::to_owned)));
    let beside = sysroot(&rustc).zip(host).map(|(root, host)| root.join("lib/rustlib").join(host).join("bin"));
    let found = beside.filter(|folder| has_linker(folder)).ok_or(ToolchainError::NoLinker { rustc })?;
    Ok(std::env::join_paths(std::iter::once(found).chain(folders)).unwrap_or(path))
}

/// What a command prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A compiler that is a script, which knows its version and nothing else.
    fn compiler(folder: &Path, version: &str) -> PathBuf {
        let program = folder.join(version);
        fs::write(&program, format!("#!/bin/sh\n[ \"$1\" = --version ] && echo 'rustc {version} (built)'\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    #[test]
    fn a_compiler_without_a_core_is_named_with_what_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = Path::new("/nowhere/rustc");
        let source = folder.path().join("lib.rs");
        fs::write(&source, "").unwrap();
        let (old, new) = (compiler(folder.path(), "1.63.0"), compiler(folder.path(), "1.90.0"));
        let find = |rustc: &Path, source: &Path| Toolchain::find_in(nowhere, [rustc, rustc, source], "some-target");
        for (rustc, source) in [(nowhere, &source), (&old, &source), (&new, &folder.path().join("not there"))] {
            let error = find(rustc, source).unwrap_err().to_string();
            assert!(
                error.starts_with("no core library for some-target: `rustup target add some-target`, or "),
                "{error}"
            );
            assert!(error.ends_with("`apt-get install rustc-web cargo-web rust-web-src`"), "{error}");
        }
        assert_eq!(find(&new, &source).unwrap(), Toolchain::Debian);
    }
}
