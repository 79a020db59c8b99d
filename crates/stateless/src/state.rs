//! The simulated machine: what never changes during an exploration, and what does.

use std::cell::RefCell;
use std::collections::VecDeque;

use machine::CpuId;

use crate::config::{Block, Config};
use crate::cpu::SimulatedCpu;
use crate::footprint::{Footprint, Resource, Use, note};
use crate::memory::{Memory, Place, Words};
use crate::op::{InterruptFlag, Vector};
use crate::paging::LEFT_OVER;
use crate::translation::Translations;
use crate::verdict::Violation;
use crate::watch::{Final, Happening, Notes, Watcher};

pub(crate) type Program<'a> = Box<dyn Fn(&SimulatedCpu) + 'a>;
pub(crate) type Handler<'a> = Box<dyn Fn(&SimulatedCpu, machine::Vector) + 'a>;

/// How many results a CPU may report.
pub(crate) const REPORTS: usize = 16;

/// A machine with code on its CPUs.
pub(crate) struct Machine<'a> {
    pub(crate) config: Config,
    pub(crate) blocks: Vec<Block>,
    pub(crate) programs: Vec<Program<'a>>,
    pub(crate) handler: Option<Handler<'a>>,
    pub(crate) nmi_handler: Option<Program<'a>>,
    pub(crate) watchers: Vec<(usize, Box<dyn Watcher + 'a>)>,
    /// First frame, number of frames, where the first one's word is.
    pub(crate) contents: Vec<(u64, u64, usize)>,
    /// Only for as long as it takes to do something: code that runs on the machine uses it, too.
    pub(crate) state: RefCell<State<'a>>,
}

/// Why a run ends early.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    Violation(Violation),
    Misuse(String),
}

/// Whether the code that runs sets the machine up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    SettingUp,
    Running,
}

/// A store that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// The word, or the first of the words that become zero.
    pub(crate) place: Place,
    pub(crate) value: u64,
    /// How many words: more than one become zero.
    pub(crate) words: usize,
    /// The frame that user code stores to.
    pub(crate) user_frame: Option<u64>,
    /// The step that made it.
    pub(crate) since: usize,
}

impl Waiting {
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let Self { place, words, .. } = *self;
        (0..words).map(move |word| Place { offset: place.offset + 8 * word, ..place })
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.places().any(|place| other.places().any(|theirs| place.overlaps(theirs)))
    }
}

/// A broadcast on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broadcast {
    pub(crate) from: usize,
    pub(crate) what: machine::Invalidation,
    pub(crate) since: usize,
}

/// Code that a handler interrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted {
    /// What the interrupt flag was.
    pub(crate) flag: InterruptFlag,
    /// How many read-side sections it was in.
    pub(crate) sections: u32,
    /// The handler's interrupt.
    pub(crate) vector: Vector,
}

/// Flags that a walker has found missing in an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    pub(crate) offset: usize,
    pub(crate) flags: u64,
    /// What the entry held.
    pub(crate) read: u64,
}

/// One CPU.
#[derive(Clone, Debug)]
pub(crate) struct Processor {
    pub(crate) buffer: VecDeque<Waiting>,
    pub(crate) interrupt_flag: InterruptFlag,
    /// For each handler that runs, what it interrupted.
    pub(crate) interrupted: Vec<Interrupted>,
    /// For each vector: the step that sent it, if one waits.
    pub(crate) pending: [Option<usize>; 3],
    pub(crate) sections: u32,
    /// In how many sections with preemption off.
    pub(crate) preempt_off: u32,
    /// The CPUs that `synchronize_rcu` waits for.
    pub(crate) waits_for: Option<u64>,
    pub(crate) cr3: Option<u64>,
    pub(crate) pdptes: [u64; 4],
    /// PKRU of the thread that runs here.
    pub(crate) pkru: u32,
    pub(crate) translations: Translations,
    /// What the walker is to store before it does anything else.
    pub(crate) update: Option<Update>,
    pub(crate) arrivals: Vec<Broadcast>,
    pub(crate) reports: [u64; REPORTS],
    /// The step in which a store left the buffer last.
    pub(crate) drained: Option<usize>,
    /// The step in which a broadcast arrived last.
    pub(crate) arrived: Option<usize>,
    /// The step in which it left a read-side section last.
    pub(crate) left: Option<usize>,
    /// The step in which a thread was moved here last.
    pub(crate) came: Option<usize>,
    /// The thread that was moved here has made no step yet, and no other CPU has become free.
    pub(crate) has_just_come: bool,
}

impl Processor {
    const fn new() -> Self {
        Self {
            buffer: VecDeque::new(),
            interrupt_flag: InterruptFlag::Set,
            interrupted: Vec::new(),
            pending: [None; 3],
            sections: 0,
            preempt_off: 0,
            waits_for: None,
            cr3: None,
            pdptes: [0; 4],
            pkru: 0,
            translations: Translations { pages: Vec::new(), tables: Vec::new() },
            update: None,
            arrivals: Vec::new(),
            reports: [0; REPORTS],
            drained: None,
            arrived: None,
            left: None,
            came: None,
            has_just_come: false,
        }
    }

