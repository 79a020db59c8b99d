//! Writing down a run while it is performed again.

use std::collections::BTreeSet;

use machine::{ContextInvalidation, CpuId, CpuSet, VirtAddr};

use crate::act::Act;
use crate::buffer::Waiting;
use crate::cells::flag;
use crate::choice::{Choice, Turn};
use crate::core::Core;
use crate::execute::{Deed, context_of, deed_of, invalidation_of};
use crate::machine_config::WalkerUpdates;
use crate::mmu::{Outcome, Unasked};
use crate::op::{Kind, Op};
use crate::recording::Recording;
use crate::trace::{Place, Step, StepKind, Trace, Value};

/// Collects the steps.
#[derive(Default)]
pub(crate) struct Recorder {
    steps: Vec<Step>,
    /// Marks of CPUs that have not made a step.
    early: Vec<(usize, String)>,
    choices: Vec<Choice>,
    acts: Vec<Act>,
    /// Words that steps accessed, and named ones that were written between steps: offset and width.
    touched: BTreeSet<(usize, usize)>,
}

impl Recorder {
    /// The words that were accessed so far.
    pub(crate) fn touched(&self) -> &BTreeSet<(usize, usize)> {
        &self.touched
    }

    /// The code that runs notes something.
    pub(crate) fn mark(&mut self, cpu: usize, text: String) {
        match self.steps.last_mut() {
            Some(step) if step.cpu.index() == cpu => step.marks_after.push(text),
            _ => self.early.push((cpu, text)),
        }
    }

    /// Something happens.
    pub(crate) fn did(&mut self, act: Act) {
        self.acts.push(act);
    }

    fn begin(&mut self, mut step: Step) {
        let cpu = step.cpu.index();
        let early = std::mem::take(&mut self.early);
        let (mine, rest) = early.into_iter().partition(|(of, _)| *of == cpu);
        self.early = rest;
        step.marks_before = Vec::into_iter(mine).map(|(_, text): (usize, String)| text).collect();
        self.steps.push(step);
    }
}

