//! The three images.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::toolchain::{Toolchain, ToolchainError};

const KERNEL: &str = "fastgup-kernel";

/// What kind of paging an image uses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// 32-bit PAE.
    Pae,
    /// x86-64, four levels.
    X86_64,
    /// x86-64, five levels.
    La57,
}

impl Mode {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Pae, Self::X86_64, Self::La57];

    /// As users and the kernel write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pae => "pae",
            Self::X86_64 => "x86_64",
            Self::La57 => "la57",
        }
    }

    /// What it is compiled for.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Pae => "i686-unknown-linux-gnu",
            Self::X86_64 | Self::La57 => "x86_64-unknown-none",
        }
    }
}

/// How much the compiler does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Profile {
    /// Quick to build; overflow is checked.
    #[default]
    Dev,
    /// For measuring.
    Release,
}

/// Why there is no image.
#[derive(thiserror::Error, Debug)]
pub enum ImageError {
    /// The kernel's source is not where it was when this program was built.
    #[error("no source of the kernel in {}: run this from a checkout, or name an image", .0.display())]
    NoSource(PathBuf),
    /// No compiler.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// It cannot be started.
    #[error("the compiler cannot be started: {0}")]
    NotStarted(io::Error),
    /// It fails.
    #[error("the kernel does not build for {target}:\n{said}")]
    Failed {
        /// For what.
        target: &'static str,
        /// What the compiler said.
        said: String,
    },
}

/// Where the kernel's source was when this program was built.
pub fn source() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).join("kernel")
}

/// Builds an image, unless it is there and newer than its source, and says where it is. Products go below `target`.
///
/// # Errors
/// No source, no compiler, or it does not build.
pub fn build(mode: Mode, profile: Profile, target: &Path) -> Result<PathBuf, ImageError> {
    package(KERNEL, mode, profile, target)
}

/// Builds the program that does the work of the load `bench` on a Linux, as [`build`] builds an image.
///
/// # Errors
/// No source, no compiler, or it does not build.
pub fn build_peer(mode: Mode, target: &Path) -> Result<PathBuf, ImageError> {
    package("fastgup-peer", mode, Profile::Release, target)
}

/// Lets clippy look at everything in the kernel's folder, as a mode compiles it; any remark is an error.
///
/// # Errors
/// No source, no compiler, no clippy, or a remark.
pub fn lint(mode: Mode, target: &Path) -> Result<(), ImageError> {
    let toolchain = Toolchain::find(mode.target())?;
    let mut clippy = prepared(toolchain.clippy(mode.target())?, &Folders::of(mode, &toolchain, target))?;
    clippy.arg("--workspace");
    if mode == Mode::La57 {
        clippy.args(["--features", "la57"]);
    }
    succeed(clippy.args(["--", "-D", "warnings"]), mode)
}

fn package(name: &str, mode: Mode, profile: Profile, target: &Path) -> Result<PathBuf, ImageError> {
    let toolchain = Toolchain::find(mode.target())?;
    let folders = Folders::of(mode, &toolchain, target);
    let mut cargo = prepared(toolchain.cargo(mode.target())?, &folders)?;
    cargo.args(["--package", name]);
    if mode == Mode::La57 && name == KERNEL {
        cargo.args(["--features", "la57"]);
    }
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    succeed(&mut cargo, mode)?;
    let profile = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    Ok(folders.images.join(mode.target()).join(profile).join(name))
}

/// Where products go, for each toolchain.
struct Folders {
    /// The image: two modes' have the same name.
    images: PathBuf,
    /// All else. Modes with the same target share it, `core` above all, and cargo lets one of them wait for the other. (Cargo before 1.91 does not know the
    /// setting, and each mode has its own.)
    rest: PathBuf,
}

impl Folders {
    /// Below `target`, which each checkout has its own of, as it has its own linker scripts.
    fn of(mode: Mode, toolchain: &Toolchain, target: &Path) -> Self {
        let folder = |what: &str| target.join("kernel").join(format!("{what}-{}", toolchain.name()));
        Self { images: folder(mode.name()), rest: folder(mode.target()) }
    }
}

fn prepared(mut cargo: Command, folders: &Folders) -> Result<Command, ImageError> {
    let source = source();
    if !source.join("Cargo.toml").is_file() {
        return Err(ImageError::NoSource(source));
    }
    cargo.current_dir(&source).arg("--target-dir").arg(&folders.images).args(["--color", "never"]);
    cargo.env("CARGO_BUILD_BUILD_DIR", &folders.rest);
    Ok(cargo)
}

fn succeed(cargo: &mut Command, mode: Mode) -> Result<(), ImageError> {
    let built = cargo.stdout(Stdio::null()).stderr(Stdio::piped()).output().map_err(ImageError::NotStarted)?;
    if built.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&built.stderr).trim().to_owned();
    Err(ImageError::Failed { target: mode.target(), said })
}
