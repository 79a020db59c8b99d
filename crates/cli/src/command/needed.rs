//! `fastgup needed`: which fences, re-checks, flushes, locks and orders of the code are needed.

use std::io::{self, Write};
use std::path::PathBuf;

use anstyle::Style;
use races::{Asked, Need, NeedOptions, Overall, Pairs, Race, Standing, overall};
use serde::Serialize;

use crate::arguments::{Needed, ShowNeeds};
use crate::command::check::{limits, orders};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Line;
use crate::save::Saver;
use crate::select;
use crate::show::columns;
use crate::show::number::{Count, plural};
use crate::show::palette::{ASIDE, BROKEN, HEADING, SAFE, UNDECIDED};
use crate::show::width;

/// Asks about the races that the words name.
pub(crate) fn run(arguments: &Needed) -> Result<Exit, Failure> {
    let (races, failures) = select::races(&arguments.what);
    for failure in &failures {
        failure.report();
    }
    let mut exit = if failures.is_empty() { Exit::AsExpected } else { Exit::BadInput };
    let variants = select::variants(&races, &arguments.variant)?;
    let interrupt = Interrupt::listen()?;
    let line = Line::new();
    let page = width::of_stdout();
    let mut broken_output = None;
    let mut not_saved = None;
    let mut saver = arguments.save.as_deref().map(Saver::in_folder).transpose()?;
    let mut all = Vec::new();
    for memory in orders(arguments.memory) {
        let options = NeedOptions {
            memory,
            variants: variants.clone(),
            filter: arguments.place.clone(),
            pairs: if arguments.pairs { Pairs::Asked } else { Pairs::Skipped },
            limits: limits(&arguments.limits),
            threads: arguments.jobs,
            progress: Some(line.callback()),
            cancel: Some(interrupt.flag()),
        };
        races::needed(&races, &options, |asked| {
            exit = exit.and(of(&asked));
            let saved = match (&mut saver, &not_saved) {
                (Some(saver), None) => save(saver, &races, &asked).unwrap_or_else(|failure| {
                    not_saved = Some(failure);
                    Vec::new()
                }),
                _ => Vec::new(),
            };
            if broken_output.is_none()
                && let Err(error) = line.suspended(|| print(arguments, &asked, &saved, page))
            {
                broken_output = Some(error);
                interrupt.cancel();
            }
            all.push(asked);
        });
    }
    drop(line);
    if let Some(error) = broken_output {
        return Err(error.into());
    }
    if all.iter().filter(|asked| asked.refused.is_none()).count() > 1 {
        print_overall(arguments, &all)?;
    }
    if let Some(failure) = not_saved {
        return Err(failure);
    }
    Ok(if interrupt.is_by_user() { Exit::Interrupted } else { exit })
}

/// Saves the runs that show what is needed, and says where; nothing where there is none.
fn save(saver: &mut Saver, races: &[Race], asked: &Asked) -> Result<Vec<Option<PathBuf>>, Failure> {
    let Some(race) = races.iter().find(|race| race.source.name() == asked.file) else { return Ok(Vec::new()) };
    asked.needs.iter().map(|need| saver.save_need(race, asked, need)).collect()
}

fn of(asked: &Asked) -> Exit {
    match asked.refused {
        Some(_) if asked.is_bounded => Exit::Bounded,
        Some(_) => Exit::BadInput,
        None if asked.needs.iter().any(|need| need.needed.is_none()) => Exit::Bounded,
        None => Exit::AsExpected,
    }
}

/// An answer as a line of JSON.
#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    asked: &'a Asked,
    /// For each need the file in which its run was saved.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    saved: &'a [Option<PathBuf>],
}