impl Core<'_> {
    /// Ends the recording.
    pub(crate) fn take_trace(&mut self) -> Trace {
        let Recorder { mut steps, choices, acts, .. } = self.recorder.take().unwrap_or_default();
        for step in &mut steps {
            shorten(&mut step.marks_before);
            shorten(&mut step.marks_after);
        }
        let recording = Recording { choices, known: self.quiet.known_units() };
        Trace { cpus: self.programs.iter().map(|(name, _)| name.clone()).collect(), steps, acts, recording }
    }

    /// Notes that code writes a word without a step. Most such words are many of a kind, like entries of a new table: those with a name are shown.
    pub(crate) fn touch(&mut self, offset: usize, bytes: usize) {
        let is_shown = self.block_at(offset).is_none() && self.symbols.has_name(offset, bytes);
        if let Some(recorder) = self.recorder.as_mut().filter(|_| is_shown) {
            recorder.touched.insert((offset, bytes));
        }
    }

    /// Writes down a step that is about to be performed, if this run is recorded.
    #[inline(always)]
    pub(crate) fn record(&mut self, choice: Choice) {
        if let Some(mut recorder) = self.recorder.take() {
            recorder.begin(self.describe(choice));
            recorder.choices.push(choice);
            recorder.did(self.act(choice));
            recorder.touched.extend(self.touched_by(choice));
            self.recorder = Some(recorder);
        }
    }

    /// The word that a step is about to access, if it is one that code or data lies in.
    fn touched_by(&self, choice: Choice) -> Option<(usize, usize)> {
        let cpu = choice.cpu();
        match choice.turn() {
            Turn::Run => {
                let op = self.op(self.active(cpu)?);
                let content = |frame| Some((self.content_of(frame)?, 8));
                match op.kind {
                    Kind::UserAccess => match self.outcomes(cpu, op.a, deed_of(op)).get(choice.argument())? {
                        Outcome::Reach { frame, .. } => content(*frame),
                        Outcome::SetFlags { offset, .. } => Some((*offset, 8)),
                        _ => None,
                    },
                    Kind::DeviceAccess => content(op.a),
                    kind => kind.accesses_word().map(|_| (op.address, usize::from(op.bytes))),
                }
            }
            Turn::Speculate => match *self.speculations(cpu).get(choice.argument())? {
                Unasked::SetsAccessed { offset } => Some((offset, 8)),
                Unasked::ReadsFreedTable { .. } => None,
            },
            Turn::Interrupt | Turn::Drain | Turn::Arrive | Turn::Move => None,
        }
    }

    #[cold]
    pub(crate) fn describe(&self, choice: Choice) -> Step {
        let cpu = choice.cpu();
        let mut step = Step {
            cpu: self.id(choice),
            in_interrupt: self.has_flag(cpu, flag::IN_HANDLER | flag::IN_NMI),
            kind: StepKind::Operation,
            what: String::new(),
            target: None,
            before: None,
            after: None,
            note: None,
            place: None,
            marks_before: Vec::new(),
            marks_after: Vec::new(),
        };
        match choice.turn() {
            Turn::Run => {
                let agent = self.active(cpu).expect("the choice was enabled");
                let op = *self.op(agent);
                step.what = op.kind.name().to_owned();
                step.place = place_of(&op);
                self.describe_op(cpu, &op, choice.argument(), &mut step);
            }
            Turn::Interrupt => {
                step.kind = StepKind::Interrupt;
                step.what = "takes interrupt".to_owned();
                step.target = Some(Self::vector_name(choice.argument()).to_owned());
            }
            Turn::Drain => {
                step.kind = StepKind::Drain;
                step.what = "store reaches memory".to_owned();
                match self.waiting(cpu, 0) {
                    Waiting::Store { offset, bytes, value } => {
                        step.target = Some(self.symbols.place(offset, bytes));
                        step.before = Some(self.symbols.value(offset, bytes, self.get(offset, bytes)));
                        step.after = Some(self.symbols.value(offset, bytes, value));
                    }
                    Waiting::Zero { offset, bytes } => {
                        step.target = Some(self.symbols.place(offset, 8));
                        step.note = Some(format!("{bytes} bytes become zero"));
                    }
                }
            }
            Turn::Arrive => {
                step.kind = StepKind::Broadcast;
                let [source, start, pages] = self.arrival(cpu, choice.argument());
                step.what = format!("broadcast flush of CPU{} arrives", self.number(source as usize));
                step.target = Some(scope(start, pages));
            }
            Turn::Speculate => {
                step.kind = StepKind::Walker;
                match self.speculations(cpu)[choice.argument()] {
                    Unasked::SetsAccessed { offset } => {
                        step.what = "walker sets accessed, unasked".to_owned();
                        self.describe_flags(offset, crate::paging::ACCESSED, &mut step);
                    }
                    Unasked::ReadsFreedTable { frame } => {
                        step.what = "walker reads a freed table, unasked".to_owned();
                        step.target = Some(format!("frame {frame:#x}"));
                    }
                }
            }
            Turn::Move => {
                step.kind = StepKind::Move;
                step.what = format!("moves from CPU{} to CPU{}", self.number(cpu), self.number(choice.argument()));
            }
        }
        step
    }

    fn describe_flags(&self, offset: usize, flags: u64, step: &mut Step) {
        let old = self.get(offset, 8);
        step.target = Some(self.symbols.place(offset, 8));
        step.before = Some(self.symbols.value(offset, 8, old));
        step.after = Some(self.symbols.value(offset, 8, old | flags));
    }

    fn describe_op(&self, cpu: usize, op: &Op, argument: usize, step: &mut Step) {
        let bytes = op.bytes as usize;
        let value = |bits| Some(self.symbols.value(op.address, bytes, bits));
        let masked = |bits: u64| if bytes == 4 { bits & 0xffff_ffff } else { bits };
        if op.kind.accesses_word().is_some() || op.kind == Kind::Zero {
            step.target = Some(self.symbols.place(op.address, bytes));
        }
        let held = if op.kind.accesses_word().is_some() { self.forwarded(cpu, op.address, bytes) } else { 0 };
        let mut change = |new: Option<u64>| {
            step.before = value(held);
            step.after = new.and_then(|new| value(masked(new)));
        };
        match op.kind {
            Kind::Load | Kind::AwaitValue => change(None),
            Kind::Swap => change(Some(op.a)),
            Kind::CompareExchange => change((held == op.a).then_some(op.b)),
            Kind::FetchAdd => change(Some(held.wrapping_add(op.a))),
            Kind::FetchAnd => change(Some(held & op.a)),
            Kind::FetchOr => change(Some(held | op.a)),
            Kind::AwaitUpdate => change(op.test(held)),
            Kind::Store => {
                step.after = value(op.a);
                if self.buffers_stores() {
                    step.note = Some("into the store buffer".to_owned());
                } else {
                    step.before = value(held);
                }
            }
            Kind::Zero => step.note = Some(format!("{} words", op.a)),
            Kind::IrqRestore => step.what = if op.a == 0 { "irq on" } else { "irq stays off" }.to_owned(),
            Kind::SendIpi => {
                let targets = CpuSet::from_bits(op.a).without(CpuId::new(self.number(cpu) as u32));
                let names: Vec<String> = targets.iter().map(|target| target.to_string()).collect();
                step.target = Some(format!("{} to {}", Self::vector_name(op.b as usize), names.join(", ")));
            }
            Kind::SendNmi => {
                let names: Vec<String> = CpuSet::from_bits(op.a).iter().map(|target| target.to_string()).collect();
                step.target = Some(format!("to {}", names.join(", ")));
            }
            Kind::TlbInvalidate | Kind::TlbParavirtual | Kind::TlbBroadcast => {
                let mut target = scope(op.a, op.b);
                if op.kind == Kind::TlbParavirtual {
                    let on: Vec<String> = CpuSet::from_bits(op.c).iter().map(|cpu| cpu.to_string()).collect();
                    target = format!("{target} on {}", on.join(", "));
                }
                step.target = Some(target);
            }
            Kind::LoadRoot => {
                step.target = Some(format!("{:#x}", op.a));
                step.note = (op.b != 0).then(|| "what is cached is kept".to_owned());
            }
            Kind::InvalidateContext => {
                step.target = Some(match context_of(op) {
                    ContextInvalidation::Address { pcid, address } => format!("{address} of {pcid}"),
                    ContextInvalidation::Context { pcid } => format!("everything of {pcid}"),
                    ContextInvalidation::EverythingAndGlobal => "everything, and global pages".to_owned(),
                    ContextInvalidation::Everything => "everything of every PCID".to_owned(),
                });
            }
            Kind::FreeFrame => step.target = Some(format!("{:#x}", op.a)),
            Kind::DeviceAccess => {
                step.what = if op.b == 0 { "device loads from" } else { "device stores to" }.to_owned();
                step.target = Some(format!("frame {:#x}", op.a));
                step.note = self.content_of(op.a).map(|offset| {
                    let held = self.get(offset, 8);
                    if op.b == 0 { format!("holds {held}") } else { format!("{held} -> {}", op.c) }
                });
            }
            Kind::AllocFrame => step.target = Some(format!("pool {}", op.a)),
            Kind::UserAccess => self.describe_access(cpu, op, argument, step),
            _ => (),
        }
    }

    fn describe_access(&self, cpu: usize, op: &Op, argument: usize, step: &mut Step) {
        let doing = deed_of(op);
        let deed = doing.name();
        step.what = format!("user {deed} at {}", VirtAddr::new(op.a));
        match self.outcomes(cpu, op.a, doing).get(argument) {
            Some(Outcome::Reach { frame, .. }) => {
                let moved = match self.content_of(*frame).filter(|_| op.bytes != 0) {
                    None => String::new(),
                    Some(offset) if doing != Deed::Store => format!(", loads {}", self.forwarded(cpu, offset, 8)),
                    Some(_) if self.buffers_stores() => format!(", {} goes into the store buffer", op.c),
                    Some(_) => format!(", stores {}", op.c),
                };
                step.note = Some(format!("reaches frame {frame:#x}{moved}"));
            }
            Some(&Outcome::SetFlags { offset, flags }) => {
                step.kind = StepKind::Walker;
                let sets =
                    if self.machine.walker_updates == WalkerUpdates::Locked { "sets" } else { "is about to set" };
                let accessed = if flags & crate::paging::ACCESSED != 0 { "A" } else { "" };
                let dirty = if flags & !crate::paging::ACCESSED != 0 { "D" } else { "" };
                step.what = format!("walker of user {deed} at {} {sets} {accessed}{dirty}", VirtAddr::new(op.a));
                self.describe_flags(offset, flags, step);
                if self.machine.walker_updates != WalkerUpdates::Locked {
                    step.after = None;
                }
            }
            Some(Outcome::FinishUpdate) => {
                step.kind = StepKind::Walker;
                step.what = format!("walker of user {deed} at {} writes its flags", VirtAddr::new(op.a));
                let (offset, after) = self.update_under_way(cpu).unwrap_or_default();
                step.target = Some(self.symbols.place(offset, 8));
                step.before = Some(self.symbols.value(offset, 8, self.get(offset, 8)));
                step.after = Some(self.symbols.value(offset, 8, after));
            }
            Some(Outcome::Fault(cause)) => step.note = Some(format!("page fault: {cause:?}")),
            Some(Outcome::FreedTable { frame }) => {
                step.note = Some(format!("walks the freed table in frame {frame:#x}"))
            }
            Some(Outcome::NoTable { frame }) => step.note = Some(format!("walks frame {frame:#x}, which is no table")),
            None => (),
        }
    }
}