    pub(crate) fn in_nmi(&self) -> bool {
        self.interrupted.iter().any(|interrupted| interrupted.vector == Vector::Nmi)
    }

    pub(crate) fn in_section(&self) -> bool {
        self.interrupt_flag == InterruptFlag::Clear || self.sections != 0
    }

    pub(crate) fn user_stores_wait(&self) -> bool {
        self.buffer.iter().any(|store| store.user_frame.is_some())
    }
}

/// What is known of the step that is being made.
#[derive(Clone, Default, Debug)]
pub(crate) struct Step {
    pub(crate) footprint: Footprint,
    /// Steps without which this one was not possible.
    pub(crate) after: Vec<usize>,
    /// What it overwrote, in order.
    pub(crate) overwrote: Vec<(Place, u64)>,
    /// Translations that can be cached no more after this step, though they could before: CPU and page.
    pub(crate) last_chance: Vec<(usize, usize)>,
}

/// What changes.
pub(crate) struct State<'a> {
    pub(crate) words: Words<'a>,
    pub(crate) cpus: Vec<Processor>,
    /// For each program the CPU that it is on.
    pub(crate) places: Vec<usize>,
    pub(crate) allocated: Vec<bool>,
    pub(crate) notes: Vec<u64>,
    pub(crate) stop: Option<Stop>,
    pub(crate) stage: Stage,
    pub(crate) step: Step,
    /// The number of the step.
    pub(crate) now: usize,
    start: Option<(Vec<Processor>, Vec<bool>)>,
}

impl State<'_> {
    pub(crate) fn uses(&mut self, resource: Resource, how: Use) {
        self.step.footprint.add(resource, how);
    }

    pub(crate) fn uses_place(&mut self, place: Place, how: Use) {
        self.step.footprint.add_place(place, how);
    }

    pub(crate) fn after(&mut self, step: Option<usize>) {
        self.step.after.extend(step);
    }

    pub(crate) fn violation(&mut self, rule: &str, sentence: impl Into<String>) {
        self.halt(Stop::Violation(Violation::new(rule, sentence)));
    }

    pub(crate) fn misuse(&mut self, sentence: impl Into<String>) {
        self.halt(Stop::Misuse(sentence.into()));
    }

    /// The program that is on a CPU.
    pub(crate) fn program_on(&self, cpu: CpuId) -> CpuId {
        let program = self.places.iter().position(|place| *place == cpu.index()).unwrap_or(cpu.index());
        CpuId::new(program as u32)
    }

    pub(crate) fn halt(&mut self, stop: Stop) {
        self.stop.get_or_insert(stop);
    }

    /// What a CPU sees in a word: its own youngest store to each byte, else memory.
    pub(crate) fn view(&self, cpu: usize, place: Place) -> u64 {
        let mut bytes = self.words.read(place).to_le_bytes();
        for store in &self.cpus[cpu].buffer {
            for written in store.places().filter(|written| written.overlaps(place)) {
                for (index, byte) in store.value.to_le_bytes().iter().take(written.bytes).enumerate() {
                    if let Some(at) = (written.offset + index).checked_sub(place.offset).filter(|at| *at < place.bytes)
                    {
                        bytes[at] = *byte;
                    }
                }
            }
        }
        u64::from_le_bytes(bytes)
    }
}

impl<'a> Machine<'a> {
    pub(crate) fn new(config: Config, memory: Box<dyn Memory + 'a>, mut blocks: Vec<Block>) -> Self {
        // The left-over entries name the last frame for data, in the order in which they were given.
        let data = blocks.iter().rfind(|block| block.words.is_none()).map_or(0xdead, |block| block.first.number());
        blocks.sort_by_key(|block| block.first);
        let mut words = Words::new(memory);
        if let Some(paging) = config.paging {
            for block in &blocks {
                let Some(table) = block.words.and_then(|address| words.locate(address, 4096)) else { continue };
                for page in &config.pages {
                    for level in 1..=paging.top() {
                        // Frames come dirty (MODEL.md, F11).
                        words.write(Place::whole(table + 8 * paging.index(*page, level)), data << 12 | LEFT_OVER);
                    }
                }
            }
        }
        let state = State {
            words,
            cpus: Vec::new(),
            places: Vec::new(),
            allocated: vec![false; blocks.len()],
            notes: Vec::new(),
            stop: None,
            stage: Stage::SettingUp,
            step: Step::default(),
            now: 0,
            start: None,
        };
        Self {
            config,
            blocks,
            programs: Vec::new(),
            handler: None,
            nmi_handler: None,
            watchers: Vec::new(),
            contents: Vec::new(),
            state: RefCell::new(state),
        }
    }

