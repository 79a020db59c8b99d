//! A Linux to compare with: the kernel of Debian's package, found and unpacked without being installed, and without being root.
//!
//! `apt-get` works on lists and a cache of its own for this, so that a foreign architecture need not be added to the system. Sources, keys and proxies are the system's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::image::Mode;

/// A kernel.
#[derive(Clone, Debug)]
pub struct Linux {
    /// Its name and version, for people.
    pub name: String,
    /// The compressed kernel.
    pub image: PathBuf,
}

/// Why there is no kernel.
#[derive(thiserror::Error, Debug)]
pub enum LinuxError {
    /// A program of Debian's is missing.
    #[error(
        "cannot start {program} ({cause}): this needs a Debian or Ubuntu; elsewhere name a kernel with --linux FILE"
    )]
    NoTool {
        /// Which.
        program: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// No package has such a kernel.
    #[error("no package linux-image-VERSION-{flavour} for {architecture} in the sources of apt: name a kernel with --linux FILE{}", complaint(.said))]
    NoPackage {
        /// The kind of kernel.
        flavour: &'static str,
        /// For which machine.
        architecture: &'static str,
        /// What the update of the lists complained about.
        said: String,
    },
    /// A package cannot be fetched or unpacked.
    #[error("{what} failed: {said}")]
    Failed {
        /// What was tried.
        what: String,
        /// What it said.
        said: String,
    },
    /// The cache cannot be written or read.
    #[error("{}: {cause}", path.display())]
    Cache {
        /// Where.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

fn complaint(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; the lists were not updated: {text}") }
}

impl Linux {
    /// A kernel that the user has.
    ///
    /// # Errors
    /// There is no such file.
    pub fn from_file(image: &Path) -> Result<Self, LinuxError> {
        fs::metadata(image).map_err(|cause| LinuxError::Cache { path: image.to_owned(), cause })?;
        let name = image.file_name().unwrap_or(image.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, image: image.to_owned() })
    }

    /// Debian's kernel for a mode: from the cache below `target`, else from its package.
    ///
    /// # Errors
    /// This is no Debian, no package has one, or it cannot be fetched.
    pub fn of_debian(mode: Mode, target: &Path) -> Result<Self, LinuxError> {
        let apt = Apt::below(mode, target)?;
        if let Some(image) = apt.unpacked()? {
            return Self::from_file(&image);
        }
        let complaint = apt.update()?;
        let names = apt.run("apt-cache", &["pkgnames", "linux-image-"])?;
        let package = best(&String::from_utf8_lossy(&names.stdout), apt.flavour).ok_or(LinuxError::NoPackage {
            flavour: apt.flavour,
            architecture: apt.architecture,
            said: complaint,
        })?;
        apt.fetch(&package)?;
        let image = apt.unpacked()?.ok_or_else(|| LinuxError::Failed {
            what: format!("unpacking {package}"),
            said: "there is no boot/vmlinuz in it".to_owned(),
        })?;
        Self::from_file(&image)
    }
}

/// `apt-get` for one architecture, with lists and packages of its own.
struct Apt {
    architecture: &'static str,
    flavour: &'static str,
    folder: PathBuf,
}

impl Apt {
    fn below(mode: Mode, target: &Path) -> Result<Self, LinuxError> {
        let (architecture, flavour) = match mode {
            Mode::Pae => ("i386", "686-pae"),
            Mode::X86_64 | Mode::La57 => ("amd64", "amd64"),
        };
        let folder = target.join("linux").join(architecture);
        for inner in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(inner);
            fs::create_dir_all(&path).map_err(|cause| LinuxError::Cache { path, cause })?;
        }
        // Apt takes paths as they are seen from the system's root.
        let folder = folder.canonicalize().map_err(|cause| LinuxError::Cache { path: folder, cause })?;
        Ok(Self { architecture, flavour, folder })
    }

    fn run(&self, program: &'static str, arguments: &[&str]) -> Result<Output, LinuxError> {
        let mut command = Command::new(program);
        command
            .arg(format!("-oAPT::Architecture={}", self.architecture))
            .arg(format!("-oAPT::Architectures::={}", self.architecture))
            .arg(format!("-oDir::State::Lists={}", self.folder.join("lists").display()))
            .arg(format!("-oDir::Cache={}", self.folder.join("cache").display()))
            // Who unpacks user-owned folders in a sandbox could not write there; the signatures are looked at all the same.
            .arg("-oAPT::Sandbox::User=root")
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command.output().map_err(|cause| LinuxError::NoTool { program, cause })
    }

    /// Brings the lists up to date, and returns what it complains about: one source that does not answer need not be the one with the package.
    fn update(&self) -> Result<String, LinuxError> {
        let output = self.run("apt-get", &["-qq", "update"])?;
        Ok(if output.status.success() { String::new() } else { first_line(&output.stderr) })
    }

    /// Fetches a package and unpacks its kernel, and nothing else of it.
    fn fetch(&self, package: &str) -> Result<(), LinuxError> {
        let succeed = |what: &str, output: Output| {
            let failed = || LinuxError::Failed { what: what.to_owned(), said: first_line(&output.stderr) };
            if output.status.success() { Ok(()) } else { Err(failed()) }
        };
        succeed(&format!("apt-get download {package}"), self.run("apt-get", &["-qq", "download", package])?)?;
        // `_` and what follows are the version's.
        let is_ours = |name: &str| name.starts_with(&format!("{package}_")) && name.ends_with(".deb");
        let file = self.first_file(&self.folder, is_ours)?.ok_or_else(|| LinuxError::Failed {
            what: format!("apt-get download {package}"),
            said: "it left no package".to_owned(),
        })?;
        let no_tool = |program| move |cause| LinuxError::NoTool { program, cause };
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--fsys-tarfile").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut unpack = unpack.spawn().map_err(no_tool("dpkg-deb"))?;
        let mut extract = Command::new("tar");
        extract.args(["--extract", "--file=-", "--wildcards", "./boot/vmlinuz-*"]).current_dir(&self.folder);
        extract.stdin(unpack.stdout.take().map_or_else(Stdio::null, Stdio::from));
        let extracted = extract.output().map_err(no_tool("tar"));
        // Whatever it was, tar says it.
        let _ = unpack.wait();
        succeed(&format!("unpacking {}", file.display()), extracted?)
    }

    fn unpacked(&self) -> Result<Option<PathBuf>, LinuxError> {
        let folder = self.folder.join("boot");
        if folder.is_dir() { self.first_file(&folder, |name| name.starts_with("vmlinuz-")) } else { Ok(None) }
    }

    fn first_file(&self, folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<Option<PathBuf>, LinuxError> {
        let failed = |cause| LinuxError::Cache { path: folder.to_owned(), cause };
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.file_name().and_then(|name| name.to_str()).is_some_and(&is_it) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

fn first_line(said: &[u8]) -> String {
    String::from_utf8_lossy(said).lines().next().unwrap_or_default().to_owned()
}

/// The newest kernel of the release's own series: where a backport is offered, too, its first two numbers are higher.
fn best(names: &str, flavour: &str) -> Option<String> {
    let version_of = |name: &str| {
        let version = name.strip_prefix("linux-image-")?.strip_suffix(flavour)?.strip_suffix('-')?;
        // `rt` and `cloud` are other flavours, and a name without a version only leads to another.
        let numbers: Option<Vec<u32>> = version.split(['.', '-']).map(|number| number.parse().ok()).collect();
        numbers.filter(|numbers| numbers.len() > 2)
    };
    let versions: Vec<(Vec<u32>, &str)> = names.lines().filter_map(|name| Some((version_of(name)?, name))).collect();
    let series = versions.iter().map(|(version, _)| &version[..2]).min()?;
    let newest = versions.iter().filter(|(version, _)| &version[..2] == series).max()?;
    Some(newest.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_the_oldest_series_is_taken() {
        let names = "linux-image-6.1.0-9-amd64\nlinux-image-6.1.0-50-amd64\nlinux-image-6.1.0-57-amd64-unsigned\n\
                     linux-image-6.1.0-58-rt-amd64\nlinux-image-6.1.0-58-cloud-amd64\nlinux-image-amd64\n\
                     linux-image-6.12.0-3-amd64\nlinux-image-6.1.0-99-686-pae\nlinux-image-amd64-signed-template";
        assert_eq!(best(names, "amd64").as_deref(), Some("linux-image-6.1.0-50-amd64"));
        assert_eq!(best(names, "686-pae").as_deref(), Some("linux-image-6.1.0-99-686-pae"));
        assert_eq!(best(names, "arm64"), None);
        assert_eq!(best("", "amd64"), None);
    }

    #[test]
    fn a_kernel_that_is_not_there_is_named() {
        let error = Linux::from_file(Path::new("/nowhere/vmlinuz")).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/vmlinuz: "), "{error}");
    }
}