/// The end of the note of an owned store.
pub(crate) const OWNED: &str = "(owned)";
/// The end of the note of a write to a word that no other agent accesses.
pub(crate) const PRIVATE: &str = "(private)";
/// So many of one kind in a row are written down, half of them at each end: filling a table is not worth 512 lines, nor is clearing the records of a huge page.
const MOST_IN_A_ROW: usize = 8;

/// Leaves out what lies in the middle of long runs of writes without a step.
fn shorten(marks: &mut Vec<String>) {
    let kind = |mark: &String| [OWNED, PRIVATE].into_iter().find(|end| mark.ends_with(end));
    let all = std::mem::take(marks);
    for run in all.chunk_by(|one, next| kind(one).is_some() && kind(one) == kind(next)) {
        let hidden = run.len().saturating_sub(MOST_IN_A_ROW);
        let Some(end) = run.first().and_then(kind).filter(|_| hidden >= 2) else {
            marks.extend_from_slice(run);
            continue;
        };
        let (first, rest) = run.split_at(MOST_IN_A_ROW / 2);
        marks.extend_from_slice(first);
        marks.push(format!("... {hidden} more {end}"));
        marks.extend_from_slice(&rest[hidden..]);
    }
}

/// The line of source, where there is one: not for `iret`, and not where the compiler's own code drops a guard.
fn place_of(op: &Op) -> Option<Place> {
    let file = op.location.file();
    let is_library = file.starts_with("/rustc/") || file.contains("/library/core/");
    (op.kind != Kind::InterruptReturn && !is_library).then(|| Place { file: file.to_owned(), line: op.location.line() })
}

