//! The README shows what the program prints and what the examples say. These blocks are copies; this test holds them to their originals.
//!
//! `FASTGUP_UPDATE_README=1 cargo test -p fastgup --test cli readme` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Numbers may change with every change of the engine; words may not.
#[derive(Clone, Copy, PartialEq)]
enum Compared {
    ButForNumbers,
    Exactly,
}

struct Block {
    /// The line numbers between the fences.
    lines: std::ops::Range<usize>,
    held: String,
    original: String,
    compared: Compared,
}

#[test]
fn every_block_of_the_readme_is_what_it_says() {
    let path = workspace().join("README.md");
    let readme = fs::read_to_string(&path).expect("the README can be read");
    let blocks = blocks(&readme);
    assert_eq!(blocks.len(), 2, "the answer and the example");
    if std::env::var_os("FASTGUP_UPDATE_README").is_some() {
        fs::write(&path, updated(&readme, &blocks)).expect("the README can be written");
        return;
    }
    for block in blocks {
        let (held, original) = match block.compared {
            Compared::Exactly => (block.held, block.original),
            Compared::ButForNumbers => (without_numbers(&block.held), without_numbers(&block.original)),
        };
        assert_eq!(
            held, original,
            "the README is out of date: FASTGUP_UPDATE_README=1 cargo test -p fastgup --test cli readme"
        );
    }
}

#[test]
fn numbers_are_left_out_of_the_comparison() {
    assert_eq!(without_numbers("a  1 234 states 0.10 s\n"), without_numbers("a 99 states   12.34 s\n"));
    assert_eq!(without_numbers("load pte: 0x8067"), without_numbers("load pte: 0x9e"));
    assert_ne!(without_numbers("safe 3 s"), without_numbers("broken 3 s"));
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn blocks(readme: &str) -> Vec<Block> {
    let lines: Vec<&str> = readme.lines().collect();
    let mut blocks = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(marker) = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")) else { continue };
        assert!(lines[number + 1].starts_with("```"), "a fence follows line {}", number + 1);
        let start = number + 2;
        let end = start + lines[start..].iter().position(|line| *line == "```").expect("the fence is closed");
        let (original, compared) = match marker.split_once(" of: ") {
            Some(("output", "fastgup")) => (program_output(), Compared::ButForNumbers),
            Some(("text", path)) => {
                (fs::read_to_string(workspace().join(path)).expect("the example can be read"), Compared::Exactly)
            }
            _ => panic!("an unknown marker: {marker}"),
        };
        let held = lines[start..end].iter().map(|line| format!("{line}\n")).collect();
        blocks.push(Block { lines: start..end, held, original, compared });
    }
    blocks
}

fn program_output() -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_fastgup")).env("COLUMNS", "100").output().expect("the program starts");
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("the output is text");
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn updated(readme: &str, blocks: &[Block]) -> String {
    let lines: Vec<&str> = readme.lines().collect();
    let mut text = String::new();
    let mut next = 0;
    for block in blocks {
        for line in &lines[next..block.lines.start] {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&block.original);
        next = block.lines.end;
    }
    for line in &lines[next..] {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Each number is `N`, each run of blanks one blank: where words stand depends on how wide the numbers are.
fn without_numbers(text: &str) -> String {
    let mut plain = Vec::new();
    for word in text.split_whitespace() {
        let hex =
            word.find("0x").map(|at| (&word[..at], word[at + 2..].trim_start_matches(|c: char| c.is_ascii_hexdigit())));
        let number: String = match hex {
            Some((before, after)) => format!("{before}N{after}"),
            None => {
                let mut number = String::new();
                for character in word.chars() {
                    match character {
                        '0'..='9' | '.' if number.ends_with('N') => {}
                        '0'..='9' => number.push('N'),
                        other => number.push(other),
                    }
                }
                number
            }
        };
        // `1 234` is one number.
        if number != "N" || plain.last().is_none_or(|last| last != "N") {
            plain.push(number);
        }
    }
    plain.join(" ")
}
