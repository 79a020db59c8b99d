//! An interleaving, one column per CPU, as kernel commit logs show races.

use std::io::{self, Write};

use anstyle::Style;
use lab::Trace;
use textwrap::core::display_width;

use super::palette::{ASIDE, HEADING, SAID};
use super::step::{Line, Row, rows};
use super::width::wrap;

/// A column narrower than this is not read but deciphered: a list is better.
const NARROWEST: usize = 22;
const BETWEEN: &str = " | ";

/// Writes the trace, in columns if `page` is wide enough for all of them, else as a list of steps.
pub(crate) fn write(out: &mut dyn Write, trace: &Trace, page: usize) -> io::Result<()> {
    let rows = rows(trace);
    let gutter = rows.iter().map(|row| row.number.len()).max().unwrap_or(0) + 2;
    let cpus = rows.iter().map(|row| row.cpu + 1).max().unwrap_or(0).max(trace.cpus.len());
    let names: Vec<String> = (0..cpus).map(|cpu| name(trace, cpu)).collect();
    let room = page.saturating_sub(gutter + BETWEEN.len() * cpus.saturating_sub(1));
    match room.checked_div(cpus) {
        Some(share) if share >= NARROWEST => Columns::new(&names, &rows, room, gutter).write(out, &names, &rows),
        _ => as_list(out, &names, &rows, page, gutter),
    }
}

/// How the page is divided.
struct Columns {
    gutter: usize,
    widths: Vec<usize>,
    places: Places,
}

/// Whether the source line of each step stands at its right.
#[derive(Clone, Copy, PartialEq)]
enum Places {
    Shown,
    Hidden,
}

impl Columns {
    fn new(names: &[String], rows: &[Row], room: usize, gutter: usize) -> Self {
        let widths = widths(names, rows, room);
        let left = room - widths.iter().sum::<usize>();
        let longest = rows.iter().map(|row| display_width(&row.place)).max().unwrap_or(0);
        // Only where nothing else has to be folded for them.
        let places = if longest > 0 && longest + BETWEEN.len() <= left { Places::Shown } else { Places::Hidden };
        Self { gutter, widths, places }
    }

    fn write(&self, out: &mut dyn Write, names: &[String], rows: &[Row]) -> io::Result<()> {
        let heading: Vec<String> = names.iter().zip(&self.widths).map(|(name, width)| padded(name, *width)).collect();
        let gutter = self.gutter;
        writeln!(out, "{:gutter$}{HEADING}{}{HEADING:#}", "", heading.join(BETWEEN).trim_end())?;
        for row in rows {
            let width = self.widths[row.cpu];
            let before: String = self.widths[..row.cpu].iter().map(|width| " ".repeat(*width) + BETWEEN).collect();
            let after: String =
                self.widths[row.cpu + 1..].iter().map(|width| BETWEEN.to_owned() + &" ".repeat(*width)).collect();
            for fold in folds(row, width) {
                let place = if self.places == Places::Shown { fold.place } else { "" };
                let (text, after) = if !place.is_empty() {
                    (padded(&fold.text, width), format!("{after}{BETWEEN}{ASIDE}{place}{ASIDE:#}"))
                } else if after.is_empty() {
                    (fold.text, String::new())
                } else {
                    (padded(&fold.text, width), after.trim_end().to_owned())
                };
                let (number, digits, style) = (fold.number, gutter - 2, fold.style);
                writeln!(out, "{ASIDE}{number:>digits$}{ASIDE:#}  {before}{style}{text}{style:#}{after}")?;
            }
        }
        Ok(())
    }
}

/// Gives each column what its longest line needs; where that is too much, the wide ones share what the narrow ones leave.
fn widths(names: &[String], rows: &[Row], room: usize) -> Vec<usize> {
    let mut needs: Vec<usize> = names.iter().map(|name| display_width(name)).collect();
    for row in rows {
        let longest = row.lines.iter().map(|line| display_width(line.text())).max().unwrap_or(0);
        needs[row.cpu] = needs[row.cpu].max(longest);
    }
    let mut most = room / needs.len();
    loop {
        let narrow: Vec<usize> = needs.iter().copied().filter(|need| *need <= most).collect();
        let wide = needs.len() - narrow.len();
        let share = (room - narrow.iter().sum::<usize>()).checked_div(wide).unwrap_or(most);
        if share <= most {
            return needs.into_iter().map(|need| need.min(most)).collect();
        }
        most = share;
    }
}

fn as_list(out: &mut dyn Write, names: &[String], rows: &[Row], page: usize, gutter: usize) -> io::Result<()> {
    let digits = gutter - 2;
    for row in rows {
        let name = &names[row.cpu];
        let blank = " ".repeat(display_width(name));
        let room = page.saturating_sub(gutter + blank.len() + 2);
        for (line, fold) in folds(row, room).into_iter().enumerate() {
            let name = if line == 0 { name } else { &blank };
            let (number, text, style) = (fold.number, fold.text, fold.style);
            writeln!(out, "{ASIDE}{number:>digits$}{ASIDE:#}  {HEADING}{name}{HEADING:#}  {style}{text}{style:#}")?;
        }
    }
    Ok(())
}

