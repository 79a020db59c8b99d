//! An interleaving, one column per CPU, as kernel commit logs show races.

use std::io::{self, Write};

use lab::Trace;
use lab::trace::Step;
use textwrap::core::display_width;

use super::palette::{ASIDE, HEADING, SAID};
use super::step::{Line, lines};

/// A column narrower than this is not read but deciphered: a list is better.
const NARROWEST: usize = 22;
const BETWEEN: &str = " | ";

/// Writes the trace, in columns if `page` is wide enough for all of them, else as a list of steps.
pub(crate) fn write(out: &mut dyn Write, trace: &Trace, page: usize) -> io::Result<()> {
    let gutter = trace.steps.len().to_string().len() + 2;
    let cpus = trace.steps.iter().map(|step| step.cpu.index() + 1).max().unwrap_or(0).max(trace.cpus.len());
    let room = page.saturating_sub(gutter + BETWEEN.len() * cpus.saturating_sub(1));
    match room.checked_div(cpus) {
        Some(share) if share >= NARROWEST => {
            let widths = widths(trace, cpus, room);
            let left = room - widths.iter().sum::<usize>();
            in_columns(out, trace, &widths, gutter, Places::that_fit(trace, left))
        }
        _ => as_list(out, trace, page, gutter),
    }
}

/// Whether the source line of each step stands at its right.
#[derive(Clone, Copy, PartialEq)]
enum Places {
    Shown,
    Hidden,
}

impl Places {
    /// They are shown where nothing else has to be folded for them.
    fn that_fit(trace: &Trace, room: usize) -> Self {
        let longest = trace.steps.iter().map(|step| display_width(&place(step))).max().unwrap_or(0);
        if longest + BETWEEN.len() <= room { Self::Shown } else { Self::Hidden }
    }
}

/// `fast.rs:120`.
fn place(step: &Step) -> String {
    let file = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    step.place.as_ref().map_or_else(String::new, |place| format!("{}:{}", file(&place.file), place.line))
}

/// Gives each column what its longest line needs; where that is too much, the wide ones share what the narrow ones leave.
fn widths(trace: &Trace, cpus: usize, room: usize) -> Vec<usize> {
    let mut needs: Vec<usize> = (0..cpus).map(|cpu| display_width(&name(trace, cpu))).collect();
    for step in &trace.steps {
        let longest = lines(step).iter().map(|line| display_width(line.text())).max().unwrap_or(0);
        needs[step.cpu.index()] = needs[step.cpu.index()].max(longest);
    }
    let mut most = room / cpus;
    loop {
        let narrow: Vec<usize> = needs.iter().copied().filter(|need| *need <= most).collect();
        let wide = cpus - narrow.len();
        let share = (room - narrow.iter().sum::<usize>()).checked_div(wide).unwrap_or(most);
        if share <= most {
            return needs.into_iter().map(|need| need.min(most)).collect();
        }
        most = share;
    }
}

fn in_columns(out: &mut dyn Write, trace: &Trace, widths: &[usize], gutter: usize, places: Places) -> io::Result<()> {
    let digits = gutter - 2;
    let heading: Vec<String> =
        widths.iter().enumerate().map(|(cpu, width)| padded(&name(trace, cpu), *width)).collect();
    writeln!(out, "{:gutter$}{HEADING}{}{HEADING:#}", "", heading.join(BETWEEN).trim_end())?;
    for (number, step) in trace.steps.iter().enumerate() {
        for (number, text, style) in numbered(number, step, widths[step.cpu.index()]) {
            let before: String = widths[..step.cpu.index()].iter().map(|width| " ".repeat(*width) + BETWEEN).collect();
            let after: String =
                widths[step.cpu.index() + 1..].iter().map(|width| BETWEEN.to_owned() + &" ".repeat(*width)).collect();
            let place = if places == Places::Shown && !number.is_empty() { place(step) } else { String::new() };
            let (text, after) = if place.is_empty() {
                let after = after.trim_end();
                (if after.is_empty() { text } else { padded(&text, widths[step.cpu.index()]) }, after.to_owned())
            } else {
                (padded(&text, widths[step.cpu.index()]), format!("{after}{BETWEEN}{ASIDE}{place}{ASIDE:#}"))
            };
            writeln!(out, "{ASIDE}{number:>digits$}{ASIDE:#}  {before}{style}{text}{style:#}{after}")?;
        }
    }
    Ok(())
}

fn as_list(out: &mut dyn Write, trace: &Trace, page: usize, gutter: usize) -> io::Result<()> {
    let places = gutter - 2;
    for (number, step) in trace.steps.iter().enumerate() {
        let cpu = name(trace, step.cpu.index());
        let blank = " ".repeat(display_width(&cpu));
        let room = page.saturating_sub(gutter + blank.len() + 2).max(1);
        for (line, (number, text, style)) in numbered(number, step, room).into_iter().enumerate() {
            let cpu = if line == 0 { &cpu } else { &blank };
            writeln!(out, "{ASIDE}{number:>places$}{ASIDE:#}  {HEADING}{cpu}{HEADING:#}  {style}{text}{style:#}")?;
        }
    }
    Ok(())
}

/// The folded lines of a step; the number stands at what the machine did.
fn numbered(number: usize, step: &Step, width: usize) -> Vec<(String, String, anstyle::Style)> {
    let mut folded = Vec::new();
    for line in lines(step) {
        let (number, style) = match line {
            Line::Done(_) => ((number + 1).to_string(), anstyle::Style::new()),
            Line::Said(_) => (String::new(), SAID),
        };
        for (fold, text) in textwrap::wrap(line.text(), width.max(1)).iter().enumerate() {
            let number = if fold == 0 { number.clone() } else { String::new() };
            folded.push((number, text.trim_end().to_owned(), style));
        }
    }
    folded
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
        1  load pte.low = 0x8067 [frame 0x8, present writable |      |
           user]                                              |      |
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
