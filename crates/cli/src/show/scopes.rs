//! The table of a sweep: a row for each scope, variant and memory order.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::Style;
use races::Verdict;
use textwrap::core::display_width;

use super::number::{Count, plural};
use super::palette::{ASIDE, BROKEN, HEADING, SAFE, UNDECIDED};
use super::width;
use crate::sweep::{Row, Sweep};

/// Where the verdict of a row begins and what fits.
pub(crate) struct Table {
    /// How wide the names of variants are; 0 if there are none.
    names: usize,
    page: usize,
    counted: Tally,
}

#[derive(Default)]
struct Tally {
    rows: u64,
    safe: u64,
    broken: u64,
    errors: u64,
    unexpected: u64,
    /// By the limit that ended the search.
    cut: BTreeMap<String, u64>,
}

/// Room for the usual verdicts.
const VERDICT: usize = 21;

impl Table {
    /// For variants of these names.
    pub(crate) fn of<'n>(variants: impl Iterator<Item = &'n str>, page: usize) -> Self {
        Self { names: variants.map(display_width).max().unwrap_or(0), page, counted: Tally::default() }
    }

    /// The race, the ranges, the columns, and the scopes that the race does not have.
    pub(crate) fn heading(&self, out: &mut dyn Write, sweep: &Sweep) -> io::Result<()> {
        let Sweep { file, cpus, entries, .. } = sweep;
        writeln!(out, "{HEADING}{file}{HEADING:#}{ASIDE}, cpus {cpus}, entries {entries}{ASIDE:#}")?;
        let variant = if self.names == 0 { String::new() } else { format!("{:1$}  ", "variant", self.names()) };
        let (verdict, steps, states, time) = ("verdict", "steps", "states", "time");
        writeln!(
            out,
            "{ASIDE}  cpus  entries  {variant}memory  {verdict:VERDICT$}  {steps:>5}  {states:>12}  {time:>10}{ASIDE:#}"
        )?;
        for (cpus, why) in &sweep.left_out {
            writeln!(out, "  {cpus:4}        -  {ASIDE}not asked: {why}{ASIDE:#}")?;
        }
        Ok(())
    }

    fn names(&self) -> usize {
        self.names.max("variant".len())
    }

    /// One row.
    pub(crate) fn row(&mut self, out: &mut dyn Write, row: &Row) -> io::Result<()> {
        self.counted.add(row);
        let (style, words) = in_words(row);
        let variant = match &row.variant {
            Some(name) => format!("{name:0$}  ", self.names()),
            None => String::new(),
        };
        let steps = row.steps.map_or_else(String::new, |steps| steps.to_string());
        write!(out, "  {:4}  {:7}  {variant}{:6}  {style}{words}{style:#}", row.cpus, row.entries, row.memory.name())?;
        let gap = VERDICT.saturating_sub(words.len());
        let seconds = format!("{:.2} s", row.seconds);
        writeln!(out, "{:gap$}  {ASIDE}{steps:>5}  {:>12}  {seconds:>10}{ASIDE:#}", "", Count(row.states))?;
        if row.as_expected == Some(false) {
            let expected = row.expected.as_deref().unwrap_or("something else");
            writeln!(out, "    {BROKEN}UNEXPECTED: the file expects {expected}{BROKEN:#}")?;
        }
        if let Some(missed) = row.missed.filter(|_| row.verdict == Verdict::Safe) {
            writeln!(
                out,
                "    {ASIDE}by 64 bits of each state: the chance that one was missed is at most {missed:.1e}{ASIDE:#}"
            )?;
        }
        if matches!(row.verdict, Verdict::Bounded | Verdict::Error) {
            for line in width::wrap(row.message.as_deref().unwrap_or(""), self.page - 4) {
                writeln!(out, "    {line}")?;
            }
        }
        Ok(())
    }

    /// What the rows say together.
    pub(crate) fn close(&self, out: &mut dyn Write) -> io::Result<()> {
        let Tally { rows, safe, broken, errors, unexpected, cut } = &self.counted;
        let counted = [(*safe, "safe"), (*broken, "broken"), (*errors, "in error")];
        let counted = counted.iter().filter(|(count, _)| *count > 0);
        let mut counted: Vec<String> = counted.map(|(count, word)| format!("{} {word}", Count(*count))).collect();
        counted.extend(cut.iter().map(|(limit, count)| format!("{} cut ({limit})", Count(*count))));
        let unexpected = match unexpected {
            0 => "nothing unexpected".to_owned(),
            count => format!("{} UNEXPECTED", Count(*count)),
        };
        let text = format!("{}: {}; {unexpected}", plural(*rows, "row"), counted.join(", "));
        width::wrap(&text, self.page).iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}

impl Tally {
    fn add(&mut self, row: &Row) {
        self.rows += 1;
        match row.verdict {
            Verdict::Safe => self.safe += 1,
            Verdict::Violation => self.broken += 1,
            Verdict::Error => self.errors += 1,
            Verdict::Bounded => {
                *self.cut.entry(row.message.clone().unwrap_or_default()).or_default() += 1;
            }
        }
        self.unexpected += u64::from(row.as_expected == Some(false));
    }
}

fn in_words(row: &Row) -> (Style, String) {
    let style = match row.verdict {
        Verdict::Safe => SAFE,
        Verdict::Violation | Verdict::Error => BROKEN,
        Verdict::Bounded => UNDECIDED,
    };
    let words = match (row.verdict, &row.rule, row.observation) {
        (Verdict::Safe, _, Some(observation)) => format!("safe, {}", observation.name()),
        (Verdict::Violation, Some(rule), _) => format!("breaks {rule}"),
        (verdict, ..) => verdict.name().to_owned(),
    };
    (style, words)
}
