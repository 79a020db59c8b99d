//! The second search: the shortest run that breaks a rule, and of these one with the fewest context switches.
//!
//! Level by level, where a level holds the states reached in so many steps. A state is taken apart by the CPU that moved last, because
//! that decides whether the next step is a switch. States are not kept, only how they were reached; the machine goes from one to
//! the next by undoing to where their paths part, and doing the rest again. As the nodes of a level are in the order of their parents, that is
//! short on the average.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::choice::Choice;
use crate::explore::{Explorer, Found};
use crate::hash::{self, BuildSame};
use crate::limits::Phase;

const NOBODY: usize = 0xff;

#[derive(Clone, Copy)]
struct Node {
    parent: u32,
    choice: Choice,
    switches: u32,
}

/// Searches among at most `most` states. The machine is in its initial state.
pub(crate) fn search(explorer: &mut Explorer<'_, '_>, most: u64) -> Option<Found> {
    let mut nodes = vec![Node { parent: 0, choice: Choice::new(crate::choice::Turn::Run, NOBODY, 0), switches: 0 }];
    let mut known: HashMap<u128, u32, BuildSame> = HashMap::default();
    let mut path: Vec<u32> = vec![0];
    let mut level = 0..1;
    let mut choices = Vec::new();
    let mut steps = 0u64;
    for depth in 0.. {
        // Best run that ends in a state of this level, and best one whose next step breaks a rule: (switches, node, choice).
        let mut ends: Option<(u32, u32)> = None;
        let mut breaks: Option<(u32, u32, Choice)> = None;
        let next_level = nodes.len() as u32;
        for node in level.clone() {
            go_to(explorer, &nodes, &mut path, node, depth);
            let Node { switches, choice: last, .. } = nodes[node as usize];
            choices.clear();
            explorer.core().choices(&mut choices);
            if choices.is_empty() && ends.is_none_or(|(best, _)| switches < best) && explorer.judge_end().is_err() {
                ends = Some((switches, node));
            }
            for &choice in &choices {
                let switched = last.cpu() != NOBODY && last.cpu() != choice.cpu();
                let switches = switches + u32::from(switched);
                steps += 1;
                if !explorer.apply(choice) {
                    if breaks.is_none_or(|(best, ..)| switches < best) {
                        breaks = Some((switches, node, choice));
                    }
                } else {
                    let key = explorer.core().fingerprint().wrapping_add(hash::spread(choice.cpu() as u64));
                    match known.entry(key) {
                        Entry::Vacant(place) => {
                            place.insert(nodes.len() as u32);
                            nodes.push(Node { parent: node, choice, switches });
                        }
                        Entry::Occupied(place) => {
                            let index = *place.get();
                            let other = &mut nodes[index as usize];
                            if index >= next_level && switches < other.switches {
                                *other = Node { parent: node, choice, switches };
                            }
                        }
                    }
                }
                explorer.core().undo();
                if steps.is_multiple_of(1 << 12)
                    && explorer.look_at_clock(Phase::Shortening, nodes.len() as u64).is_err()
                {
                    return None;
                }
            }
        }
        if let Some((_, node)) = ends {
            return Some(Found { path: choices_to(&nodes, node) });
        }
        if let Some((_, node, choice)) = breaks {
            let mut path = choices_to(&nodes, node);
            path.push(choice);
            return Some(Found { path });
        }
        level = next_level..nodes.len() as u32;
        if level.is_empty() || nodes.len() as u64 > most {
            return None;
        }
    }
    None
}

/// Brings the machine from the state of `path` to that of `node`, at this depth.
fn go_to(explorer: &mut Explorer<'_, '_>, nodes: &[Node], path: &mut Vec<u32>, node: u32, depth: usize) {
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
        let undisturbed = explorer.apply(nodes[node as usize].choice);
        debug_assert!(undisturbed, "a run that went on before goes on again");
        path.push(node);
    }
}

fn choices_to(nodes: &[Node], mut node: u32) -> Vec<Choice> {
    let mut choices = Vec::new();
    while node != 0 {
        choices.push(nodes[node as usize].choice);
        node = nodes[node as usize].parent;
    }
    choices.reverse();
    choices
}
