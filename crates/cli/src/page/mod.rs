//! `--html`: runs as one page that needs nothing else, to step through in a browser.

use lab::trace::{Step, StepKind};
use lab::{Replay, Row};
use races::SavedRun;
use serde::Serialize;

use crate::show::step;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A run as the page's script reads it.
#[derive(Serialize)]
struct Run<'r> {
    title: String,
    file: &'r str,
    memory: &'static str,
    program: &'r str,
    rule: Option<&'r str>,
    message: Option<&'r str>,
    explanation: Option<&'r str>,
    shortest: bool,
    cpus: &'r [String],
    steps: Vec<Line<'r>>,
    rows: &'r [Row],
    states: &'r [Vec<(usize, Option<String>)>],
}

#[derive(Serialize)]
struct Line<'r> {
    cpu: usize,
    text: String,
    /// It was not code that did it.
    hardware: bool,
    place: String,
    marks_before: &'r [String],
    marks_after: &'r [String],
}

/// The runs, as they were saved and done again just now.
pub(crate) fn page(runs: &[(SavedRun, Replay)]) -> String {
    let shown: Vec<Run<'_>> = runs.iter().map(|(saved, replay)| run(saved, replay)).collect();
    let title = match &shown[..] {
        [only] => only.title.clone(),
        several => format!("{} runs", several.len()),
    };
    let data = serde_json::to_string(&shown).expect("a run has text for keys, and whole numbers");
    // In a script nothing ends the data but `</script`, and nothing else has a meaning but `<!--`.
    let data = data.replace('<', "\\u003c");
    PAGE.replace("{{TITLE}}", &escaped(&title))
        .replace("{{STYLE}}", STYLE)
        .replace("{{SCRIPT}}", SCRIPT)
        .replace("{{DATA}}", &data)
}

fn run<'r>(saved: &'r SavedRun, replay: &'r Replay) -> Run<'r> {
    Run {
        title: title(saved),
        file: &saved.file,
        memory: saved.memory.name(),
        program: &saved.program,
        rule: saved.rule.as_deref(),
        message: saved.message.as_deref(),
        explanation: saved.explanation.as_deref(),
        shortest: saved.shortest == Some(true),
        cpus: &replay.trace.cpus,
        steps: replay.trace.steps.iter().map(line).collect(),
        rows: &saved.rows,
        states: &saved.states,
    }
}

/// `pae-zap-refault low-high-low`.
pub(crate) fn title(saved: &SavedRun) -> String {
    let stem =
        std::path::Path::new(&saved.file).file_stem().map_or_else(|| "run".into(), |stem| stem.to_string_lossy());
    let variant = saved.variant.as_ref().map_or_else(String::new, |variant| format!(" {variant}"));
    format!("{stem}{variant}")
}

fn line(step: &Step) -> Line<'_> {
    Line {
        cpu: step.cpu.index(),
        text: step::done(step),
        hardware: step.kind != StepKind::Operation,
        place: step::place(step),
        marks_before: &step.marks_before,
        marks_after: &step.marks_after,
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
