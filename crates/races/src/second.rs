//! A second opinion: the same scenario in the engine that stores no states, and whether it says what the lab says.

mod sampling;
mod schedule;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Display;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use lab::trace::Act;
use lab::{
    Arena, Caching, End, Event, FrameKind, FreedWalks, Ghost, GhostWords, Machine, Monitor, Trace, Violation, Writer,
};
use machine::user::FaultCause;
use machine::{Access, CpuId, CpuSet, Frame, Pcid, PhysAddr, Vector, VirtAddr, Word64};
use stateless::watch::{Final, Happening, Notes, Watcher};
use stateless::{Block, Budget, Caches, Config, Coverage, Feature, Followed, Order, SimulatedCpu, Simulator, Updates};

use crate::checker::{CheckedCpu, Checker};
use crate::ends::{EndSet, Reading};
use crate::question::Question;
use crate::race::Race;
use crate::report::{VariantReport, Verdict};
use crate::rule;
use crate::scenario::{Explorer, Prepared, Reader, Scenario, prepare};
use crate::second::sampling::Sampler;
pub use crate::second::sampling::Samples;
use crate::second::schedule::schedule;

/// The most CPUs that the second engine has.
const MOST_CPUS: usize = 8;

/// The engine without stored states. It decides small scopes only, and says where it gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SecondEngine {
    /// After so many runs it gives up.
    pub runs: u64,
    /// After so much time, too.
    pub time: Duration,
    /// Where a search is too much for it, and no rule is broken: how many random runs are made on each side, for the other one to compare. For that the lab has to collect whole final states
    /// ([`crate::Options::ends`]).
    pub samples: u64,
}

/// What it thinks of a verdict of the lab.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opinion {
    /// It comes to the same.
    Agrees(Ground),
    /// A search was too much for it, but runs of both are possible in the other one, and end alike.
    Sampled(Samples),
    /// It comes to something else: one of the two is wrong.
    Differs(String),
    /// It has none.
    Undecided(String),
}

/// Why it agrees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ground {
    /// It has searched by itself.
    Search {
        /// In so many runs.
        runs: u64,
    },
    /// A search was too much for it, but its machine can do what the lab has seen, and that breaks the same rule.
    Run {
        /// In so many steps of the lab.
        steps: usize,
    },
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agrees(Ground::Search { runs }) => write!(f, "agrees, after {runs} runs"),
            Self::Agrees(Ground::Run { steps }) => {
                write!(f, "agrees: the lab's {steps} steps break the rule there, too")
            }
            Self::Sampled(samples) => write!(f, "{samples}"),
            Self::Differs(why) => write!(f, "differs: {why}"),
            Self::Undecided(why) => write!(f, "undecided: {why}"),
        }
    }
}

impl SecondEngine {
    /// What it thinks of `first`, a report of the lab on a variant of `race`.
    #[must_use]
    pub fn opinion(&self, race: &Race, first: &VariantReport) -> Opinion {
        let mut variants = race.litmus.variants.iter();
        let variant = variants.find(|variant| Some(&variant.name.node) == first.variant.as_ref());
        let Prepared { scenario, question } = match prepare(race, variant, first.memory) {
            Ok(prepared) => prepared,
            Err(error) => return Opinion::Undecided(error.one_line()),
        };
        if !matches!(first.verdict, Verdict::Safe | Verdict::Violation) {
            return Opinion::Undecided("the lab has no verdict".to_owned());
        }
        if first.rule.as_deref() == Some(rule::LIVELOCK) {
            return Opinion::Undecided("it does not look for runs that never end".to_owned());
        }
        if scenario.cpus() > MOST_CPUS {
            return Opinion::Undecided(format!("more than {MOST_CPUS} CPUs"));
        }
        let mut comparison = Comparison {
            engine: *self,
            first,
            scenario: &scenario,
            question: &question,
            freed_walks: Cell::default(),
            opinion: None,
        };
        scenario.build(&mut comparison);
        comparison.opinion.unwrap_or_else(|| Opinion::Undecided("no machine was built".to_owned()))
    }
}

