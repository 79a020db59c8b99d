//! The builder: memory, code, names, monitors; then [`Lab::explore`].

use std::marker::PhantomData;
use std::ptr::NonNull;

use machine::{Cpu, CpuId, PhysAddr, Vector, Word};

use crate::agent::{self, Agent, NMI, program_of};
use crate::apart::Apart;
use crate::arena::Arena;
use crate::core::Core;
use crate::cpu::LabCpu;
use crate::explore::{Explorer, Way};
use crate::label::{Label, Labels};
use crate::limits::{Limits, Progress};
use crate::machine_config::Machine;
use crate::monitor::{End, Monitor};
use crate::owned::OwnedLog;
use crate::replicas::{Replica, Replicas};
use crate::sample::Sampling;
use crate::stack;
use crate::sync::Booting;
use crate::team::Seat;
use crate::verdict::Report;

pub(crate) type Program<'a> = Box<dyn Fn(&LabCpu) + Sync + 'a>;
pub(crate) type Handler<'a> = Box<dyn Fn(&LabCpu, Vector) + Sync + 'a>;
pub(crate) type NmiHandler<'a> = Box<dyn Fn(&LabCpu) + Sync + 'a>;
pub(crate) type Observer<'a> = Box<dyn Fn(&End<'_>) -> Vec<u64> + 'a>;
/// Says in words what a value means.
pub type Format<'a> = Box<dyn Fn(u64) -> String + 'a>;

/// A machine with code on its CPUs.
pub struct Lab<'a> {
    /// From a `Box`. A raw pointer, because the code that runs on the machine reaches it, too.
    core: NonNull<Core<'a>>,
    pub(crate) observer: Option<Observer<'a>>,
    owns: PhantomData<Core<'a>>,
}

impl<'a> Lab<'a> {
    /// A machine without CPUs whose memory is `arena`. All frames are free.
    ///
    /// An arena serves one lab at a time.
    ///
    /// # Panics
    /// If another lab with this arena still lives, the arena is too large (more than 2048 blocks of frames, 2 GiB), or
    /// a watched page is not an address of the paging mode.
    pub fn new(arena: &'a Arena, machine: Machine) -> Self {
        arena.take();
        let core = Box::new(Core::new(arena, machine));
        Self { core: NonNull::from(Box::leak(core)), observer: None, owns: PhantomData }
    }

