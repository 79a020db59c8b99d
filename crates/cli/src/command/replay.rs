//! `fastgup replay`: does a saved run again.

use std::io::{self, IsTerminal, Write};

use anstyle::Style;
use races::{Outcome, Replayed, SavedRun, Verdict};

use crate::arguments::Replay;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::page;
use crate::save;
use crate::show::number::plural;
use crate::show::palette::{BROKEN, HEADING, SAFE, UNDECIDED};
use crate::show::{columns, states, width};
use crate::stepper::Stepper;

/// Does it again, compares, and shows it.
pub(crate) fn run(arguments: &Replay) -> Result<Exit, Failure> {
    let saved = SavedRun::read(&arguments.file)?;
    let replayed = saved.replay()?;
    let (style, words) = said(&saved, &replayed);
    if let Outcome::Same(done) = &replayed.outcome
        && arguments.html.is_none()
        && !arguments.text
        && io::stdout().is_terminal()
        && io::stdin().is_terminal()
    {
        Stepper::new(&saved, done, &words).run()?;
        return Ok(Exit::AsExpected);
    }
    let width = width::of_stdout();
    let mut out = anstream::stdout().lock();
    heading(&mut out, &saved)?;
    for line in width::wrap(&words, width) {
        writeln!(out, "{style}{line}{style:#}")?;
    }
    match replayed.outcome {
        Outcome::Same(done) => {
            if let Some(path) = &arguments.html {
                let done = [(saved, *done)];
                save::write(path, &page::page(&done))?;
                writeln!(out, "page: {}", path.display())?;
                out.flush()?;
                return Ok(Exit::AsExpected);
            }
            writeln!(out)?;
            columns::write(&mut out, &done.trace, width)?;
            writeln!(out)?;
            broken(&mut out, &saved, width)?;
            states::write(&mut out, &done.trace, &done.history, width)?;
            writeln!(out)?;
            broken(&mut out, &saved, width)?;
            out.flush()?;
            Ok(Exit::AsExpected)
        }
        Outcome::Departed(_) => {
            out.flush()?;
            Ok(Exit::Differs)
        }
    }
}

fn heading(out: &mut dyn Write, saved: &SavedRun) -> io::Result<()> {
    let variant = saved.variant.as_ref().map_or_else(String::new, |variant| format!(" {variant}"));
    let steps = plural(saved.steps.len() as u64, "step");
    let kind = match saved.shortest {
        Some(true) => ", none is shorter",
        _ => "",
    };
    writeln!(out, "{HEADING}{}{variant}{HEADING:#}", saved.file)?;
    writeln!(out, "{}, {steps}{kind}", saved.memory.name())?;
    saved.without.iter().try_for_each(|place| writeln!(out, "without {place}"))
}

/// Whether the run is what it was, in words.
fn said(saved: &SavedRun, replayed: &Replayed) -> (Style, String) {
    match (&replayed.outcome, replayed.same_code) {
        (Outcome::Same(_), true) => (SAFE, "Replayed: every step and every state is as it was saved.".to_owned()),
        (Outcome::Same(_), false) => (
            UNDECIDED,
            format!(
                "The code has changed since this run was saved by {}, but every step and every state is still as it was.",
                saved.program
            ),
        ),
        (Outcome::Departed(departed), true) => (
            BROKEN,
            format!("The code is the same, but the run is not: {departed}. Something outside the lab has a say in it."),
        ),
        (Outcome::Departed(departed), false) => (
            BROKEN,
            format!(
                "The code has changed since this run was saved by {}, and the run is another: {departed}. `fastgup check` decides the race anew.",
                saved.program
            ),
        ),
    }
}

/// The rule that the run breaks, and why.
fn broken(out: &mut dyn Write, saved: &SavedRun, page: usize) -> io::Result<()> {
    let rule = match (&saved.rule, saved.verdict) {
        (Some(rule), _) => format!("{rule}: "),
        (None, Verdict::Error) => "error: ".to_owned(),
        (None, _) => return Ok(()),
    };
    let text = format!("{rule}{}", saved.message.as_deref().unwrap_or(""));
    for (number, line) in width::wrap(&text, page).iter().enumerate() {
        match line.strip_prefix(rule.trim_end()).filter(|_| number == 0) {
            Some(rest) => writeln!(out, "{BROKEN}{}{BROKEN:#}{rest}", rule.trim_end())?,
            None => writeln!(out, "{line}")?,
        }
    }
    writeln!(out)
}
