//! A second simulated multiprocessor, to check the first one's answers.
//!
//! Code written on [`machine::Cpu`] runs here on up to 8 simulated CPUs with store buffers, TLBs, page walkers, interrupts and IPIs, and every
//! interleaving of its operations is explored, as the lab does it. Nothing else is alike, and nothing is shared: no state is stored, compared, hashed or gone back to.
//! Each run starts at the beginning and follows a schedule; footprints of the steps say which schedules are worth another run.
//! TLBs hold what walks put there, and walks that nobody asked for are steps of a schedule.
//!
//! What the hardware does is taken from the manuals and from `MODEL.md` beside the `machine` crate's source, not from the lab.
//!
//! # What is trusted
//!
//! What it says counts where it was compared: on the files of instructions, and on the files of the machine and of memory management that it can decide, it agrees with the lab. Of those that it cannot decide, runs were compared: see below. It does not search for
//! walkers that come by freed tables when nobody makes an access; such a run can be followed.
//!
//! # Following
//!
//! Where a search is too much, a run that somebody else has seen can still be judged: [`Simulator::follow`] makes the one run that a [`schedule`] tells of. A schedule says who acts, and in which way;
//! whether that is possible, and whether it breaks a rule, is found here. So a violation of the lab's that is followed to its end is one of this machine, too.
//!
//! # Random runs
//!
//! Where a search is too much and nothing is broken, runs can be compared: those that somebody else has seen must be possible here and end alike, and those that [`Simulator::random_run`] makes must
//! end in a state that he knows.
//!
//! # Scope
//!
//! It is for small scopes: the number of schedules grows much faster than that of states. A search ends by its [`Budget`] and says so ([`Coverage`]).
//!
//! | module | what |
//! |---|---|
//! | `config` | which machine |
//! | `memory` | its memory, which is somebody else's |
//! | `state`, `execute`, `interrupts` | the machine, and what a step does to it |
//! | `paging`, `walk`, `translation` | entries, walks, what is cached of them |
//! | `op`, `cpu`, `code` | operations, the code that asks for them |
//! | `footprint`, `expected` | what steps depend on |
//! | `run` | a run, step by step, and the scheduler's moves |
//! | `search` | which runs there are |
//! | `schedule`, `follow` | a run that somebody else has seen |
//! | `random` | random runs |
//! | `watch`, `verdict` | rules, answers |

mod code;
mod config;
mod cpu;
mod execute;
mod expected;
mod follow;
mod footprint;
mod interrupts;
mod memory;
mod op;
mod paging;
mod random;
mod run;
pub mod schedule;
mod search;
mod state;
mod translation;
pub mod verdict;
mod walk;
pub mod watch;

use machine::{CpuId, Frame, Vector, Word64};

pub use config::{Block, Caches, Config, Feature, Order, Updates};
pub use cpu::SimulatedCpu;
pub use follow::{Departure, Followed};
pub use memory::Memory;
pub use paging::Paging;
pub use random::RandomEnd;
pub use verdict::{Budget, Coverage, Report, Violation};

use cpu::Seat;
use run::{MOST_CPUS, Observer};
use schedule::Act;
use search::Search;
use state::Machine;
use watch::{Final, Watcher};

/// A machine with code on its CPUs.
pub struct Simulator<'a> {
    machine: Machine<'a>,
    observer: Option<Observer<'a>>,
}

impl<'a> Simulator<'a> {
    /// A machine without CPUs. All blocks are free; those with words must lie in `memory`.
    pub fn new(config: Config, memory: impl Memory + 'a, blocks: Vec<Block>) -> Self {
        Self { machine: Machine::new(config, Box::new(memory), blocks), observer: None }
    }

    /// Adds a CPU that runs `program` once in each run. It keeps nothing from run to run.
    ///
    /// # Panics
    /// If there are 8 already.
    pub fn cpu(&mut self, program: impl Fn(&SimulatedCpu) + 'a) -> CpuId {
        assert!(self.machine.programs.len() < MOST_CPUS, "a simulator has at most {MOST_CPUS} CPUs");
        CpuId::new(self.machine.add_cpu(Box::new(program)) as u32)
    }

    /// What every CPU does when it takes an interrupt.
    pub fn interrupt_handler(&mut self, handler: impl Fn(&SimulatedCpu, Vector) + 'a) {
        self.machine.handler = Some(Box::new(handler));
    }

    /// What every CPU does when it takes an NMI.
    pub fn nmi_handler(&mut self, handler: impl Fn(&SimulatedCpu) + 'a) {
        self.machine.nmi_handler = Some(Box::new(handler));
    }

    /// Something outside sends an NMI to `cpu`, once in each run.
    ///
    /// # Panics
    /// If there is no such CPU.
    pub fn nmi(&mut self, cpu: CpuId) {
        // No step of a run sent it.
        self.machine.state.get_mut().cpus[cpu.index()].pending[op::Vector::Nmi.number()] = Some(usize::MAX);
    }

    /// Runs code alone, as `cpu`: what it leaves is the start of every run.
    ///
    /// # Panics
    /// If there is no such CPU, or the code breaks a rule or waits for what nobody does.
    pub fn boot(&mut self, cpu: CpuId, code: impl FnOnce(&SimulatedCpu)) {
        assert!(cpu.index() < self.machine.programs.len(), "there is no {cpu}");
        code(&SimulatedCpu::new(&raw const self.machine, Seat::Program(cpu.index()), std::ptr::null()));
    }

    /// Gives the frames from `first` on a word each, for loads and stores of user code.
    ///
    /// # Panics
    /// If the words are not in the memory.
    pub fn contents(&mut self, first: Frame, words: &'a [Word64]) {
        let state = self.machine.state.get_mut();
        let offset = state.words.locate(words.as_ptr().addr(), size_of_val(words)).expect("contents lie in the memory");
        self.machine.contents.push((first.number(), words.len() as u64, offset));
    }

    /// Adds a watcher that remembers `notes` words.
    pub fn watch(&mut self, notes: usize, watcher: impl Watcher + 'a) {
        self.machine.add_watcher(notes, Box::new(watcher));
    }

    /// Collects what `read` says of every final state.
    pub fn observe(&mut self, read: impl Fn(&dyn Final) -> Vec<u64> + 'a) {
        self.observer = Some(Box::new(read));
    }

    /// Explores. Where a rule is `sought`, the search may end as soon as that is broken. `cancel` says whether to give up.
    pub fn explore(&mut self, budget: Budget, sought: Option<&str>, cancel: &dyn Fn() -> bool) -> Report {
        self.machine.settle();
        Search::new(&self.machine, self.observer.as_ref(), budget, sought, cancel).run()
    }

    /// Makes one run, which is to do what `schedule` says. Acts of CPUs that the machine has not are not possible, nor are others; nothing panics.
    pub fn follow(&mut self, schedule: &[Act]) -> Followed {
        self.machine.settle();
        follow::follow(&self.machine, self.observer.as_ref(), schedule)
    }

    /// Makes one random run of at most so many steps. The same seed makes the same.
    pub fn random_run(&mut self, seed: u64, most_steps: usize) -> RandomEnd {
        self.machine.settle();
        random::random_run(&self.machine, self.observer.as_ref(), (seed, most_steps), None)
    }

    /// What happens in such a run, a line for each step but walks that nobody asked for.
    pub fn random_run_in_words(&mut self, seed: u64, most_steps: usize) -> Vec<String> {
        self.machine.settle();
        let mut lines = Vec::new();
        random::random_run(&self.machine, None, (seed, most_steps), Some(&mut lines));
        lines
    }
}
