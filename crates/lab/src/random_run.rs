//! Random runs that are written down, whatever they show: for somebody else's machine to do the same.

use std::ops::ControlFlow;

use crate::agent::Attending;
use crate::core::Core;
use crate::explore::{Ended, Explorer, Way};
use crate::lab::Lab;
use crate::limits::Limits;
use crate::replay::{Ending, ending};
use crate::sample::{Sampled, Sampler, Sampling};
use crate::trace::Trace;
use crate::verdict::Report;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RandomRun {
    /// What happened.
    pub trace: Trace,
    /// How it ends: [`Ending::Open`] if it was cut off. (The trace of a misuse is the run's.)
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
    pub fn random_runs(&mut self, sampling: &Sampling, tell: &mut dyn FnMut(RandomRun) -> ControlFlow<()>) {
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
}

/// One run. Where a word was taken for constant that is not, its beginning is another: then it is begun again.
fn one(explorer: &mut Explorer<'_, '_>, sampling: &Sampling, seed: u64) -> RandomRun {
    loop {
        explorer.start_recording();
        let mut report = Report::empty();
        let mut sampled = Sampled::none(explorer, sampling);
        let ended = match explorer.core().stop {
            Some(_) => Ok(false),
            None => Sampler::new(seed).run(explorer, &mut sampled, &mut report),
        };
        let is_wrong = explorer.core().quiet.is_wrong() || matches!(ended, Err(Ended::WrongAssumption));
        let run = RandomRun {
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
