//! What threads share that explore one machine together: the states that were visited, work to be had, and when to stop.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::choice::Choice;
use crate::explore::Ended;
use crate::limits::Limit;
use crate::quiet::Known;
use crate::verdict::Report;
use crate::visited::Visited;

/// Threads that explore one machine together. Each has a lab of its own, built in the same way, and calls [`crate::Lab::explore_in`].
///
/// # Example
///
/// ```
/// use lab::{Arena, Lab, Limits, Machine, MemoryOrder, Team};
/// use machine::{Cpu, Word64};
///
/// let team = Team::new(2);
/// let member = || {
///     let seat = team.seat();
///     let arena = Arena::new();
///     let count = arena.alloc(Word64::new(0));
///     let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
///     for number in 0..3 {
///         lab.cpu(format!("CPU{number}"), |cpu| {
///             cpu.fetch_add(count, 1);
///         });
///     }
///     lab.explore_in(seat, &Limits::default(), &mut |_| ())
/// };
/// let reports = std::thread::scope(|scope| {
///     let others = scope.spawn(member);
///     [member(), others.join().expect("nothing panics")]
/// });
/// let report = reports.into_iter().flatten().next().expect("one of the members has the report");
/// report.expect_safe();
/// ```
pub struct Team {
    visited: Vec<Shard>,
    state: Mutex<State>,
    changed: Condvar,
    /// Members that wait for work that nobody has given away yet.
    hungry: AtomicUsize,
    stops: AtomicBool,
    states: AtomicU64,
    transitions: AtomicU64,
    bytes: AtomicUsize,
}

/// On a cache line of its own.
#[repr(align(64))]
struct Shard(Mutex<Visited>);

/// Parts of the set, so that members seldom want the same one.
const SHARDS: usize = 1 << 10;

/// A state to go on from, and what to try there.
pub(crate) struct Work {
    pub(crate) path: Vec<Choice>,
    pub(crate) choices: Vec<Choice>,
}

#[derive(Default)]
struct State {
    /// Seats that were not given out yet.
    free: usize,
    /// Members that are there or may still come.
    members: usize,
    arrived: usize,
    meetings: u64,
    leader: Option<u64>,
    known: Option<Arc<Known>>,
    work: Vec<Work>,
    waiting: usize,
    outcome: Option<Ended>,
    sum: Sum,
    again: bool,
}

/// What members add up.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) states: u64,
    pub(crate) transitions: u64,
    pub(crate) depth: u64,
    pub(crate) ends: u64,
    pub(crate) observations: BTreeSet<Vec<u64>>,
}

/// A member's place in a team. Dropping it leaves the team: the others go on without.
pub struct Seat<'t> {
    team: &'t Team,
    number: u64,
    /// Whether a part of the search is in its hands.
    searches: Cell<bool>,
}

