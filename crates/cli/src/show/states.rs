//! The states of a run as text: all of the first, and of the others what each step changes.

use std::io::{self, Write};

use lab::{History, Panel, Row, Trace};
use textwrap::core::display_width;

use super::palette::{ASIDE, HEADING, SAID};
use super::step::{done, place};
use super::width::wrap;

/// Writes every step with what it changes.
pub(crate) fn write(out: &mut dyn Write, trace: &Trace, history: &History, page: usize) -> io::Result<()> {
    writeln!(out, "{HEADING}Before the first step{HEADING:#}")?;
    if let Some(first) = history.states.first() {
        let rows: Vec<(&Row, String)> =
            history.rows.iter().zip(first).filter_map(|(row, held)| Some((row, held.clone()?))).collect();
        list(out, &rows, page)?;
    }
    for (number, step) in (1..).zip(&trace.steps) {
        writeln!(out)?;
        said(out, &step.marks_before, page)?;
        let head = format!("{number}. {}", step.cpu);
        let place = match place(step) {
            place if place.is_empty() => place,
            place => format!("  ({place})"),
        };
        let text = format!("{head}  {}{place}", done(step));
        for (line, text) in wrap(&text, page.saturating_sub(4)).iter().enumerate() {
            match text.strip_prefix(&head).filter(|_| line == 0) {
                Some(rest) => writeln!(out, "{HEADING}{head}{HEADING:#}{rest}")?,
                None => writeln!(out, "    {text}")?,
            }
        }
        said(out, &step.marks_after, page)?;
        let rows: Vec<(&Row, String)> =
            history.changed(number).into_iter().map(|row| (&history.rows[row], change(history, number, row))).collect();
        list(out, &rows, page)?;
    }
    Ok(())
}

/// `x -> y`, with words where there is no x or no y.
pub(crate) fn change(history: &History, state: usize, row: usize) -> String {
    let held = |state: usize| history.states.get(state).and_then(|state| state.get(row)).and_then(Option::as_deref);
    match (state.checked_sub(1).and_then(held), held(state)) {
        (Some(before), Some(after)) => format!("{before} -> {after}"),
        (None, Some(after)) => format!("(new) {after}"),
        (Some(before), None) => format!("{before} -> (gone)"),
        (None, None) => String::new(),
    }
}

/// What the rows of a panel are about.
pub(crate) fn panel(panel: Panel) -> &'static str {
    match panel {
        Panel::Cpu => "",
        Panel::Buffer => "store buffer",
        Panel::Tlb => "TLB",
        Panel::Table => "",
        Panel::Word => "words",
    }
}

/// Whose row it is: `CPU0`, `CPU0 TLB`, `table 0x105`.
pub(crate) fn whose(row: &Row) -> String {
    format!("{} {}", row.of, panel(row.panel)).trim().to_owned()
}

fn said(out: &mut dyn Write, marks: &[String], page: usize) -> io::Result<()> {
    for line in marks.iter().flat_map(|mark| wrap(mark, page.saturating_sub(4))) {
        writeln!(out, "    {SAID}{line}{SAID:#}")?;
    }
    Ok(())
}

fn list(out: &mut dyn Write, rows: &[(&Row, String)], page: usize) -> io::Result<()> {
    let owners: Vec<String> = rows.iter().map(|(row, _)| whose(row)).collect();
    let indent = 4 + owners.iter().map(|owner| display_width(owner)).max().unwrap_or(0) + 2;
    let mut before = "";
    for ((row, held), owner) in rows.iter().zip(&owners) {
        // A translation is its own name.
        let text = format!("{}: {held}", row.label);
        let shown = if owner == before { "" } else { owner };
        before = owner;
        for (line, text) in wrap(&text, page.saturating_sub(indent)).iter().enumerate() {
            let (shown, deeper) = if line == 0 { (shown, "") } else { ("", "  ") };
            let blank = " ".repeat(indent - 4 - display_width(shown));
            writeln!(out, "    {ASIDE}{shown}{ASIDE:#}{blank}{deeper}{text}")?;
        }
    }
    Ok(())
}
