//! The machine: its CPUs, and who has them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::{CpuId, CpuSet, PhysAddr, Vector};

use crate::fences::Fences;
use crate::grace::Epoch;
use crate::line::Line;
use crate::statistics::{Counters, Statistics};
use crate::thread_cpu::ThreadCpu;

/// What runs when a CPU takes an interrupt.
type Handler = dyn Fn(&ThreadCpu, Vector) + Send + Sync;

/// A machine whose CPUs are taken by threads.
pub struct Threads {
    epoch: Epoch,
    fences: Fences,
    slots: Box<[Slot]>,
    handler: Box<Handler>,
}

/// One CPU.
pub(crate) struct Slot {
    pub(crate) line: Arc<Line>,
    /// What a handler of this CPU sees as its line.
    pub(crate) handler_line: Arc<Line>,
    pub(crate) statistics: Counters,
    pub(crate) root: AtomicU64,
    taken: AtomicBool,
}

/// A machine cannot have this many CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuCountError {
    /// How many were asked for.
    pub asked: u32,
}

/// There is no CPU to act as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachError {
    /// Every CPU of the machine is taken.
    AllTaken {
        /// How many there are.
        cpus: u32,
    },
    /// This one is taken.
    Taken(CpuId),
    /// The machine has no such CPU.
    NoSuchCpu {
        /// The one asked for.
        cpu: CpuId,
        /// How many there are.
        cpus: u32,
    },
}

impl Threads {
    /// A machine with `cpus` CPUs, 1 to [`CpuSet::CAPACITY`]. `handler` runs when one takes an interrupt; the crate's documentation has the rules for it.
    ///
    /// # Errors
    /// Too few CPUs, or too many.
    pub fn new(
        cpus: u32,
        handler: impl Fn(&ThreadCpu, Vector) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, CpuCountError> {
        Self::with_fences(cpus, Fences::best(), handler)
    }

    /// As [`Self::new`], with this way to order sections. [`Fences::best`] is best.
    ///
    /// # Errors
    /// Too few CPUs, or too many.
    pub fn with_fences(
        cpus: u32,
        fences: Fences,
        handler: impl Fn(&ThreadCpu, Vector) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, CpuCountError> {
        if cpus == 0 || cpus > CpuSet::CAPACITY {
            return Err(CpuCountError { asked: cpus });
        }
        let slots = (0..cpus).map(|_| Slot::new(fences)).collect();
        Ok(Arc::new(Self { epoch: Epoch::first(), fences, slots, handler: Box::new(handler) }))
    }

    /// Takes the free CPU with the lowest number.
    ///
    /// # Errors
    /// [`AttachError::AllTaken`].
    pub fn attach(self: &Arc<Self>) -> Result<ThreadCpu, AttachError> {
        self.cpus()
            .iter()
            .find_map(|cpu| self.attach_as(cpu).ok())
            .ok_or(AttachError::AllTaken { cpus: self.cpu_count() })
    }

    /// Takes this CPU.
    ///
    /// # Errors
    /// [`AttachError::Taken`], [`AttachError::NoSuchCpu`].
    pub fn attach_as(self: &Arc<Self>, cpu: CpuId) -> Result<ThreadCpu, AttachError> {
        let slot = self.slots.get(cpu.index()).ok_or(AttachError::NoSuchCpu { cpu, cpus: self.cpu_count() })?;
        if slot.taken.swap(true, Ordering::Acquire) {
            return Err(AttachError::Taken(cpu));
        }
        Ok(ThreadCpu::in_thread(Arc::clone(self), cpu))
    }

    /// Runs `body` on every CPU at the same time, each in a new thread, and returns what they returned, CPU 0 first.
    ///
    /// # Errors
    /// [`AttachError::Taken`], if a CPU is; then nothing has run.
    ///
    /// # Panics
    /// If one of them panicked.
    pub fn on_every_cpu<R: Send>(
        self: &Arc<Self>,
        body: impl Fn(ThreadCpu) -> R + Sync,
    ) -> Result<Vec<R>, AttachError> {
        let cpus = self.cpus().iter().map(|cpu| self.attach_as(cpu)).collect::<Result<Vec<_>, _>>()?;
        let body = &body;
        Ok(std::thread::scope(|scope| {
            let threads: Vec<_> = cpus.into_iter().map(|cpu| scope.spawn(move || body(cpu))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        }))
    }

    /// All CPUs of the machine.
    pub fn cpus(&self) -> CpuSet {
        CpuSet::first(self.cpu_count())
    }

    /// What happened on a CPU so far; nothing on one that does not exist.
    pub fn statistics(&self, cpu: CpuId) -> Statistics {
        self.slots.get(cpu.index()).map(|slot| slot.statistics.snapshot()).unwrap_or_default()
    }

    /// The page table that a CPU loaded last; `None` before the first.
    pub fn root(&self, cpu: CpuId) -> Option<PhysAddr> {
        let root = self.slots.get(cpu.index())?.root.load(Ordering::Acquire);
        (root != Slot::NO_ROOT).then_some(PhysAddr::new(root))
    }

    /// How sections are ordered against who waits for them.
    pub fn fences(&self) -> Fences {
        self.fences
    }

    fn cpu_count(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn slot(&self, cpu: CpuId) -> &Slot {
        &self.slots[cpu.index()]
    }

    #[inline(always)]
    pub(crate) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    pub(crate) fn handler(&self) -> &Handler {
        &self.handler
    }
}

impl Slot {
    /// No address of a page table: tables are aligned.
    const NO_ROOT: u64 = u64::MAX;

    fn new(fences: Fences) -> Self {
        Self {
            line: Arc::new(Line::at_rest(fences)),
            handler_line: Arc::new(Line::in_handler()),
            statistics: Counters::default(),
            root: AtomicU64::new(Self::NO_ROOT),
            taken: AtomicBool::new(false),
        }
    }

    /// The thread that had the CPU gives it back.
    pub(crate) fn give_back(&self) {
        self.taken.store(false, Ordering::Release);
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("cpus", &self.slots.len()).field("fences", &self.fences).finish_non_exhaustive()
    }
}

impl fmt::Display for CpuCountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a machine of {} CPUs: it must have 1 to {}", self.asked, CpuSet::CAPACITY)
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllTaken { cpus } => write!(f, "all {cpus} CPUs of the machine are taken"),
            Self::Taken(cpu) => write!(f, "{cpu} is taken"),
            Self::NoSuchCpu { cpu, cpus } => write!(f, "there is no {cpu}: the machine has {cpus}, numbered from 0"),
        }
    }
}

impl Error for CpuCountError {}
impl Error for AttachError {}
