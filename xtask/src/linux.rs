//! Holds `docs/linux.md` to the source: the files, functions, races and tests that it names exist.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cargo::workspace;

/// The columns of its tables: Linux's name, where it is here, what holds it, what is not here.
const COLUMNS: usize = 4;

/// What is between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of the page's tables, without headings.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect()).filter(|row: &Vec<&str>| row[0] != "Linux").collect()
}

/// The text of every file with this ending below a folder.
fn texts(folder: &Path, ending: &str, each: &mut impl FnMut(&Path, String)) {
    for entry in std::fs::read_dir(folder).expect("a folder of the workspace").flatten() {
        let path = entry.path();
        if path.is_dir() {
            texts(&path, ending, each);
        } else if path.extension().is_some_and(|found| found == ending) {
            each(&path, std::fs::read_to_string(&path).expect("text"));
        }
    }
}

/// What can hold a row: races by the names of their files, and functions of tests.
fn judges() -> BTreeSet<String> {
    let crates = workspace().join("crates");
    let mut found = BTreeSet::new();
    texts(&crates.join("races/catalogue"), "litmus", &mut |path, _| {
        found.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    });
    for package in std::fs::read_dir(&crates).expect("the crates").flatten() {
        let tests = package.path().join("tests");
        if tests.is_dir() {
            texts(&tests, "rs", &mut |_, text| {
                let names = text.lines().filter_map(|line| line.trim().strip_prefix("fn ")?.split_once('('));
                found.extend(names.map(|(name, _)| name.to_owned()));
            });
        }
    }
    found
}

/// What is wrong with a row.
fn wrong(row: &[&str], judges: &BTreeSet<String>) -> Vec<String> {
    let [linux, here, held_by, missing] = row else {
        return vec![format!("{}: not {COLUMNS} columns", row[0])];
    };
    let mut wrong = Vec::new();
    let mut text = String::new();
    for place in quoted(here) {
        if place.contains('/') {
            match std::fs::read_to_string(workspace().join("crates").join(place)) {
                Ok(read) => text = read,
                Err(_) => wrong.push(format!("{linux}: there is no file {place}")),
            }
        } else if !text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == place) {
            wrong.push(format!("{linux}: {place} is not in the file before it"));
        }
    }
    wrong.extend(quoted(held_by).filter(|name| !judges.contains(*name)).map(|name| format!("{linux}: who is {name}?")));
    if here.is_empty() && missing.is_empty() {
        wrong.push(format!("{linux}: neither here nor missing"));
    }
    if !here.is_empty() && held_by.is_empty() && missing.is_empty() {
        wrong.push(format!("{linux}: nobody holds it"));
    }
    wrong
}

#[test]
fn the_page_names_what_there_is() {
    let page = std::fs::read_to_string(workspace().join("docs/linux.md")).expect("the page");
    let (rows, judges) = (rows(&page), judges());
    assert!(rows.len() > 50, "{} rows", rows.len());
    let wrong: Vec<String> = rows.iter().flat_map(|row| wrong(row, &judges)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_there_is_noticed() {
    let judges = judges();
    let row = |line: &str| wrong(&rows(line)[0], &judges);
    let good = "| `pte_special` | `mm/src/gup/fast.rs` `may_use` | `ttm-huge-gup`, `combinations_are_checked` | |";
    assert_eq!(row(good), [""; 0]);
    for (old, new) in [
        ("gup/fast.rs", "gup/slower.rs"),
        ("`may_use`", "`may_us`"),
        ("ttm-huge-gup", "ttm-huge-gap"),
        ("combinations_are_checked", "combinations_are"),
        ("`ttm-huge-gup`, `combinations_are_checked`", ""),
        ("| |", "|"),
    ] {
        assert_ne!(row(&good.replace(old, new)), [""; 0], "{new}");
    }
    assert_eq!(row("| `arch_make_folio_accessible` | | | |").len(), 1);
}
