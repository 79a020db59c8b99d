//! `fastgup races`: what is in the catalogue.

use std::io::Write;

use races::{Race, catalogue};

use crate::arguments::Races;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::show::number::plural;
use crate::show::palette::{ASIDE, HEADING};
use crate::show::width;

/// Lists the races, or prints the file of one.
pub(crate) fn run(arguments: &Races) -> Result<Exit, Failure> {
    let mut out = anstream::stdout().lock();
    match &arguments.name {
        None => list(&mut out)?,
        Some(name) => match catalogue::entry(name) {
            Some(entry) => write!(out, "{}", entry.text)?,
            // `find` knows which name was probably meant.
            None => match Race::find(name) {
                Ok(race) => write!(out, "{}", race.source.text())?,
                Err(error) => return Err(error.into()),
            },
        },
    }
    out.flush()?;
    Ok(Exit::AsExpected)
}

/// One line for each race: name, mode, CPUs, variants, and where it comes from, cut where the terminal ends.
fn list(out: &mut dyn Write) -> Result<(), Failure> {
    let page = width::of_terminal().unwrap_or(usize::MAX);
    let names = catalogue::entries().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut folder = "";
    for entry in catalogue::entries() {
        if entry.folder != folder {
            folder = entry.folder;
            writeln!(out, "{HEADING}{folder}{HEADING:#}")?;
        }
        let race = Race::find(entry.name)?;
        let litmus = &race.litmus;
        let cpus = plural(litmus.cpus() as u64, "CPU");
        let mut left = format!("  {:names$}  {:9}  {cpus:6}  ", entry.name, litmus.mode.node.name());
        if !litmus.variants.is_empty() {
            left.push_str(&format!("{:11}  ", plural(litmus.variants.len() as u64, "variant")));
        }
        let quote = litmus.quotes.first().map_or("", |quote| quote.trim());
        let room = page.saturating_sub(left.len());
        let source = if quote.chars().count() <= room {
            quote.to_owned()
        } else {
            quote.chars().take(room.saturating_sub(3)).chain("...".chars()).take(room).collect()
        };
        writeln!(out, "{left}{ASIDE}{source}{ASIDE:#}")?;
    }
    Ok(())
}
