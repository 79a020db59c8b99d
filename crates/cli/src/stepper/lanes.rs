//! The run: a column for each CPU, or, where there is no room for columns, a list.

use lab::trace::{Step, StepKind};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table, TableState};

use super::Stepper;
use crate::show::step::{done, place};
use crate::show::width::wrap;

/// A column narrower than this is not read but deciphered.
const NARROWEST: usize = 20;
const NUMBER: usize = 4;

pub(super) fn draw(stepper: &Stepper<'_>, frame: &mut Frame<'_>, area: Rect) {
    let cpus = stepper.replay.trace.cpus.len();
    let share = (usize::from(area.width).saturating_sub(NUMBER + cpus)).checked_div(cpus).unwrap_or(0);
    let columns = if share >= NARROWEST { cpus } else { 1 };
    let width = if columns == 1 { usize::from(area.width).saturating_sub(NUMBER + 1) } else { share };
    let rows = (1..).zip(&stepper.replay.trace.steps).map(|(number, step)| {
        let lines = lines(stepper, number, step, columns, width);
        let height = lines.len();
        let mut cells = vec![Cell::from(format!("{number:>3}"))];
        let own = if columns == 1 { 0 } else { step.cpu.index() };
        // A default cell would span no column at all.
        cells.extend((0..own).map(|_| Cell::new("")));
        cells.push(Cell::from(Text::from(lines)));
        Row::new(cells).height(u16::try_from(height).unwrap_or(u16::MAX)).style(style(stepper, number))
    });
    let mut widths = vec![Constraint::Length(NUMBER as u16 - 1)];
    widths.extend((0..columns).map(|_| Constraint::Fill(1)));
    let mut table = Table::new(rows, widths).column_spacing(1);
    if columns > 1 || cpus == 1 {
        let mut heads = vec![Cell::new("")];
        heads.extend(stepper.replay.trace.cpus.iter().enumerate().map(|(cpu, name)| {
            let own = format!("CPU{cpu}");
            let text = if *name == own || *name == format!("P{cpu}") { own } else { format!("{own} {name}") };
            Cell::from(text)
        }));
        table = table.header(Row::new(heads).style(Style::new().add_modifier(Modifier::BOLD)));
    }
    let mut state = TableState::new();
    state.select(Some(stepper.at.saturating_sub(1)));
    frame.render_stateful_widget(table, area, &mut state);
}

/// What was done, what is done, and what is still to come.
fn style(stepper: &Stepper<'_>, number: usize) -> Style {
    if number == stepper.at {
        Style::new().add_modifier(Modifier::REVERSED)
    } else if number > stepper.at {
        Style::new().add_modifier(Modifier::DIM)
    } else {
        Style::new()
    }
}

fn lines(stepper: &Stepper<'_>, number: usize, step: &Step, columns: usize, width: usize) -> Vec<Line<'static>> {
    let said = |marks: &[String]| -> Vec<Line<'static>> {
        let folded = marks.iter().flat_map(|mark| wrap(mark, width));
        folded.map(|text| Line::styled(text, Style::new().fg(Color::Cyan))).collect()
    };
    let whose = if columns == 1 { format!("{} ", step.cpu) } else { String::new() };
    let place = match place(step) {
        place if place.is_empty() => place,
        place => format!(" ({place})"),
    };
    let italic = match step.kind {
        StepKind::Operation => Modifier::empty(),
        _ => Modifier::ITALIC,
    };
    let mut lines = said(&step.marks_before);
    let text = wrap(&format!("{whose}{}{place}", done(step)), width);
    lines.extend(text.into_iter().map(|text| Line::styled(text, Style::new().add_modifier(italic))));
    lines.extend(said(&step.marks_after));
    if number == stepper.steps()
        && let Some(rule) = &stepper.saved.rule
    {
        let broken = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        lines.extend(wrap(&format!("✗ {rule}"), width).into_iter().map(|text| Line::styled(text, broken)));
    }
    lines
}
