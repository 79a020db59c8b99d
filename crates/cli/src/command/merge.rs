//! `fastgup merge`: the rows of one sweep, decided on several machines, as one table.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::arguments::Merge;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::show::palette::UNDECIDED;
use crate::show::scopes::Table;
use crate::show::width;
use crate::sweep::Row;

/// Reads the rows, and prints them in their order, with those that nobody has decided.
pub(crate) fn run(arguments: &Merge) -> Result<Exit, Failure> {
    let mut rows: BTreeMap<usize, (Row, String)> = BTreeMap::new();
    for path in &arguments.files {
        for (line, row) in read(path)? {
            let place = format!("{}:{line}", path.display());
            add(&mut rows, row, place)?;
        }
    }
    let Some((first, _)) = rows.values().next() else {
        return Err(Failure::Usage {
            problem: "these files have no rows".into(),
            remedy: "`fastgup check RACE --cpus 3..5 --list-jobs` lists the commands that print some".into(),
        });
    };
    let sweep = &first.sweep;
    let missing: Vec<usize> = (1..=sweep.rows).filter(|number| !rows.contains_key(number)).collect();
    let mut out = anstream::stdout().lock();
    let names = rows.values().filter_map(|(row, _)| row.variant.as_deref());
    let page = width::of_stdout();
    let mut table = Table::of(names, page);
    let mut exit = if missing.is_empty() { Exit::AsExpected } else { Exit::Bounded };
    if !arguments.json {
        table.heading(&mut out, sweep)?;
    }
    for (row, _) in rows.values() {
        exit = exit.and(Exit::of_verdict(row.verdict, row.as_expected));
        if arguments.json {
            serde_json::to_writer(&mut out, row).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            table.row(&mut out, row)?;
        }
    }
    if !arguments.json {
        table.close(&mut out)?;
        if !missing.is_empty() {
            let jobs: Vec<String> = missing.iter().map(|number| format!("{number}/{}", sweep.rows)).collect();
            let text = format!("missing, to be had by --job: {}", jobs.join(", "));
            for line in width::wrap(&text, page) {
                writeln!(out, "{UNDECIDED}{line}{UNDECIDED:#}")?;
            }
        }
    }
    out.flush()?;
    Ok(exit)
}

/// The rows of a file, with the numbers of their lines.
fn read(path: &Path) -> Result<Vec<(usize, Row)>, Failure> {
    let text = fs::read_to_string(path).map_err(|cause| Failure::Read { path: path.to_owned(), cause })?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let row = |(number, line): (usize, &str)| match serde_json::from_str::<Row>(line) {
        Ok(row) if (1..=row.sweep.rows).contains(&row.row) => Ok((number, row)),
        Ok(row) => {
            Err(wrong(&format!("{}:{number}", path.display()), &format!("row {} of {}", row.row, row.sweep.rows)))
        }
        Err(error) => Err(wrong(&format!("{}:{number}", path.display()), &error.to_string())),
    };
    lines.map(row).collect()
}

fn wrong(place: &str, why: &str) -> Failure {
    Failure::Usage {
        problem: format!("{place}: this is no row of a sweep: {why}"),
        remedy: "`fastgup check RACE --cpus 3..5 --job 1/4 --json` prints some".into(),
    }
}

/// Takes a row. Of two with the same number that agree, the one that a limit has not cut stays.
fn add(rows: &mut BTreeMap<usize, (Row, String)>, row: Row, place: String) -> Result<(), Failure> {
    if let Some((other, elsewhere)) = rows.values().next()
        && other.sweep != row.sweep
    {
        return Err(Failure::Usage {
            problem: format!("{place} and {elsewhere} are not rows of one sweep: {} differs", difference(other, &row)),
            remedy: "merge what the commands of one --list-jobs have printed".into(),
        });
    }
    match rows.get(&row.row) {
        Some((other, elsewhere)) if !other.agrees(&row) => Err(Failure::Usage {
            problem: format!("{place} and {elsewhere} decide row {} in two ways", row.row),
            remedy: "decide it once more: one of them is wrong".into(),
        }),
        Some((other, _)) if !other.is_cut() => Ok(()),
        _ => {
            rows.insert(row.row, (row, place));
            Ok(())
        }
    }
}

/// The first thing in which two sweeps differ.
fn difference(one: &Row, other: &Row) -> &'static str {
    let (one, other) = (&one.sweep, &other.sweep);
    let parts = [
        ("the program", one.code != other.code),
        ("the race", one.race != other.race || one.file != other.file),
        ("the text of the race", one.text != other.text),
        ("--cpus", one.cpus != other.cpus),
        ("--entries", one.entries != other.entries),
        ("--variant", one.variants != other.variants),
        ("--memory", one.memory != other.memory),
        ("what is searched for", one.way != other.way),
        ("--fingerprints", one.fingerprints != other.fingerprints),
    ];
    parts.iter().find(|(_, differs)| *differs).map_or("the number of rows", |(part, _)| part)
}
