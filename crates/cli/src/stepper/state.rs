//! The state: first what the step has changed, then everything, what has changed marked.

use lab::Panel;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::Stepper;
use crate::show::states::{change, whose};
use crate::show::width::wrap;

/// With so much room there are two columns.
const WIDE: u16 = 84;

pub(super) fn draw(stepper: &mut Stepper<'_>, frame: &mut Frame<'_>, area: Rect) {
    let columns = if area.width >= WIDE { 2 } else { 1 };
    let width = usize::from(area.width) / columns - usize::from(columns > 1);
    let sections = sections(stepper, width);
    let columns = divided(sections, columns);
    let longest = columns.iter().map(Vec::len).max().unwrap_or(0);
    stepper.scrolled = stepper.scrolled.min(longest.saturating_sub(usize::from(area.height)));
    let mut left = area.x;
    for column in columns {
        let place = Rect { x: left, width: width as u16, ..area }.intersection(area);
        let lines: Vec<Line<'static>> = column.into_iter().skip(stepper.scrolled).collect();
        frame.render_widget(Paragraph::new(lines), place);
        left += width as u16 + 1;
    }
}

/// Sections in so many columns of about the same length, none of them torn apart.
fn divided(sections: Vec<Vec<Line<'static>>>, columns: usize) -> Vec<Vec<Line<'static>>> {
    let share = sections.iter().map(Vec::len).sum::<usize>().div_ceil(columns);
    let mut divided: Vec<Vec<Line<'static>>> = vec![Vec::new()];
    for section in sections {
        let count = divided.len();
        let last = divided.last_mut().expect("there is one from the start");
        if count < columns && !last.is_empty() && last.len() + section.len() / 2 > share {
            divided.push(section);
        } else {
            last.extend(section);
        }
    }
    divided
}

fn sections(stepper: &Stepper<'_>, width: usize) -> Vec<Vec<Line<'static>>> {
    let history = &stepper.replay.history;
    let changed = history.changed(stepper.at);
    let heading = |text: String| Line::styled(text, Style::new().add_modifier(Modifier::BOLD));
    let mut sections = Vec::new();
    if stepper.at > 0 {
        let mut section = vec![heading("This step changes".to_owned())];
        for &row in &changed {
            let name = match history.rows[row].panel {
                // Words have names of their own, and translations are their own names.
                Panel::Word => String::new(),
                _ => format!("{} ", whose(&history.rows[row])),
            };
            let text = format!("{name}{}: {}", history.rows[row].label, change(history, stepper.at, row));
            section.extend(folded(&text, width, Style::new().fg(Color::Yellow)));
        }
        if changed.is_empty() {
            section.push(Line::raw("  nothing"));
        }
        section.push(Line::default());
        sections.push(section);
    }
    let held = history.states.get(stepper.at).map_or(&[][..], Vec::as_slice);
    let mut owner = None;
    for (index, (row, held)) in history.rows.iter().zip(held).enumerate() {
        let Some(held) = held else { continue };
        let whose = whose(row);
        if owner.as_ref() != Some(&whose) {
            if let Some(section) = sections.last_mut().filter(|_| owner.is_some()) {
                section.push(Line::default());
            }
            sections.push(vec![heading(whose.clone())]);
            owner = Some(whose);
        }
        let style = match changed.contains(&index) {
            true => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
            false => Style::new(),
        };
        let text = match (row.panel, held.as_str()) {
            (Panel::Tlb, "may be held") => row.label.clone(),
            _ => format!("{}: {held}", row.label),
        };
        if let Some(section) = sections.last_mut() {
            section.extend(folded(&text, width, style));
        }
    }
    sections
}

fn folded(text: &str, width: usize, style: Style) -> Vec<Line<'static>> {
    let folds = wrap(text, width.saturating_sub(4));
    let indented = folds
        .into_iter()
        .enumerate()
        .map(|(line, text)| if line == 0 { format!("  {text}") } else { format!("    {text}") });
    indented.map(|text| Line::styled(text, style)).collect()
}
