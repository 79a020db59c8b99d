//! Doing a run again.

use std::ffi::CString;
use std::fmt;

use crate::agent::Attending;
use crate::choice::{Choice, may_end};
use crate::core::{Core, Stop};
use crate::debugger;
use crate::explore::{Explorer, Way};
use crate::history::{Historian, History};
use crate::lab::Lab;
use crate::limits::Limits;
use crate::record::Recorder;
use crate::recording::Recording;
use crate::trace::{Trace, one_line};
use crate::verdict::{Misuse, Violation};

/// A run that was done again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replay {
    /// Its steps.
    pub trace: Trace,
    /// The states before, between and after them.
    pub history: History,
    /// How it ends.
    pub ending: Ending,
}

/// How a run that was done again ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It breaks a rule.
    Violation(Violation),
    /// The code breaks a rule of the lab. (The trace is that of the replay.)
    Misuse(Box<Misuse>),
    /// All is done, and no rule is broken: a final state that was asked for.
    Rest,
    /// It could go on.
    Open,
}

/// Why a run cannot be done again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Departure {
    /// The step, from 1, that cannot be taken, or after which the run ends too early.
    pub step: usize,
    /// Why not.
    pub why: Why,
    /// What came before.
    pub trace: Trace,
}

/// What is different.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Nothing that the recording says can happen next.
    CannotHappen,
    /// The run has ended before.
    Ended(Ending),
    /// Code accesses a word that it did not access when the run was recorded, so that other accesses are steps.
    OtherWords,
    /// The recording speaks of memory that this lab does not have.
    OtherMemory,
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.step;
        match &self.why {
            Why::CannotHappen => write!(f, "step {step} cannot happen here"),
            Why::Ended(Ending::Violation(violation)) => {
                write!(f, "before step {step} the run breaks a rule: {violation}")
            }
            Why::Ended(Ending::Misuse(misuse)) => write!(f, "before step {step} the run ends: {}", misuse.sentence),
            Why::Ended(Ending::Rest | Ending::Open) => write!(f, "before step {step} the run is over"),
            Why::OtherWords => write!(f, "up to step {step} the code accesses words that it did not access before"),
            Why::OtherMemory => f.write_str("the run was recorded with another memory"),
        }
    }
}

impl std::error::Error for Departure {}

impl Lab<'_> {
    /// Does a run again that was found by an exploration of a lab that was built in the same way: in another process perhaps, or on another machine.
    ///
    /// ```
    /// use lab::{Arena, Ending, Lab, Limits, Machine, MemoryOrder};
    /// use machine::{Cpu, Word64};
    ///
    /// let arena = Arena::new();
    /// let balance = arena.alloc(Word64::new(0));
    /// let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Sc));
    /// lab.name(balance, "balance");
    /// for amount in [1, 10] {
    ///     lab.cpu(format!("deposit {amount}"), move |cpu| {
    ///         let before = cpu.load(balance);
    ///         cpu.store(balance, before + amount);
    ///         assert!(cpu.load(balance) >= before + amount, "a deposit is lost");
    ///     });
    /// }
    /// let report = lab.explore(&Limits::default());
    /// let recording = report.expect_violation("user").trace.recording.to_string();
    ///
    /// // The text can be kept: in a file, in a bug report, in a test that is run under a debugger.
    /// let replay = lab.replay(&recording.parse().unwrap()).unwrap();
    /// assert!(matches!(replay.ending, Ending::Violation(broken) if broken.sentence.contains("a deposit is lost")));
    ///
    /// // What the word held, state by state.
    /// let row = replay.history.rows.iter().position(|row| row.label == "balance").unwrap();
    /// let held: Vec<_> = replay.history.states.iter().map(|state| state[row].as_deref().unwrap()).collect();
    /// assert_eq!(held.first(), Some(&"0"));
    /// ```
    ///
    /// # Under a debugger
    ///
    /// While a run is done again, the lab calls two functions that do nothing and whose names are not mangled ([`crate::debugger`]): `fastgup_step` before each
    /// step, with the step's number from 1, the CPU, and what is going to happen; and `fastgup_code` after each step of code, with number and CPU, on the stack of
    /// that code. So a test that ends with `lab.replay(..)` can be stopped at any step of the run, in its own code:
    ///
    /// ```text
    /// $ cargo test --no-run
    ///   Executable tests/bank.rs (target/debug/deps/bank-5f6c3f6d3763ac48)
    /// $ gdb --args target/debug/deps/bank-5f6c3f6d3763ac48 no_deposit_is_lost
    /// (gdb) break fastgup_code if $rdi == 3
    /// (gdb) run
    /// Thread 2 "no_deposit" hit Breakpoint 1, fastgup_code ()
    /// (gdb) backtrace
    /// #0  fastgup_code ()
    ///   ...
    /// #5  store<machine::word::Word64> () at lab/src/cpu.rs:262
    /// #6  bank::no_deposit_is_lost::{closure#0} () at tests/bank.rs:37
    /// (gdb) break fastgup_step
    /// (gdb) continue
    /// (gdb) x/s $rdx
    /// 0x7ffff0006fb0: "load balance = 0 [bank.rs:34]"
    /// ```
    ///
    /// `$rdi`, `$rsi`, `$rdx` are the arguments. With full debug information they have names: `if number == 3`.
    ///
    /// # Errors
    /// The code, the memory or the machine is not what it was, and the run goes another way.
    pub fn replay(&mut self, recording: &Recording) -> Result<Replay, Box<Departure>> {
        let limits = Limits::default();
        let mut progress = |_: &crate::limits::Progress| ();
        let core: *mut Core<'_> = self.core();
        let attending = Attending::new(core);
        // SAFETY: the machine lives as long as `self`, which is borrowed exclusively until the explorer is gone.
        let mut explorer = unsafe { Explorer::new(core, &limits, Way::Exhaust, &mut progress, None) };
        // Once to learn which words matter, and once to look at them.
        let mut historian = Historian::default();
        let learnt = again(&mut explorer, recording, &mut |explorer, _| historian.learn(explorer.core()));
        let done = learnt.and_then(|_| {
            let recorder = explorer.core().recorder.take().unwrap_or_default();
            explorer.core().undo_all();
            historian.learn_words(explorer.core(), recorder.touched());
            let ending = again(&mut explorer, recording, &mut |explorer, next| {
                historian.take(explorer.core());
                if let Some((number, choice)) = next {
                    explorer.core().replaying = number;
                    let what = explorer.core().announce(choice);
                    debugger::before_step(number, choice.cpu(), &what);
                }
            })?;
            Ok(Replay { trace: explorer.core().take_trace(), history: historian.finish(), ending })
        });
        explorer.core().replaying = 0;
        explorer.core().recorder = None;
        explorer.core().undo_all();
        drop(attending);
        done
    }
}

