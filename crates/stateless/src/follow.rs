//! Doing what somebody else has seen: one run, in which nothing is chosen.
//!
//! Who acts, and in which way, is what a [schedule](crate::schedule) says; whether that is possible, what comes of it, and whether it breaks a rule is what this machine says.
//!
//! Three things are not in a schedule, because whoever wrote it need not know of them:
//! * *What is cached.* Before each act all CPUs walk for all pages and cache what they find (MODEL.md, F2). Having one translation more takes no possibility away.
//! * *Accessed flags* that a walk has to set before what it finds is used. Here it sets them then; the schedule may have let it be used without (MODEL.md, what is made of P7), and where it
//!   sets the flag later on, nothing is left to do.
//! * *Stores that nobody else can see*, to words that are only accessed by one CPU's code, or are its own at the time. They leave the buffer as soon as they are the oldest.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use machine::Frame;

use crate::config::{Caches, Updates};
use crate::memory::Place;
use crate::op::{Op, Vector};
use crate::paging::ACCESSED;
use crate::run::{Kind, Observer, Process, Run};
use crate::schedule::{Act, Passage, Span, What};
use crate::state::{Broadcast, Machine, Stop, Waiting};
use crate::verdict::Violation;
use crate::walk::Way;

/// What came of a run that was to follow a schedule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Followed {
    /// All was done, and the last act broke this rule, or nobody could go on then.
    Broken(Violation),
    /// All was done, and no rule broken.
    Kept {
        /// What was read, if it is a final state.
        observation: Option<Vec<u64>>,
        /// The entries whose accessed flag is set, but not where the schedule comes from.
        ahead: Vec<usize>,
    },
    /// Something could not be done.
    Departs {
        /// Its number in the schedule.
        act: usize,
        /// Why not.
        why: Departure,
    },
    /// The code uses the machine wrongly.
    Misuse(String),
}

/// Why an act is not possible on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Departure {
    /// A rule was broken before.
    Broken(Violation),
    /// There is no such CPU.
    NoCpu,
    /// The code of the CPU is over.
    Over,
    /// It asks for another operation.
    AsksFor(String),
    /// What it asks for has to wait.
    Waits(String),
    /// The access cannot go on in this way, only in these.
    OtherWays(String),
    /// No such interrupt waits, or none is taken now.
    NoInterrupt,
    /// No such store is the oldest one.
    NoStore,
    /// No such broadcast is on its way, or it waits for stores.
    NoBroadcast,
    /// No walker of the CPU would set this flag.
    NoFlag,
    /// No walker of the CPU comes to this table, or it was not freed.
    NoFreedTable,
    /// The thread may not be moved there now.
    NoMove,
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(violation) => write!(f, "before that a rule is broken: {violation}"),
            Self::NoCpu => f.write_str("there is no such CPU"),
            Self::Over => f.write_str("its code is over"),
            Self::AsksFor(op) => write!(f, "its code asks for {op}"),
            Self::Waits(op) => write!(f, "{op} has to wait"),
            Self::OtherWays(ways) => write!(f, "the access can only go on so: {ways}"),
            Self::NoInterrupt => f.write_str("no such interrupt is taken"),
            Self::NoStore => f.write_str("no such store is the oldest one"),
            Self::NoBroadcast => f.write_str("no such broadcast arrives"),
            Self::NoFreedTable => f.write_str("no walker comes to such a table"),
            Self::NoMove => f.write_str("the thread is not moved there"),
            Self::NoFlag => f.write_str("no walker would set this flag"),
        }
    }
}

/// Whether a store in the buffer is one of the schedule's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaves {
    /// When the schedule says so.
    OnItsTurn,
    /// As soon as it is the oldest one.
    Unseen,
}

/// More flags than this a walk does not find missing, each set at once or in two steps.
const MOST_FLAGS: usize = 2 * 5 + 1;

struct Follower<'m, 'a> {
    run: Run<'m, 'a>,
    /// For each CPU, of each store in its buffer.
    stores: Vec<VecDeque<Leaves>>,
    /// The entries whose accessed flag is set, though the schedule has not said so.
    ahead: BTreeSet<usize>,
    /// The CPUs whose walker would store such a flag next, if it had not been set.
    has_stored: BTreeSet<usize>,
    steps: usize,
}

/// Does what the schedule says.
pub(crate) fn follow<'a>(machine: &Machine<'a>, observer: Option<&Observer<'a>>, schedule: &[Act]) -> Followed {
    let stores = machine.programs.iter().map(|_| VecDeque::new()).collect();
    let followed =
        Follower { run: Run::new(machine), stores, ahead: BTreeSet::new(), has_stored: BTreeSet::new(), steps: 0 }
            .follow(observer, schedule);
    machine.reset();
    followed
}

