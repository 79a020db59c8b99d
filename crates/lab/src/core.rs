//! The simulated machine in one state, and how to leave that state and come back to it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use machine::{CpuId, Frame};

use crate::agent::{Agent, AgentState, Answer};
use crate::arena::{Arena, MACHINE_BYTES};
use crate::cells::{self, CpuCell, flag};
use crate::choice::Choice;
use crate::contents::Contents;
use crate::foresee::{Foresight, Untold};
use crate::ghost::{Copied, View};
use crate::hash::{self, Chain};
use crate::lab::{Handler, NmiHandler, Program};
use crate::label::Labels;
use crate::machine_config::{Machine, MemoryOrder};
use crate::monitor::{End, Event, Ghost, Monitor};
use crate::owned::OwnedLog;
use crate::quiet::QuietWords;
use crate::record::Recorder;
use crate::replicas::Replicas;
use crate::stack::StackLog;
use crate::symbols::Symbols;
use crate::tlb::Tlb;
use crate::verdict::{MisuseKind, Violation};

/// Why an exploration stops.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    Violation(Violation),
    Misuse(MisuseKind, String),
}

/// A write to be undone.
#[derive(Clone, Copy)]
struct Written {
    /// Offset into the arena; bit 0 set if 8 bytes were written, else 4.
    place: u32,
    old: u64,
}

/// Where the logs stood before a step. Kept small: a path may have a million of them.
#[derive(Clone, Copy)]
struct Mark {
    hash: u128,
    /// How the agent was that moved, if one did.
    state: AgentState,
    written: u32,
    stacks: u32,
    replaced: u32,
    owned: u32,
    untold: u32,
    /// Owned accesses of the CPU's latest segment, as they were.
    segment: (u32, u32),
    cpu: u8,
    agent: u8,
}

/// No agent moved.
const NOBODY: u8 = u8::MAX;

