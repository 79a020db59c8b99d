//! What threads share that explore one machine together: the states that were visited, work to be had, and when to stop.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::checkpoint::{AllVisited, Checkpoint, Snapshot};
use crate::choice::Choice;
use crate::explore::Ended;
use crate::limits::Limit;
use crate::quiet::Known;
use crate::verdict::Report;
use crate::visited::{Fingerprints, Visited, scattered};

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
pub struct Team<'s> {
    saver: Option<Saver<'s>>,
    visited: Vec<Shard>,
    state: Mutex<State>,
    changed: Condvar,
    /// Members that wait for work that nobody has given away yet.
    hungry: AtomicUsize,
    signal: AtomicU8,
    states: AtomicU64,
    transitions: AtomicU64,
    bytes: AtomicUsize,
}

/// Where checkpoints go, and how often.
pub(crate) struct Saver<'s> {
    pub(crate) every: Duration,
    pub(crate) save: Save<'s>,
    latest: Mutex<Instant>,
}

/// Keeps a snapshot, or says why it cannot.
type Save<'s> = Box<dyn Fn(&Snapshot<'_>) -> io::Result<()> + Send + Sync + 's>;

impl Saver<'_> {
    /// Whether it is time again.
    pub(crate) fn is_due(&self) -> bool {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= self.every
    }

    /// Takes a checkpoint.
    pub(crate) fn save(&self, snapshot: &Snapshot<'_>) -> io::Result<()> {
        let saved = (self.save)(snapshot);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        saved
    }
}

/// On a cache line of its own.
#[repr(align(64))]
struct Shard(Mutex<Visited>);

/// Parts of the set, so that members seldom want the same one.
const SHARDS: usize = 1 << 10;

/// A part of the search: a path, and what is untried in the states on it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Part {
    /// The way to the first of the states.
    pub(crate) base: Vec<Choice>,
    /// The choices of all of them.
    pub(crate) choices: Vec<Choice>,
    /// Of each state, where its own choices begin, and which is next. The one before the next led to the next state.
    pub(crate) frames: Vec<(usize, usize)>,
}

impl Part {
    /// All there is to do from the end of a path on.
    pub(crate) fn new(base: Vec<Choice>, choices: Vec<Choice>) -> Self {
        Self { base, choices, frames: vec![(0, 0)] }
    }
}

impl Part {
    /// Whether the frames lie in the choices, one after the other.
    pub(crate) fn is_sound(&self) -> bool {
        let ends = self.frames.iter().skip(1).map(|frame| frame.0).chain([self.choices.len()]);
        let is_within = |((first, next), end): (&(usize, usize), usize)| first <= next && *next <= end;
        let mut leads_on = self.frames.iter().rev().skip(1);
        self.frames.iter().zip(ends).all(is_within)
            && self.frames.first().is_some_and(|frame| frame.0 == 0)
            && leads_on.all(|(first, next)| first < next)
    }
}

/// What members are to do.
const GO_ON: u8 = 0;
/// Give back what they have and meet: there is more to do afterwards.
const PAUSE: u8 = 1;
/// Give back what they have and meet.
const STOP: u8 = 2;

/// What comes after a meeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Next {
    /// The same search goes on.
    GoOn,
    /// Another one, from the beginning.
    Again,
    /// Nothing.
    #[default]
    Over,
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
    checkpoint: Option<Checkpoint>,
    work: Vec<Part>,
    waiting: usize,
    outcome: Option<Ended>,
    fingerprints: Fingerprints,
    sum: Sum,
    next: Next,
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
    team: &'t Team<'t>,
    number: u64,
    /// Whether a part of the search is in its hands.
    searches: Cell<bool>,
}

