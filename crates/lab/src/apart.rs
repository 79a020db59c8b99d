//! The exhaustive search by members that share no memory: in other processes, on other machines.
//!
//! Every member has a machine of its own, built in the same way. A state cannot be sent: it is on the stacks of the code. Its fingerprint can be, and so can the
//! way to it. Whoever comes to a state claims it by its fingerprint, and goes on from it if nobody had. So each state is gone on from once, by one of
//! the members, and takes all its choices then: states, steps and final states add up to those of one thread alone.
//!
//! An answer to a claim comes later. Meanwhile the member takes the other choices, and goes on from other states that are its own. What it is to go on from lies on
//! a stack, the latest on top, as ways that share their beginnings (`tree.rs`); the machine goes from one to the next by undoing to where they part, and doing the rest again.
//!
//! What is known of words (`quiet.rs`) is told to everybody, and joined. An assumption of one and what contradicts it in another meet then, and
//! all begin again, knowing better.
//!
//! Who sends what to whom, and when all are done, is for others to say: here is what one member does.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::agent::Attending;
use crate::checkpoint::{Checkpoint, Snapshot};
use crate::choice::{Choice, may_end};
use crate::explore::{Ended, Explorer, Found};
use crate::limits::{Limit, Phase};
use crate::team::{Part, Sum};
use crate::trace::Trace;
use crate::verdict::{Misuse, MisuseKind, Report, Verdict};
use crate::visited::{Fingerprints, scattered};

mod claims;
mod tree;
mod way;

pub use claims::Claims;
use tree::{Node, ROOT, Tree};
pub use way::Way;

/// A state that was come to and claimed. It is answered once: [`Apart::answer`].
#[derive(PartialEq, Eq, Debug)]
#[must_use = "what is claimed by nobody is not gone on from"]
pub struct Claimed(Node);

/// What comes of a claim at once.
#[derive(Debug)]
pub enum Claim {
    /// The state is this member's.
    Granted(Claimed),
    /// Somebody had claimed it.
    Taken(Claimed),
    /// It will be known later.
    Asked,
}

/// Why a search cannot or should not go on.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Trouble {
    /// After these choices a rule is broken: of the search, or of the code under test.
    Found(Vec<u32>),
    /// Something was assumed of a word that is not so: all begin again.
    WrongAssumption,
    /// A limit was reached.
    Limit(Limit),
}

/// What a member has counted.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Steps, each from another state or to another one.
    pub transitions: u64,
    /// The longest run.
    pub depth: u64,
    /// Distinct states in which every CPU was done.
    pub ends: u64,
    /// What was observed in these.
    pub observations: BTreeSet<Vec<u64>>,
}

impl Counts {
    /// Adds what another member has counted.
    pub fn add(&mut self, other: Self) {
        self.transitions += other.transitions;
        self.depth = self.depth.max(other.depth);
        self.ends += other.ends;
        self.observations.extend(other.observations);
    }
}

/// What all members together have come to.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// The sum of what members have counted.
    pub counts: Counts,
    /// States in all [`Claims`].
    pub states: u64,
    /// Bytes of all [`Claims`].
    pub bytes: u64,
    /// Why the search ended early, if it did.
    pub trouble: Option<Trouble>,
}

/// A member of a search whose members share no memory: [`crate::Lab::explore_apart`].
///
/// Its owner carries claims, ways and news to other members, and what they send to it. When nobody has anything to do and nothing is on
/// its way, all is explored.
pub struct Apart<'e, 'a> {
    explorer: Explorer<'e, 'a>,
    _attending: Attending,
    tree: Tree,
    /// What is to be gone on from, held. The last comes first.
    pending: VecDeque<Node>,
    /// The way to where the machine is, from the root on. The last is held.
    here: Vec<Node>,
    /// Its own work.
    report: Report,
    root: u128,
    /// What everybody was told of words.
    told: Vec<u32>,
    choices: Vec<Choice>,
    /// What earlier runs of this search have taken.
    earlier: Duration,
    /// What is kept of each state.
    fingerprints: Fingerprints,
}