fn compare(first: &VariantReport, question: &Question, second: stateless::Report) -> Opinion {
    let runs = second.runs + second.redundant;
    let agrees = Opinion::Agrees(Ground::Search { runs });
    let undecided = match &second.coverage {
        Coverage::Complete | Coverage::Sought => None,
        Coverage::Budget => Some(format!("{runs} runs were not enough")),
        Coverage::Endless => Some("a run does not end".to_owned()),
        Coverage::Misuse(sentence) => return Opinion::Differs(sentence.clone()),
    };
    let rules: Vec<&str> = second.broken.keys().map(String::as_str).collect();
    if let (None, Some(rule)) = (first.final_states, &first.rule) {
        return match undecided {
            _ if rules.contains(&rule.as_str()) => agrees,
            Some(why) => Opinion::Undecided(why),
            None => Opinion::Differs(format!("{rule} is never broken; {rules:?}")),
        };
    }
    if let Some((rule, sentence)) = second.broken.first_key_value() {
        return Opinion::Differs(format!("{rule} is broken: {sentence}"));
    }
    let (observations, ends) = EndSet::split(second.observations);
    if let Some(theirs) = &first.ends {
        let (more, missing) = (ends.beyond(theirs), theirs.beyond(&ends));
        if more != 0 {
            return Opinion::Differs(format!("final states that the lab has not: {more}"));
        }
        if missing != 0 && undecided.is_none() {
            return Opinion::Differs(format!("final states of the lab's that are missing: {missing}"));
        }
    }
    let sets = |finals: &[crate::FinalState]| -> BTreeSet<String> {
        finals.iter().map(|state| format!("{:?} {}", state.values, state.satisfies)).collect()
    };
    let (ours, theirs) = (sets(&first.finals), sets(&question.answer(&observations).finals));
    let (more, missing) = (theirs.difference(&ours).next(), ours.difference(&theirs).next());
    match (question.asks_something(), more, undecided, missing) {
        (true, Some(more), ..) => Opinion::Differs(format!("a final state that the lab has not: {more}")),
        (_, _, Some(why), _) => Opinion::Undecided(why),
        (true, _, None, Some(missing)) => Opinion::Differs(format!("no final state like the lab's {missing}")),
        _ => agrees,
    }
}

/// What comes of the lab's run on this machine: agreement, or what is different.
fn judge(first: &VariantReport, trace: &Trace, question: &Question, followed: Followed) -> Result<Ground, String> {
    // A condition on final states that is not kept is a matter of the final states.
    let asks_of_finals = first.final_states.is_some();
    match followed {
        Followed::Broken(violation) if !asks_of_finals && Some(&violation.rule) == first.rule.as_ref() => {}
        Followed::Kept { observation: Some(state), .. } if asks_of_finals && question.is_witness(&state) => {}
        Followed::Broken(violation) => return Err(format!("the lab's steps break another rule: {violation}")),
        Followed::Kept { .. } => return Err("the lab's steps break no rule".to_owned()),
        Followed::Misuse(sentence) => return Err(sentence),
        Followed::Departs { act, why } => return Err(format!("{} is not possible: {why}", name_of(trace, act))),
    }
    Ok(Ground::Run { steps: trace.steps.len() })
}

/// A name for an act of a trace.
fn name_of(trace: &Trace, act: usize) -> String {
    let number = trace.acts.iter().take(act + 1).filter(|act| act.what.is_step()).count();
    let line = number.checked_sub(1).and_then(|index| trace.steps.get(index)).map(lab::trace::one_line);
    match trace.acts.get(act) {
        Some(Act { cpu, what }) if what.is_step() => {
            format!("step {number} of the lab, on {cpu} ({})", line.unwrap_or_default())
        }
        Some(Act { cpu, .. }) => format!("what {cpu} does after step {number} of the lab"),
        None => "the end".to_owned(),
    }
}

/// A verdict of the lab, on a machine that is about to be built.
struct Comparison<'c> {
    engine: SecondEngine,
    first: &'c VariantReport,
    scenario: &'c Scenario,
    question: &'c Question,
    /// Whether its walkers come by tables that were freed when nobody makes an access. That can be done again, but it is not searched for.
    freed_walks: Cell<FreedWalks>,
    opinion: Option<Opinion>,
}

impl Comparison<'_> {
    /// Does what the lab has seen, if that breaks a rule, and searches by itself.
    fn opinion(&self, simulator: &mut Simulator<'_>) -> Opinion {
        let violation = self.first.trace.as_ref().filter(|_| self.first.verdict == Verdict::Violation);
        let ground = match violation {
            None => None,
            Some(trace) => match judge(self.first, trace, self.question, simulator.follow(&schedule(trace))) {
                Ok(ground) => Some(ground),
                Err(difference) => return Opinion::Differs(difference),
            },
        };
        if self.freed_walks.get() == FreedWalks::Unasked {
            let no_search = || Opinion::Undecided("walkers that read freed tables unasked".to_owned());
            return ground.map_or_else(no_search, Opinion::Agrees);
        }
        let budget = Budget { runs: self.engine.runs, time: self.engine.time, ..Budget::default() };
        let sought = if self.first.final_states.is_some() { None } else { self.first.rule.as_deref() };
        let report = simulator.explore(budget, sought, &|| false);
        match (compare(self.first, self.question, report), ground) {
            (Opinion::Undecided(_), Some(ground)) => Opinion::Agrees(ground),
            (opinion, _) => opinion,
        }
    }

    /// Makes random runs on both sides, and compares.
    fn sample<'a>(&self, simulator: &mut Simulator<'a>, reading: Rc<Reading<'a>>, ends: &EndSet) -> Opinion {
        let parts = Rc::clone(&reading);
        simulator.observe(move |end| with_end(end, |end| parts.words(end)));
        let sampler = Sampler { reading: &reading, ends, runs: self.engine.samples };
        sampler.compare(simulator, self.scenario).map_or_else(Opinion::Differs, Opinion::Sampled)
    }
}

