//! What code does next, where that is known without letting it do it.
//!
//! An agent is a function of what it is told: told the same, it asks for the same next. So where its code goes from what it was told straight to its next operation, that need be seen once. From then on the
//! agent is taken for having gone there: it is known by the same *chain* and asks for the same operation, and what it was told waits until its code has to run. It
//! has to where it is told something for the first time, or does more than to compute. Then it is told everything that waits, one thing after the other, and must have come to where it was taken to be, or it
//! is not deterministic.
//!
//! That must hold in whatever state it is told. So a way is remembered only if the code did nothing on it but compute: no owned or quiet access, no report, no event, no look at the
//! CPU's registers; and if the operation that it came to is one that can never be quiet (`quiet.rs`), because it is known by now that several agents access the word, or
//! no word is accessed; and one that has no closure with captures, which would lie on a stack that is elsewhere by now.
//!
//! This is how most steps of most searches are made. Runs that are shown, shortened or drawn at random run all of the code.

use std::collections::{HashMap, HashSet};

use crate::agent::{Answer, Status, cpu_of};
use crate::core::Core;
use crate::hash::{self, BuildSame, Chain};
use crate::machine_config::Reduction;
use crate::op::{Kind, Op};
use crate::verdict::MisuseKind;

/// So many ways are remembered.
const MOST_WAYS: usize = 1 << 18;

/// An agent is told no more than this at once.
const MOST_UNTOLD: usize = 8;

/// Nothing waits to be told.
pub(crate) const NOTHING: u32 = u32::MAX;

/// Where an agent comes to by computing only.
struct Way {
    chain: Chain,
    /// What it asks for there; `None`: it is done. In a box, because agents that are taken to be there point to it.
    op: Option<Box<Op>>,
    /// Whether it still knows which of the interchangeable CPUs did something, if it was told.
    names: Names,
}

/// What an agent that goes on knows of replicas (`exchange.rs`) afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Names {
    /// What it knew before.
    #[default]
    Kept,
    /// Nothing.
    Forgotten,
}

/// Where agents come to by computing only.
#[derive(Default)]
pub(crate) struct Foresight {
    /// By who was told what.
    ways: HashMap<u128, Way, BuildSame>,
    /// What agents are known by where they are likely to do more than to compute next.
    acting: HashSet<u128, BuildSame>,
    /// The agent that runs has done more than to compute.
    acted: bool,
    /// What it has done to names meanwhile.
    names: Names,
}

impl Foresight {
    /// The code that runs does what depends on the state, or changes it.
    #[inline(always)]
    pub(crate) fn acts(&mut self) {
        self.acted = true;
    }

    /// The code that runs has come to where it knows nothing of replicas.
    pub(crate) fn forgets_names(&mut self) {
        self.names = Names::Forgotten;
    }

    /// Forgets everything. No agent is ahead of its code.
    pub(crate) fn clear(&mut self) {
        self.ways.clear();
        self.acting.clear();
    }

    /// Bytes in use, about.
    pub(crate) fn bytes(&self) -> usize {
        self.ways.len() * (size_of::<(u128, Way)>() + size_of::<Op>()) + self.acting.len() * size_of::<u128>()
    }
}

/// What an agent is yet to be told.
#[derive(Clone, Copy)]
pub(crate) struct Untold {
    answer: Answer,
    /// What it is known by when it has been told, and when it asks for something again.
    told: Chain,
    arrives: Chain,
    /// What comes before this.
    before: u32,
}