fn print(arguments: &Needed, asked: &Asked, saved: &[Option<PathBuf>], page: usize) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &Object { asked, saved })?;
        writeln!(out)?;
        return out.flush();
    }
    let variant = asked.variant.as_deref().map(|variant| format!(", {variant}")).unwrap_or_default();
    write!(out, "{HEADING}{}{HEADING:#}{variant}, {}", asked.file, asked.memory.name())?;
    if let Some(refused) = &asked.refused {
        writeln!(out, "\n  {UNDECIDED}not asked{UNDECIDED:#}: {refused}")?;
        return out.flush();
    }
    writeln!(out, "{ASIDE}: safe, {} states{ASIDE:#}", Count(asked.states))?;
    let places = |need: &Need| need.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
    let widest = asked.needs.iter().map(|need| places(need).len()).max().unwrap_or(0);
    for (number, need) in asked.needs.iter().enumerate() {
        let (style, word) = in_words(need);
        let places = places(need);
        write!(out, "  {style}{word:11}{style:#}  {places:widest$}  ")?;
        match (&need.breaks, need.needed) {
            (Some(rule), _) => {
                let steps =
                    need.trace.as_ref().map(|trace| format!(" in {}", plural(trace.steps.len() as u64, "step")));
                writeln!(out, "{rule}{ASIDE}{}{ASIDE:#}", steps.unwrap_or_default())?;
            }
            (None, Some(_)) => writeln!(out, "{ASIDE}in {} states{ASIDE:#}", Count(need.states))?,
            (None, None) => writeln!(out, "{ASIDE}{}{ASIDE:#}", need.message.as_deref().unwrap_or(""))?,
        }
        if let Some(Some(path)) = saved.get(number) {
            writeln!(out, "    saved: fastgup replay {}", path.display())?;
        }
        if arguments.trace == ShowNeeds::Always
            && let Some(trace) = &need.trace
        {
            writeln!(out)?;
            columns::write(&mut out, trace, page)?;
            for line in width::wrap(need.message.as_deref().unwrap_or(""), page) {
                writeln!(out, "{line}")?;
            }
            writeln!(out)?;
        }
    }
    let count = |wanted| asked.needs.iter().filter(|need| need.needed == wanted).count() as u64;
    write!(out, "  {} needed, {} not needed within this bound", Count(count(Some(true))), Count(count(Some(false))))?;
    match count(None) {
        0 => {}
        undecided => write!(out, ", {} not decided", Count(undecided))?,
    }
    if asked.left_out != 0 {
        write!(out, "{ASIDE}; not asked: {} of the scenario itself{ASIDE:#}", plural(asked.left_out as u64, "place"))?;
    }
    writeln!(out, "\n")?;
    out.flush()
}

fn in_words(need: &Need) -> (Style, &'static str) {
    match need.needed {
        Some(true) => (BROKEN, "needed"),
        Some(false) => (SAFE, "not needed"),
        None => (UNDECIDED, "not decided"),
    }
}

/// Places of which at least one variant shows that they are needed; with JSON an object with the member `overall`.
fn print_overall(arguments: &Needed, all: &[Asked]) -> io::Result<()> {
    let places = overall(all);
    let variants = all.iter().filter(|asked| asked.refused.is_none()).count();
    let mut out = anstream::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &serde_json::json!({ "variants": variants, "overall": places }))?;
        writeln!(out)?;
        return out.flush();
    }
    writeln!(out, "{HEADING}all {variants} together{HEADING:#}{ASIDE}: needed is what one of them needs{ASIDE:#}")?;
    let names = |place: &Overall| place.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
    let widest = places.iter().map(|place| names(place).len()).max().unwrap_or(0);
    for place in &places {
        let style = match place.standing {
            Standing::Needed => BROKEN,
            Standing::NotNeeded => SAFE,
            Standing::NotDecided => UNDECIDED,
        };
        let mut rules: Vec<&str> = place.needed_by.iter().map(|by| by.breaks.as_str()).collect();
        rules.sort_unstable();
        rules.dedup();
        let by = match place.needed_by.len() {
            0 => format!("asked of {}", place.asked),
            count => format!("{count} of {}: {}", place.asked, rules.join(", ")),
        };
        writeln!(
            out,
            "  {style}{:11}{style:#}  {:widest$}  {ASIDE}{by}{ASIDE:#}",
            place.standing.name(),
            names(place)
        )?;
    }
    let count = |standing| places.iter().filter(|place| place.standing == standing).count() as u64;
    let (needed, spare) = (count(Standing::Needed), count(Standing::NotNeeded));
    write!(out, "  {} needed, {} not needed within these bounds", Count(needed), Count(spare))?;
    match count(Standing::NotDecided) {
        0 => writeln!(out, "\n")?,
        undecided => writeln!(out, ", {} not decided\n", Count(undecided))?,
    }
    out.flush()
}
