//! `fastgup races`: what is in the catalogue.

use std::io::Write;

use races::{LoadError, Race, catalogue};

use crate::arguments::Races;
use crate::exit::Exit;
use crate::failure::Failure;
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
                Err(error @ LoadError::Unknown { .. }) => return Err(error.into()),
                Err(error) => return Err(error.into()),
            },
        },
    }
    out.flush()?;
    Ok(Exit::AsExpected)
}

fn list(out: &mut dyn Write) -> Result<(), Failure> {
    let page = width::of_stdout();
    let names = catalogue::entries().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut folder = "";
    for entry in catalogue::entries() {
        if entry.folder != folder {
            folder = entry.folder;
            writeln!(out, "{HEADING}{folder}{HEADING:#}")?;
        }
        let race = Race::find(entry.name)?;
        let litmus = &race.litmus;
        let variants = match litmus.variants.len() {
            0 => String::new(),
            count => format!("{count} variants"),
        };
        let left =
            format!("  {:names$}  {:8}  {} CPUs  {variants:11}  ", entry.name, litmus.mode.node.name(), litmus.cpus());
        let quote = litmus.quotes.first().map_or("", |quote| quote.trim());
        let room = page.saturating_sub(left.len());
        let source = if quote.chars().count() <= room {
            quote.to_owned()
        } else {
            quote.chars().take(room.saturating_sub(3)).chain("...".chars()).take(room).collect()
        };
        writeln!(out, "{}", format!("{left}{ASIDE}{source}{ASIDE:#}").trim_end())?;
    }
    Ok(())
}
