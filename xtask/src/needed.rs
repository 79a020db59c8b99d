//! `cargo xtask needed`: the tables of `docs/needed.md`, from the answers of `fastgup needed --json`.
//!
//! Answers name lines, which move with every edit above them. The tables name a place by its function and its statement, which move with it; a test holds
//! the page to the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cargo::workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What `fastgup needed --json` has printed, of the source as it is now
    answers: PathBuf,
}

/// Prints the tables.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let name = arguments.answers.display();
    let text = std::fs::read_to_string(&arguments.answers).with_context(|| format!("cannot read {name}"))?;
    let said = Said::read(&text).with_context(|| format!("{name} is not what `fastgup needed --json` prints"))?;
    print!("{}", said.tables(source)?);
    Ok(ExitCode::SUCCESS)
}

fn source(file: &str) -> Result<String> {
    std::fs::read_to_string(workspace().join(file)).with_context(|| format!("cannot read {file}"))
}

/// A line of the answers. The last has no `needs`: it sums up the others.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    file: String,
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    needs: Vec<Need>,
}

#[derive(Deserialize)]
struct Need {
    places: Vec<Line>,
    needed: Option<bool>,
    breaks: Option<String>,
}

/// Two of a kind in one line are one place here.
#[derive(Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    file: String,
    line: usize,
    what: String,
}

/// What the variants together say of one place.
#[derive(Default)]
struct OfPlace {
    /// Which of them were decided without it.
    decided: BTreeSet<usize>,
    /// What breaks.
    breaks: BTreeSet<String>,
}

#[derive(Default)]
struct Said {
    races: BTreeSet<String>,
    variants: usize,
    places: BTreeMap<Line, OfPlace>,
}

/// What is left out, in the order of the first table, and whether the second lists it: orders that x86 keeps anyway and atomicity of counters would hide the rest.
const KINDS: [(&str, bool); 11] = [
    ("fence", true),
    ("flush", true),
    ("IPI", true),
    ("interrupts off", true),
    ("grace period", true),
    ("wait", true),
    ("re-check", true),
    ("lock", true),
    ("atomicity", false),
    ("lock prefix", false),
    ("order", false),
];

impl Said {
    fn read(text: &str) -> Result<Self> {
        let mut said = Self::default();
        for line in text.lines() {
            let asked: Asked = serde_json::from_str(line)?;
            if asked.needs.is_empty() || asked.refused.is_some() {
                continue;
            }
            said.variants += 1;
            said.races.insert(asked.file);
            for need in asked.needs {
                let [place] = &need.places[..] else { continue };
                let of_place = said.places.entry(place.clone()).or_default();
                of_place.decided.extend(need.needed.map(|_| said.variants));
                of_place.breaks.extend(need.breaks.filter(|_| need.needed == Some(true)));
            }
        }
        Ok(said)
    }

    fn tables(&self, source: impl Fn(&str) -> Result<String>) -> Result<String> {
        let mut text = format!("{} safe variants of {} races\n\n", self.variants, self.races.len());
        text += "| what is left out | places | needed by some variant | what breaks without |\n|---|---|---|---|\n";
        for (kind, _) in KINDS {
            let places: Vec<&OfPlace> =
                self.places.iter().filter(|(line, _)| line.what == kind).map(|(_, place)| place).collect();
            let needed = places.iter().filter(|place| !place.breaks.is_empty()).count();
            let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
            for rule in places.iter().flat_map(|place| &place.breaks) {
                *rules.entry(rule).or_default() += 1;
            }
            let mut rules: Vec<(&str, usize)> = rules.into_iter().collect();
            rules.sort_by_key(|(_, places)| std::cmp::Reverse(*places));
            let rules: Vec<String> = rules.iter().take(4).map(|(rule, places)| format!("`{rule}` {places}")).collect();
            text += &format!("| {kind} | {} | {needed} | {} |\n", places.len(), rules.join(", "));
        }
        text += "\n| place | statement | what | asked by variants |\n|---|---|---|---|\n";
        let is_listed = |what: &str| KINDS.iter().any(|(kind, listed)| *kind == what && *listed);
        for (line, place) in &self.places {
            if is_listed(&line.what) && place.breaks.is_empty() && !place.decided.is_empty() {
                let statement = Statement::at(&line.file, line.line, &source(&line.file)?)
                    .with_context(|| format!("{}:{} is in no function", line.file, line.line))?;
                text += &format!("| {statement} | {} | {} |\n", line.what, place.decided.len());
            }
        }
        Ok(text)
    }
}