impl Core<'_> {
    /// Whether it is ever known what code does next: places that are weakened have to be come to.
    #[inline(always)]
    pub(crate) fn foresees(&self) -> bool {
        self.labels.is_none()
    }

    /// What is known of an agent that was told this is found by it. Interchangeable CPUs are told the same, but each asks for words of its own.
    #[inline(always)]
    fn way_of(&self, agent: usize, told: Chain) -> u128 {
        if self.replicas.is_none() { told.term() } else { told.term().wrapping_add(hash::spread(agent as u64)) }
    }

    /// What an agent will be known by that was told this, and what it will ask for, if it is known where it goes from there.
    #[inline(always)]
    pub(crate) fn where_to(&self, agent: usize, told: Chain) -> Option<(Chain, Option<&Op>)> {
        let way = self.foresight.ways.get(&self.way_of(agent, told))?;
        Some((way.chain, way.op.as_deref()))
    }

    /// Takes an agent that is ready to go on for having gone on, if it is known where to.
    #[inline(always)]
    pub(crate) fn foresee(&mut self, agent: usize) -> bool {
        if !self.foresees() {
            return false;
        }
        let told = self.agents[agent].state.chain;
        let Some(way) = self.foresight.ways.get(&self.way_of(agent, told)) else { return false };
        let state = &mut self.agents[agent].state;
        let number = self.untold.len() as u32;
        self.untold.push(Untold { answer: self.answer, told, arrives: way.chain, before: state.untold });
        state.untold = number;
        state.chain = way.chain;
        match &way.op {
            Some(op) => {
                state.op = &raw const **op;
                state.status = Status::Asks;
            }
            None => state.status = Status::Done,
        }
        let (arrives, names) = (way.chain.term(), way.names);
        self.replace_term(cpu_of(agent), told.term(), arrives);
        if names == Names::Forgotten {
            self.forget_names(agent);
        }
        self.owned.begin(cpu_of(agent));
        self.audit_owned(cpu_of(agent));
        true
    }

    /// Whether an agent may stay ahead of its code in a state that is new.
    #[inline(always)]
    pub(crate) fn may_be_ahead(&self, agent: usize) -> bool {
        let state = &self.agents[agent].state;
        state.status == Status::Done
            || self.what_is_untold(state.untold).nth(MOST_UNTOLD - 1).is_none()
                && !self.foresight.acting.contains(&state.chain.term())
    }

    /// From the latest to the earliest.
    fn what_is_untold(&self, latest: u32) -> impl Iterator<Item = &Untold> {
        std::iter::successors(self.untold.get(latest as usize), |it| self.untold.get(it.before as usize))
    }

    /// Tells an agent what it is yet to be told, so that its code stands where it is taken to be; if it does not, the run is stopped.
    ///
    /// # Safety
    /// `core` is valid, and no reference to it exists. The agent is prepared or suspended.
    #[inline(never)]
    pub(crate) unsafe fn catch_up(core: *mut Self, agent: usize) {
        // SAFETY: the caller's promise; the reference is not used any more when the agent goes on.
        let me = unsafe { &mut *core };
        debug_assert!(me.has_stack_as_noted(agent), "somebody wrote to the stack of an agent that did not run");
        let (hash, answer, ahead) = (me.hash, me.answer, me.agents[agent].state);
        me.save_replicas();
        let untold: Vec<Untold> = me.what_is_untold(ahead.untold).copied().collect();
        me.agents[agent].state.untold = NOTHING;
        for next in untold.iter().rev() {
            // SAFETY: as above.
            let me = unsafe { &mut *core };
            me.answer = next.answer;
            me.agents[agent].state.chain = next.told;
            me.foresight.acted = false;
            // SAFETY: the caller's promise; this is what the agent waits for.
            unsafe { Self::go_on(core, agent) };
            // SAFETY: the agent is suspended again and holds no reference.
            let me = unsafe { &mut *core };
            if me.stop.is_some() || me.foresight.acted || me.agents[agent].state.chain != next.arrives {
                me.does_not_do_the_same(agent);
                break;
            }
        }
        // SAFETY: as above.
        let me = unsafe { &mut *core };
        let behind = me.agents[agent].state;
        // SAFETY: operations that agents are taken to ask for are kept as long as it is remembered how they come there.
        let is_same = behind.status == ahead.status && unsafe { &*ahead.op }.is_same(me.op(agent));
        if !is_same {
            me.does_not_do_the_same(agent);
        }
        me.agents[agent].state.chain = ahead.chain;
        (me.hash, me.answer) = (hash, answer);
        me.restore_replicas();
    }

    fn does_not_do_the_same(&mut self, agent: usize) {
        let name = &self.programs[cpu_of(agent)].0;
        let sentence = format!(
            "{name} does something else than it once did after the same answers: it keeps state outside the arena"
        );
        self.misuse(MisuseKind::HiddenState, sentence);
    }

    /// An agent is about to run. Returns what it is known by.
    #[inline(always)]
    pub(crate) fn sets_out(&mut self, agent: usize) -> Chain {
        (self.foresight.acted, self.foresight.names) = (false, Names::Kept);
        self.agents[agent].state.chain
    }

    /// An agent that was known by `told` is suspended again. `asked`: what it was known by before it was told.
    #[inline(always)]
    pub(crate) fn arrived(&mut self, agent: usize, told: Chain, asked: Option<Chain>) {
        if self.stop.is_some() || !self.foresees() {
            return;
        }
        if self.foresight.acted || !self.can_be_foreseen(agent) {
            if let Some(asked) = asked {
                self.foresight.acting.insert(asked.term());
            }
        } else if self.foresight.ways.len() < MOST_WAYS {
            let state = &self.agents[agent].state;
            let op = (state.status == Status::Asks).then(|| Box::new(*self.op(agent)));
            let way = Way { chain: state.chain, op, names: self.foresight.names };
            let key = self.way_of(agent, told);
            self.foresight.ways.entry(key).or_insert(way);
        }
    }

    /// Whether an agent has come to where it may be taken to be in every state: it is done, or asks for an operation that is a step in each.
    fn can_be_foreseen(&self, agent: usize) -> bool {
        match self.agents[agent].state.status {
            Status::Done => return true,
            Status::Asks => {}
            Status::Idle | Status::Runs => return false,
        }
        let op = self.op(agent);
        if op.test.is_some() && !op.captures_nothing || op.kind == Kind::InterruptReturn {
            // Whether there is a return to be made is up to the store buffer.
            return false;
        }
        if op.kind.accesses_word().is_none() || self.machine.reduction == Reduction::None {
            return true;
        }
        let bytes = usize::from(op.bytes);
        let is_private = self.block_at(op.address).is_none() && !self.is_shared(op.address, bytes);
        let is_constant = op.kind == Kind::Load && !self.is_written(op.address, bytes);
        !is_private && !is_constant
    }
}
