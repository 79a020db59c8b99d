//! Runs that are written down, whatever they show: for somebody else's machine to do the same.

use std::ops::ControlFlow;

use crate::agent::Attending;
use crate::core::Core;
use crate::explore::{Ended, Explorer, Way};
use crate::lab::Lab;
use crate::limits::Limits;
use crate::recording::Recording;
use crate::replay::{Departure, Ending, again, ending};
use crate::sample::{Sampled, Sampler, Sampling};
use crate::trace::Trace;
use crate::verdict::Report;

/// What happened in a run, and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShownRun {
    /// What happened.
    pub trace: Trace,
    /// How it ends: [`Ending::Open`] if it was cut off.
    pub ending: Ending,
    /// What [`Lab::observe`] was told to read of the final state, if it is one.
    pub observation: Option<Vec<u64>>,
}

impl Lab<'_> {
    /// Takes random schedules, as [`Self::sample`] does, and hands over what each of the runs was. The next one is taken if `tell` says so.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// use lab::{Arena, Ending, Lab, Machine, MemoryOrder, Sampling};
    /// use machine::{Cpu, Word64};
    ///
    /// let arena = Arena::new();
    /// let word = arena.alloc(Word64::new(0));
    /// let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    /// for value in [1, 2] {
    ///     lab.cpu("stores", move |cpu| cpu.store(word, value));
    /// }
    /// lab.observe(|end| vec![end.read(word)]);
    /// let mut runs = Vec::new();
    /// lab.random_runs(&Sampling { runs: 5, ..Sampling::default() }, &mut |run| {
    ///     runs.push(run);
    ///     ControlFlow::Continue(())
    /// });
    /// // Each CPU stores, and each store reaches memory some time.
    /// assert!(runs.iter().all(|run| run.ending == Ending::Rest && run.trace.acts.len() == 4));
    /// assert!(runs.iter().all(|run| matches!(run.observation.as_deref(), Some([1 | 2]))));
    /// ```
    pub fn random_runs(&mut self, sampling: &Sampling, tell: &mut dyn FnMut(ShownRun) -> ControlFlow<()>) {
        let limits = Limits::default();
        let mut progress = |_: &crate::limits::Progress| ();
        let core: *mut Core<'_> = self.core();
        let attending = Attending::new(core);
        let way = Way::Sample(*sampling);
        // SAFETY: the machine lives as long as `self`, which is borrowed exclusively until the explorer is gone.
        let mut explorer = unsafe { Explorer::new(core, &limits, way, &mut progress, self.observer.as_ref()) };
        explorer.core().quiet.begin();
        for number in 0..sampling.runs {
            let run = one(&mut explorer, sampling, sampling.seed.wrapping_add(number));
            if tell(run).is_break() {
                break;
            }
        }
        drop(attending);
    }

    /// Does a run again that was found by an exploration of a lab that was built in the same way, and says what it was. [`Self::replay`] tells what was in memory, too.
    ///
    /// # Errors
    /// As there.
    pub fn shown_run(&mut self, recording: &Recording) -> Result<ShownRun, Box<Departure>> {
        let limits = Limits::default();
        let mut progress = |_: &crate::limits::Progress| ();
        let core: *mut Core<'_> = self.core();
        let attending = Attending::new(core);
        // SAFETY: as above.
        let mut explorer = unsafe { Explorer::new(core, &limits, Way::Exhaust, &mut progress, self.observer.as_ref()) };
        let run = again(&mut explorer, recording, &mut |_, _| ()).map(|ending| {
            let mut report = Report::empty();
            if ending == Ending::Rest && explorer.end(&mut report).is_err() {
                report.observations.clear();
            }
            ShownRun { trace: explorer.core().take_trace(), ending, observation: report.observations.pop_first() }
        });
        explorer.core().recorder = None;
        explorer.core().undo_all();
        drop(attending);
        run
    }
}

/// One run. Where a word was taken for constant that is not, its beginning is another: then it is begun again.
fn one(explorer: &mut Explorer<'_, '_>, sampling: &Sampling, seed: u64) -> ShownRun {
    loop {
        explorer.start_recording();
        let mut report = Report::empty();
        let mut sampled = Sampled::none(explorer, sampling);
        let ended = match explorer.core().stop {
            Some(_) => Ok(false),
            None => Sampler::new(seed).run(explorer, &mut sampled, &mut report),
        };
        let is_wrong = explorer.core().quiet.is_wrong() || matches!(ended, Err(Ended::WrongAssumption));
        let run = ShownRun {
            ending: ending(explorer),
            trace: explorer.core().take_trace(),
            observation: report.observations.pop_first(),
        };
        explorer.core().undo_all();
        if !is_wrong {
            return run;
        }
        explorer.core().quiet.begin_again();
    }
}