/// The simulated machine.
///
/// While an agent runs, nobody holds a reference to this: agents and the explorer reach it through one raw pointer, in turn.
pub(crate) struct Core<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) machine: Machine,
    pub(crate) programs: Vec<(String, Program<'a>)>,
    pub(crate) handler: Option<Handler<'a>>,
    pub(crate) nmi_handler: Option<NmiHandler<'a>>,
    monitors: Vec<(usize, Box<dyn Monitor + 'a>)>,
    pub(crate) ghost_words: usize,
    pub(crate) symbols: Symbols<'a>,
    pub(crate) contents: Vec<Contents>,
    /// Which block lies at which table frame of the arena, in order of the frames' words.
    blocks_by_slot: Vec<u32>,

    pub(crate) agents: Vec<Agent>,
    pub(crate) tlbs: Vec<Rc<Tlb>>,
    pub(crate) explorer_sp: *mut u64,
    /// For the agent that goes on next.
    pub(crate) answer: Answer,
    /// The agent whose code runs now.
    pub(crate) running: Option<usize>,
    /// The code that runs is being unwound after a panic.
    pub(crate) unwinding: bool,
    /// No interleaving: the code that runs sets the machine up.
    pub(crate) booting: bool,
    /// Why the run cannot go on.
    pub(crate) stop: Option<Stop>,
    pub(crate) owned: OwnedLog,
    pub(crate) quiet: QuietWords,
    pub(crate) recorder: Option<Recorder>,
    /// While a run is done again under a debugger: the number of the step; else 0.
    pub(crate) replaying: usize,
    /// Places that can be weakened, and those that are. Nothing is noted without.
    pub(crate) labels: Option<Box<Labels>>,
    /// What each agent did next that was known by this chain.
    pub(crate) known: HashMap<u128, u64, hash::BuildSame>,
    /// Where agents come to by computing only.
    pub(crate) foresight: Foresight,

    /// CPUs that others can take the place of.
    pub(crate) replicas: Option<Box<Replicas>>,
    /// The fingerprint, but for what belongs to replicas.
    pub(crate) hash: u128,
    written: Vec<Written>,
    stacks: StackLog,
    replaced: Vec<(usize, Rc<Tlb>)>,
    marks: Vec<Mark>,
    /// What agents are yet to be told, all of them.
    pub(crate) untold: Vec<Untold>,
}

impl<'a> Core<'a> {
    pub(crate) fn new(arena: &'a Arena, machine: Machine) -> Self {
        assert!(
            arena.blocks().len() <= cells::MAX_BLOCKS,
            "an arena of a lab has at most {} blocks of frames",
            cells::MAX_BLOCKS
        );
        assert!(arena.bytes() < 1 << 31, "an arena of a lab has less than 2 GiB");
        if let Some(paging) = machine.paging {
            let beyond = machine.watched.iter().find(|page| !paging.has_address(**page));
            assert!(
                beyond.is_none(),
                "the watched page {} is not an address of this paging mode",
                beyond.expect("some")
            );
        }
        let slots = (arena.bytes() - arena.frames_offset()) / 4096;
        let mut blocks_by_slot = vec![0; slots];
        for (index, block) in arena.blocks().iter().enumerate() {
            if let Some(words) = block.words {
                blocks_by_slot[(words - arena.frames_offset()) / 4096] = index as u32;
            }
        }
        let mut core = Self {
            arena,
            machine,
            programs: Vec::new(),
            handler: None,
            nmi_handler: None,
            monitors: Vec::new(),
            ghost_words: 0,
            symbols: Symbols::new(arena),
            contents: Vec::new(),
            blocks_by_slot,
            agents: Vec::new(),
            tlbs: Vec::new(),
            explorer_sp: std::ptr::null_mut(),
            answer: Answer::default(),
            running: None,
            unwinding: false,
            booting: false,
            stop: None,
            owned: OwnedLog::default(),
            quiet: QuietWords::new(arena.bytes()),
            recorder: None,
            replaying: 0,
            labels: None,
            known: HashMap::default(),
            foresight: Foresight::default(),
            replicas: None,
            hash: 0,
            written: Vec::new(),
            stacks: Vec::new(),
            replaced: Vec::new(),
            marks: Vec::new(),
            untold: Vec::new(),
        };
        for offset in (0..MACHINE_BYTES).step_by(8) {
            core.put(offset, 8, 0);
        }
        core.poison_tables();
        core
    }

    pub(crate) fn cpus(&self) -> usize {
        self.programs.len()
    }

    pub(crate) fn add_cpu(&mut self, name: String, program: Program<'a>) -> CpuId {
        assert!(self.cpus() < cells::MAX_CPUS, "a lab has at most {} CPUs", cells::MAX_CPUS);
        self.programs.push((name, program));
        self.tlbs.push(Rc::default());
        CpuId::new(self.programs.len() as u32 - 1)
    }

    pub(crate) fn add_monitor(&mut self, words: usize, monitor: Box<dyn Monitor + 'a>) {
        self.monitors.push((self.ghost_words, monitor));
        self.ghost_words += words;
        assert!(
            self.ghost_words <= cells::MAX_GHOST_WORDS,
            "monitors remember at most {} words",
            cells::MAX_GHOST_WORDS
        );
    }

    /// The fingerprint of the state.
    #[inline(always)]
    pub(crate) fn fingerprint(&self) -> u128 {
        match &self.replicas {
            None => self.hash,
            Some(replicas) => self.fingerprint_with(replicas),
        }
    }

    /// The part of the fingerprint that belongs to no replica.
    pub(crate) fn shared_term(&self) -> u128 {
        self.hash
    }

    pub(crate) fn depth(&self) -> usize {
        self.marks.len()
    }

    /// Beyond this, positions in a log no longer fit into a mark.
    pub(crate) const MOST_LOG_BYTES: usize = 16 << 30;

    /// Bytes of the logs.
    pub(crate) fn log_bytes(&self) -> usize {
        self.written.len() * size_of::<Written>()
            + self.stacks.len() * 8
            + self.marks.len() * size_of::<Mark>()
            + self.untold.len() * size_of::<Untold>()
            + self.foresight.bytes()
            + self.replicas.as_ref().map_or(0, |replicas| replicas.log_bytes())
    }

    /// Ends the run, unless it has ended for an earlier reason.
    pub(crate) fn halt(&mut self, stop: Stop) {
        self.stop.get_or_insert(stop);
    }

    pub(crate) fn misuse(&mut self, kind: MisuseKind, sentence: impl Into<String>) {
        self.halt(Stop::Misuse(kind, sentence.into()));
    }

    pub(crate) fn violation(&mut self, rule: &str, sentence: impl Into<String>) {
        self.halt(Stop::Violation(Violation::new(rule, sentence)));
    }

    pub(crate) fn buffers_stores(&self) -> bool {
        self.machine.memory == MemoryOrder::Tso
    }

    // --- memory ---

    /// The offset of a word that the code may access, if it is one.
    #[inline(always)]
    pub(crate) fn locate(&self, address: usize, bytes: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.arena.base().addr());
        let room = self.arena.bytes().checked_sub(offset)?;
        (offset >= MACHINE_BYTES && bytes <= room).then_some(offset)
    }

    /// What memory holds.
    #[inline(always)]
    pub(crate) fn get(&self, offset: usize, bytes: usize) -> u64 {
        debug_assert!(offset + bytes <= self.arena.bytes() && offset.is_multiple_of(bytes));
        let place = self.arena.base().wrapping_add(offset);
        if bytes == 8 {
            // SAFETY: an aligned offset inside the arena (every caller takes it from `locate`, from a block, or from `cells`), where a
            // word lies or a cell of the machine: initialised memory that is only accessed as atomics.
            unsafe { AtomicU64::from_ptr(place.cast()) }.load(Ordering::Relaxed)
        } else {
            // SAFETY: as above.
            u64::from(unsafe { AtomicU32::from_ptr(place.cast()) }.load(Ordering::Relaxed))
        }
    }

    #[inline(always)]
    fn put(&mut self, offset: usize, bytes: usize, value: u64) {
        debug_assert!(offset + bytes <= self.arena.bytes() && offset.is_multiple_of(bytes));
        let place = self.arena.base().wrapping_add(offset);
        if bytes == 8 {
            // SAFETY: as in `get`.
            unsafe { AtomicU64::from_ptr(place.cast()) }.store(value, Ordering::Relaxed);
        } else {
            // SAFETY: as in `get`.
            unsafe { AtomicU32::from_ptr(place.cast()) }.store(value as u32, Ordering::Relaxed);
        }
    }

    /// Changes memory, to be undone, without a trace in the fingerprint.
    #[inline(always)]
    pub(crate) fn set_silently(&mut self, offset: usize, bytes: usize, value: u64) {
        self.foresight.acts();
        let old = self.get(offset, bytes);
        if old != value {
            self.written.push(Written { place: offset as u32 | (bytes == 8) as u32, old });
            self.put(offset, bytes, value);
        }
    }

    /// Changes memory, to be undone.
    #[inline(always)]
    pub(crate) fn set(&mut self, offset: usize, bytes: usize, value: u64) {
        self.foresight.acts();
        let old = self.get(offset, bytes);
        if old == value {
            return;
        }
        self.written.push(Written { place: offset as u32 | (bytes == 8) as u32, old });
        self.put(offset, bytes, value);
        let unit = (offset / 4) as u32;
        self.rehash(unit, old as u32, value as u32);
        if bytes == 8 {
            self.rehash(unit + 1, (old >> 32) as u32, (value >> 32) as u32);
        }
    }

    #[inline(always)]
    fn rehash(&mut self, unit: u32, old: u32, new: u32) {
        if old == new {
            return;
        }
        if self.replicas.is_some() {
            return self.rehash_with(unit, old, new);
        }
        self.replace_shared_term(hash::unit(unit, old), hash::unit(unit, new));
    }

    /// Replaces a term of the fingerprint that is a CPU's.
    #[inline(always)]
    pub(crate) fn replace_term(&mut self, cpu: usize, old: u128, new: u128) {
        if self.replicas.is_some() {
            return self.replace_term_with(cpu, old, new);
        }
        self.replace_shared_term(old, new);
    }

    #[inline(always)]
    pub(crate) fn replace_shared_term(&mut self, old: u128, new: u128) {
        self.hash = self.hash.wrapping_sub(old).wrapping_add(new);
    }

    // --- registers of CPUs ---

    #[inline(always)]
    pub(crate) fn reg(&self, cpu: usize, cell: CpuCell) -> u64 {
        self.get(cell.of(cpu), 8)
    }

    #[inline(always)]
    pub(crate) fn set_reg(&mut self, cpu: usize, cell: CpuCell, value: u64) {
        self.set(cell.of(cpu), 8, value);
    }

    #[inline(always)]
    pub(crate) fn has_flag(&self, cpu: usize, flag: u64) -> bool {
        self.reg(cpu, cells::FLAGS) & flag != 0
    }

    pub(crate) fn set_flag(&mut self, cpu: usize, flag: u64, to: bool) {
        let flags = self.reg(cpu, cells::FLAGS);
        self.set_reg(cpu, cells::FLAGS, if to { flags | flag } else { flags & !flag });
    }

    /// Whether the CPU takes no interrupts now, NMIs apart.
    pub(crate) fn interrupts_off(&self, cpu: usize) -> bool {
        self.has_flag(cpu, flag::IRQ_OFF | flag::IN_HANDLER | flag::IN_NMI)
    }

    /// Whether the code that runs on the CPU may be interrupted even where its interrupts are off.
    #[inline(always)]
    pub(crate) fn nmis_come(&self, cpu: usize) -> bool {
        self.nmi_handler.is_some() && !self.has_flag(cpu, flag::IN_NMI)
    }

    /// An interrupt of this vector is to be taken.
    pub(crate) fn pend(&mut self, cpu: usize, vector: u64) {
        let pending = self.reg(cpu, cells::PENDING);
        self.set_reg(cpu, cells::PENDING, pending | 1 << vector);
    }

    // --- frames ---

    /// The block whose words are at this offset.
    #[inline(always)]
    pub(crate) fn block_at(&self, offset: usize) -> Option<usize> {
        let slot = offset.checked_sub(self.arena.frames_offset())? / 4096;
        Some(self.blocks_by_slot[slot] as usize)
    }

    #[inline(always)]
    pub(crate) fn is_allocated(&self, block: usize) -> bool {
        self.get(cells::block_cell(block), 8) != 0
    }

    /// Whether the frame is known and free.
    pub(crate) fn frame_is_free(&self, frame: u64) -> bool {
        self.arena.block_of(Frame::new(frame)).is_some_and(|(block, _)| !self.is_allocated(block))
    }

    // --- TLBs ---

    /// Replaces the sets of a CPU, to be undone.
    pub(crate) fn set_tlb(&mut self, cpu: usize, tlb: Rc<Tlb>) {
        self.foresight.acts();
        if Rc::ptr_eq(&self.tlbs[cpu], &tlb) {
            return;
        }
        let old = std::mem::replace(&mut self.tlbs[cpu], tlb);
        let neutral = self.neutral_cpu(cpu);
        let (old_term, new_term) = (old.term(neutral), self.tlbs[cpu].term(neutral));
        self.replace_term(cpu, old_term, new_term);
        self.replaced.push((cpu, old));
    }

    // --- monitors ---

    pub(crate) fn has_monitors(&self) -> bool {
        !self.monitors.is_empty()
    }

    /// Tells the monitors.
    #[inline(always)]
    pub(crate) fn event(&mut self, event: &Event<'_>) {
        if !self.monitors.is_empty() && !self.booting {
            self.foresight.acts();
            self.tell(event);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell(&mut self, event: &Event<'_>) {
        let monitors = std::mem::take(&mut self.monitors);
        for (first, monitor) in &monitors {
            let mut words = View { core: self, first: *first };
            if let Err(violation) = monitor.on_event(&mut Ghost { words: &mut words }, event) {
                self.halt(Stop::Violation(violation));
                break;
            }
        }
        self.monitors = monitors;
    }

    /// Asks the monitors about a final state.
    pub(crate) fn at_rest(&mut self) -> Result<(), Violation> {
        let monitors = std::mem::take(&mut self.monitors);
        let mut result = Ok(());
        for (first, monitor) in &monitors {
            // The view is of this core, which cannot be borrowed twice: a final state is copied out for it.
            let ghost: Vec<u64> =
                (0..self.ghost_words - first).map(|word| self.get(cells::ghost_cell(first + word), 8)).collect();
            let mut words = Copied(ghost);
            result = self.with_end(|end| monitor.at_rest(&Ghost { words: &mut words }, end));
            if result.is_err() {
                break;
            }
        }
        self.monitors = monitors;
        result
    }

    pub(crate) fn with_end<R>(&self, read: impl FnOnce(&End<'_>) -> R) -> R {
        let reports = |cpu: CpuId, slot: usize| {
            assert!(slot < cells::MAX_REPORTS, "reports have slots below {}", cells::MAX_REPORTS);
            assert!(cpu.index() < self.cpus(), "there is no {cpu}");
            self.reg(cpu.index(), cells::REPORTS.plus(slot))
        };
        let allocated = |frame: Frame| self.arena.block_of(frame).map(|(block, _)| self.is_allocated(block));
        read(&End { reports: &reports, allocated: &allocated })
    }

    // --- steps ---

    /// Before a step in which `agent` moves (if any) on `cpu`.
    #[inline(always)]
    pub(crate) fn push_mark(&mut self, cpu: usize, agent: Option<usize>) {
        self.save_replicas();
        self.marks.push(Mark {
            hash: self.hash,
            state: self.agents[agent.unwrap_or(0)].state,
            written: self.written.len() as u32,
            stacks: self.stacks.len() as u32,
            replaced: self.replaced.len() as u32,
            owned: self.owned.len() as u32,
            untold: self.untold.len() as u32,
            segment: self.owned.segment(cpu),
            cpu: cpu as u8,
            agent: agent.map_or(NOBODY, |agent| agent as u8),
        });
    }

    /// Notes what an agent changed of its stack since it was suspended before. It is suspended again.
    #[inline(always)]
    pub(crate) fn note_stack(&mut self, agent: usize) {
        let Agent { stack, state, .. } = &mut self.agents[agent];
        let before = match self.marks.last() {
            Some(mark) if mark.agent as usize == agent => mark.state.sp,
            // The program was started: nothing is to be restored.
            _ => stack.top(),
        };
        // SAFETY: the agent was suspended at `before` and is suspended at `state.sp` now, both on its own stack.
        unsafe { stack.note_changes(before, state.sp, &mut self.stacks) };
    }

    /// What the agent that makes the latest step was known by before.
    #[inline(always)]
    pub(crate) fn asked(&self, agent: usize) -> Option<Chain> {
        self.marks.last().filter(|mark| usize::from(mark.agent) == agent).map(|mark| mark.state.chain)
    }

    /// Takes back the latest step.
    pub(crate) fn undo(&mut self) {
        let mark = self.marks.pop().expect("a step to undo");
        self.undo_writes(mark.written as usize);
        while self.replaced.len() > mark.replaced as usize {
            let (cpu, tlb) = self.replaced.pop().expect("not empty");
            self.tlbs[cpu] = tlb;
        }
        if mark.agent != NOBODY {
            let agent = &mut self.agents[mark.agent as usize];
            agent.state = mark.state;
            // SAFETY: the agent is suspended, and the log beyond the mark was noted of its stack.
            unsafe { agent.stack.put_back(&mut self.stacks, mark.stacks as usize) };
        }
        self.owned.restore(mark.owned as usize, (mark.cpu as usize, mark.segment));
        self.untold.truncate(mark.untold as usize);
        self.hash = mark.hash;
        self.restore_replicas();
        self.stop = None;
    }

    #[inline(always)]
    fn undo_writes(&mut self, until: usize) {
        while self.written.len() > until {
            let Some(Written { place, old }) = self.written.pop() else { unreachable!("not empty") };
            let bytes = if place & 1 != 0 { 8 } else { 4 };
            self.put((place & !1) as usize, bytes, old);
        }
    }

    /// Takes back everything, down to what was there before the agents started.
    pub(crate) fn undo_all(&mut self) {
        while !self.marks.is_empty() {
            self.undo();
        }
        self.undo_writes(0);
        while let Some((cpu, tlb)) = self.replaced.pop() {
            self.tlbs[cpu] = tlb;
        }
        for agent in &mut self.agents {
            agent.state = AgentState::idle(&agent.stack);
        }
        self.stacks.clear();
        self.owned = OwnedLog::new(self.cpus());
        self.hash = 0;
        self.reset_replicas();
        self.stop = None;
        self.known.clear();
        self.foresight.clear();
    }

    /// What was done so far in boot becomes the initial state.
    pub(crate) fn forget_history(&mut self) {
        self.written.clear();
        self.replaced.clear();
        self.hash = 0;
        self.reset_replicas();
    }

    /// The CPU of a choice, as an id.
    pub(crate) fn id(&self, choice: Choice) -> CpuId {
        CpuId::new(choice.cpu() as u32)
    }
}