    pub(crate) fn core(&mut self) -> &mut Core<'a> {
        // SAFETY: the box lives as long as `self`. Code that runs on the machine does so only inside methods of `self` that hold no
        // such reference meanwhile.
        unsafe { self.core.as_mut() }
    }

    /// Adds a CPU that runs `program` once. The explorer runs it again and again, from all kinds of states: it keeps none of its own.
    ///
    /// # Panics
    /// If there are 16 already.
    pub fn cpu(&mut self, name: impl Into<String>, program: impl Fn(&LabCpu) + Sync + 'a) -> CpuId {
        let pointer = self.core.as_ptr();
        let core = self.core();
        let id = core.add_cpu(name.into(), Box::new(program));
        for agent in agent::agents_of(id.index()) {
            core.agents.push(Agent::new(pointer, agent));
        }
        core.owned = OwnedLog::new(core.cpus());
        id
    }

    /// How many CPUs it has.
    #[must_use]
    pub fn cpus(&self) -> usize {
        // SAFETY: as in `core`.
        unsafe { self.core.as_ref() }.cpus()
    }

    /// What every CPU does when it takes an interrupt. Without one, taking an interrupt has no effect.
    pub fn interrupt_handler(&mut self, handler: impl Fn(&LabCpu, Vector) + Sync + 'a) {
        self.core().handler = Some(Box::new(handler));
    }

    /// What every CPU does when it takes a non-maskable interrupt: perf's sampling, a watchdog, a backtrace that another CPU asked for. NMIs are sent by
    /// [`Self::nmi`] and [`LabCpu::send_nmi`] (MODEL.md, P18). Without a handler, taking one has no effect.
    pub fn nmi_handler(&mut self, handler: impl Fn(&LabCpu) + Sync + 'a) {
        self.core().nmi_handler = Some(Box::new(handler));
    }

    /// Something outside sends an NMI to `cpu`: it is taken once, before or after any operation of the CPU, or when its program is over.
    ///
    /// # Panics
    /// If there is no such CPU.
    pub fn nmi(&mut self, cpu: CpuId) {
        let core = self.core();
        assert!(cpu.index() < core.cpus(), "there is no {cpu}");
        core.pend(cpu.index(), NMI);
        core.forget_history();
    }

    /// Says that these sets of CPUs can be exchanged: their code is the same, but for words that are theirs alone and bits that stand for them, and nobody else
    /// treats them differently. Then states that differ by an exchange are one, which with n replicas divides their number by up to n!. Can be called for several groups.
    ///
    /// It is an assumption that is checked: [`crate::MisuseKind::Distinguished`]. Monitors have to treat the replicas alike, too, and digests, reports and shared words must not hold numbers of CPUs. [`Report::observations`] has one
    /// representative of those that differ by an exchange. Only exhaustive searches ([`Self::explore`], [`Self::explore_in`]) make use of it, and traces are as short as without.
    ///
    /// # Panics
    /// If the replicas do not have as many CPUs, words and bits each, the words of the same widths and the bits in the same words; if something belongs to two, is not there or not in the arena.
    pub fn interchangeable(&mut self, replicas: &[Replica]) {
        let core = self.core();
        let units = core.arena.bytes() / 4;
        let mut known = core.replicas.take().unwrap_or_else(|| Box::new(Replicas::new(units)));
        known.add(replicas, core.cpus(), |address, bytes| {
            core.locate(address, bytes).expect("words of replicas lie in the arena")
        });
        core.replicas = Some(known);
    }

    /// Runs code alone, as `cpu`, before the exploration: what it leaves in memory, in frames and in the CPU is the initial state. Monitors
    /// are not told.
    ///
    /// # Panics
    /// If there is no such CPU, if the code waits for something that nobody else can do, breaks a rule, or panics itself.
    pub fn boot<R>(&mut self, cpu: CpuId, code: impl FnOnce(&LabCpu) -> R) -> R {
        assert!(cpu.index() < self.core().cpus(), "there is no {cpu}");
        self.core().booting = true;
        let lab_cpu = LabCpu::new(self.core.as_ptr().cast(), cpu.index(), program_of(cpu.index()));
        let booting = Booting::new(&lab_cpu);
        let result = code(&lab_cpu);
        drop(booting);
        let core = self.core();
        core.booting = false;
        for cpu in 0..core.cpus() {
            core.saturate(cpu);
        }
        core.forget_history();
        result
    }

    /// Makes `root` the page table of every CPU before the exploration.
    ///
    /// # Panics
    /// If the machine has no MMU, or `root` is not in a frame with words.
    pub fn load_root(&mut self, root: PhysAddr) {
        for cpu in 0..self.core().cpus() {
            self.boot(CpuId::new(cpu as u32), |cpu| cpu.load_root(root));
        }
    }

    /// Gives a word a name for traces.
    ///
    /// # Panics
    /// If it is not in the arena.
    pub fn name<W: Word>(&mut self, word: &W, name: impl Into<String>) {
        self.name_range(word.address(), W::BYTES, name, None);
    }

    /// Gives all words in `bytes` bytes from `address` on a name for traces, and their values words.
    ///
    /// More than 8 bytes are an array of 8-byte words. Where ranges overlap, the smallest counts.
    ///
    /// # Panics
    /// If the range is not in the arena.
    pub fn name_range(&mut self, address: usize, bytes: usize, name: impl Into<String>, format: Option<Format<'a>>) {
        let core = self.core();
        let offset = core.locate(address, bytes).expect("named words lie in the arena");
        core.symbols.add(offset, bytes, name.into(), format);
    }

    /// Adds a monitor that remembers `ghost_words` words.
    ///
    /// # Panics
    /// If all monitors together would remember too much (about 3500 words).
    pub fn monitor(&mut self, ghost_words: usize, monitor: impl Monitor + 'a) {
        self.core().add_monitor(ghost_words, Box::new(monitor));
    }

    /// Collects an observation in every final state; [`Report::observations`] lists the distinct ones.
    pub fn observe(&mut self, observer: impl Fn(&End<'_>) -> Vec<u64> + 'a) {
        self.observer = Some(Box::new(observer));
    }

    /// Notes from now on which places of the code keep an order and could be weakened: [`Self::labels`]. Costs time.
    pub fn note_labels(&mut self) {
        self.core().labels = Some(Box::default());
    }

    /// The places that explorations came to since [`Self::note_labels`], in the order of the source.
    #[must_use]
    pub fn labels(&mut self) -> Vec<Label> {
        self.core().labels.as_ref().map(|labels| labels.met().collect()).unwrap_or_default()
    }

    /// Does less than the code asks for at these places. What boots does not.
    pub fn weaken(&mut self, labels: &[Label]) {
        self.core().labels = Some(Box::new(Labels::weakening(labels)));
    }

    /// Explores every interleaving.
    pub fn explore(&mut self, limits: &Limits<'_>) -> Report {
        self.explore_with(limits, &mut |_| ())
    }

    /// Explores every interleaving, and calls `progress` about ten times a second.
    pub fn explore_with(&mut self, limits: &Limits<'_>, progress: &mut dyn FnMut(&Progress)) -> Report {
        self.search(Way::Exhaust, limits, progress)
    }

    /// Explores every interleaving, and keeps for each observation the run that led there first: [`Report::runs`], for [`Self::shown_run`]. They are not the shortest.
    pub fn explore_keeping_runs(&mut self, limits: &Limits<'_>, progress: &mut dyn FnMut(&Progress)) -> Report {
        self.search(Way::Chart, limits, progress)
    }

    /// Explores every interleaving in which code is preempted at most `most` times: a CPU moves although another, which moved before, could have gone on. Most bugs
    /// need few (Musuvathi, Qadeer: "Iterative Context Bounding", PLDI 2007). What hardware does by itself is no preemption: a buffered store that reaches
    /// memory, a broadcast flush that arrives, an accessed flag set unasked.
    ///
    /// The verdict is [`crate::Verdict::Safe`] only if no run needs more preemptions, else [`crate::Limit::Preemptions`].
    pub fn explore_preempting(
        &mut self,
        most: u32,
        limits: &Limits<'_>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Report {
        self.search(Way::Preempt(most), limits, progress)
    }

    /// Explores every interleaving, and breaks the rule [`crate::rule::LIVELOCK`] if one never ends although everybody gets his turn: whoever can move from some moment on,
    /// code or hardware, does so. Two CPUs that let go of a lock for each other again and again are an example; a CPU that waits for another,
    /// which the run never lets move, is none. Nobody owes it to anybody that a walker sets a flag unasked, or that the scheduler moves a thread; and it moves threads finitely often.
    ///
    /// Takes more memory than [`Self::explore`]: the graph of states is kept.
    pub fn explore_livelocks(&mut self, limits: &Limits<'_>, progress: &mut dyn FnMut(&Progress)) -> Report {
        self.search(Way::Livelock, limits, progress)
    }

    /// Takes random schedules. The verdict is never [`crate::Verdict::Safe`]: [`Report::sampled`] says what the runs have shown.
    pub fn sample(&mut self, sampling: &Sampling, limits: &Limits<'_>, progress: &mut dyn FnMut(&Progress)) -> Report {
        self.search(Way::Sample(*sampling), limits, progress)
    }

    /// Explores every interleaving together with the other members of a team, each in a thread and with a lab of its own that was built in the same way. One of
    /// them gets the report, the same as that of [`Self::explore`] but for [`Report::depth`], which depends on who went where; of a violation the trace is the same,
    /// the counts are not.
    pub fn explore_in(
        &mut self,
        seat: Seat<'_>,
        limits: &Limits<'_>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Option<Report> {
        let core = self.core.as_ptr();
        // SAFETY: as in `search`.
        let explorer = unsafe { Explorer::new(core, limits, Way::Exhaust, progress, self.observer.as_ref()) };
        explorer.run_with(&seat)
    }

    /// Explores every interleaving together with members that share no memory with this one, each with a lab of its own that was built in the same way. `search` does what
    /// [`Apart`] says, and carries what members have to tell each other.
    pub fn explore_apart<R>(
        &mut self,
        limits: &Limits<'_>,
        progress: &mut dyn FnMut(&Progress),
        search: impl FnOnce(&mut Apart<'_, 'a>) -> R,
    ) -> R {
        let core = self.core.as_ptr();
        // SAFETY: as in `search`.
        let explorer = unsafe { Explorer::new(core, limits, Way::Exhaust, progress, self.observer.as_ref()) };
        let result = search(&mut Apart::new(explorer));
        self.core().undo_all();
        result
    }

    fn search(&mut self, way: Way, limits: &Limits<'_>, progress: &mut dyn FnMut(&Progress)) -> Report {
        // SAFETY: the machine lives as long as `self`, which is borrowed exclusively until the explorer is gone.
        let explorer = unsafe { Explorer::new(self.core.as_ptr(), limits, way, progress, self.observer.as_ref()) };
        explorer.run()
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        // SAFETY: leaked in `new`; nothing runs on the machine any more.
        let mut core = unsafe { Box::from_raw(self.core.as_ptr()) };
        for agent in core.agents.drain(..) {
            stack::give_back(agent.stack);
        }
        core.arena.give_back();
    }
}