/// Is shown each state, with the step that comes next and its number.
pub(crate) type Look<'l> = &'l mut dyn FnMut(&Explorer<'_, '_>, Option<(usize, Choice)>);

/// Runs once. `look` is called in each state, with the step that comes next.
pub(crate) fn again(
    explorer: &mut Explorer<'_, '_>,
    recording: &Recording,
    look: Look<'_>,
) -> Result<Ending, Box<Departure>> {
    if !explorer.core().quiet.begin_knowing(&recording.known) {
        return Err(Box::new(Departure { step: 1, why: Why::OtherMemory, trace: Trace::default() }));
    }
    explorer.core().recorder = Some(Recorder::default());
    // SAFETY: valid as long as the explorer lives, and no reference to it is held.
    unsafe { Core::start(explorer.core_pointer()) };
    let mut possible = Vec::new();
    for (number, &choice) in (1..).zip(&recording.choices) {
        let depart = |explorer: &Explorer<'_, '_>, why| {
            Err(Box::new(Departure { step: number, why, trace: explorer.core().take_trace() }))
        };
        if explorer.core().stop.is_some() {
            let ending = ending(explorer);
            return depart(explorer, Why::Ended(ending));
        }
        possible.clear();
        explorer.core().choices(&mut possible);
        if possible.is_empty() {
            let ending = ending(explorer);
            return depart(explorer, Why::Ended(ending));
        }
        if !possible.contains(&choice) {
            return depart(explorer, Why::CannotHappen);
        }
        look(explorer, Some((number, choice)));
        explorer.apply(choice);
        if explorer.core().quiet.is_wrong() {
            return depart(explorer, Why::OtherWords);
        }
    }
    look(explorer, None);
    Ok(ending(explorer))
}

/// How a run ends that stands here.
pub(crate) fn ending(explorer: &mut Explorer<'_, '_>) -> Ending {
    let mut possible = Vec::new();
    let stop = match explorer.core().stop.clone() {
        Some(stop) => Some(stop),
        None => {
            explorer.core().choices(&mut possible);
            if may_end(&possible) { explorer.judge_end().err() } else { None }
        }
    };
    match stop {
        Some(Stop::Violation(violation)) => Ending::Violation(violation),
        Some(Stop::Misuse(kind, sentence)) => {
            Ending::Misuse(Box::new(Misuse { kind, sentence, trace: Trace::default() }))
        }
        None if may_end(&possible) => Ending::Rest,
        None => Ending::Open,
    }
}

impl Core<'_> {
    /// What a step is going to do, for a debugger.
    fn announce(&self, choice: Choice) -> CString {
        CString::new(one_line(&self.describe(choice)).replace('\0', " ")).unwrap_or_default()
    }
}