impl<'e, 'a> Apart<'e, 'a> {
    pub(crate) fn new(explorer: Explorer<'e, 'a>) -> Self {
        let attending = Attending::new(explorer.core_pointer());
        explorer.core().quiet.begin();
        let fingerprints = explorer.limits.fingerprints;
        let mut apart = Self {
            explorer,
            _attending: attending,
            tree: Tree::new(),
            pending: VecDeque::new(),
            here: Vec::new(),
            report: Report::empty(),
            root: 0,
            told: Vec::new(),
            choices: Vec::new(),
            earlier: Duration::ZERO,
            fingerprints,
        };
        apart.begin();
        apart
    }

    /// Starts the programs. Nothing is to be done yet.
    fn begin(&mut self) {
        self.explorer.core().undo_all();
        self.tree = Tree::new();
        self.tree.hold(ROOT);
        self.here = vec![ROOT];
        self.pending.clear();
        self.report = Report::empty();
        self.explorer.start();
        self.root = self.explorer.core().fingerprint();
    }

    /// Begins again, because something was assumed of a word that is not so. All do, and all know the same of words.
    pub fn begin_again(&mut self) {
        self.explorer.core().quiet.begin_again_telling(&mut self.told);
        self.begin();
    }

    /// What is kept of each state.
    #[must_use]
    pub fn fingerprints(&self) -> Fingerprints {
        self.fingerprints
    }

    /// The initial state. One of the members claims it.
    pub fn root(&mut self) -> (u128, Claimed) {
        self.tree.hold(ROOT);
        (self.root, Claimed(ROOT))
    }

    /// How many states are to be gone on from.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The answer to a claim.
    pub fn answer(&mut self, claim: Claim) {
        match claim {
            Claim::Granted(Claimed(node)) => self.pending.push_back(node),
            Claim::Taken(Claimed(node)) => self.tree.let_go(node),
            Claim::Asked => {}
        }
    }

    /// Goes on from at most so many states that are its own, and claims those that it comes to.
    ///
    /// # Errors
    /// There is something that all should know. What was not done is still to be done, unless a rule is broken or all begin again.
    pub fn work(&mut self, states: usize, claim: &mut dyn FnMut(u128, Claimed) -> Claim) -> Result<(), Trouble> {
        if self.explorer.core().stop.is_some() {
            return Err(Trouble::Found(Vec::new()));
        }
        for _ in 0..states {
            let Some(node) = self.pending.pop_back() else { break };
            if self.tree.depth(node) as u64 > self.explorer.limits.depth {
                self.pending.push_back(node);
                return Err(Trouble::Limit(Limit::Depth));
            }
            self.go_to(node)?;
            self.go_on_from(node, claim)?;
        }
        Ok(())
    }

    /// Takes all choices of the state in which the machine is.
    fn go_on_from(&mut self, node: Node, claim: &mut dyn FnMut(u128, Claimed) -> Claim) -> Result<(), Trouble> {
        self.report.depth = self.report.depth.max(self.tree.depth(node) as u64);
        let mut choices = std::mem::take(&mut self.choices);
        choices.clear();
        self.explorer.core().choices(&mut choices);
        if may_end(&choices) && self.explorer.end(&mut self.report).is_err() {
            return Err(self.found(self.tree.path(node)));
        }
        for (number, &choice) in choices.iter().enumerate() {
            if !self.explorer.apply(choice) {
                let way = self.tree.path(node).into_iter().chain([choice]);
                return Err(self.found(way.collect()));
            }
            let child = self.tree.add(node, choice);
            let claim = claim(self.explorer.core().fingerprint(), Claimed(child));
            let stays = matches!(claim, Claim::Granted(_)) && number + 1 == choices.len();
            if stays {
                // It is the next to go on from.
                self.arrive(child);
            } else {
                self.explorer.core().undo();
            }
            self.answer(claim);
        }
        self.choices = choices;
        self.tree.let_go(node);
        if self.explorer.core().quiet.is_wrong() {
            return Err(Trouble::WrongAssumption);
        }
        Ok(())
    }

    /// The machine has come to a node next to where it was, or will.
    fn arrive(&mut self, node: Node) {
        self.tree.hold(node);
        self.let_go_of_here();
        self.here.push(node);
    }

    fn let_go_of_here(&mut self) {
        if let Some(&last) = self.here.last() {
            self.tree.let_go(last);
        }
    }