impl Explorer for Comparison<'_> {
    type Checker<'a> = Simulator<'a>;

    fn machine<'a>(&self, arena: &'a Arena, machine: Machine) -> Simulator<'a> {
        self.freed_walks.set(machine.freed_walks);
        let blocks = arena.pools().iter().flat_map(|pool| {
            pool.blocks.iter().map(|&first| Block {
                first,
                order: pool.order,
                pool: pool.kind.0,
                words: arena.table(first).map(|words| words.as_ptr().addr()),
            })
        });
        Simulator::new(config(&machine), Words(arena), blocks.collect())
    }

    fn explore<'a>(&mut self, arena: &'a Arena, mut simulator: Simulator<'a>, read: Reader<'a>) {
        let reading = Rc::new(Reading::new(arena, self.scenario.cpus()));
        let ends = Rc::clone(&reading);
        simulator.observe(move |end| {
            with_end(end, |end| {
                let mut words = read(end);
                words.extend(ends.digest(end));
                words
            })
        });
        let opinion = self.opinion(&mut simulator);
        self.opinion = Some(match (opinion, &self.first.ends, self.first.verdict) {
            (Opinion::Undecided(_), Some(ends), Verdict::Safe) if self.engine.samples != 0 => {
                self.sample(&mut simulator, reading, ends)
            }
            (opinion, ..) => opinion,
        });
    }
}

fn config(machine: &Machine) -> Config {
    let feature = |present| if present { Feature::Present } else { Feature::Absent };
    let order = match machine.memory {
        lab::MemoryOrder::Sc => Order::SequentiallyConsistent,
        lab::MemoryOrder::Tso => Order::TotalStore,
    };
    Config {
        paging: machine.paging.map(|paging| match paging.levels() {
            3 => stateless::Paging::Pae,
            4 => stateless::Paging::FourLevel,
            _ => stateless::Paging::FiveLevel,
        }),
        pages: machine.watched.clone(),
        caches: match machine.caching {
            Caching::Everything => Caches::Everything,
            Caching::TlbOnly => Caches::Translations,
            Caching::OnAccess => Caches::OfAccesses,
            Caching::Nothing => Caches::Nothing,
        },
        identifiers: feature(machine.pcids == lab::Pcids::Enabled),
        global_pages: feature(machine.global_pages == lab::GlobalPages::Enabled),
        protection_keys: feature(machine.protection_keys == lab::ProtectionKeys::Enabled),
        shadow_stacks: feature(machine.shadow_stacks == lab::ShadowStacks::Enabled),
        execute_disable: feature(machine.execute_disable == lab::ExecuteDisable::Enabled),
        pdpte_registers: feature(machine.pdptes == lab::Pdptes::Registers),
        updates: match machine.walker_updates {
            lab::WalkerUpdates::Locked => Updates::Whole,
            lab::WalkerUpdates::Stray => Updates::Stray,
            lab::WalkerUpdates::Plain => Updates::Stored,
        },
        moves: feature(machine.threads == lab::Threads::Move),
        unasked_flags: feature(machine.speculation == lab::Speculation::SetsAccessed),
        ..Config::new(order)
    }
}

/// The arena, as nothing but memory.
struct Words<'a>(&'a Arena);

