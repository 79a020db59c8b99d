//! The builder: memory, code, names, monitors; then [`Lab::explore`].

use machine::{CpuId, PhysAddr, Vector, Word};

use crate::arena::Arena;
use crate::cpu::LabCpu;
use crate::limits::{Limits, Progress};
use crate::machine_config::Machine;
use crate::monitor::{End, Monitor};
use crate::verdict::Report;

pub(crate) type Program<'a> = Box<dyn Fn(&LabCpu) + Sync + 'a>;
pub(crate) type Handler<'a> = Box<dyn Fn(&LabCpu, Vector) + Sync + 'a>;
pub(crate) type Observer<'a> = Box<dyn Fn(&End<'_>) -> Vec<u64> + 'a>;
/// Says in words what a value means.
pub type Format<'a> = Box<dyn Fn(u64) -> String + 'a>;

/// A machine with code on its CPUs.
pub struct Lab<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) machine: Machine,
    pub(crate) programs: Vec<(String, Program<'a>)>,
    pub(crate) handler: Option<Handler<'a>>,
    pub(crate) monitors: Vec<(usize, Box<dyn Monitor + 'a>)>,
    pub(crate) observer: Option<Observer<'a>>,
}

impl<'a> Lab<'a> {
    /// A machine without CPUs whose memory is `arena`. An arena serves one lab at a time.
    pub fn new(arena: &'a Arena, machine: Machine) -> Self {
        Self { arena, machine, programs: Vec::new(), handler: None, monitors: Vec::new(), observer: None }
    }

    /// Adds a CPU that runs `program` once. Called again and again, always for the same work: it keeps no state of its own.
    pub fn cpu(&mut self, name: impl Into<String>, program: impl Fn(&LabCpu) + Sync + 'a) -> CpuId {
        self.programs.push((name.into(), Box::new(program)));
        CpuId::new(self.programs.len() as u32 - 1)
    }

    /// What every CPU does when it takes an interrupt. Without one, taking an interrupt has no effect.
    pub fn interrupt_handler(&mut self, handler: impl Fn(&LabCpu, Vector) + Sync + 'a) {
        self.handler = Some(Box::new(handler));
    }

    /// Runs code alone, as `cpu`, before the exploration: what it leaves in memory is the initial state.
    ///
    /// # Panics
    /// If the code waits for something that no one else can do, or panics itself.
    pub fn boot<R>(&mut self, cpu: CpuId, code: impl FnOnce(&LabCpu) -> R) -> R {
        let _ = cpu;
        code(&LabCpu::boot(self))
    }

    /// Makes `root` the page table of a CPU before the exploration.
    pub fn load_root(&mut self, cpu: CpuId, root: PhysAddr) {
        let _ = (cpu, root);
    }

    /// Gives a word a name for traces.
    pub fn name<W: Word>(&mut self, word: &W, name: impl Into<String>) {
        self.name_range(word.address(), W::BYTES, name, None);
    }

    /// Gives all words in `bytes` bytes from `address` on a name for traces, and their values words.
    pub fn name_range(&mut self, address: usize, bytes: usize, name: impl Into<String>, format: Option<Format<'a>>) {
        let _ = (address, bytes, name.into(), format);
    }

    /// Adds a monitor that remembers `ghost_words` words.
    pub fn monitor(&mut self, ghost_words: usize, monitor: impl Monitor + 'a) {
        self.monitors.push((ghost_words, Box::new(monitor)));
    }

    /// Collects an observation in every final state. All states are then explored, and [`Report::observations`] lists the distinct ones.
    pub fn observe(&mut self, observer: impl Fn(&End<'_>) -> Vec<u64> + 'a) {
        self.observer = Some(Box::new(observer));
    }

    /// Explores every interleaving.
    pub fn explore(&mut self, limits: &Limits<'_>) -> Report {
        self.explore_with(limits, &mut |_| ())
    }

    /// Explores every interleaving, and calls `progress` about ten times a second.
    pub fn explore_with(&mut self, limits: &Limits<'_>, progress: &mut dyn FnMut(&Progress)) -> Report {
        let _ = (limits, progress);
        Report {
            verdict: crate::Verdict::Bounded(crate::Limit::Cancelled),
            states: 0,
            transitions: 0,
            depth: 0,
            ends: 0,
            observations: Default::default(),
            elapsed: Default::default(),
        }
    }
}