    /// Brings the machine to a node that is held.
    fn go_to(&mut self, node: Node) -> Result<(), Trouble> {
        self.tree.hold(node);
        self.let_go_of_here();
        let mut missing = Vec::new();
        let mut meeting = node;
        while self.here.get(self.tree.depth(meeting)) != Some(&meeting) {
            missing.push(meeting);
            meeting = self.tree.parent(meeting);
        }
        while self.here.len() > self.tree.depth(meeting) + 1 {
            self.here.pop();
            self.explorer.core().undo();
        }
        let before = self.explorer.transitions;
        for node in missing.into_iter().rev() {
            let choice = self.tree.choice(node);
            if !self.is_possible(choice) {
                return Err(self.found(self.tree.path(node)));
            }
            self.here.push(node);
        }
        self.explorer.transitions = before;
        Ok(())
    }

    /// Takes a choice that was taken before, here or by another member. Returns whether it could be, and the run goes on.
    fn is_possible(&mut self, choice: Choice) -> bool {
        self.choices.clear();
        self.explorer.core().choices(&mut self.choices);
        self.choices.contains(&choice) && self.explorer.apply(choice)
    }

    fn found(&self, way: Vec<Choice>) -> Trouble {
        if self.explorer.core().quiet.is_wrong() {
            return Trouble::WrongAssumption;
        }
        Trouble::Found(way.into_iter().map(Choice::bits).collect())
    }

    /// Looks at the clock, tells the progress of all, and compares with the limits: states and steps of all members, and the bytes that this one keeps.
    ///
    /// # Errors
    /// A limit is reached.
    pub fn look_around(&mut self, states: u64, transitions: u64, bytes: usize) -> Result<(), Trouble> {
        if states > self.explorer.limits.states {
            return Err(Trouble::Limit(Limit::States));
        }
        let kept = bytes + self.tree.bytes() + self.pending.capacity() * size_of::<Node>();
        let looked = self.explorer.look_at_clock(Phase::Exploring, states, transitions);
        match looked.and_then(|()| self.explorer.look_at_memory(kept)) {
            Err(Ended::Limit(limit)) => Err(Trouble::Limit(limit)),
            _ => Ok(()),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Report { depth, ends, observations, .. } = &self.report;
        let (depth, ends) = (*depth, *ends);
        Counts { transitions: self.explorer.transitions, depth, ends, observations: observations.clone() }
    }

    /// Steps so far.
    #[must_use]
    pub fn transitions(&self) -> u64 {
        self.explorer.transitions
    }

    /// What this member has learnt and assumed of words since it was asked last. All others have to be told.
    pub fn news(&mut self) -> Vec<(u32, u32)> {
        self.explorer.core().quiet.news(&mut self.told)
    }

    /// What another member has told everybody.
    pub fn learn(&mut self, news: &[(u32, u32)]) {
        if !self.explorer.core().quiet.learn(news, &mut self.told) {
            let why = "the labs of a search were not built alike: their arenas differ in size";
            self.explorer.core().misuse(MisuseKind::HiddenState, why);
        }
    }

    /// Whether something was assumed of a word that is not so.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.explorer.core().quiet.is_wrong()
    }

    /// Gives away so many of the states that are to be gone on from, those next to the beginning, where most is to be done.
    pub fn give(&mut self, states: usize) -> Vec<Way> {
        let given: Vec<Node> = self.pending.drain(..states.min(self.pending.len())).collect();
        let paths: Vec<_> = given.iter().map(|&node| self.tree.path(node)).collect();
        given.into_iter().for_each(|node| self.tree.let_go(node));
        way::shorten(&paths)
    }

    /// Takes what another member gave away.
    pub fn take(&mut self, ways: Vec<Way>) {
        let mut nodes: Vec<Node> = Vec::new();
        for Way { shared, rest } in ways {
            nodes.drain((shared as usize).min(nodes.len())..).rev().for_each(|node| self.tree.let_go(node));
            for bits in rest {
                let parent = nodes.last().copied().unwrap_or(ROOT);
                nodes.push(self.tree.add(parent, Choice::from_bits(bits)));
            }
            let last = nodes.last().copied().unwrap_or(ROOT);
            self.tree.hold(last);
            self.pending.push_front(last);
        }
        nodes.into_iter().rev().for_each(|node| self.tree.let_go(node));
    }

