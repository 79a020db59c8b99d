//! From the words on the command line to races.

use std::fs;
use std::path::{Path, PathBuf};

use races::{Race, catalogue};
use wildmatch::WildMatch;

use crate::failure::Failure;

const EXTENSION: &str = "litmus";

/// The races that the words name, each once, and what is wrong with the other words. No word is the whole catalogue.
pub(crate) fn races(words: &[String]) -> (Vec<Race>, Vec<Failure>) {
    let mut found: Vec<Race> = Vec::new();
    let mut failures = Vec::new();
    let mut add = |race: Result<Race, Failure>| match race {
        Ok(race) if found.iter().all(|known| known.source.name() != race.source.name()) => found.push(race),
        Ok(_) => {}
        Err(failure) => failures.push(failure),
    };
    if words.is_empty() {
        catalogue::entries().for_each(|entry| add(named(entry.name)));
    }
    for word in words {
        let path = Path::new(word);
        if path.is_dir() {
            match litmus_files(path) {
                Ok(files) => files.iter().for_each(|file| add(Race::read(file).map_err(Failure::from))),
                Err(failure) => add(Err(failure)),
            }
        } else if is_pattern(word) && !path.exists() {
            let names = matching(word);
            if names.is_empty() {
                add(Err(Failure::Usage {
                    problem: format!("no race of the catalogue matches `{word}`"),
                    remedy: "`fastgup races` lists them".into(),
                }));
            }
            names.into_iter().for_each(|name| add(named(name)));
        } else {
            add(named(word));
        }
    }
    (found, failures)
}

fn named(name: &str) -> Result<Race, Failure> {
    Race::find(name).map_err(Failure::from)
}

fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?'])
}

fn matching(pattern: &str) -> Vec<&'static str> {
    let pattern = WildMatch::new(pattern);
    catalogue::entries().map(|entry| entry.name).filter(|name| pattern.matches(name)).collect()
}

/// The litmus files under a folder, sorted by path.
fn litmus_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(path) = folders.pop() {
        let failed = |cause| Failure::Folder { path: path.clone(), cause };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A link to a folder is not followed: it may lead back up.
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
                files.push(entry.path());
            }
        }
    }
    if files.is_empty() {
        return Err(Failure::Usage {
            problem: format!("no litmus file is in {}", folder.display()),
            remedy: format!("their names end in .{EXTENSION}"),
        });
    }
    files.sort();
    Ok(files)
}

/// The names of variants of `races` that match one of the patterns; empty if there is no pattern.
///
/// # Errors
/// A pattern that matches none.
pub(crate) fn variants(races: &[Race], patterns: &[String]) -> Result<Vec<String>, Failure> {
    let mut chosen: Vec<String> = Vec::new();
    let mut known: Vec<&str> = Vec::new();
    for variant in races.iter().flat_map(|race| &race.litmus.variants) {
        if !known.contains(&variant.name.node.as_str()) {
            known.push(&variant.name.node);
        }
    }
    for pattern in patterns {
        let matcher = WildMatch::new(pattern);
        let before = chosen.len();
        chosen.extend(known.iter().filter(|name| matcher.matches(name)).map(|name| (*name).to_owned()));
        if chosen.len() == before {
            return Err(Failure::Usage {
                problem: format!("no variant matches `{pattern}`"),
                remedy: if known.is_empty() {
                    "these files have no variants".into()
                } else {
                    format!("there are: {}", known.join(", "))
                },
            });
        }
    }
    Ok(chosen)
}