impl Team {
    /// For so many threads, at least one. All have to take a seat, and to explore or leave.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let size = size.max(1);
        Self {
            visited: (0..SHARDS).map(|_| Shard(Mutex::new(Visited::new()))).collect(),
            state: Mutex::new(State { free: size, members: size, ..State::default() }),
            changed: Condvar::new(),
            hungry: AtomicUsize::new(0),
            stops: AtomicBool::new(false),
            states: AtomicU64::new(0),
            transitions: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Joins.
    ///
    /// # Panics
    /// If more threads join than the team was made for.
    #[must_use]
    pub fn seat(&self) -> Seat<'_> {
        let mut state = self.state();
        state.free = state.free.checked_sub(1).expect("a team has as many seats as it was made for");
        Seat { team: self, number: state.free as u64, searches: Cell::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is half done when code panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn note_hunger(&self, state: &State) {
        self.hungry.store(state.waiting.saturating_sub(state.work.len()), Ordering::Relaxed);
    }
}

impl Seat<'_> {
    /// Waits until all members are here. Returns whether this one leads them: then, and until the next meeting, what it does alone comes before
    /// what others do after that.
    pub(crate) fn meet(&self) -> bool {
        let mut state = self.team.state();
        let meeting = state.meetings;
        state.leader.get_or_insert(self.number);
        state.arrived += 1;
        if state.arrived >= state.members {
            state.next_meeting();
            self.team.changed.notify_all();
        }
        while state.meetings == meeting {
            state = self.team.wait(state);
        }
        state.leader == Some(self.number)
    }

    /// The leader's: what is known of words, for all.
    pub(crate) fn publish(&self, known: Arc<Known>) {
        self.team.state().known = Some(known);
    }

    pub(crate) fn published(&self) -> Option<Arc<Known>> {
        self.team.state().known.clone()
    }

    /// The leader's: a search begins, of one state.
    pub(crate) fn begin(&self, root: u128, work: Work) {
        let team = self.team;
        for shard in &team.visited {
            *shard.0.lock().unwrap_or_else(PoisonError::into_inner) = Visited::new();
        }
        let shard_bytes = Visited::new().bytes();
        let mut state = team.state();
        state.work = vec![work];
        state.waiting = 0;
        state.outcome = None;
        state.sum = Sum { states: 1, ..Sum::default() };
        team.bytes.store(SHARDS * shard_bytes, Ordering::Relaxed);
        team.states.store(1, Ordering::Relaxed);
        team.transitions.store(0, Ordering::Relaxed);
        team.stops.store(false, Ordering::Relaxed);
        team.note_hunger(&state);
        drop(state);
        self.insert(root);
    }

    /// Adds a state. Returns whether it is new.
    #[inline]
    pub(crate) fn insert(&self, fingerprint: u128) -> bool {
        // A shard finds its place by the upper half.
        let shard = &self.team.visited[fingerprint as usize % SHARDS];
        let mut visited = shard.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = visited.bytes();
        let is_new = visited.insert(fingerprint);
        let grown = visited.bytes() - before;
        if grown != 0 {
            self.team.bytes.fetch_add(grown, Ordering::Relaxed);
        }
        is_new
    }

    /// Bytes that visited states take.
    pub(crate) fn bytes(&self) -> usize {
        self.team.bytes.load(Ordering::Relaxed)
    }

    /// Work to be done; `None` if there is none any more.
    pub(crate) fn work(&self) -> Option<Work> {
        let team = self.team;
        let mut state = team.state();
        state.waiting += 1;
        loop {
            if team.stops.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(work) = state.work.pop() {
                state.waiting -= 1;
                self.searches.set(true);
                team.note_hunger(&state);
                return Some(work);
            }
            if state.waiting == state.members {
                // Nobody works who could give any away.
                team.stops.store(true, Ordering::Relaxed);
                team.changed.notify_all();
                return None;
            }
            team.note_hunger(&state);
            state = team.wait(state);
        }
    }

    /// Whether somebody waits for work.
    #[inline(always)]
    pub(crate) fn is_wanted(&self) -> bool {
        self.team.hungry.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn give(&self, work: Work) {
        let mut state = self.team.state();
        state.work.push(work);
        self.team.note_hunger(&state);
        drop(state);
        self.team.changed.notify_all();
    }

    /// Whether the search is over, or to be given up.
    #[inline(always)]
    pub(crate) fn stops(&self) -> bool {
        self.team.stops.load(Ordering::Relaxed)
    }

    /// Adds what was counted since it was called last, and returns the states and steps of all.
    pub(crate) fn count(&self, states: u64, transitions: u64) -> (u64, u64) {
        let all_states = self.team.states.fetch_add(states, Ordering::Relaxed) + states;
        (all_states, self.team.transitions.fetch_add(transitions, Ordering::Relaxed) + transitions)
    }

    /// The search is over for this member; for everybody, if it ended early.
    pub(crate) fn finish(&self, ended: Result<(), Ended>, report: Report, transitions: u64) {
        self.searches.set(false);
        let mut state = self.team.state();
        let sum = &mut state.sum;
        sum.states += report.states;
        sum.transitions += transitions;
        sum.depth = sum.depth.max(report.depth);
        sum.ends += report.ends;
        sum.observations.extend(report.observations);
        if let Err(ended) = ended {
            // What somebody found is an answer; that a limit was reached is none.
            if state.outcome.is_none() || matches!((&ended, &state.outcome), (Ended::Found(_), Some(Ended::Limit(_)))) {
                state.outcome = Some(ended);
            }
            self.team.stops.store(true, Ordering::Relaxed);
            self.team.changed.notify_all();
        }
    }

    /// The leader's, when all have finished: what came of it.
    pub(crate) fn outcome(&self) -> (Result<(), Ended>, Sum) {
        let mut state = self.team.state();
        (state.outcome.take().map_or(Ok(()), Err), std::mem::take(&mut state.sum))
    }

    /// The leader's: whether everybody begins again.
    pub(crate) fn decide(&self, again: bool) {
        self.team.state().again = again;
    }

    /// What the leader decided.
    pub(crate) fn begins_again(&self) -> bool {
        self.team.state().again
    }
}

impl State {
    fn next_meeting(&mut self) {
        self.arrived = 0;
        self.meetings += 1;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.team.state();
        state.members -= 1;
        if self.searches.get() {
            state.outcome.get_or_insert(Ended::Limit(Limit::MemberLost));
            self.team.stops.store(true, Ordering::Relaxed);
        }
        if state.leader == Some(self.number) {
            state.leader = None;
        }
        if state.members > 0 && state.arrived >= state.members {
            state.next_meeting();
        }
        drop(state);
        self.team.changed.notify_all();
    }
}
