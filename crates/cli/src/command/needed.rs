//! `fastgup needed`: which fences, re-checks, flushes, locks and orders of the code are needed.

use std::io::{self, Write};

use anstyle::Style;
use races::{Asked, Need, NeedOptions, Pairs};

use crate::arguments::{Needed, ShowNeeds};
use crate::command::check::{limits, orders};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Line;
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
            if broken_output.is_none()
                && let Err(error) = line.suspended(|| print(arguments, &asked, page))
            {
                broken_output = Some(error);
                interrupt.cancel();
            }
        });
    }
    drop(line);
    if let Some(error) = broken_output {
        return Err(error.into());
    }
    Ok(if interrupt.is_by_user() { Exit::Interrupted } else { exit })
}

fn of(asked: &Asked) -> Exit {
    match asked.refused {
        Some(_) if asked.is_bounded => Exit::Bounded,
        Some(_) => Exit::BadInput,
        None if asked.needs.iter().any(|need| need.needed.is_none()) => Exit::Bounded,
        None => Exit::AsExpected,
    }
}

fn print(arguments: &Needed, asked: &Asked, page: usize) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, asked)?;
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
    for need in &asked.needs {
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