/// One line of a row, short enough for its column.
struct Fold<'r> {
    /// Stands where the machine begins to act, else empty; so does the place.
    number: &'r str,
    place: &'r str,
    text: String,
    style: Style,
}

fn folds(row: &Row, width: usize) -> Vec<Fold<'_>> {
    let mut folds = Vec::new();
    for line in &row.lines {
        let (mut number, mut place, style) = match line {
            Line::Done(_) => (row.number.as_str(), row.place.as_str(), Style::new()),
            Line::Said(_) => ("", "", SAID),
        };
        for text in wrap(&bound(line.text(), width), width) {
            folds.push(Fold { number, place, text: text.replace(BOUND, " "), style });
            (number, place) = ("", "");
        }
    }
    folds
}

/// A blank at which no line is folded.
const BOUND: &str = "\u{a0}";
/// Brackets so short that they do not begin a line: they stay with the value that they explain.
const SHORT: usize = 6;

/// The text with its values kept whole where they fit into `width`: what is in brackets, and an arrow with what it leads to.
fn bound(text: &str, width: usize) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, inside, after)) = brackets(rest) {
        match before.strip_suffix(' ').filter(|_| display_width(inside) <= SHORT) {
            Some(value) => whole.extend([value, BOUND]),
            None => whole.push_str(before),
        }
        if display_width(inside) <= width {
            whole.push_str(&inside.replace(' ', BOUND));
        } else {
            whole.push_str(inside);
        }
        rest = after;
    }
    whole.push_str(rest);
    whole.replace("-> ", &format!("->{BOUND}"))
}

/// What stands before, in, and after the first pair of brackets.
fn brackets(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find('[')?;
    let end = start + text[start..].find(']')? + 1;
    Some((&text[..start], &text[start..end], &text[end..]))
}

/// Not `{:width$}`: that counts characters, and some are two columns wide.
fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(display_width(text))))
}

/// `CPU1`, and what the test calls it if that says more.
fn name(trace: &Trace, cpu: usize) -> String {
    match trace.cpus.get(cpu) {
        Some(name) if *name != format!("CPU{cpu}") && *name != format!("P{cpu}") => format!("CPU{cpu} {name}"),
        _ => format!("CPU{cpu}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::step::examples::{half, step, trace};
    use super::*;

    fn shown(trace: &Trace, page: usize) -> String {
        let mut text = Vec::new();
        write(&mut text, trace, page).expect("a vector takes everything");
        let plain = anstream::adapter::strip_bytes(&text).into_vec();
        String::from_utf8(plain).expect("it was text").lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    fn torn_read() -> Trace {
        let mut low = step(0, "load", "pte.low");
        low.before = half(0x8067, "frame 0x8, present writable user");
        low.marks_before = vec!["fast GUP, interrupts off".into()];
        let clear = step(2, "swap", "pte.low");
        let mut high = step(0, "load", "pte.high");
        high.before = half(0, "");
        high.marks_after = vec!["takes the page".into()];
        trace(3, vec![low, clear, high])
    }

    #[test]
    fn steps_stand_below_their_cpu() {
        insta::assert_snapshot!(shown(&torn_read(), 100), @"
           CPU0                                                     | CPU1 | CPU2
           fast GUP, interrupts off                                 |      |
        1  load pte.low = 0x8067 [frame 0x8, present writable user] |      |
        2                                                           |      | swap pte.low
        3  load pte.high = 0                                        |      |
           takes the page                                           |      |
        ");
    }

    #[test]
    fn long_steps_are_folded_inside_their_column() {
        let text = shown(&torn_read(), 75);
        insta::assert_snapshot!(text, @"
           CPU0                                               | CPU1 | CPU2
           fast GUP, interrupts off                           |      |
        1  load pte.low = 0x8067                              |      |
           [frame 0x8, present writable user]                 |      |
        2                                                     |      | swap pte.low
        3  load pte.high = 0                                  |      |
           takes the page                                     |      |
        ");
        assert!(text.lines().all(|line| line.len() <= 75), "{text}");
    }

    #[test]
    fn a_narrow_terminal_gets_a_list() {
        let text = shown(&torn_read(), 40);
        insta::assert_snapshot!(text, @"
           CPU0  fast GUP, interrupts off
        1        load pte.low = 0x8067 [frame
                 0x8, present writable user]
        2  CPU2  swap pte.low
        3  CPU0  load pte.high = 0
                 takes the page
        ");
        assert!(text.lines().all(|line| line.len() <= 40), "{text}");
    }

    #[test]
    fn source_lines_are_shown_where_there_is_room() {
        let mut trace = torn_read();
        trace.steps[1].place = Some(lab::trace::Place { file: "crates/mm/src/zap.rs".into(), line: 120 });
        assert!(shown(&trace, 160).contains("| swap pte.low | zap.rs:120\n"), "{}", shown(&trace, 160));
        assert!(!shown(&trace, 75).contains("zap.rs"));
    }

    #[test]
    fn strange_traces_do_not_panic() {
        assert_eq!(shown(&trace(0, vec![]), 20), "");
        let wide =
            trace(2, vec![step(9, "漢字 in a step", "with a-target-that-is-longer-than-any-column"), step(0, "", "")]);
        for page in [0, 1, 20, 60, 300, 400] {
            assert!(shown(&wide, page).contains("CPU9"), "{page}");
        }
    }
}
