//! One step of a trace in words.

use lab::Trace;
use lab::trace::{Step, StepKind, Value};

/// What stands together in a trace: one step, or several loads in a row of one place by one CPU.
pub(crate) struct Row {
    /// `7`, or `7-9`.
    pub(crate) number: String,
    /// Whose column.
    pub(crate) cpu: usize,
    /// What is written there.
    pub(crate) lines: Vec<Line>,
    /// The line of source of its first step, as `fast.rs:120`; empty if none is known.
    pub(crate) place: String,
}

/// The rows of a trace. Reading an entry in halves takes several steps and is one thought, unless another CPU comes between.
pub(crate) fn rows(trace: &Trace) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut first = 0;
    while let Some(step) = trace.steps.get(first) {
        let more = trace.steps[first..].windows(2).take_while(|pair| are_one(&pair[0], &pair[1])).count();
        let steps = &trace.steps[first..=first + more];
        let number = if more == 0 { (first + 1).to_string() } else { format!("{}-{}", first + 1, first + more + 1) };
        rows.push(Row { number, cpu: step.cpu.index(), lines: lines(steps), place: place(step) });
        first += more + 1;
    }
    rows
}

/// Whether `second` is another load, right after `first`, of the same word or of its other half.
fn are_one(first: &Step, second: &Step) -> bool {
    let is_load = |step: &Step| step.kind == StepKind::Operation && step.what == "load" && step.note.is_none();
    is_load(first)
        && is_load(second)
        && (first.cpu, first.in_interrupt) == (second.cpu, second.in_interrupt)
        && first.marks_after.is_empty()
        && second.marks_before.is_empty()
        && matches!((halved(first), halved(second)), (Some((one, _)), Some((other, _))) if one == other)
}

/// The word and the half of it that a step acts on.
fn halved(step: &Step) -> Option<(&str, &str)> {
    let target = step.target.as_deref()?;
    ["low", "high"].into_iter().find_map(|half| Some((target.strip_suffix(half)?.strip_suffix('.')?, half)))
}

pub(crate) fn place(step: &Step) -> String {
    let file = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    step.place.as_ref().map_or_else(String::new, |place| format!("{}:{}", file(&place.file), place.line))
}

fn lines(steps: &[Step]) -> Vec<Line> {
    let said = |marks: &[String]| marks.iter().cloned().map(Line::Said).collect::<Vec<_>>();
    let [first, .., last] = steps else {
        let Some(step) = steps.first() else { return Vec::new() };
        return [said(&step.marks_before), vec![Line::Done(done(step))], said(&step.marks_after)].concat();
    };
    [said(&first.marks_before), vec![Line::Done(loads(steps))], said(&last.marks_after)].concat()
}

/// `load pte low = 0x67 [present], high = 0, low = the same`.
fn loads(steps: &[Step]) -> String {
    let mut text = String::from("load ");
    for (number, step) in steps.iter().enumerate() {
        let Some((word, half)) = halved(step) else { continue };
        let before = steps[..number].iter().rev().find(|before| halved(before) == Some((word, half)));
        let read = step.before.as_ref().map_or_else(String::new, value);
        let read = if before.is_some_and(|before| before.before == step.before) { "the same".to_owned() } else { read };
        text.push_str(&if number == 0 { format!("{word} {half} = {read}") } else { format!(", {half} = {read}") });
    }
    text
}

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The machine did this.
    Done(String),
    /// The code says where it is, or what it makes of what it saw.
    Said(String),
}

impl Line {
    /// The words.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Done(text) | Self::Said(text) => text,
        }
    }
}

/// `load pte = 0x67 [present writable]`, `store pte := 0`, `xchg pte: 0x67 [present] -> 0 [none]`: the signs that the lab's own
/// text uses.
pub(crate) fn done(step: &Step) -> String {
    let who = match step.kind {
        StepKind::Operation if step.in_interrupt => "[irq] ",
        StepKind::Operation => "",
        StepKind::Interrupt => "<irq> ",
        StepKind::Move => "(scheduler) ",
        StepKind::Drain => "(buffer) ",
        StepKind::Walker | StepKind::Broadcast => "(hw) ",
    };
    let mut text = format!("{who}{}", step.what);
    if let Some(target) = &step.target {
        text.push(' ');
        text.push_str(target);
    }
    match (&step.before, &step.after) {
        (Some(before), Some(after)) if before != after => {
            text.push_str(&format!(": {} -> {}", value(before), value(after)));
        }
        (Some(read), _) => text.push_str(&format!(" = {}", value(read))),
        (None, Some(written)) => text.push_str(&format!(" := {}", value(written))),
        (None, None) => {}
    }
    if let Some(note) = &step.note {
        text.push_str(&format!(", {note}"));
    }
    text
}