    /// This member's share of the search, when nothing is on its way to anybody.
    pub fn snapshot<R>(&self, claims: &Claims, read: impl FnOnce(&Snapshot<'_>) -> R) -> R {
        let Counts { transitions, depth, ends, observations } = self.counts();
        let sum = Sum { states: claims.states(), transitions, depth, ends, observations };
        let parts: Vec<Part> = self.pending.iter().map(|&node| Part::new(self.tree.path(node), Vec::new())).collect();
        read(&Snapshot {
            root: self.root,
            elapsed: self.elapsed(),
            fingerprints: claims.fingerprints(),
            sum: &sum,
            parts: &parts,
            visited: &|| claims.iter(),
            quiet: self.explorer.core().quiet.known().facts(),
        })
    }

    /// Goes on where a snapshot was taken. All members do, each with its own.
    ///
    /// # Errors
    /// The lab is not what it was then.
    pub fn restore(&mut self, checkpoint: Checkpoint) -> Result<Claims, OtherLab> {
        if !self.explorer.core().quiet.restore(&checkpoint.quiet) {
            return Err(OtherLab::Memory);
        }
        self.told.clear();
        // Everybody's checkpoint says so.
        self.learn(&checkpoint.quiet);
        self.begin();
        if self.root != checkpoint.root {
            return Err(OtherLab::Start);
        }
        let mut claims = Claims::new(checkpoint.fingerprints);
        scattered(&checkpoint.visited).for_each(|fingerprint| {
            claims.claim(fingerprint);
        });
        let paths: Vec<_> = checkpoint.parts.into_iter().rev().map(|part| part.base).collect();
        self.take(way::shorten(&paths));
        self.explorer.transitions = checkpoint.transitions;
        let Checkpoint { depth, ends, observations, elapsed, .. } = checkpoint;
        self.report = Report { depth, ends, observations, ..Report::empty() };
        self.earlier = elapsed;
        self.fingerprints = claims.fingerprints();
        Ok(claims)
    }

    /// Time that the search has taken, earlier runs included.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.earlier + self.explorer.elapsed()
    }

    /// One member's, when nobody works any more: what the search has come to. `None` if this has shown that something was assumed that is not so: all begin again,
    /// after everybody was told the news. The shortest run is looked for by this member alone, as by a thread alone.
    pub fn conclude(&mut self, total: &Total) -> Option<Report> {
        self.explorer.rewind();
        let verdict = match &total.trouble {
            None => {
                // No news of a run that has shown something else meanwhile.
                let verdict = if self.is_wrong() { Verdict::Safe } else { self.explorer.audit_again() };
                self.explorer.rewind();
                verdict
            }
            Some(Trouble::WrongAssumption) => Verdict::Safe,
            Some(Trouble::Limit(limit)) => Verdict::Bounded(*limit),
            Some(Trouble::Found(way)) => self.explain(way),
        };
        self.here = vec![ROOT];
        if self.is_wrong() || total.trouble == Some(Trouble::WrongAssumption) {
            return None;
        }
        let Total { counts, states, bytes, .. } = total.clone();
        let Counts { transitions, depth, ends, observations } = counts;
        let counted = Report { states, transitions, depth, ends, observations, ..Report::empty() };
        let (elapsed, fingerprints) = (self.elapsed(), self.fingerprints());
        Some(Report { verdict, visited_bytes: bytes, fingerprints, elapsed, ..counted })
    }

    /// From a run that one of the members has found to a verdict.
    fn explain(&mut self, way: &[u32]) -> Verdict {
        let path: Vec<Choice> = way.iter().copied().map(Choice::from_bits).collect();
        let before_last = path.len().saturating_sub(1);
        if !path[..before_last].iter().all(|&choice| self.is_possible(choice)) {
            let sentence = "steps that were taken by one member of a search cannot be taken by another: code keeps state outside the arena";
            let (kind, sentence) = (MisuseKind::HiddenState, sentence.to_owned());
            return Verdict::Error(Box::new(Misuse { kind, sentence, trace: Trace::default() }));
        }
        if let Some(&last) = path.last() {
            self.is_possible(last);
        }
        self.explorer.verdict_of(Err(Ended::Found(Found { path })))
    }
}

/// Why a search cannot go on in this lab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OtherLab {
    /// It has other memory than then.
    Memory,
    /// It begins in another state.
    Start,
}

impl std::fmt::Display for OtherLab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "it is of a lab with other memory than this one",
            Self::Start => "it is of a lab that begins in another state",
        })
    }
}
