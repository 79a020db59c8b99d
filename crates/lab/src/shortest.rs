//! The second search: the shortest run that breaks a rule, and of these one with the fewest context switches.
//!
//! Level by level, where a level holds the states that are reached in so many steps and no fewer. States are not kept, only how they were
//! reached; the machine goes from one to the next by undoing to where their paths part, and doing the rest again (`route.rs` says in which order).
//!
//! Every shortest run takes a step from one level to the next each time, so these steps are kept, too. Once the level is known in which a rule is broken,
//! the fewest context switches are found among them alone, by going through them once: for each node and each CPU that may have moved last.
//!
//! The search begins with nothing known of words (`quiet.rs`), so it makes many an assumption that turns out wrong. What was found before the first step that relied on it stays right: the search goes
//! on from that level.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::choice::{Choice, may_end};
use crate::exchange::Sameness;
use crate::explore::{CLOCK_EVERY, Explorer, Found, UNKNOWN};
use crate::hash::BuildSame;
use crate::limits::Phase;
use crate::quiet::QuietWords;
use crate::route;

/// A step from a node to one of the next level.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) choice: Choice,
}

/// Where a run breaks a rule: at the end of a node, or by a step from it.
struct Broken {
    node: u32,
    by: Option<Choice>,
}

/// A way to a node.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub(crate) parent: u32,
    pub(crate) choice: Choice,
}

/// Where a level begins.
#[derive(Clone, Copy)]
pub(crate) struct Level {
    pub(crate) node: usize,
    /// The first step that leads from it.
    pub(crate) step: usize,
    /// So many assumptions were made before.
    assumptions: usize,
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Search {
    /// In the order of their levels; of each level, in the order of their first parents, and these in that of their choices.
    pub(crate) nodes: Vec<Node>,
    /// Which level a state belongs to: it has a number among those of this level's nodes.
    known: HashMap<u128, u32, BuildSame>,
    /// In the order of the nodes that they lead from.
    pub(crate) steps: Vec<Step>,
    /// The last one is gone on from next.
    pub(crate) levels: Vec<Level>,
    /// When so many steps were made, it is time to look at the clock.
    look_next: u64,
}

impl Search {
    /// Searches among at most `most` states. The machine is in its initial state. Without an answer, an assumption may have turned out wrong: then [`Self::take_back`].
    pub(crate) fn go_on(&mut self, explorer: &mut Explorer<'_, '_>, most: u64) -> Option<Found> {
        // A run is to be done step by step, by the CPUs that it names.
        explorer.core().take_for_same(Sameness::Exact);
        if self.levels.is_empty() {
            self.nodes.push(Node { parent: 0, choice: Choice::NONE });
            self.known.insert(explorer.core().fingerprint(), 0);
            self.levels.push(Level { node: 0, step: 0, assumptions: explorer.core().quiet.assumptions() });
        }
        let mut path = vec![0];
        loop {
            let broken = self.next_level(explorer, &mut path)?;
            if !broken.is_empty() {
                return Some(fewest_switches(explorer.core().cpus(), self.nodes.len(), &self.steps, &broken));
            }
            let level = self.levels.last().expect("the one that was found just now");
            if level.node == self.nodes.len() || self.nodes.len() as u64 > most {
                return None;
            }
        }
    }

    /// Finds the level after the last one, unless rules are broken there: then says where. `None` if the search cannot go on.
    fn next_level(&mut self, explorer: &mut Explorer<'_, '_>, path: &mut Vec<u32>) -> Option<Vec<Broken>> {
        let first_step = self.steps.len();
        let first_new = self.nodes.len() as u32;
        let mut found = first_new;
        let mut ends: Vec<Broken> = Vec::new();
        let mut breaks: Vec<Broken> = Vec::new();
        let mut choices = Vec::new();
        let mut leads_to = Vec::new();
        for node in route::through(self) {
            if !self.go_to(explorer, path, node) {
                return None;
            }
            choices.clear();
            explorer.core().choices(&mut choices);
            if may_end(&choices) && explorer.judge_end().is_err() {
                ends.push(Broken { node, by: None });
            }
            // Where it is known what code does next, it need not run.
            leads_to.clear();
            explorer.look_ahead(&choices, &mut leads_to, |_| ());
            for (&choice, &foreseen) in choices.iter().zip(&leads_to) {
                let reached = if foreseen == UNKNOWN {
                    let reached = explorer.apply(choice).then(|| explorer.core().fingerprint());
                    explorer.core().undo();
                    reached
                } else {
                    explorer.transitions += 1;
                    Some(foreseen)
                };
                if explorer.core().quiet.is_wrong() {
                    // What was a step and what was not has changed: the ways to the nodes mean nothing now.
                    return None;
                }
                let Some(reached) = reached else {
                    breaks.push(Broken { node, by: Some(choice) });
                    continue;
                };
                let to = match self.known.entry(reached) {
                    Entry::Vacant(place) => {
                        found += 1;
                        *place.insert(found - 1)
                    }
                    Entry::Occupied(place) => *place.get(),
                };
                if to >= first_new {
                    self.steps.push(Step { from: node, to, choice });
                }
            }
            if explorer.transitions >= self.look_next {
                self.look_next = explorer.transitions + CLOCK_EVERY;
                explorer.look_at_clock(Phase::Shortening, u64::from(found), explorer.transitions).ok()?;
            }
        }
        // A rule that is broken at the end of a run of this length comes before one that takes another step.
        let mut broken = if ends.is_empty() { breaks } else { ends };
        broken.sort_by_key(|broken| broken.node);
        self.bring_into_order(first_step, (found - first_new) as usize);
        let assumptions = explorer.core().quiet.assumptions();
        self.levels.push(Level { node: first_new as usize, step: self.steps.len(), assumptions });
        Some(broken)
    }

