//! The emulator: which one, and with which arguments.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::Machine;
use crate::toolchain::output;

const PROGRAM: &str = "qemu-system-x86_64";
/// Since then it knows five levels in software emulation, and PVH entries of both widths.
const OLDEST: (u32, u32) = (5, 2);
/// Emulation, each CPU in a thread of its own.
const THREADS: &str = "tcg,thread=multi";
/// Since then single steps are a property of the accelerator; before they were an option.
const STEPS_BY_PROPERTY: (u32, u32) = (8, 1);

/// What executes instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Accelerator {
    /// QEMU itself, each CPU in a thread of its own.
    #[default]
    Emulation,
    /// The same, one instruction at a time: other CPUs can come between any two, where otherwise they come between blocks.
    SingleStep,
    /// The host's CPU.
    Kvm,
}

impl Accelerator {
    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emulation => "tcg",
            Self::SingleStep => "tcg-single-step",
            Self::Kvm => "kvm",
        }
    }
}

/// A QEMU that will do.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// Its version.
    pub version: (u32, u32),
}

/// None will do.
#[derive(thiserror::Error, Debug)]
pub enum QemuError {
    /// There is none.
    #[error("no {PROGRAM}: `apt-get install qemu-system-x86`")]
    Missing,
    /// It does not say which.
    #[error("{PROGRAM} does not say its version, but: {0}")]
    Unknown(String),
    /// It is too old.
    #[error("{PROGRAM} {}.{} is too old: {}.{} or newer is needed (`apt-get install qemu-system-x86`, or first in PATH)", .0.0, .0.1, OLDEST.0, OLDEST.1)]
    TooOld((u32, u32)),
    /// There is no KVM.
    #[error("/dev/kvm cannot be opened ({0}): load the module kvm, join the group kvm, or use software emulation")]
    NoKvm(std::io::Error),
}

impl Qemu {
    /// The one in `PATH`.
    ///
    /// # Errors
    /// There is none, or it is too old.
    pub fn find() -> Result<Self, QemuError> {
        Self::at(Path::new(PROGRAM))
    }

    fn at(program: &Path) -> Result<Self, QemuError> {
        let said = output(Command::new(program).arg("--version")).ok_or(QemuError::Missing)?;
        let version = version_in(&said).ok_or_else(|| QemuError::Unknown(said.trim().to_owned()))?;
        if version < OLDEST { Err(QemuError::TooOld(version)) } else { Ok(Self { version }) }
    }

    /// A command that runs a kernel. Its console is standard output, its monitor a socket at `monitor`.
    ///
    /// # Errors
    /// KVM is asked for and cannot be had.
    pub fn command(&self, machine: &Machine, monitor: &Path) -> Result<Command, QemuError> {
        let mut command = Command::new(PROGRAM);
        let best = match machine.accelerator {
            Accelerator::Emulation => {
                command.args(["-accel", THREADS]);
                "max"
            }
            Accelerator::SingleStep => {
                if self.version < STEPS_BY_PROPERTY {
                    command.args(["-accel", THREADS, "-singlestep"]);
                } else {
                    command.arg("-accel").arg(format!("{THREADS},one-insn-per-tb=on"));
                }
                "max"
            }
            Accelerator::Kvm => {
                std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(QemuError::NoKvm)?;
                command.args(["-accel", "kvm"]);
                "host"
            }
        };
        command
            .args(["-cpu", machine.model.as_deref().unwrap_or(best)])
            .args(["-smp", &machine.cpus.to_string(), "-m", &machine.mebibytes.to_string()])
            // A machine that resets itself stops instead, so that it can be asked where it was.
            .args(["-display", "none", "-no-reboot", "-no-shutdown", "-net", "none", "-serial", "stdio"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .arg("-monitor")
            .arg(format!("unix:{},server=on,wait=off", monitor.display()))
            .arg("-kernel")
            .arg(&machine.image)
            .args(["-append", &machine.words])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(archive) = &machine.initial_files {
            command.arg("-initrd").arg(archive);
        }
        Ok(command)
    }
}

impl fmt::Display for Qemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QEMU {}.{}", self.version.0, self.version.1)
    }
}

/// `QEMU emulator version 7.2.22 (...)`.
fn version_in(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_once("version ")?.1.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a QEMU that is this script.
    fn said_of(script: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Qemu::at(&program).map_or_else(|error| error.to_string(), |qemu| qemu.to_string())
    }

    #[test]
    fn a_qemu_that_will_not_do_is_named_with_what_mends_it() {
        let missing = Qemu::at(Path::new("/nowhere/qemu")).unwrap_err().to_string();
        assert_eq!(missing, "no qemu-system-x86_64: `apt-get install qemu-system-x86`");
        let old = said_of("echo QEMU emulator version 4.2.1");
        assert!(old.starts_with("qemu-system-x86_64 4.2 is too old: 5.2 or newer is needed (`apt-get"), "{old}");
        let strange = said_of("echo hello");
        assert_eq!(strange, "qemu-system-x86_64 does not say its version, but: hello");
        assert_eq!(said_of("exit 1"), missing);
        assert_eq!(said_of("echo QEMU emulator version 9.0.0"), "QEMU 9.0");
    }

    #[test]
    fn versions_are_found_in_what_is_said() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022";
        assert_eq!(version_in(debian), Some((7, 2)));
        assert_eq!(version_in("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(version_in("QEMU emulator"), None);
        assert!((10, 0) > OLDEST && (4, 9) < OLDEST);
    }
}
