//! SPIN beside the lab: a model of the first family of races that shares no code with the lab, and what both say of every variant.

mod family_a;
mod pan;

use std::io::{self, Write};

use races::{Options, Race, VariantReport, Verdict, Witnesses, catalogue};

pub(crate) use pan::{Built, Problem, Spin, Verifier, read};

/// What SPIN says of one variant, beside the lab.
struct Row {
    race: String,
    variant: String,
    order: &'static str,
    lab: Answer,
    spin: Answer,
}

/// A verdict, and the graph it was found in.
struct Answer {
    is_broken: bool,
    states: u64,
    transitions: u64,
    seconds: f64,
}

impl Answer {
    const fn word(&self) -> &'static str {
        if self.is_broken { "broken" } else { "safe" }
    }
}

/// How many verdicts were compared, and how many differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Comparison {
    pub(crate) verdicts: usize,
    pub(crate) different: usize,
}

/// Decides every variant of family A by both, and prints a table to `out`. Only files whose name begins with `prefix`.
pub(crate) fn compare_family_a(spin: &Spin, prefix: &str, out: &mut impl Write) -> Result<Comparison, Problem> {
    let mut rows = Vec::new();
    for file in family_a::FILES.iter().filter(|file| file.name.starts_with(prefix)) {
        let entry = catalogue::entry(file.name).ok_or(Problem::NoSuchRace(file.name))?;
        let race = Race::of_catalogue(&entry).expect("the catalogue's files are right");
        for report in decided_by_lab(&race) {
            let variant = report.variant.clone().unwrap_or_default();
            let definitions = file.definitions(&race, &variant, report.memory);
            eprint!("\r{:<100}", format!("spin: {} {variant} {}", file.name, report.memory.name()));
            let (found, seconds) = spin.decide(&definitions, family_a::MODEL)?;
            rows.push(Row {
                race: file.name.to_owned(),
                variant,
                order: report.memory.name(),
                lab: of_lab(&report)?,
                spin: Answer {
                    is_broken: found.is_assertion_violated,
                    states: found.states,
                    transitions: found.transitions,
                    seconds,
                },
            });
        }
    }
    eprint!("\r{:100}\r", "");
    let different = rows.iter().filter(|row| row.lab.is_broken != row.spin.is_broken).count();
    print(&rows, out).map_err(Problem::Print)?;
    Ok(Comparison { verdicts: rows.len(), different })
}

fn decided_by_lab(race: &Race) -> Vec<VariantReport> {
    let options = Options { witnesses: Witnesses::Skipped, ..Options::default() };
    let mut reports = Vec::new();
    races::decide(std::slice::from_ref(race), &options, |report| reports.push(report));
    reports
}

fn of_lab(report: &VariantReport) -> Result<Answer, Problem> {
    let is_broken = match report.verdict {
        Verdict::Safe => false,
        Verdict::Violation => true,
        _ => {
            let why = report.message.clone().unwrap_or_default();
            return Err(Problem::NoAnswerOfTheLab { race: report.race.clone(), why });
        }
    };
    Ok(Answer { is_broken, states: report.states, transitions: report.transitions, seconds: report.seconds })
}

fn print(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "| race | variant | order | lab | SPIN | agree | states: lab | SPIN | transitions: lab | SPIN |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    )?;
    for Row { race, variant, order, lab, spin } in rows {
        let agree = if lab.is_broken == spin.is_broken { "yes" } else { "NO" };
        writeln!(
            out,
            "| {race} | {variant} | {order} | {} | {} | {agree} | {} | {} | {} | {} |",
            lab.word(),
            spin.word(),
            lab.states,
            spin.states,
            lab.transitions,
            spin.transitions,
        )?;
    }
    for (who, answer) in
        [("lab, clock on the wall", (|row| &row.lab) as fn(&Row) -> &Answer), ("SPIN, processor time", |row| &row.spin)]
    {
        let states: u64 = rows.iter().map(|row| answer(row).states).sum();
        let transitions: u64 = rows.iter().map(|row| answer(row).transitions).sum();
        let seconds: f64 = rows.iter().map(|row| answer(row).seconds).sum();
        writeln!(
            out,
            "\n{who}: {states} states and {transitions} transitions in {seconds:.2} s, {:.0} states/s, {:.0} transitions/s",
            states as f64 / seconds,
            transitions as f64 / seconds,
        )?;
    }
    for (race, why) in family_a::NOT_MODELLED {
        writeln!(out, "\nNot asked: {race} {why}.")?;
    }
    writeln!(
        out,
        "\nThe graphs are not the same: the lab runs the engine and its machine, SPIN a model of one entry and its protocols."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The question this project began with, by an engine that shares nothing with the lab. Prints why if it cannot be asked.
    #[test]
    fn spin_agrees_on_the_seed() {
        let spin = match Spin::find() {
            Ok(spin) => spin,
            Err(problem) => {
                println!("skipped: {problem}");
                return;
            }
        };
        let mut table = Vec::new();
        let compared =
            compare_family_a(&spin, "pae-zap-refault", &mut table).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(compared, Comparison { verdicts: 20, different: 0 }, "\n{}", String::from_utf8_lossy(&table));
    }

    /// Every file of the family has a model, or a reason.
    #[test]
    fn no_file_of_the_family_is_forgotten() {
        let files = catalogue::entries().filter(|entry| entry.folder == "mm" && entry.name.starts_with("pae-"));
        let known =
            family_a::FILES.iter().map(|file| file.name).chain(family_a::NOT_MODELLED.iter().map(|(name, _)| *name));
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        assert_eq!(known, files.map(|entry| entry.name).collect::<Vec<_>>());
    }
}
