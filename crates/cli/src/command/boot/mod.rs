//! `fastgup boot`: the engine under a real MMU.

mod bar;
mod beside;
mod lab;
mod record;
mod show;

use std::num::NonZeroU32;
use std::path::PathBuf;

use boot::console::Event;
use boot::image::Profile;
use boot::{Accelerator, Ended, Machine, Mode};

use self::bar::Bar;
use self::record::Record;
use crate::arguments::{self, Boot};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Builds the kernel if needed, runs it, and says what came of it.
pub(crate) fn run(arguments: &Boot) -> Result<Exit, Failure> {
    if arguments.beside_linux {
        return beside::run(arguments);
    }
    let interrupt = Interrupt::listen()?;
    let mode = arguments.mode.map_or(Mode::Pae, mode_of);
    let record = arguments.markdown.as_deref().map(|path| Record::find(path, arguments, mode)).transpose()?;
    let bar = Bar::new();
    let image = match &arguments.image {
        Some(image) => image.clone(),
        None => {
            bar.says(format!("building the {} image", mode.name()));
            let profile = if arguments.release { Profile::Release } else { Profile::Dev };
            boot::image::build(mode, profile, &target()).map_err(|error| Failure::Boot(error.to_string()))?
        }
    };
    bar.says(format!("booting {}", mode.name()));
    let machine = machine(arguments, mode, image, words(arguments), MEBIBYTES);
    let cancel = interrupt.flag();
    let report = boot::run(&machine, &cancel, |event| {
        if let Event::Progress { load, done, of } = event {
            bar.is_at(load, *done, *of);
        }
    });
    drop(bar);
    let report = report.map_err(|error| Failure::Boot(error.to_string()))?;
    show::print(arguments, &report, &lab::beside_the_lab(&report))?;
    if let Some(record) = record {
        record.write(&report)?;
    }
    Ok(exit_of(&report.ended))
}

const fn exit_of(ended: &Ended) -> Exit {
    match ended {
        Ended::Well => Exit::AsExpected,
        Ended::NotWell | Ended::Fault(_) | Ended::Reset(_) => Exit::Differs,
        Ended::Refused { .. } | Ended::Lost { .. } => Exit::BadInput,
        Ended::Hung(_) => Exit::Bounded,
        Ended::Cancelled => Exit::Interrupted,
    }
}

/// Memory of a machine, if nothing is said.
const MEBIBYTES: u32 = 512;

fn machine(arguments: &Boot, mode: Mode, image: PathBuf, words: String, mebibytes: u32) -> Machine {
    Machine {
        mode,
        image,
        words,
        initial_files: None,
        accelerator: accelerator_of(arguments.accel),
        model: arguments.model.clone(),
        cpus: arguments.cpus.get(),
        mebibytes: arguments.memory.map_or(mebibytes, NonZeroU32::get),
        limit: arguments.limit_seconds,
        silence: arguments.limit_silence,
    }
}

const fn accelerator_of(accel: arguments::Accel) -> Accelerator {
    match accel {
        arguments::Accel::Tcg => Accelerator::Emulation,
        arguments::Accel::TcgSingleStep => Accelerator::SingleStep,
        arguments::Accel::Kvm => Accelerator::Kvm,
    }
}

const fn mode_of(mode: arguments::Mode) -> Mode {
    match mode {
        arguments::Mode::Pae => Mode::Pae,
        arguments::Mode::X86_64 => Mode::X86_64,
        arguments::Mode::La57 => Mode::La57,
    }
}

fn words(arguments: &Boot) -> String {
    let mut words = format!("load={} ops={} seed={}", arguments.load, arguments.ops, arguments.seed);
    if let Some(checks) = arguments.checks {
        words.push_str(&format!(" checks={checks}"));
    }
    words
}

/// Where images are built.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || boot::image::source().parent().map_or_else(|| PathBuf::from("target"), |above| above.join("target")),
        PathBuf::from,
    )
}
