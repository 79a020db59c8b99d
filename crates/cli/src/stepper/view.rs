//! The whole screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::{Stepper, lanes, state};
use crate::page::title;
use crate::show::width::wrap;

/// Narrower than this, the state stands below the run.
const SIDE_BY_SIDE: u16 = 90;
const MOST_LINES_SAID: usize = 3;

const KEYS: &str = "q quit   left/right step   PgUp/PgDn ten   Home/End   up/down scroll the state";

pub(super) fn draw(stepper: &mut Stepper<'_>, frame: &mut Frame<'_>) {
    let said = said(stepper, usize::from(frame.area().width));
    let rows =
        Layout::vertical([Constraint::Length(1 + said.len() as u16), Constraint::Fill(1), Constraint::Length(1)]);
    let [top, middle, bottom] = rows.areas(frame.area());
    let mut head = vec![heading(stepper)];
    head.extend(said);
    frame.render_widget(Paragraph::new(head), top);
    let (run, rest) = if middle.width >= SIDE_BY_SIDE {
        let [run, rest] = Layout::horizontal([Constraint::Percentage(46), Constraint::Fill(1)]).areas(middle);
        (run, rest)
    } else {
        let [run, rest] = Layout::vertical([Constraint::Percentage(45), Constraint::Fill(1)]).areas(middle);
        (run, rest)
    };
    let line = Style::new().add_modifier(Modifier::DIM);
    let run_block = Block::new().borders(Borders::TOP).border_style(line).title("Run");
    let borders = if middle.width >= SIDE_BY_SIDE { Borders::TOP | Borders::LEFT } else { Borders::TOP };
    let state_block = Block::new().borders(borders).border_style(line).title("State");
    lanes::draw(stepper, frame, run_block.inner(run));
    frame.render_widget(run_block, run);
    state::draw(stepper, frame, state_block.inner(rest));
    frame.render_widget(state_block, rest);
    frame.render_widget(Paragraph::new(Line::styled(KEYS, line)), bottom);
}

fn heading(stepper: &Stepper<'_>) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let place = match stepper.at {
        0 => "at the start".to_owned(),
        at => format!("step {at} of {}", stepper.steps()),
    };
    Line::from(vec![
        Span::styled(title(stepper.saved), bold),
        Span::raw(format!(" ({})  ", stepper.saved.memory.name())),
        Span::styled(place, bold.fg(Color::Cyan)),
    ])
}

/// At the start whether the run is what it was; at the end which rule it breaks; else what the step does.
fn said(stepper: &Stepper<'_>, width: usize) -> Vec<Line<'static>> {
    let (text, style) = match stepper.at.checked_sub(1).and_then(|step| stepper.replay.trace.steps.get(step)) {
        None => (stepper.said.to_owned(), Style::new()),
        Some(_) if stepper.is_at_end() && stepper.saved.rule.is_some() => {
            let rule = stepper.saved.rule.as_deref().unwrap_or_default();
            let message = stepper.saved.message.as_deref().unwrap_or_default();
            (format!("✗ {rule}: {message}"), Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
        }
        Some(step) => (format!("{} {}", step.cpu, crate::show::step::done(step)), Style::new()),
    };
    wrap(&text, width).into_iter().take(MOST_LINES_SAID).map(|text| Line::styled(text, style)).collect()
}
