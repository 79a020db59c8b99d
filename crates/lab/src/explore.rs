//! What all searches share.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::agent::{Attending, handler_of, nmi_handler_of};
use crate::choice::{Choice, may_end};
use crate::core::{Core, Stop};
use crate::depth_first;
use crate::exchange::Sameness;
use crate::lab::Observer;
use crate::limits::{Limit, Limits, Phase, Progress};
use crate::livelock::{self, Endless};
use crate::machine_config::Threads;
use crate::preempt;
use crate::record::Recorder;
use crate::sample::{self, Sampling};
use crate::shortest;
use crate::trace::Trace;
use crate::verdict::{Counterexample, Misuse, MisuseKind, Report, Verdict, Violation, rule};

/// Steps between two looks at the clock.
pub(crate) const CLOCK_EVERY: u64 = 1 << 12;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Which interleavings a search goes through.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// All.
    Exhaust,
    /// All, and for each observation a run that leads there is kept.
    Chart,
    /// All in which code is preempted at most so often.
    Preempt(u32),
    /// Random ones.
    Sample(Sampling),
    /// All, and those without an end.
    Livelock,
}

/// The machine, and what all searches share.
///
/// The machine is reached through a raw pointer, and only for as long as one call takes, because the code that runs on
/// it reaches it, too.
pub(crate) struct Explorer<'e, 'a> {
    core: *mut Core<'a>,
    pub(crate) limits: &'e Limits<'e>,
    pub(crate) way: Way,
    progress: &'e mut dyn FnMut(&Progress),
    observer: Option<&'e Observer<'a>>,
    began: Instant,
    last_progress: Instant,
    pub(crate) transitions: u64,
    /// Bytes in use when memory was looked at last.
    memory: u64,
    /// See [`Progress::share`].
    pub(crate) share: Option<f64>,
    /// Marks set by programs before their first step.
    early: Recorder,
}

/// The search reached the end of a run, or found that the run cannot go on.
pub(crate) struct Found {
    pub(crate) path: Vec<Choice>,
}

