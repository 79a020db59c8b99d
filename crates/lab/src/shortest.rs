//! The second search: the shortest run that breaks a rule, and of these one with the fewest context switches.
//!
//! Level by level, where a level holds the states that are reached in so many steps and no fewer. States are not kept, only how they were
//! reached; the machine goes from one to the next by undoing to where their paths part, and doing the rest again. As the nodes of a
//! level are in the order of their parents, that is short on the average.
//!
//! Every shortest run takes a step from one level to the next each time, so these steps are kept, too. Once the level is known in which a rule is broken,
//! the fewest context switches are found among them alone, by going through them once: for each node and each CPU that may have moved last.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::choice::Choice;
use crate::exchange::Sameness;
use crate::explore::{Explorer, Found, UNKNOWN};
use crate::hash::BuildSame;
use crate::limits::Phase;

/// A step from a node to one of the next level.
#[derive(Clone, Copy)]
struct Step {
    from: u32,
    to: u32,
    choice: Choice,
}

/// Where a run breaks a rule: at the end of a node, or by a step from it.
struct Broken {
    node: u32,
    by: Option<Choice>,
}

/// How a node was reached first.
#[derive(Clone, Copy)]
struct Node {
    parent: u32,
    choice: Option<Choice>,
}

/// Searches among at most `most` states. The machine is in its initial state.
pub(crate) fn search(explorer: &mut Explorer<'_, '_>, most: u64) -> Option<Found> {
    // A run is to be done step by step, by the CPUs that it names.
    explorer.core().take_for_same(Sameness::Exact);
    let mut nodes = vec![Node { parent: 0, choice: None }];
    let mut known: HashMap<u128, u32, BuildSame> = HashMap::default();
    known.insert(explorer.core().fingerprint(), 0);
    let mut steps: Vec<Step> = Vec::new();
    let mut path: Vec<u32> = vec![0];
    let mut level = 0..1;
    let mut choices = Vec::new();
    let mut leads_to = Vec::new();
    let mut applied = 0u64;
    for depth in 0.. {
        let mut ends: Vec<Broken> = Vec::new();
        let mut breaks: Vec<Broken> = Vec::new();
        let next_level = nodes.len() as u32;
        for node in level.clone() {
            if !go_to(explorer, &nodes, &mut path, node, depth) {
                return None;
            }
            choices.clear();
            explorer.core().choices(&mut choices);
            if choices.is_empty() && explorer.judge_end().is_err() {
                ends.push(Broken { node, by: None });
            }
            // Most steps lead to states that are known. Where it is known what code does next, it need not run to find that out.
            leads_to.clear();
            explorer.look_ahead(&choices, &mut leads_to, |_| ());
            for (&choice, fingerprint) in choices.iter().zip(&leads_to) {
                applied += 1;
                if *fingerprint != UNKNOWN
                    && let Some(&to) = known.get(fingerprint)
                {
                    explorer.transitions += 1;
                    if to >= next_level {
                        steps.push(Step { from: node, to, choice });
                    }
                    continue;
                }
                let goes_on = explorer.apply(choice);
                if explorer.core().quiet.is_wrong() {
                    // What was a step and what was not has changed: the ways to the nodes mean nothing now.
                    return None;
                }
                if goes_on {
                    let to = match known.entry(explorer.core().fingerprint()) {
                        Entry::Vacant(place) => {
                            nodes.push(Node { parent: node, choice: Some(choice) });
                            *place.insert(nodes.len() as u32 - 1)
                        }
                        Entry::Occupied(place) => *place.get(),
                    };
                    if to >= next_level {
                        steps.push(Step { from: node, to, choice });
                    }
                } else {
                    breaks.push(Broken { node, by: Some(choice) });
                }
                explorer.core().undo();
                if explorer.core().quiet.is_wrong() {
                    // What was quiet is a step from now on: the paths to other nodes mean nothing any more.
                    return None;
                }
                if applied.is_multiple_of(1 << 12)
                    && explorer.look_at_clock(Phase::Shortening, nodes.len() as u64, explorer.transitions).is_err()
                {
                    return None;
                }
            }
        }
        // A rule that is broken at the end of a run of this length comes before one that takes another step.
        let broken = if ends.is_empty() { breaks } else { ends };
        if !broken.is_empty() {
            return Some(fewest_switches(explorer.core().cpus(), nodes.len(), &steps, &broken));
        }
        level = next_level..nodes.len() as u32;
        if level.is_empty() || nodes.len() as u64 > most {
            return None;
        }
    }
    None
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

/// Brings the machine from the state of `path` to that of `node`, at this depth. Returns whether it is there: code that is not deterministic may stop on the way.
fn go_to(explorer: &mut Explorer<'_, '_>, nodes: &[Node], path: &mut Vec<u32>, node: u32, depth: usize) -> bool {
    let mut missing = Vec::new();
    let mut ancestor = node;
    let mut at = depth;
    while path.get(at) != Some(&ancestor) {
        missing.push(ancestor);
        ancestor = nodes[ancestor as usize].parent;
        at -= 1;
    }
    while path.len() > at + 1 {
        path.pop();
        explorer.core().undo();
    }
    for &node in missing.iter().rev() {
        if let Some(choice) = nodes[node as usize].choice
            && !explorer.apply(choice)
        {
            return false;
        }
        path.push(node);
    }
    true
}
