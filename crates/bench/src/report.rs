//! Results for people and for programs. Every number is written from here, none by hand.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::page_tables::OURS;
use crate::samples::{Key, Samples, Series};
use crate::targets::TARGETS;
use measured::Host;

/// The results, as Markdown tables: readable as text, too.
pub(crate) fn markdown(samples: &Samples) -> String {
    let mut text = String::new();
    let mut workloads: Vec<&str> = Vec::new();
    for (key, _) in samples.iter() {
        if !workloads.contains(&key.workload) {
            workloads.push(key.workload);
        }
    }
    for workload in workloads {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "\n### {workload}\n");
        table(&mut text, samples, workload);
    }
    text
}

/// One row per contestant, one column per operation: best round (median), and how many times ours that is.
fn table(text: &mut String, samples: &Samples, workload: &'static str) {
    let mut operations: Vec<(&'static str, &'static str)> = Vec::new();
    let mut contestants: Vec<&'static str> = Vec::new();
    for (Key { operation, contestant, .. }, series) in samples.iter().filter(|(key, _)| key.workload == workload) {
        if !operations.iter().any(|(name, _)| name == operation) {
            operations.push((operation, series.unit.name()));
        }
        if !contestants.contains(contestant) {
            contestants.push(contestant);
        }
    }
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(operations.iter().map(|(operation, unit)| format!("{operation} [{unit}]")));
    for contestant in contestants {
        let mut row = vec![contestant.to_owned()];
        for (operation, _) in &operations {
            row.push(match samples.get(workload, operation, contestant) {
                None => String::from("-"),
                Some(series) => cell(series, samples.get(workload, operation, OURS)),
            });
        }
        rows.push(row);
    }
    write_aligned(text, &rows);
}

fn cell(series: &Series, ours: Option<&Series>) -> String {
    let ratio = ours.map(|ours| format!(" x{:.2}", series.best() / ours.best())).unwrap_or_default();
    format!("{} ({}){ratio}", number(series.best()), number(series.median()))
}

/// Three significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.2}G", value / 1e9),
        size if size >= 1e6 => format!("{:.2}M", value / 1e6),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The targets, how far we are from each, and whether that is enough.
pub(crate) fn targets_markdown(samples: &Samples) -> String {
    let mut rows = vec![["target", "value", "limit", "limit is", "met"].map(String::from).to_vec()];
    for target in TARGETS {
        if let Some(standing) = target.standing(samples) {
            rows.push(vec![
                target.name(),
                number(standing.value),
                number(standing.limit),
                standing.reason,
                String::from(if standing.is_met { "yes" } else { "**no**" }),
            ]);
        }
    }
    let mut text = String::from("\n### Targets\n\n");
    write_aligned(&mut text, &rows);
    text
}

/// Whether a target that was measured is missed.
pub(crate) fn is_any_target_missed(samples: &Samples) -> bool {
    TARGETS.iter().filter_map(|target| target.standing(samples)).any(|standing| !standing.is_met)
}

pub(crate) fn write_aligned(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows[0].len();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
}

/// Everything, for programs.
pub(crate) fn json(samples: &Samples, host: &Host) -> Value {
    let results: Vec<_> = samples
        .iter()
        .map(|(key, series)| {
            json!({
                "workload": key.workload,
                "operation": key.operation,
                "contestant": key.contestant,
                "unit": series.unit.name(),
                "best": series.best(),
                "median": series.median(),
                "rounds": series.rounds(),
            })
        })
        .collect();
    let targets: Vec<_> = TARGETS
        .iter()
        .filter_map(|target| {
            let standing = target.standing(samples)?;
            Some(json!({
                "target": target.name(),
                "value": standing.value,
                "limit": standing.limit,
                "limit_is": standing.reason,
                "met": standing.is_met,
            }))
        })
        .collect();
    json!({ "host": host.json(), "results": results, "targets": targets })
}