impl<'a> Follower<'_, 'a> {
    fn follow(&mut self, observer: Option<&Observer<'a>>, schedule: &[Act]) -> Followed {
        self.run.start();
        for (number, act) in schedule.iter().enumerate() {
            let done = match self.run.stop() {
                None => self.act(act),
                Some(Stop::Violation(violation)) => Err(Departure::Broken(violation)),
                Some(Stop::Misuse(sentence)) => return Followed::Misuse(sentence),
            };
            if let Err(why) = done {
                return Followed::Departs { act: number, why };
            }
        }
        match self.run.stop() {
            Some(Stop::Violation(violation)) => return Followed::Broken(violation),
            Some(Stop::Misuse(sentence)) => return Followed::Misuse(sentence),
            None => {}
        }
        if self.run.ways().iter().any(|ways| *ways != 0) {
            return Followed::Kept { observation: None, ahead: Vec::new() };
        }
        match self.run.judge_rest(observer) {
            Ok(observation) => Followed::Kept { observation, ahead: self.ahead.iter().copied().collect() },
            Err(violation) => Followed::Broken(violation),
        }
    }

    fn act(&mut self, act: &Act) -> Result<(), Departure> {
        let cpu = act.cpu.index();
        if cpu >= self.stores.len() {
            return Err(Departure::NoCpu);
        }
        self.fill();
        match act.what {
            What::Operation(span) => self.operation(cpu, span, Leaves::OnItsTurn)?,
            What::Private(span) => self.operation(cpu, Some(span), Leaves::Unseen)?,
            What::Return => {
                self.possible(cpu, |op| matches!(op, Op::InterruptReturn))?;
                self.code_step(cpu, 0, None);
            }
            What::Access(passage) => self.access(cpu, passage)?,
            What::Interrupt(vector) => self.interrupt(cpu, Vector::Maskable(vector))?,
            What::Nmi => self.interrupt(cpu, Vector::Nmi)?,
            What::Drain { offset } => {
                let first = self.with_buffer(cpu, |buffer| buffer.front().map(|store| store.place.offset));
                if first != Some(offset) {
                    return Err(Departure::NoStore);
                }
                self.drain(cpu);
            }
            What::Arrival { from, what } => {
                let state = self.run.machine.state.borrow();
                let processor = &state.cpus[cpu];
                let is_it = |sent: &Broadcast| sent.from == from.index() && sent.what == what;
                let index = processor.arrivals.iter().position(is_it).filter(|_| !processor.user_stores_wait());
                drop(state);
                self.step(Kind::Arrivals, cpu, index.ok_or(Departure::NoBroadcast)?);
            }
            What::Accessed { offset } if self.ahead.remove(&offset) => {}
            What::Accessed { offset } => {
                let offsets = self.run.machine.unasked(&self.run.machine.state.borrow(), cpu);
                let index = offsets.iter().position(|entry| *entry == offset).ok_or(Departure::NoFlag)?;
                self.step(Kind::Flags, cpu, index);
            }
            What::ReadsFreedTable(frame) => {
                let mut state = self.run.machine.state.borrow_mut();
                if !self.run.machine.reaches_freed(&state, cpu, frame) {
                    return Err(Departure::NoFreedTable);
                }
                self.run.machine.read_freed(&mut state, cpu, frame);
            }
            What::Move { to } => {
                let targets = self.run.moves(&self.run.machine.state.borrow(), cpu);
                if !targets.contains(&to.index()) {
                    return Err(Departure::NoMove);
                }
                self.run.step_of_scheduler(self.steps, cpu, to.index());
                self.steps += 1;
            }
        }
        self.drain_unseen(cpu);
        self.forget_cleared();
        Ok(())
    }

    /// Flags that somebody has cleared are not ahead any more.
    fn forget_cleared(&mut self) {
        let state = self.run.machine.state.borrow();
        self.ahead.retain(|offset| state.words.read(Place::whole(*offset)) & ACCESSED != 0);
    }

    fn step(&mut self, kind: Kind, cpu: usize, way: usize) {
        self.run.step(self.steps, Process::new(kind, cpu), way);
        self.steps += 1;
    }

    /// All CPUs cache what they can.
    fn fill(&mut self) {
        let unasked = matches!(self.run.machine.config.caches, Caches::Everything | Caches::Translations);
        if unasked && self.run.machine.config.paging.is_some() {
            (0..self.stores.len()).for_each(|cpu| self.step(Kind::Walker, cpu, 0));
        }
    }

    /// The operation that the code of a CPU asks for and can make now.
    fn possible(&self, cpu: usize, is_asked: impl FnOnce(&Op) -> bool) -> Result<Op, Departure> {
        let op = self.run.code.asks(cpu).ok_or(Departure::Over)?;
        if !is_asked(&op) {
            return Err(Departure::AsksFor(format!("{op:x?}")));
        }
        self.run.operation(cpu).map(|(op, _)| op).ok_or_else(|| Departure::Waits(format!("{op:x?}")))
    }

    fn operation(&mut self, cpu: usize, span: Option<Span>, leaves: Leaves) -> Result<(), Departure> {
        let op = self.possible(cpu, |op| op.span() == span && !matches!(op, Op::User(_)))?;
        self.code_step(cpu, 0, op.stores().then_some(leaves));
        Ok(())
    }

    fn access(&mut self, cpu: usize, passage: Passage) -> Result<(), Departure> {
        let Op::User(user) = self.possible(cpu, |op| matches!(op, Op::User(_)))? else { return Err(Departure::Over) };
        let Some(passage) = self.still_to_do(cpu, passage) else { return Ok(()) };
        // On the way each entry may lack its accessed flag.
        for _ in 0..MOST_FLAGS {
            let ways = self.run.machine.ways(&self.run.machine.state.borrow(), cpu, user.address, user.deed);
            if let Some(way) = ways.iter().position(|way| passage_of(way) == passage) {
                self.code_step(cpu, way, Op::User(user).stores().then_some(Leaves::OnItsTurn));
                return Ok(());
            }
            let sets_accessed = |way: &Way| matches!(way, Way::SetFlags { flags: ACCESSED, .. } | Way::FinishUpdate);
            let Some(way) = ways.iter().position(sets_accessed) else {
                return Err(Departure::OtherWays(format!("{ways:x?}")));
            };
            if let Way::SetFlags { offset, .. } = ways[way] {
                self.ahead.insert(offset);
            }
            self.code_step(cpu, way, None);
        }
        Err(Departure::OtherWays("its walk sets flags".to_owned()))
    }

    /// What is left of a passage where an accessed flag was set ahead of the schedule: the schedule finds it missing now.
    fn still_to_do(&mut self, cpu: usize, passage: Passage) -> Option<Passage> {
        match passage {
            Passage::FindsFlags { offset, flags } if flags & ACCESSED != 0 && self.ahead.remove(&offset) => {
                let flags = flags & !ACCESSED;
                if flags == 0 && self.run.machine.config.updates != Updates::Whole {
                    self.has_stored.insert(cpu);
                }
                (flags != 0).then_some(Passage::FindsFlags { offset, flags })
            }
            Passage::WritesFlags if self.has_stored.remove(&cpu) => None,
            passage => Some(passage),
        }
    }

    fn interrupt(&mut self, cpu: usize, vector: Vector) -> Result<(), Departure> {
        let own_ways = self.run.operation(cpu).map_or(0, |(_, ways)| ways);
        let takeable = self.run.machine.takeable(&self.run.machine.state.borrow(), cpu);
        let index = takeable.iter().position(|one| *one == vector).ok_or(Departure::NoInterrupt)?;
        self.code_step(cpu, own_ways + index, None);
        Ok(())
    }

    /// The code of a CPU makes a step. `own`: when the store of its operation leaves, if that is one.
    fn code_step(&mut self, cpu: usize, way: usize, own: Option<Leaves>) {
        let before = self.stores[cpu].len();
        self.step(Kind::Code, cpu, way);
        let state = self.run.machine.state.borrow();
        let (buffer, stores) = (&state.cpus[cpu].buffer, &mut self.stores[cpu]);
        for (index, store) in buffer.iter().enumerate().skip(before) {
            // Stores to words that are the CPU's own wait only behind others to the same word.
            let on_its_turn = buffer.iter().zip(&*stores).filter(|(_, leaves)| **leaves == Leaves::OnItsTurn);
            let is_behind = on_its_turn.clone().any(|(earlier, _)| earlier.overlaps(store));
            let is_own = index == before && own == Some(Leaves::OnItsTurn);
            stores.push_back(if is_own || is_behind { Leaves::OnItsTurn } else { Leaves::Unseen });
        }
    }

    fn with_buffer<R>(&self, cpu: usize, work: impl FnOnce(&VecDeque<Waiting>) -> R) -> R {
        work(&self.run.machine.state.borrow().cpus[cpu].buffer)
    }

    fn drain(&mut self, cpu: usize) {
        self.step(Kind::Buffer, cpu, 0);
        self.stores[cpu].pop_front();
    }

    fn drain_unseen(&mut self, cpu: usize) {
        while self.stores[cpu].front() == Some(&Leaves::Unseen) && self.run.stop().is_none() {
            self.drain(cpu);
        }
    }
}

fn passage_of(way: &Way) -> Passage {
    match *way {
        Way::Reach { frame, age, .. } => Passage::Reaches { frame: Frame::new(frame), age },
        Way::SetFlags { offset, flags } => Passage::FindsFlags { offset, flags },
        Way::FinishUpdate => Passage::WritesFlags,
        Way::Fault(cause) => Passage::Faults(cause),
        Way::FreedTable(frame) => Passage::FreedTable(Frame::new(frame)),
        Way::NoTable(frame) => Passage::NoTable(Frame::new(frame)),
    }
}