// SAFETY: an arena's memory is mapped and zeroed as long as the arena lives, and starts at a page. No lab has this one. What is in it and changes are words.
unsafe impl stateless::Memory for Words<'_> {
    fn base(&self) -> NonNull<u8> {
        NonNull::new(self.0.base()).expect("a mapping is nowhere near address 0")
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl CheckedCpu for SimulatedCpu {
    fn mark(&self, _: impl Display) {}
    fn emit(&self, kind: u32, args: &[u64]) {
        self.tell(kind, args);
    }
    fn report(&self, slot: usize, value: u64) {
        self.report(slot, value);
    }
    fn op_boundary(&self, _: u64) {}
    fn violate(&self, rule: &str, sentence: impl Display) -> ! {
        self.violate(rule, sentence)
    }
    fn interrupts_on(&self) -> bool {
        self.interrupts_on()
    }
    fn in_nmi(&self) -> bool {
        self.in_nmi()
    }
    fn root(&self) -> Option<(PhysAddr, Pcid)> {
        self.root()
    }
    fn send_nmi(&self, targets: CpuSet) {
        self.send_nmi(targets);
    }
    fn user_fetch(&self, address: VirtAddr) -> Result<u64, FaultCause> {
        self.user_fetch(address)
    }
    fn user_push(&self, address: VirtAddr) -> Result<(), FaultCause> {
        self.user_push(address)
    }
    fn device_access(&self, frame: Frame, access: Access, word: u64) -> u64 {
        self.device_access(frame, access, word)
    }
    fn alloc_frame(&self, kind: FrameKind) -> Option<Frame> {
        self.allocate(kind.0)
    }
    fn free_frame(&self, first: Frame) {
        self.free(first);
    }
}

impl<'a> Checker<'a> for Simulator<'a> {
    type Cpu = SimulatedCpu;

    fn cpu(&mut self, _: String, program: impl Fn(&SimulatedCpu) + Sync + 'a) {
        self.cpu(program);
    }
    fn interrupt_handler(&mut self, handler: impl Fn(&SimulatedCpu, Vector) + Sync + 'a) {
        self.interrupt_handler(handler);
    }
    fn nmi_handler(&mut self, handler: impl Fn(&SimulatedCpu) + Sync + 'a) {
        self.nmi_handler(handler);
    }
    fn nmi(&mut self, cpu: CpuId) {
        self.nmi(cpu);
    }
    fn boot(&mut self, cpu: CpuId, code: impl FnOnce(&SimulatedCpu)) {
        self.boot(cpu, code);
    }
    fn contents(&mut self, first: Frame, words: &'a [Word64]) {
        if !words.is_empty() {
            self.contents(first, words);
        }
    }
    fn monitor(&mut self, ghost_words: usize, monitor: impl Monitor + 'a) {
        self.watch(ghost_words, Watching(monitor));
    }
    fn name_range(&mut self, _: usize, _: usize, _: String, _: Option<lab::Format<'a>>) {}
}

/// A monitor, told what happens in the second engine.
struct Watching<M>(M);

struct Remembered<'n>(RefCell<&'n mut dyn Notes>);

impl GhostWords for Remembered<'_> {
    fn get(&self, index: usize) -> u64 {
        self.0.borrow_mut().get(index)
    }

    fn set(&mut self, index: usize, value: u64) {
        self.0.get_mut().set(index, value);
    }
}

fn with_end<R>(end: &dyn Final, work: impl FnOnce(&End<'_>) -> R) -> R {
    let (reports, allocated) = (|cpu, slot| end.reported(cpu, slot), |frame| end.is_allocated(frame));
    work(&End::new(&reports, &allocated))
}

fn told(violation: Violation) -> stateless::Violation {
    stateless::Violation::new(violation.rule, violation.sentence)
}

impl<M: Monitor> Watcher for Watching<M> {
    fn happened(&self, notes: &mut dyn Notes, happening: &Happening<'_>) -> Result<(), stateless::Violation> {
        let event = match *happening {
            Happening::Written { cpu, address, bytes, old, new, writer } => {
                let writer = match writer {
                    stateless::watch::Writer::Store => Writer::Store,
                    stateless::watch::Writer::Locked => Writer::Update,
                    stateless::watch::Writer::Owned => Writer::Owned,
                    stateless::watch::Writer::Device => Writer::Device,
                    stateless::watch::Writer::Walker => Writer::Walker,
                };
                Event::Written { cpu, address, bytes, old, new, writer }
            }
            Happening::Reached { cpu, address, access, frame } => Event::Accessed { cpu, address, access, frame },
            Happening::Faulted { cpu, address, access } => Event::Faulted { cpu, address, access },
            Happening::Allocated { cpu, frame, pool } => Event::FrameAllocated { cpu, frame, kind: FrameKind(pool) },
            Happening::Freed { cpu, frame, pool } => Event::FrameFreed { cpu, frame, kind: FrameKind(pool) },
            Happening::Told { cpu, kind, args } => Event::Emitted { cpu, kind, args },
        };
        let mut words = Remembered(RefCell::new(notes));
        self.0.on_event(&mut Ghost::new(&mut words), &event).map_err(told)
    }

    fn is_over(&self, notes: &mut dyn Notes, end: &dyn Final) -> Result<(), stateless::Violation> {
        let mut words = Remembered(RefCell::new(notes));
        let ghost = Ghost::new(&mut words);
        with_end(end, |end| self.0.at_rest(&ghost, end)).map_err(told)
    }
}