pub(crate) fn scope(start: u64, pages: u64) -> String {
    match invalidation_of(start, pages) {
        machine::Invalidation::All => "everything".to_owned(),
        machine::Invalidation::Pages { start, pages: 1 } => format!("page {start}"),
        machine::Invalidation::Pages { start, pages } => format!("{pages} pages from {start}"),
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.bits < 10 {
            write!(f, "{}", self.bits)?;
        } else {
            write!(f, "{:#x}", self.bits)?;
        }
        match &self.words {
            Some(words) => write!(f, " ({words})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_of_writes_of_one_kind_are_shortened() {
        let write =
            |count: usize, end: &str| (0..count).map(|word| format!("word {word} := 0 {end}")).collect::<Vec<_>>();
        let mut marks = [write(9, OWNED), write(512, PRIVATE), vec!["split".to_owned()], write(10, OWNED)].concat();
        shorten(&mut marks);
        let hidden: Vec<&str> = marks.iter().filter(|mark| mark.starts_with("...")).map(String::as_str).collect();
        assert_eq!(hidden, ["... 504 more (private)", "... 2 more (owned)"]);
        assert_eq!(marks.len(), 9 + 9 + 1 + 9);
        assert_eq!((marks[9].as_str(), marks[17].as_str()), ("word 0 := 0 (private)", "word 511 := 0 (private)"));
    }
}