/// In hex, and in words where the place has them.
fn value(value: &Value) -> String {
    let bits = if value.bits < 10 { value.bits.to_string() } else { format!("{:#x}", value.bits) };
    match &value.words {
        Some(words) => format!("{bits} [{words}]"),
        None => bits,
    }
}

#[cfg(test)]
pub(crate) mod examples {
    use lab::trace::{Step, StepKind, Trace, Value};
    use machine::CpuId;

    /// A step of this CPU that does this to this place.
    pub(crate) fn step(cpu: u32, what: &str, target: &str) -> Step {
        Step {
            cpu: CpuId::new(cpu),
            in_interrupt: false,
            kind: StepKind::Operation,
            what: what.into(),
            target: (!target.is_empty()).then(|| target.into()),
            before: None,
            after: None,
            note: None,
            place: None,
            marks_before: Vec::new(),
            marks_after: Vec::new(),
        }
    }

    /// Half an entry.
    pub(crate) fn half(bits: u64, words: &str) -> Option<Value> {
        Some(Value { bits, bytes: 4, words: (!words.is_empty()).then(|| words.into()) })
    }

    /// Steps of `cpus` CPUs.
    pub(crate) fn trace(cpus: usize, steps: Vec<Step>) -> Trace {
        Trace { cpus: (0..cpus).map(|cpu| format!("CPU{cpu}")).collect(), steps, ..Trace::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::examples::{half, step};
    use super::*;

    fn text(step: &Step) -> String {
        done(step)
    }

    #[test]
    fn values_say_which_way_they_went() {
        let mut load = step(0, "load", "pte.low");
        load.before = half(0x67, "present writable");
        assert_eq!(text(&load), "load pte.low = 0x67 [present writable]");

        let mut store = step(0, "store", "pte.low");
        store.after = half(0, "");
        assert_eq!(text(&store), "store pte.low := 0");

        let mut swap = step(0, "swap", "pte.low");
        (swap.before, swap.after) = (half(0x67, ""), half(0, "none"));
        swap.note = Some("the flush is owed".into());
        assert_eq!(text(&swap), "swap pte.low: 0x67 -> 0 [none], the flush is owed");
        swap.after = swap.before.clone();
        assert_eq!(text(&swap), "swap pte.low = 0x67, the flush is owed");
    }

    #[test]
    fn hardware_and_interrupts_are_told_apart_from_code() {
        let mut drained = step(1, "drain", "x");
        drained.kind = StepKind::Drain;
        assert_eq!(text(&drained), "(buffer) drain x");
        let mut handler = step(1, "store", "acknowledged");
        handler.in_interrupt = true;
        assert_eq!(text(&handler), "[irq] store acknowledged");
    }

    #[test]
    fn marks_stand_around_their_step() {
        let mut load = step(0, "load", "pte.low");
        load.marks_before = vec!["fast GUP".into()];
        load.marks_after = vec!["gives up".into()];
        let expected =
            [Line::Said("fast GUP".into()), Line::Done("load pte.low".into()), Line::Said("gives up".into())];
        assert_eq!(lines(&[load]), expected);
    }

    #[test]
    fn an_entry_read_in_halves_is_one_row_unless_somebody_comes_between() {
        let load = |cpu, target, bits| {
            let mut step = step(cpu, "load", target);
            step.before = half(bits, "");
            step
        };
        let reads = [load(0, "pte.low", 0x67), load(0, "pte.high", 1), load(0, "pte.low", 0x67)];
        let row = &rows(&examples::trace(1, reads.to_vec()))[0];
        assert_eq!(
            (row.number.as_str(), row.lines[0].text()),
            ("1-3", "load pte low = 0x67, high = 1, low = the same")
        );

        let [low, high, again] = reads;
        let numbers = |steps| rows(&examples::trace(2, steps)).into_iter().map(|row| row.number).collect::<Vec<_>>();
        assert_eq!(numbers(vec![low.clone(), high.clone(), load(1, "pte.low", 0), again]), ["1-2", "3", "4"]);
        assert_eq!(numbers(vec![low.clone(), load(0, "pmd.high", 1)]), ["1", "2"]);
        assert_eq!(numbers(vec![load(0, "x", 1), load(0, "x", 1)]), ["1", "2"], "whole words are not halves");
        let mut marked = high;
        marked.marks_before = vec!["looks again".into()];
        assert_eq!(numbers(vec![low, marked]), ["1", "2"]);
    }
}
