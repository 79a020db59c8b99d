//! A run as JSON: what [`lab::Trace`] holds, one object for each step.

use lab::Trace;
use lab::trace::{Step, StepKind};
use serde::{Serialize, Serializer};

#[derive(Serialize)]
struct Run<'t> {
    cpus: &'t [String],
    switches: usize,
    steps: Vec<Line<'t>>,
}

#[derive(Serialize)]
struct Line<'t> {
    cpu: usize,
    kind: &'static str,
    in_interrupt: bool,
    what: &'t str,
    target: Option<&'t str>,
    before: Option<Held<'t>>,
    after: Option<Held<'t>>,
    note: Option<&'t str>,
    file: Option<&'t str>,
    line: Option<u32>,
    marks_before: &'t [String],
    marks_after: &'t [String],
}

/// A value in hexadecimal and, where the place has words for it, in words.
#[derive(Serialize)]
struct Held<'t> {
    bits: String,
    words: Option<&'t str>,
}

pub(crate) fn serialize<S: Serializer>(trace: &Option<Trace>, serializer: S) -> Result<S::Ok, S::Error> {
    let run = trace.as_ref().map(|trace| Run {
        cpus: &trace.cpus,
        switches: trace.context_switches(),
        steps: trace.steps.iter().map(line).collect(),
    });
    run.serialize(serializer)
}

fn line(step: &Step) -> Line<'_> {
    let place = step.place.as_ref();
    Line {
        cpu: step.cpu.index(),
        kind: match step.kind {
            StepKind::Operation => "operation",
            StepKind::Interrupt => "interrupt",
            StepKind::Drain => "drain",
            StepKind::Walker => "walker",
            StepKind::Broadcast => "broadcast",
            StepKind::Move => "move",
        },
        in_interrupt: step.in_interrupt,
        what: &step.what,
        target: step.target.as_deref(),
        before: step.before.as_ref().map(held),
        after: step.after.as_ref().map(held),
        note: step.note.as_deref(),
        file: place.map(|place| place.file.as_str()),
        line: place.map(|place| place.line),
        marks_before: &step.marks_before,
        marks_after: &step.marks_after,
    }
}

fn held(value: &lab::trace::Value) -> Held<'_> {
    Held { bits: format!("{:#x}", value.bits), words: value.words.as_deref() }
}