impl<'s> Team<'s> {
    /// For so many threads, at least one. All have to take a seat, and to explore or leave.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let size = size.max(1);
        Self {
            saver: None,
            visited: (0..SHARDS).map(|number| Shard(Mutex::new(Visited::part(number, Fingerprints::Wide)))).collect(),
            state: Mutex::new(State { free: size, members: size, ..State::default() }),
            changed: Condvar::new(),
            hungry: AtomicUsize::new(0),
            signal: AtomicU8::new(GO_ON),
            states: AtomicU64::new(0),
            transitions: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Takes checkpoints: now and then, and when a limit ends the search. What `save` does with a snapshot ([`Snapshot::write`]) takes as long as nobody
    /// explores. If it fails, the search ends with [`crate::Limit::Unsaved`].
    #[must_use]
    pub fn saving(
        mut self,
        every: Duration,
        save: impl Fn(&Snapshot<'_>) -> io::Result<()> + Send + Sync + 's,
    ) -> Self {
        self.saver = Some(Saver { every, save: Box::new(save), latest: Mutex::new(Instant::now()) });
        self
    }

    /// Goes on where a checkpoint was taken. If the labs of the team are not what they were then, there is no verdict
    /// but [`crate::MisuseKind::OtherCode`].
    #[must_use]
    pub fn resuming(self, checkpoint: Checkpoint) -> Self {
        self.state().checkpoint = Some(checkpoint);
        self
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

    fn wait<'g>(&self, state: MutexGuard<'g, State>) -> MutexGuard<'g, State> {
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
    pub(crate) fn begin(&self, root: u128, part: Part, fingerprints: Fingerprints) {
        let team = self.team;
        let mut bytes = 0;
        for (number, shard) in team.visited.iter().enumerate() {
            let part = Visited::part(number, fingerprints);
            bytes += part.bytes();
            *shard.0.lock().unwrap_or_else(PoisonError::into_inner) = part;
        }
        let mut state = team.state();
        state.fingerprints = fingerprints;
        state.work = vec![part];
        state.outcome = None;
        state.sum = Sum { states: 1, ..Sum::default() };
        team.bytes.store(bytes, Ordering::Relaxed);
        team.states.store(1, Ordering::Relaxed);
        team.transitions.store(0, Ordering::Relaxed);
        drop(state);
        self.insert(root);
        self.go_on();
    }

    /// The leader's: the search goes on where a checkpoint was taken.
    pub(crate) fn restore(&self, checkpoint: Checkpoint) {
        let Checkpoint { visited, parts, states, transitions, depth, ends, observations, .. } = checkpoint;
        scattered(&visited).for_each(|fingerprint| {
            self.insert(fingerprint);
        });
        let mut state = self.team.state();
        state.work = parts;
        state.sum = Sum { states, transitions, depth, ends, observations };
        self.team.states.store(states, Ordering::Relaxed);
        self.team.transitions.store(transitions, Ordering::Relaxed);
        drop(state);
        self.go_on();
    }

    /// The leader's: members may take parts again.
    pub(crate) fn go_on(&self) {
        let mut state = self.team.state();
        state.waiting = 0;
        self.team.note_hunger(&state);
        self.team.signal.store(GO_ON, Ordering::Relaxed);
    }

    /// The leader's: everything that was found and is left to do, when nobody works.
    pub(crate) fn snapshot<R>(&self, root: u128, elapsed: Duration, read: impl FnOnce(&Snapshot<'_>) -> R) -> R {
        let state = self.team.state();
        let shards: Vec<_> =
            self.team.visited.iter().map(|shard| shard.0.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        let visited = || -> AllVisited<'_> {
            // Of 64 bits, the shard is the rest of what tells states apart.
            Box::new((0..).zip(&shards).flat_map(|(at, shard)| shard.iter().map(move |it| it | at)))
        };
        let quiet = state.known.as_deref().map(Known::facts).unwrap_or_default();
        let State { fingerprints, sum, work, .. } = &*state;
        read(&Snapshot { root, elapsed, fingerprints: *fingerprints, sum, parts: work, visited: &visited, quiet })
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

    /// It will be asked soon whether this state is new.
    #[inline]
    pub(crate) fn expect(&self, fingerprint: u128) {
        if let Ok(visited) = self.team.visited[fingerprint as usize % SHARDS].0.try_lock() {
            visited.expect(fingerprint);
        }
    }

    pub(crate) fn fingerprints(&self) -> Fingerprints {
        self.team.state().fingerprints
    }

    /// Bytes that visited states take.
    pub(crate) fn bytes(&self) -> usize {
        self.team.bytes.load(Ordering::Relaxed)
    }

    /// A part of the search; `None` if there is none any more, or members are to meet.
    pub(crate) fn part(&self) -> Option<Part> {
        let team = self.team;
        let mut state = team.state();
        state.waiting += 1;
        loop {
            if team.signal.load(Ordering::Relaxed) != GO_ON {
                return None;
            }
            if let Some(part) = state.work.pop() {
                state.waiting -= 1;
                self.searches.set(true);
                team.note_hunger(&state);
                return Some(part);
            }
            if state.waiting == state.members {
                // Nobody works who could give any away.
                team.signal.store(STOP, Ordering::Relaxed);
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

    pub(crate) fn give(&self, part: Part) {
        let mut state = self.team.state();
        state.work.push(part);
        self.team.note_hunger(&state);
        drop(state);
        self.team.changed.notify_all();
    }

    /// Whether members are to give back what they have.
    #[inline(always)]
    pub(crate) fn stops(&self) -> bool {
        self.team.signal.load(Ordering::Relaxed) != GO_ON
    }

    /// Asks all members to meet, after which the search goes on.
    pub(crate) fn pause(&self) {
        let state = self.team.state();
        // A stop is never taken back.
        let _ = self.team.signal.compare_exchange(GO_ON, PAUSE, Ordering::Relaxed, Ordering::Relaxed);
        drop(state);
        self.team.changed.notify_all();
    }

    /// Where checkpoints go, if anywhere.
    pub(crate) fn saver(&self) -> Option<&Saver<'_>> {
        self.team.saver.as_ref()
    }

    /// The leader's, once: the checkpoint to go on from.
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        self.team.state().checkpoint.take()
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
            let is_answer = matches!(ended, Ended::Found(_) | Ended::Hidden(_));
            if state.outcome.is_none() || is_answer && matches!(state.outcome, Some(Ended::Limit(_))) {
                state.outcome = Some(ended);
            }
            self.team.signal.store(STOP, Ordering::Relaxed);
            self.team.changed.notify_all();
        }
    }

    /// The leader's, when all have met: whether the search is to go on.
    pub(crate) fn is_paused(&self) -> bool {
        self.team.state().outcome.is_none() && self.team.signal.load(Ordering::Relaxed) == PAUSE
    }

    /// The leader's, when all have finished: what came of it.
    pub(crate) fn outcome(&self) -> Result<(), Ended> {
        self.team.state().outcome.take().map_or(Ok(()), Err)
    }

    /// The leader's, when all have finished: what was counted.
    pub(crate) fn sum(&self) -> Sum {
        std::mem::take(&mut self.team.state().sum)
    }

    /// The leader's: what everybody does next.
    pub(crate) fn decide(&self, next: Next) {
        self.team.state().next = next;
    }

    /// What the leader decided.
    pub(crate) fn next(&self) -> Next {
        self.team.state().next
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
            self.team.signal.store(STOP, Ordering::Relaxed);
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