impl<'e, 'a> Explorer<'e, 'a> {
    /// # Safety
    /// `core` is valid as long as the explorer lives, and nobody else uses it meanwhile.
    pub(crate) unsafe fn new(
        core: *mut Core<'a>,
        limits: &'e Limits<'e>,
        way: Way,
        progress: &'e mut dyn FnMut(&Progress),
        observer: Option<&'e Observer<'a>>,
    ) -> Self {
        let now = Instant::now();
        let early = Recorder::default();
        Self {
            core,
            limits,
            way,
            progress,
            observer,
            began: now,
            last_progress: now,
            transitions: 0,
            memory: 0,
            share: None,
            early,
        }
    }

    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(crate) fn core(&self) -> &mut Core<'a> {
        // SAFETY: valid by the promise to `new`. References are used for one expression and never across `apply`.
        unsafe { &mut *self.core }
    }

    pub(crate) fn core_pointer(&self) -> *mut Core<'a> {
        self.core
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes one of the choices of this state. Returns whether the run can go on.
    #[inline(always)]
    pub(crate) fn apply(&mut self, choice: Choice) -> bool {
        self.transitions += 1;
        // SAFETY: valid by the promise to `new`, and no reference to it is held.
        unsafe { Core::apply(self.core, choice) };
        self.core().stop.is_none()
    }

    /// Notes for each choice of this state the fingerprint of the state that it leads to, if that is known without letting code run, else [`UNKNOWN`], and tells `expect`.
    pub(crate) fn look_ahead(&mut self, choices: &[Choice], leads_to: &mut Vec<u128>, expect: impl Fn(u128)) {
        if !self.core().foresees() {
            leads_to.resize(leads_to.len() + choices.len(), UNKNOWN);
            return;
        }
        for &choice in choices {
            let peeked = self.core().peek(choice);
            // In one state of eight: it takes longer than all the rest.
            debug_assert!(
                peeked.is_none_or(|peeked| !self.transitions.is_multiple_of(8) || peeked == self.try_out(choice)),
                "a step leads to another state than was said"
            );
            let fingerprint = peeked.unwrap_or_else(|| self.try_out(choice));
            expect(fingerprint);
            leads_to.push(fingerprint);
        }
    }

    /// Takes a choice as far as that is possible without letting code run, and takes it back. Returns the fingerprint of the state that it leads to, or [`UNKNOWN`].
    #[inline(always)]
    fn try_out(&mut self, choice: Choice) -> u128 {
        let agent = self.core().begin(choice);
        let is_known = agent.is_none_or(|agent| self.core().foresee(agent)) && self.core().stop.is_none();
        let fingerprint = if is_known { self.core().fingerprint() } else { UNKNOWN };
        self.core().undo();
        fingerprint
    }

    /// Takes one of the choices of this state, of which it is known where it leads or not. `insert` says whether a state is new. `None` if the run cannot go on.
    #[inline(always)]
    pub(crate) fn step(
        &mut self,
        choice: Choice,
        leads_to: u128,
        mut insert: impl FnMut(u128) -> bool,
    ) -> Option<Arrival> {
        self.transitions += 1;
        let is_known = leads_to != UNKNOWN;
        if is_known && !insert(leads_to) {
            return Some(Arrival::NotTaken);
        }
        if let Some(agent) = self.core().begin(choice) {
            if self.core().foresee(agent) {
                if self.core().stop.is_none() && (is_known || insert(self.core().fingerprint())) {
                    if !self.core().may_be_ahead(agent) {
                        // SAFETY: valid by the promise to `new`, and no reference to it is held; `begin` left the agent ready to go on.
                        unsafe { Core::catch_up(self.core, agent) };
                        self.core().note_stack(agent);
                    }
                    return self.core().stop.is_none().then_some(Arrival::New);
                }
                return self.core().stop.is_none().then_some(Arrival::Old);
            }
            // SAFETY: as above.
            unsafe { Core::resume(self.core, agent) };
        }
        let new_or_old = |is_new| if is_new { Arrival::New } else { Arrival::Old };
        self.core().stop.is_none().then(|| new_or_old(is_known || insert(self.core().fingerprint())))
    }

    /// Explores, and says what was found.
    pub(crate) fn run(mut self) -> Report {
        let attending = Attending::new(self.core);
        self.core().quiet.begin();
        let mut report = self.attempt();
        while self.core().quiet.is_wrong() {
            self.core().quiet.begin_again();
            report = self.attempt();
        }
        drop(attending);
        report.elapsed = self.began.elapsed();
        report.fingerprints = self.limits.fingerprints;
        report
    }

    /// One search. Its answer counts only if no assumption about constant words turned out wrong.
    fn attempt(&mut self) -> Report {
        let mut report = Report::empty();
        self.start();
        let ended = if self.core().stop.is_some() {
            Err(Ended::Found(Found { path: Vec::new() }))
        } else {
            match self.way {
                Way::Exhaust | Way::Chart => depth_first::search(self, &mut report),
                Way::Preempt(most) => preempt::search(self, most, &mut report),
                Way::Sample(sampling) => sample::search(self, &sampling, &mut report),
                Way::Livelock => livelock::search(self, &mut report),
            }
        };
        report.transitions = self.transitions;
        let known = if report.runs.is_empty() { Vec::new() } else { self.core().quiet.known_units() };
        report.runs.iter_mut().for_each(|run| run.known.clone_from(&known));
        report.verdict = self.verdict_of(ended);
        if report.verdict == Verdict::Safe && !self.core().quiet.is_wrong() {
            report.verdict = self.audit_again();
        }
        self.core().undo_all();
        report
    }

    /// Starts every program.
    pub(crate) fn start(&mut self) {
        self.transitions = 0;
        self.core().take_for_same(match self.way {
            Way::Exhaust | Way::Chart => Sameness::UpToExchange,
            Way::Preempt(_) | Way::Sample(_) | Way::Livelock => Sameness::Exact,
        });
        self.core().check_alike();
        self.core().check_moves();
        if self.core().stop.is_some() {
            return;
        }
        self.core().recorder = Some(Recorder::default());
        // SAFETY: as in `apply`.
        unsafe { Core::start(self.core) };
        self.early = self.core().recorder.take().unwrap_or_default();
    }

    /// Begins a run that is written down.
    pub(crate) fn start_recording(&mut self) {
        self.start();
        self.core().recorder = Some(std::mem::take(&mut self.early));
    }

    /// What a search that ended so has to say.
    pub(crate) fn verdict_of(&mut self, ended: Result<(), Ended>) -> Verdict {
        match ended {
            Ok(()) => Verdict::Safe,
            Err(Ended::Limit(limit)) => Verdict::Bounded(limit),
            Err(Ended::Found(found)) => self.explain(found),
            Err(Ended::Hidden(sentence)) => {
                self.rewind();
                let kind = MisuseKind::HiddenState;
                Verdict::Error(Box::new(Misuse { kind, sentence, trace: Trace::default() }))
            }
            Err(Ended::Endless(endless)) => self.explain_endless(&endless),
            Err(Ended::WrongAssumption) => Verdict::Bounded(Limit::States),
        }
    }

    /// Whether the counts are still within the limits.
    #[inline(always)]
    pub(crate) fn look_at_counts(&self, report: &Report) -> Result<(), Ended> {
        if report.states > self.limits.states {
            return Err(Ended::Limit(Limit::States));
        }
        if report.depth > self.limits.depth {
            return Err(Ended::Limit(Limit::Depth));
        }
        Ok(())
    }

    /// Whether what a search keeps, in so many bytes, and what is kept for undoing are still within the limits.
    pub(crate) fn look_at_memory(&mut self, kept: usize) -> Result<(), Ended> {
        let logs = self.core().log_bytes();
        self.memory = (kept + logs) as u64;
        if self.memory > self.limits.memory || logs > Core::MOST_LOG_BYTES {
            return Err(Ended::Limit(Limit::Memory));
        }
        Ok(())
    }

    /// Nothing can happen any more.
    pub(crate) fn end(&mut self, report: &mut Report) -> Result<(), Stop> {
        self.judge_end()?;
        report.ends += 1;
        if let Some(observer) = self.observer {
            let observation = self.core().with_end(|end| observer(end));
            report.observations.insert(observation);
        }
        Ok(())
    }

    /// Whether nothing can happen any more because all is done, and rightly.
    pub(crate) fn judge_end(&mut self) -> Result<(), Stop> {
        if !self.core().is_at_rest() {
            let sentence = self.who_waits();
            return Err(Stop::Violation(Violation::new(rule::DEADLOCK, sentence)));
        }
        self.core().at_rest().map_err(Stop::Violation)
    }

    /// [`Self::judge_end`] if nothing can happen any more.
    fn judge_if_over(&mut self) -> Result<(), Stop> {
        let mut choices = Vec::new();
        self.core().choices(&mut choices);
        if may_end(&choices) { self.judge_end() } else { Ok(()) }
    }

    fn who_waits(&self) -> String {
        let core = self.core();
        let mut waits = Vec::new();
        for cpu in 0..core.cpus() {
            let Some(agent) = core.active(cpu) else { continue };
            let op = core.op(agent);
            let target = match op.kind.accesses_word() {
                Some(_) => {
                    let held = core.forwarded(cpu, op.address, op.bytes as usize);
                    format!(" of {} (holds {})", core.symbols.place(op.address, op.bytes as usize), {
                        core.symbols.value(op.address, op.bytes as usize, held)
                    })
                }
                None => String::new(),
            };
            let irq = if core.interrupts_off(cpu) { " with interrupts off" } else { "" };
            let inside = match agent {
                _ if agent == handler_of(cpu) => " in its interrupt handler",
                _ if agent == nmi_handler_of(cpu) => " in its NMI handler",
                _ => "",
            };
            waits.push(format!("CPU{cpu} waits in {}{target}{irq}{inside} ({})", op.kind.name(), op.location));
        }
        format!("nobody can go on: {}", waits.join("; "))
    }

    pub(crate) fn look_at_clock(&mut self, phase: Phase, states: u64, transitions: u64) -> Result<(), Ended> {
        if self.limits.cancelled() {
            return Err(Ended::Limit(Limit::Cancelled));
        }
        let elapsed = self.began.elapsed();
        if elapsed > self.limits.time {
            return Err(Ended::Limit(Limit::Time));
        }
        if self.last_progress.elapsed() >= PROGRESS_EVERY {
            self.last_progress = Instant::now();
            let depth = self.core().depth() as u64;
            let Self { memory, share, .. } = *self;
            (self.progress)(&Progress { phase, states, transitions, depth, memory, share, elapsed });
        }
        Ok(())
    }

    /// Goes back to the initial state.
    pub(crate) fn rewind(&mut self) {
        while self.core().depth() > 0 {
            self.core().undo();
        }
    }

    /// From a run that cannot go on to a verdict with a trace as short as possible.
    fn explain(&mut self, found: Found) -> Verdict {
        let first_stop = self.core().stop.clone();
        if self.core().quiet.is_wrong() {
            // The search begins again, and finds it again.
            self.rewind();
            return Verdict::Safe;
        }
        if let Some(Stop::Misuse(MisuseKind::HiddenState, sentence)) = first_stop {
            return self.verdict_of(Err(Ended::Hidden(sentence)));
        }
        let shorter = if found.path.is_empty() { None } else { self.shortest() };
        let shortest = shorter.is_some() || found.path.is_empty();
        let path = shorter.unwrap_or(found).path;
        let (stop, trace) = self.replay(&path, first_stop);
        match stop {
            Stop::Violation(violation) => Verdict::Violated(Box::new(Counterexample { violation, trace, shortest })),
            Stop::Misuse(kind, sentence) => Verdict::Error(Box::new(Misuse { kind, sentence, trace })),
        }
    }

    /// The shortest run, if it can be found. It is the same whoever found the first one, and however: what was known of words by then is a matter of chance, and decides what is a
    /// step, so the search begins with nothing known. If it ends without an answer, things are as they were: steps of the first run mean what they meant.
    fn shortest(&mut self) -> Option<Found> {
        let known = self.core().quiet.known().facts();
        self.core().quiet.begin();
        let mut search = shortest::Search::default();
        let shortest = loop {
            self.start_anew();
            let shortest = search.go_on(self, self.limits.shortening);
            self.rewind();
            if !self.core().quiet.is_wrong() {
                break shortest;
            }
            search.take_back(&mut self.core().quiet);
        };
        if shortest.is_none() {
            self.core().quiet.restore(&known);
            self.start_anew();
        }
        shortest
    }

    /// Starts every program once more.
    fn start_anew(&mut self) {
        let transitions = self.transitions;
        self.core().undo_all();
        self.start();
        self.transitions = transitions;
    }

    /// From a run without an end to a verdict. Its beginning is as short as possible.
    fn explain_endless(&mut self, endless: &Endless) -> Verdict {
        self.rewind();
        self.core().recorder = Some(std::mem::take(&mut self.early));
        for &choice in &endless.path {
            self.apply(choice);
        }
        let trace = self.core().take_trace();
        let moving: BTreeSet<usize> = endless.path[endless.before..].iter().map(|choice| choice.cpu()).collect();
        let moving: Vec<String> = moving.into_iter().map(|cpu| format!("CPU{cpu}")).collect();
        let nobody_moves = match self.core().machine.threads {
            Threads::Stay => "",
            Threads::Move => " and nobody is moved any more",
        };
        let sentence = format!(
            "{} may go on for ever although everybody gets his turn{nobody_moves}: after the first {} steps, the other {} repeat",
            moving.join(" and "),
            endless.before,
            endless.path.len() - endless.before,
        );
        let violation = Violation::new(rule::LIVELOCK, sentence);
        Verdict::Violated(Box::new(Counterexample { violation, trace, shortest: false }))
    }

    fn replay(&mut self, path: &[Choice], first_stop: Option<Stop>) -> (Stop, Trace) {
        self.core().recorder = Some(std::mem::take(&mut self.early));
        // Nothing can be taken once the run has ended; of code that is not deterministic it may end early.
        let _went_on = path.iter().all(|&choice| self.apply(choice));
        let stop = match self.core().stop.clone() {
            Some(stop) => stop,
            None => match (self.judge_if_over(), first_stop) {
                (Err(stop), _) | (Ok(()), Some(stop)) => stop,
                (Ok(()), None) => Stop::Misuse(
                    MisuseKind::HiddenState,
                    "the same steps led to a broken rule once, but not again: code keeps state outside the arena"
                        .to_owned(),
                ),
            },
        };
        (stop, self.core().take_trace())
    }
}

/// Where a choice leads is not known.
pub(crate) const UNKNOWN: u128 = 0;

/// What came of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// The state is new.
    New,
    /// The state is an old one. The code may not have run: the step can only be undone.
    Old,
    /// The state would be an old one: the step was not taken.
    NotTaken,
}

/// Why a search ended early.
pub(crate) enum Ended {
    Limit(Limit),
    Found(Found),
    /// Code does not do the same twice, as the sentence says: there is no run to be shown again.
    Hidden(String),
    Endless(Endless),
    /// A word that was taken for constant is written: the search begins again.
    WrongAssumption,
}
