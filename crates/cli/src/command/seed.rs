//! `fastgup` without arguments: the question this project began with, and its answer.

use std::io::{self, Write};

use races::{MemoryOrder, Options, Race, VariantReport, Verdict};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::mends::{Mends, mends};
use crate::progress::Line;
use crate::show::palette::{ASIDE, HEADING};
use crate::show::verdict::{Table, story};
use crate::show::width;

const SEED: &str = "pae-zap-refault";
/// The variant that the mailing list asked about.
const ASKED: &str = "low-high-low";

const QUESTION: &str = "\
On 32-bit PAE, fast GUP reads a 64-bit page-table entry in two halves: low, high, then low again to see that nothing has \
moved, with interrupts off so that no TLB-flush IPI can complete meanwhile. May it still get a mixture of two entries, while the CPU that \
zapped the first one (and has dropped the page-table lock) waits for that very IPI, and a third CPU faults the page back in?";

const SAFE: &str = "\
safe: every order was explored in which these CPUs, their page walkers, TLBs, interrupts and store buffers can act, and no rule is broken.";

const NEXT: &str = "\
Next: `fastgup check` decides the whole catalogue, `fastgup races` lists it, `fastgup races pae-zap-refault` prints this \
file; copy it, change it, and run `fastgup check FILE`.";

/// Decides every variant of the seed and shows the one that was asked about.
pub(crate) fn run() -> Result<Exit, Failure> {
    let race = Race::find(SEED)?;
    let page = width::of_stdout();
    let mut out = anstream::stdout().lock();
    paragraph(&mut out, QUESTION, page)?;
    writeln!(out)?;
    out.flush()?;
    drop(out);

    let interrupt = Interrupt::listen()?;
    let reports = decide(&race, &interrupt, page)?;
    let mut exit = reports.iter().fold(Exit::AsExpected, |exit, report| exit.and(Exit::of(report)));
    if interrupt.is_by_user() {
        exit = Exit::Interrupted;
    }
    if reports.iter().any(|report| report.verdict == Verdict::Safe) {
        let mut out = anstream::stdout().lock();
        writeln!(out)?;
        paragraph(&mut out, SAFE, page)?;
    }
    if let Some(asked) = asked(&reports) {
        let mut out = anstream::stdout().lock();
        answer(&mut out, asked, &mends(&race, asked, &reports), page)?;
        writeln!(out)?;
        paragraph(&mut out, NEXT, page)?;
        out.flush()?;
    }
    Ok(exit)
}

/// All verdicts; each is printed as soon as it is known.
fn decide(race: &Race, interrupt: &Interrupt, page: usize) -> Result<Vec<VariantReport>, Failure> {
    let line = Line::new();
    let table = Table::of(Some(race), page);
    let options = Options { progress: Some(line.callback()), cancel: Some(interrupt.flag()), ..Options::default() };
    let mut reports: Vec<VariantReport> = Vec::new();
    let mut printed = Ok(());
    races::decide(std::slice::from_ref(race), &options, |report| {
        if printed.is_ok() {
            printed = line.suspended(|| {
                let mut out = anstream::stdout().lock();
                if reports.is_empty() {
                    Table::heading(&mut out, &report)?;
                }
                table.line(&mut out, &report)?;
                out.flush()
            });
            if printed.is_err() {
                interrupt.cancel();
            }
        }
        reports.push(report);
    });
    drop(line);
    printed?;
    Ok(reports)
}

/// The report on the variant that was asked about, under the first of the file's memory orders.
fn asked(reports: &[VariantReport]) -> Option<&VariantReport> {
    reports.iter().find(|report| report.variant.as_deref() == Some(ASKED))
}

fn answer(out: &mut dyn Write, asked: &VariantReport, mends: &Mends, page: usize) -> io::Result<()> {
    let variant = asked.variant.as_deref().unwrap_or("");
    let words = match asked.verdict {
        Verdict::Violation if asked.memory == MemoryOrder::Sc => {
            "yes, it may, even on a machine without store buffers. The shortest way there:"
        }
        Verdict::Violation => "yes, it may. The shortest way there:",
        Verdict::Safe => "no. Every interleaving was explored.",
        Verdict::Bounded | Verdict::Error => "not known: the search ended early.",
    };
    writeln!(out)?;
    paragraph(out, &format!("{HEADING}{variant}{HEADING:#} is the variant that was asked about: {words}"), page)?;
    if asked.verdict != Verdict::Violation {
        return Ok(());
    }
    story(out, asked, page)?;
    if let Some(explanation) = &asked.explanation {
        paragraph(out, explanation, page)?;
        writeln!(out)?;
    }
    let list = |out: &mut dyn Write, heading: &str, choices: &[String]| -> io::Result<()> {
        if choices.is_empty() { Ok(()) } else { paragraph(out, &format!("{heading} {}.", choices.join("; ")), page) }
    };
    list(out, "Any one of these changes closes it:", &mends.closing)?;
    list(out, "These alone do not:", &mends.failing)?;
    writeln!(out, "{ASIDE}Nothing else was changed; the engine is the same code in every line above.{ASIDE:#}")
}

fn paragraph(out: &mut dyn Write, text: &str, page: usize) -> io::Result<()> {
    for line in width::wrap(text, page) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
