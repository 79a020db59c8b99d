//! One step of a trace in words.

use lab::trace::{Step, StepKind, Value};

/// The lines that one step takes in its column.
pub(crate) fn lines(step: &Step) -> Vec<Line> {
    let said = |marks: &[String]| marks.iter().cloned().map(Line::Said).collect::<Vec<_>>();
    let mut lines = said(&step.marks_before);
    lines.push(Line::Done(done(step)));
    lines.extend(said(&step.marks_after));
    lines
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
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
fn done(step: &Step) -> String {
    let who = match step.kind {
        StepKind::Operation if step.in_interrupt => "[irq] ",
        StepKind::Operation => "",
        StepKind::Interrupt => "<irq> ",
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
        Trace { cpus: (0..cpus).map(|cpu| format!("CPU{cpu}")).collect(), steps }
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
        assert_eq!(lines(&load), expected);
    }
}