    pub(crate) fn add_cpu(&mut self, program: Program<'a>) -> usize {
        self.programs.push(program);
        let number = self.programs.len() - 1;
        let state = self.state.get_mut();
        state.cpus.push(Processor::new());
        state.places.push(number);
        number
    }

    pub(crate) fn add_watcher(&mut self, words: usize, watcher: Box<dyn Watcher + 'a>) {
        let notes = &mut self.state.get_mut().notes;
        self.watchers.push((notes.len(), watcher));
        notes.resize(notes.len() + words, 0);
    }

    /// What is now is the start.
    pub(crate) fn settle(&self) {
        let mut state = self.state.borrow_mut();
        state.words.settle();
        state.stage = Stage::Running;
        state.start = Some((state.cpus.clone(), state.allocated.clone()));
    }

    /// Goes back to the start.
    pub(crate) fn reset(&self) {
        let mut state = self.state.borrow_mut();
        state.words.reset();
        if let Some((cpus, allocated)) = state.start.clone() {
            state.cpus = cpus;
            state.allocated = allocated;
        }
        state.places = (0..self.programs.len()).collect();
        state.notes.fill(0);
        state.stop = None;
        state.step = Step::default();
        state.now = 0;
    }

    /// The block that holds a frame.
    pub(crate) fn block_of(&self, frame: u64) -> Option<usize> {
        self.blocks.iter().position(|block| block.holds(frame))
    }

    pub(crate) fn is_free(&self, state: &State<'_>, frame: u64) -> bool {
        self.block_of(frame).is_some_and(|block| !state.allocated[block])
    }

    /// Where the words of a frame are.
    pub(crate) fn words_of(&self, state: &State<'_>, frame: u64) -> Option<usize> {
        state.words.locate(self.blocks[self.block_of(frame)?].words?, 4096)
    }

    /// The block of tables that an offset lies in, and the index of the entry.
    pub(crate) fn entry_at(&self, state: &State<'_>, offset: usize) -> Option<(usize, usize)> {
        let address = state.words.address(offset);
        self.blocks.iter().enumerate().find_map(|(number, block)| {
            let within = address.wrapping_sub(block.words?);
            (within < 4096).then_some((number, within / 8))
        })
    }

    /// The word of a frame's contents.
    pub(crate) fn content_of(&self, frame: u64) -> Option<Place> {
        self.contents.iter().find_map(|&(first, frames, offset)| {
            let index = frame.wrapping_sub(first);
            (index < frames).then(|| Place::whole(offset + 8 * index as usize))
        })
    }

    pub(crate) fn tell(&self, state: &mut State<'_>, happening: &Happening<'_>) {
        if state.stage == Stage::SettingUp {
            return;
        }
        let happening = happening.by(|cpu| state.program_on(cpu));
        for (first, watcher) in &self.watchers {
            let State { notes, step, .. } = &mut *state;
            let mut view = View { notes: &mut notes[*first..], first: *first, footprint: &mut step.footprint };
            if let Err(violation) = watcher.happened(&mut view, &happening) {
                return state.halt(Stop::Violation(violation));
            }
        }
    }

    /// All programs are over: what watchers say.
    pub(crate) fn is_over(&self, state: &State<'a>) -> Result<(), Violation> {
        for (first, watcher) in &self.watchers {
            let mut notes = state.notes.clone();
            let mut footprint = Footprint::default();
            let mut view = View { notes: &mut notes[*first..], first: *first, footprint: &mut footprint };
            watcher.is_over(&mut view, &End { machine: self, state })?;
        }
        Ok(())
    }
}

/// A watcher's notes.
struct View<'v> {
    notes: &'v mut [u64],
    first: usize,
    footprint: &'v mut Footprint,
}

impl Notes for View<'_> {
    fn get(&mut self, index: usize) -> u64 {
        self.footprint.add(note(self.first + index), Use::Reads);
        self.notes[index]
    }

    fn set(&mut self, index: usize, value: u64) {
        // Writing what is there changes nothing, but that it is there was read.
        let how = if self.notes[index] == value { Use::Reads } else { Use::Writes };
        self.footprint.add(note(self.first + index), how);
        self.notes[index] = value;
    }
}

/// A final state.
pub(crate) struct End<'e, 'a> {
    pub(crate) machine: &'e Machine<'a>,
    pub(crate) state: &'e State<'a>,
}

impl Final for End<'_, '_> {
    fn reported(&self, cpu: CpuId, slot: usize) -> u64 {
        self.state.cpus[cpu.index()].reports[slot]
    }

    fn is_allocated(&self, frame: machine::Frame) -> Option<bool> {
        self.machine.block_of(frame.number()).map(|block| self.state.allocated[block])
    }
}

/// The CPUs of a set.
pub(crate) fn members(set: u64, state: &State<'_>) -> impl Iterator<Item = usize> + use<> {
    (0..state.cpus.len()).filter(move |cpu| set >> cpu & 1 != 0)
}