/// A line of code, whatever its number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Statement {
    file: String,
    function: String,
    text: String,
    /// Which of those in the function that read alike, from 1 on, and how many there are.
    number: (usize, usize),
}

impl fmt::Display for Statement {
    /// As two cells of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`, `{}` | `{}`", self.file, self.function, self.text.replace('|', "\\|"))?;
        match self.number {
            (1, 1) => Ok(()),
            (number, count) => write!(f, ", {number} of {count}"),
        }
    }
}

impl Statement {
    /// The one in this line of the source.
    fn at(file: &str, line: usize, source: &str) -> Option<Self> {
        let lines: Vec<&str> = source.lines().collect();
        let text = lines.get(line.checked_sub(1)?)?;
        let (start, function) = (0..line).rev().find_map(|start| {
            Some((start, function_of(lines[start])?)).filter(|_| indentation(lines[start]) < indentation(text))
        })?;
        let alike = alike(&lines, start, text.trim());
        let number = alike.iter().position(|index| index + 1 == line)? + 1;
        let (function, text) = (function.to_owned(), text.trim().to_owned());
        Some(Self { file: file.to_owned(), function, text, number: (number, alike.len()) })
    }

    /// Why it is not in the source, if it is not.
    #[cfg(test)]
    fn missing(&self, source: &str) -> Option<String> {
        let lines: Vec<&str> = source.lines().collect();
        let starts = (0..lines.len()).filter(|start| function_of(lines[*start]) == Some(&self.function));
        let counts: Vec<usize> = starts.map(|start| alike(&lines, start, &self.text).len()).collect();
        if counts.contains(&self.number.1) {
            return None;
        }
        let Self { file, function, text, .. } = self;
        Some(match counts.iter().max() {
            None => format!("{file} has no function {function}"),
            Some(0) => format!("{file}, {function} has no line `{text}`"),
            Some(count) => format!("{file}, {function} has {count} lines `{text}`"),
        })
    }
}