    /// Names the nodes of a new level, so that nothing depends on the order in which those of the level before were gone through. `first`: the first step to them.
    fn bring_into_order(&mut self, first: usize, found: usize) {
        const NO_NAME: u32 = u32::MAX;
        let first_new = self.nodes.len();
        let mut names = vec![NO_NAME; found];
        self.steps[first..].sort_by_key(|step| step.from);
        for step in &mut self.steps[first..] {
            let name = &mut names[step.to as usize - first_new];
            if *name == NO_NAME {
                *name = self.nodes.len() as u32;
                self.nodes.push(Node { parent: step.from, choice: step.choice });
            }
            step.to = *name;
        }
    }

    /// Some assumption turned out wrong: forgets what was found since it was made. Afterwards the machine has to be started anew.
    pub(crate) fn take_back(&mut self, quiet: &mut QuietWords) {
        let right = quiet.right_assumptions();
        let kept = self.levels.partition_point(|level| level.assumptions <= right);
        if let Some(beyond) = self.levels.get(kept) {
            self.nodes.truncate(beyond.node);
        }
        self.levels.truncate(kept);
        match self.levels.last() {
            Some(level) => {
                self.steps.truncate(level.step);
                self.known.retain(|_, node| (*node as usize) < self.nodes.len());
                quiet.begin_again_after(level.assumptions);
            }
            None => {
                *self = Self::default();
                quiet.begin_again();
            }
        }
    }

    /// Brings the machine from the state of `path` to that of `node`, of the last level. Returns whether it is there: code that is not deterministic may stop on the way.
    fn go_to(&self, explorer: &mut Explorer<'_, '_>, path: &mut Vec<u32>, node: u32) -> bool {
        let mut missing = Vec::new();
        let mut ancestor = node;
        let mut at = self.levels.len() - 1;
        while path.get(at) != Some(&ancestor) {
            missing.push(ancestor);
            ancestor = self.nodes[ancestor as usize].parent;
            at -= 1;
        }
        while path.len() > at + 1 {
            path.pop();
            explorer.core().undo();
        }
        for &node in missing.iter().rev() {
            if explorer.step(self.nodes[node as usize].choice, UNKNOWN, |_| true).is_none() {
                return false;
            }
            path.push(node);
        }
        true
    }
}

/// The best way to a node when a certain CPU moved last.
#[derive(Clone, Copy)]
struct Best {
    switches: u32,
    /// The step that comes last; [`NO_STEP`] at the root.
    step: u32,
    /// Which CPU moved before that.
    before: u8,
}

const UNREACHED: u32 = u32::MAX;
const NO_STEP: u32 = u32::MAX;

/// Of the runs made of `steps` that end in one of `broken`, one with the fewest context switches.
fn fewest_switches(cpus: usize, nodes: usize, steps: &[Step], broken: &[Broken]) -> Found {
    let mut best = vec![Best { switches: UNREACHED, step: NO_STEP, before: 0 }; nodes * cpus];
    // Nobody has moved yet: whoever does first does not switch.
    best[..cpus].iter_mut().for_each(|first| first.switches = 0);
    // The cheapest way to go on from a node by a step of `cpu`: which CPU moved before, and the switches then.
    let onward = |best: &[Best], node: u32, cpu: usize| {
        let row = &best[node as usize * cpus..][..cpus];
        let ways = row.iter().enumerate().filter(|(_, way)| way.switches != UNREACHED);
        ways.map(|(last, way)| (way.switches + u32::from(last != cpu), last)).min().expect("the node was reached")
    };
    // Steps are in the order of the levels they start in: when one is looked at, all ways to where it starts are known.
    for (index, step) in steps.iter().enumerate() {
        let cpu = step.choice.cpu();
        let (switches, before) = onward(&best, step.from, cpu);
        let way = &mut best[step.to as usize * cpus + cpu];
        if switches < way.switches {
            *way = Best { switches, step: index as u32, before: before as u8 };
        }
    }
    let (_, end, mut last) = broken
        .iter()
        .enumerate()
        .map(|(index, end)| match end.by {
            Some(choice) => {
                let (switches, last) = onward(&best, end.node, choice.cpu());
                (switches, index, last)
            }
            None => {
                let row = &best[end.node as usize * cpus..][..cpus];
                let (last, way) = row.iter().enumerate().min_by_key(|(_, way)| way.switches).expect("there are CPUs");
                (way.switches, index, last)
            }
        })
        .min()
        .expect("some rule is broken");
    let end = &broken[end];
    let mut path: Vec<Choice> = end.by.into_iter().collect();
    let mut node = end.node;
    while let Best { step, before, .. } = best[node as usize * cpus + last]
        && step != NO_STEP
    {
        let step = steps[step as usize];
        path.push(step.choice);
        node = step.from;
        last = usize::from(before);
    }
    path.reverse();
    Found { path }
}
