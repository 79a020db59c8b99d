//! A trace as text: one column per CPU, as kernel commit logs show races.

use std::fmt::Write;

use crate::trace::{Step, StepKind, Trace, Value};

/// Columns of text for three CPUs fit into a mail of 120 characters.
const LINE_WIDTH: usize = 118;
const MOST_COLUMN: usize = 56;
const LEAST_COLUMN: usize = 24;

/// The run as text.
pub(crate) fn render(trace: &Trace) -> String {
    let active: Vec<usize> =
        (0..trace.cpus.len()).filter(|&cpu| trace.steps.iter().any(|step| step.cpu.index() == cpu)).collect();
    if active.is_empty() {
        return String::new();
    }
    let width = ((LINE_WIDTH - 4) / active.len()).saturating_sub(2).clamp(LEAST_COLUMN, MOST_COLUMN);
    let mut text = String::new();
    let heads = active.iter().map(|&cpu| vec![format!("CPU{cpu} {}", trace.cpus[cpu])]).collect::<Vec<_>>();
    row(&mut text, "", &heads, width);
    let rules = active.iter().map(|_| vec!["-".repeat(width)]).collect::<Vec<_>>();
    row(&mut text, "", &rules, width);
    for (number, step) in trace.steps.iter().enumerate() {
        let column = active.iter().position(|&cpu| cpu == step.cpu.index()).expect("active");
        let mut cells = vec![Vec::new(); active.len()];
        cells[column] = lines_of(step);
        row(&mut text, &(number + 1).to_string(), &cells, width);
    }
    text
}

/// What a step does, without marks.
pub(crate) fn line_of(step: &Step) -> String {
    let mut line = match step.kind {
        StepKind::Operation if step.in_interrupt => "[irq] ".to_owned(),
        StepKind::Operation => String::new(),
        StepKind::Interrupt => "<irq> ".to_owned(),
        StepKind::Move => "(scheduler) ".to_owned(),
        StepKind::Drain => "(buffer) ".to_owned(),
        StepKind::Walker | StepKind::Broadcast => "(hw) ".to_owned(),
    };
    line.push_str(&step.what);
    if let Some(target) = &step.target {
        let _ = write!(line, " {target}");
    }
    match (&step.before, &step.after) {
        (Some(before), Some(after)) => _ = write!(line, ": {} -> {}", bits(before), bits(after)),
        (Some(before), None) => _ = write!(line, " = {}", bits(before)),
        (None, Some(after)) => _ = write!(line, " := {}", bits(after)),
        (None, None) => (),
    }
    if let Some(note) = &step.note {
        let _ = write!(line, ", {note}");
    }
    if let Some(place) = &step.place {
        let file = place.file.rsplit('/').next().unwrap_or(&place.file);
        let _ = write!(line, " [{file}:{}]", place.line);
    }
    line
}

fn lines_of(step: &Step) -> Vec<String> {
    let mut lines: Vec<String> = step.marks_before.iter().map(|mark| format!("~ {mark}")).collect();
    lines.push(line_of(step));
    let changes = step.before.is_some() && step.after.is_some();
    for (value, when) in [(&step.before, "was "), (&step.after, "now ")] {
        if let Some(words) = value.as_ref().and_then(|value| value.words.as_ref()) {
            lines.push(format!("   {}{words}", if changes { when } else { "" }));
        }
    }
    lines.extend(step.marks_after.iter().map(|mark| format!("~ {mark}")));
    lines
}

fn bits(value: &Value) -> String {
    if value.bits < 10 { value.bits.to_string() } else { format!("{:#x}", value.bits) }
}

/// One row: the cells side by side, each line of a cell broken to the column's width.
fn row(text: &mut String, label: &str, cells: &[Vec<String>], width: usize) {
    let columns: Vec<Vec<String>> =
        cells.iter().map(|lines| lines.iter().flat_map(|line| broken(line, width)).collect()).collect();
    let height = columns.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..height {
        let mut line = format!("{:>3} ", if at == 0 { label } else { "" });
        for column in &columns {
            let _ = write!(line, "{:width$}  ", column.get(at).map_or("", String::as_str));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// A line in pieces of at most `width` characters, broken at spaces where that is possible; what follows is indented.
fn broken(line: &str, width: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let text = line.trim_start();
    let mut piece = " ".repeat(line.len() - text.len());
    let mut length = piece.len();
    let mut first = true;
    for word in text.split(' ') {
        let mut word = word;
        let mut count = word.chars().count();
        if std::mem::take(&mut first) {
            // Nothing is before it but the indentation.
        } else if length + 1 + count > width {
            pieces.push(std::mem::replace(&mut piece, "   ".to_owned()));
            length = 3;
        } else {
            piece.push(' ');
            length += 1;
        }
        // A word longer than the column is cut.
        while length + count > width {
            let room = width - length;
            let cut = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
            piece.push_str(&word[..cut]);
            pieces.push(std::mem::replace(&mut piece, "   ".to_owned()));
            word = &word[cut..];
            count -= room;
            length = 3;
        }
        piece.push_str(word);
        length += count;
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_or_where_they_must() {
        assert_eq!(broken("short", 10), ["short"]);
        assert_eq!(broken("   deep and long", 9), ["   deep", "   and", "   long"]);
        assert_eq!(broken("a line of words", 8), ["a line", "   of", "   words"]);
        assert_eq!(broken("abcdefghijkl", 8), ["abcdefgh", "   ijkl"]);
        assert!(broken("äöüäöüäöüäöü xyz", 5).iter().all(|piece| piece.chars().count() <= 5));
    }
}
