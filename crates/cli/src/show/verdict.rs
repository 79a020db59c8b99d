//! Verdicts: one line per variant, and what stands below the line of a broken one.

use std::io::{self, Write};

use anstyle::Style;
use races::{Observation, Race, VariantReport, Verdict};
use textwrap::core::display_width;

use super::number::{Count, plural};
use super::palette::{ASIDE, BROKEN, HEADING, SAFE, UNDECIDED};

/// The lines of one race, their columns aligned.
pub(crate) struct Table {
    /// How wide the names of the variants are.
    names: usize,
    /// How wide the page is.
    page: usize,
}

impl Table {
    /// For the variants of this race, on a page of this width.
    pub(crate) fn of(race: Option<&Race>, page: usize) -> Self {
        let variants = race.map_or(&[][..], |race| &race.litmus.variants);
        let names = variants.iter().map(|variant| display_width(&variant.name.node)).max();
        Self { names: names.unwrap_or(0), page }
    }

    /// The line above them.
    pub(crate) fn heading(out: &mut dyn Write, report: &VariantReport) -> io::Result<()> {
        let cpus = plural(report.cpus as u64, "CPU");
        writeln!(out, "{HEADING}{}{HEADING:#}{ASIDE}, {cpus}{ASIDE:#}", report.file)
    }

    /// One line for one variant and memory order. Where the page is too narrow, what was counted is left out.
    pub(crate) fn line(&self, out: &mut dyn Write, report: &VariantReport) -> io::Result<()> {
        let (style, words) = in_words(report);
        let name = report.variant.as_deref().unwrap_or("");
        let names = self.names;
        let left = format!("  {name:names$}{}{:3}  ", if names == 0 { "" } else { "  " }, report.memory.name());
        let counted = counted(report);
        let fits = left.len() + VERDICT.max(words.len()) + 1 + counted.len() <= self.page;
        write!(out, "{left}{style}{words}{style:#}")?;
        if fits {
            let gap = VERDICT.saturating_sub(words.len()) + 1;
            write!(out, "{:gap$}{ASIDE}{counted}{ASIDE:#}", "")?;
        }
        writeln!(out)?;
        if report.as_expected == Some(false) {
            let expected = report.expected.as_deref().unwrap_or("something else");
            writeln!(out, "    {BROKEN}UNEXPECTED: the file expects {expected}{BROKEN:#}")?;
        }
        if let Some(missed) = report.missed.filter(|_| report.verdict == Verdict::Safe) {
            writeln!(
                out,
                "    {ASIDE}by 64 bits of each state: the chance that one was missed is at most {missed:.1e}{ASIDE:#}"
            )?;
        }
        if matches!(report.verdict, Verdict::Bounded | Verdict::Error) {
            for line in super::width::wrap(report.message.as_deref().unwrap_or(""), self.page - 4) {
                writeln!(out, "    {line}")?;
            }
        }
        Ok(())
    }
}

/// Room for the usual verdicts.
const VERDICT: usize = 21;

/// The verdict as a word or two.
pub(crate) fn in_words(report: &VariantReport) -> (Style, String) {
    let style = match report.verdict {
        Verdict::Safe => SAFE,
        Verdict::Violation => BROKEN,
        Verdict::Bounded => UNDECIDED,
        Verdict::Error => BROKEN,
    };
    let words = match (report.verdict, &report.rule, report.observation) {
        (Verdict::Safe, _, Some(observation)) if report.variant.is_none() => {
            return (observed(report), observation.name().to_owned());
        }
        (Verdict::Safe, _, Some(observation)) => format!("safe, {}", observation.name()),
        (Verdict::Violation, Some(rule), _) => format!("breaks {rule}"),
        (verdict, ..) => verdict.name().to_owned(),
    };
    (style, words)
}

/// Whether an observation is good or bad is for the file to say.
fn observed(report: &VariantReport) -> Style {
    match (report.as_expected, report.observation) {
        (Some(true), _) => SAFE,
        (Some(false), _) => BROKEN,
        (None, Some(Observation::Never)) => SAFE,
        (None, _) => UNDECIDED,
    }
}

fn counted(report: &VariantReport) -> String {
    let steps = report.steps.map_or_else(String::new, |steps| plural(steps as u64, "step"));
    let finals = report.final_states.map_or_else(String::new, |finals| format!("  {finals:2} final"));
    if let Some(sampled) = &report.sampled {
        return format!("{steps:>9}  {:>10} runs  {:6.2} s", Count(sampled.runs), report.seconds);
    }
    format!("{steps:>9}  {:>10} states{finals}  {:6.2} s", Count(report.states), report.seconds)
}

/// What is said below a broken variant: the interleaving, and why it breaks the rule.
pub(crate) fn story(out: &mut dyn Write, report: &VariantReport, page: usize) -> io::Result<()> {
    if let Some(trace) = &report.trace {
        writeln!(out)?;
        super::columns::write(out, trace, page)?;
    }
    if let Some(message) = report.message.as_deref().filter(|_| report.verdict == Verdict::Violation) {
        writeln!(out)?;
        let rule = report.rule.as_deref().map_or_else(String::new, |rule| format!("{rule}: "));
        for (number, line) in super::width::wrap(&format!("{rule}{message}"), page).iter().enumerate() {
            match line.strip_prefix(rule.trim_end()).filter(|_| number == 0) {
                Some(rest) => writeln!(out, "{HEADING}{}{HEADING:#}{rest}", rule.trim_end())?,
                None => writeln!(out, "{line}")?,
            }
        }
    }
    writeln!(out)
}