/// The lines that read so in the function that begins in line `start`: indices.
fn alike(lines: &[&str], start: usize, text: &str) -> Vec<usize> {
    let outside = indentation(lines[start]);
    // Formatted: the first line that is indented no more and closes something closes the function.
    let end = (start + 1..lines.len())
        .find(|index| indentation(lines[*index]) == outside && lines[*index].trim() == "}")
        .unwrap_or(lines.len());
    (start..end).filter(|index| lines[*index].trim() == text).collect()
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the function that begins in the line.
fn function_of(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_qualifier = |word: &str| word.starts_with("pub") || ["const", "unsafe", "async"].contains(&word);
    let name = after.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
    (before.split_whitespace().all(is_qualifier) && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the second table: statements, and what is left out.
    fn rows(page: &str) -> Vec<(Statement, String)> {
        let unquoted = |cell: &str| cell.trim().trim_matches('`').to_owned();
        let mut rows = Vec::new();
        for line in page.lines().filter(|line| line.starts_with("| `crates/")) {
            let line = line.replace("\\|", "\0");
            let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.replace('\0', "|")).collect();
            let [place, statement, what, asked] = &cells[..] else { panic!("four cells: {line}") };
            asked.trim().parse::<usize>().expect("how many variants were asked");
            let (file, function) = place.split_once("`, `").expect("a file and a function");
            let (text, number) = match statement.rsplit_once("`, ") {
                Some((text, number)) => {
                    let (number, count) = number.trim().split_once(" of ").expect("which of how many");
                    (text, (number.parse().expect("a number"), count.parse().expect("a number")))
                }
                None => (statement.as_str(), (1, 1)),
            };
            let [file, function, text] = [file, function, text].map(unquoted);
            rows.push((Statement { file, function, text, number }, what.trim().to_owned()));
        }
        rows
    }

    /// Of each kind of place of the first table, how many no variant needs.
    fn spare(page: &str) -> BTreeMap<String, usize> {
        let mut spare = BTreeMap::new();
        for line in page.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if let [kind, places, needed, _] = cells[..]
                && let (Ok(places), Ok(needed)) = (places.parse::<usize>(), needed.parse::<usize>())
            {
                spare.insert(kind.to_owned(), places - needed);
            }
        }
        spare
    }

    #[test]
    fn what_the_page_names_is_in_the_source() {
        let page = std::fs::read_to_string(workspace().join("docs/needed.md")).expect("the page is there");
        let rows = rows(&page);
        let missing: Vec<String> = rows
            .iter()
            .filter_map(|(statement, what)| {
                let source = source(&statement.file).unwrap_or_default();
                statement.missing(&source).map(|why| format!("{why}: ask anew whether the {what} there is needed"))
            })
            .collect();
        assert_eq!(missing, [""; 0], "`fastgup needed RACE --place PLACE --json` asks, docs/needed.md has the answers");
        let spare = spare(&page);
        for (kind, is_listed) in KINDS {
            let listed = rows.iter().filter(|(_, what)| what == kind).count();
            assert_eq!(
                listed,
                if is_listed { spare[kind] } else { 0 },
                "places of the kind `{kind}` that no variant needs"
            );
        }
        assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len(), "none twice");
    }

    const SOURCE: &str = "impl A {\n    /// Of fn other().\n    pub(crate) const fn one(&self) {\n        let a = b.lock(cpu);\n        \
                          call(|a| {\n            again();\n        });\n    }\n\n    fn two() {\n        again();\n        again();\n    }\n}\n";

    #[test]
    fn statements_are_found_wherever_they_are() {
        let at = |line| Statement::at("crates/f.rs", line, SOURCE).map(|statement| statement.to_string());
        assert_eq!(at(4).expect("code"), "`crates/f.rs`, `one` | `let a = b.lock(cpu);`");
        assert_eq!(at(5).expect("code"), "`crates/f.rs`, `one` | `call(\\|a\\| {`");
        assert_eq!(at(6).expect("code"), "`crates/f.rs`, `one` | `again();`");
        assert_eq!(at(12).expect("code"), "`crates/f.rs`, `two` | `again();`, 2 of 2");
        assert_eq!((at(0), at(1), at(99)), (None, None, None));
        for line in [4, 5, 6, 11, 12] {
            let statement = Statement::at("crates/f.rs", line, SOURCE).expect("code");
            let page = format!("| {statement} | lock | 7 |\n");
            assert_eq!(rows(&page), [(statement.clone(), "lock".to_owned())]);
            assert_eq!(statement.missing(SOURCE), None);
            assert_eq!(statement.missing(&format!("\n// Moved.\n{SOURCE}")), None);
        }
        let statement = Statement::at("crates/f.rs", 12, SOURCE).expect("code");
        let missing = |from: &str, to: &str| statement.missing(&SOURCE.replace(from, to)).expect("it changed");
        assert_eq!(missing("fn two", "fn three"), "crates/f.rs has no function two");
        assert_eq!(missing("again", "anew"), "crates/f.rs, two has no line `again();`");
        assert_eq!(missing("{\n        again();\n", "{\n"), "crates/f.rs, two has 1 lines `again();`");
    }

    #[test]
    fn answers_become_tables() {
        let need = |line: usize, what: &str, answer: &str| {
            format!(r#"{{"places":[{{"what":"{what}","file":"f.rs","line":{line},"column":9}}],{answer},"states":1}}"#)
        };
        let (spare, known) = (r#""needed":false,"breaks":null"#, r#""needed":true,"breaks":"user""#);
        let unknown = r#""needed":null,"breaks":null"#;
        let variant = |race: &str, needs: &[String]| format!(r#"{{"file":"{race}","needs":[{}]}}"#, needs.join(","));
        let answers = [
            variant("one", &[need(4, "lock", spare), need(12, "wait", spare), need(11, "wait", known)]),
            variant("one", &[need(4, "lock", spare), need(6, "order", spare), need(12, "wait", unknown)]),
            variant("two", &[need(11, "wait", spare)]),
            r#"{"file":"three","refused":"it was not decided","needs":[]}"#.to_owned(),
            r#"{"variants":3,"overall":[]}"#.to_owned(),
        ];
        let said = Said::read(&answers.join("\n")).expect("answers");
        let text = said.tables(|_| Ok(SOURCE.to_owned())).expect("places in functions");
        assert!(text.starts_with("3 safe variants of 2 races\n"), "{text}");
        for row in ["| wait | 2 | 1 | `user` 1 |", "| lock | 1 | 0 |  |", "| order | 1 | 0 |  |"] {
            assert!(text.contains(row), "{text}");
        }
        let (_, listed) = text.split_once("asked by variants |\n|---|---|---|---|\n").expect("the second table");
        assert_eq!(
            listed,
            "| `f.rs`, `one` | `let a = b.lock(cpu);` | lock | 2 |\n| `f.rs`, `two` | `again();`, 2 of 2 | wait | 1 |\n"
        );
        assert!(Said::read("no JSON").is_err());
    }
}
