//! The kernel whose memory manager is the engine, in QEMU: built, self-checked, loaded, and ended on purpose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use boot::image::{self, Profile};
use boot::{Accelerator, Ended, Machine, Mode, Report};

use super::for_each_mode;
use crate::cargo::target_dir;
use crate::setup;
use crate::summary::Outcome;
use crate::tally::Tally;

/// CPUs of each image: more than the host may have, so that some wait for others that do not run.
const CPUS: [(Mode, u32); 3] = [(Mode::Pae, 4), (Mode::X86_64, 3), (Mode::La57, 2)];
/// Loads whose claims do not depend on how fast the host is, and how many operations of each.
const LOADS: [(&str, u64); 5] =
    [("torn", 200_000), ("shootdown", 20_000), ("tables", 20_000), ("fork", 20_000), ("special", 5_000)];

pub(crate) fn run() -> Result<Outcome> {
    if setup::lacks_for_kernel().is_some()
        && let Err(error) = setup::install_for_kernel()
    {
        eprintln!("{error:#}");
    }
    if let Some(lack) = setup::lacks_for_kernel() {
        return Ok(Outcome::Skipped(lack));
    }
    let mut tally = Tally::default();
    let mut judge = |what: &str, wrong: Option<&Report>| match wrong {
        None => {
            eprintln!("{what}: ok");
            tally.pass();
        }
        Some(report) => {
            let why = words(report);
            eprintln!("{what}: {why}");
            tally.fail(what, why);
        }
    };
    let images = images()?;
    for (mode, cpus) in CPUS {
        let plain = machine(mode, &images[&mode], cpus);
        for (load, operations) in LOADS {
            let checks = if load == LOADS[0].0 { 200_000 } else { 1000 };
            let words = format!("load={load} ops={operations} checks={checks}");
            let report = start(&Machine { words, ..plain.clone() })?;
            let is_well = report.ended == Ended::Well && report.cpus == Some(cpus) && report.results.len() == 2;
            judge(&format!("{} {load}", mode.name()), (!is_well).then_some(&report));
        }
    }
    let plain = machine(Mode::Pae, &images[&Mode::Pae], 2);
    let refusals = [
        (Machine { cpus: 1, words: "load=torn".to_owned(), ..plain.clone() }, "two CPUs"),
        (Machine { mebibytes: 64, ..plain.clone() }, "128 MiB"),
        (Machine { words: "load=nonsense".to_owned(), ..plain.clone() }, "there is no load nonsense"),
        (Machine { model: Some("max,-pae".to_owned()), ..plain.clone() }, "no PAE"),
        (Machine { model: Some("max,-nx".to_owned()), ..plain.clone() }, "no NX"),
    ];
    let unfit = |mode, model: &str| Machine { model: Some(model.to_owned()), ..machine(mode, &images[&mode], 2) };
    let others = [
        (unfit(Mode::X86_64, "max,-lm"), "no long mode"),
        (unfit(Mode::X86_64, "max,-nx"), "no NX"),
        (unfit(Mode::La57, "max,-la57"), "no LA57"),
    ];
    for (machine, why) in refusals.into_iter().chain(others) {
        let report = start(&machine)?;
        let is_said = matches!(&report.ended, Ended::Refused { message } if message.contains(why));
        judge(&format!("refused: {why}"), (!is_said).then_some(&report));
    }
    let endless =
        Machine { words: "load=tables ops=1000000000000".to_owned(), limit: Duration::from_secs(8), ..plain.clone() };
    let report = start(&endless)?;
    let is_shown =
        matches!(&report.ended, Ended::Hung(fault) if fault.registers.contains_key("CR3") && !fault.walk.is_empty());
    judge("a run without an end is ended, with registers and a walk", (!is_shown).then_some(&report));
    let report = start(&triple_fault(&endless)?)?;
    let is_shown = matches!(&report.ended, Ended::Reset(fault) if fault.registers.contains_key("CR3"));
    judge("a machine that resets itself is named, with registers", (!is_shown).then_some(&report));
    Ok(Outcome::Ran(tally))
}

/// All images, built.
fn images() -> Result<BTreeMap<Mode, PathBuf>> {
    let built = for_each_mode(|mode| image::build(mode, Profile::Dev, &target_dir()));
    built.into_iter().map(|(mode, image)| Ok((mode, image?))).collect()
}

/// What came of a run that should have been another: how it ended, what was counted, and the kernel's last words.
fn words(report: &Report) -> String {
    let Report { ended, cpus, seconds, results, said, .. } = report;
    let mut lines = vec![format!("after {seconds:.1} s: {ended:?}"), format!("CPUs that ran: {cpus:?}")];
    lines.extend(results.iter().map(|counted| format!("{counted:?}")));
    lines.extend(said.iter().map(|line| format!("| {line}")));
    lines.join("\n")
}

/// A machine whose kernel is two bytes: an undefined instruction, where there is no table of handlers. Loaded by Multiboot, which takes a plain file if its header says where it goes.
fn triple_fault(like: &Machine) -> Result<Machine> {
    const MAGIC: u32 = 0x1bad_b002;
    /// Addresses are in the header.
    const FLAGS: u32 = 1 << 16;
    const LOAD: u32 = 0x10_0000;
    const HEADER: u32 = 32;
    let end = LOAD + HEADER + 2;
    let header = [MAGIC, FLAGS, 0_u32.wrapping_sub(MAGIC).wrapping_sub(FLAGS), LOAD, LOAD, end, end, LOAD + HEADER];
    let mut file: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.extend([0x0f, 0x0b]);
    let image = target_dir().join("kernel").join("triple-fault");
    std::fs::write(&image, file)?;
    Ok(Machine { image, words: String::new(), limit: Duration::from_secs(20), ..like.clone() })
}

fn machine(mode: Mode, image: &Path, cpus: u32) -> Machine {
    Machine {
        mode,
        image: image.to_owned(),
        words: "load=none checks=1000".to_owned(),
        initial_files: None,
        accelerator: Accelerator::Emulation,
        model: None,
        cpus,
        mebibytes: 512,
        limit: Duration::from_secs(120),
        silence: Duration::from_secs(60),
    }
}

fn start(machine: &Machine) -> Result<Report> {
    Ok(boot::run(machine, &AtomicBool::new(false), |_| ())?)
}
