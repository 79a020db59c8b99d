//! The search for runs that go on for ever although everybody gets his turn.
//!
//! A run that never ends comes back to a state, because rounds of a loop forget ([`machine::Cpu::round`]): it is a way through a cycle of the graph of
//! states. Most cycles are harmless: a CPU waits for another, which the run never lets move. *Weakly fair* is a run in which whoever could move from some
//! moment on does move. Such a run stays, from some moment on, in one strongly connected component of the graph, and a component has one exactly if every source of steps
//! ([`crate::Schedule`]) that could move in each of its states does move along one of its edges: then a tour of all edges, for ever, is fair; otherwise nothing
//! in there is. So looking at the components decides it.
//!
//! *Somebody who could move* is somebody who has to in the end: code, a store that waits, an interrupt that is pending, a broadcast on its way. Two kinds of steps are
//! freedoms, which nobody may count on:
//!
//! * A walker that sets an accessed flag unasked ([`Turn::Speculate`]) may do so as often as it likes, and need never.
//! * The scheduler that moves a thread to another CPU ([`Turn::Move`], MODEL.md F15) does so finitely often, and need never. From its last move on, the run is one in the graph without
//!   moves, so the components are those of that graph; only the way there may have moves. In it no thread changes its place, so a source is one CPU's hardware, or one thread on
//!   one CPU, for all of the run that matters. And nobody waits for a move: a thread is always on some CPU. If what it waits for depends on which one, it may be left there for ever.
//!
//! The whole graph is kept, 12 bytes for each of its edges.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::choice::{Choice, Turn, may_end};
use crate::explore::{CLOCK_EVERY, Ended, Explorer, Found};
use crate::hash::BuildSame;
use crate::limits::Phase;
use crate::schedule::source;
use crate::verdict::Report;

/// A run that never ends.
pub(crate) struct Endless {
    /// How it begins, and one time around.
    pub(crate) path: Vec<Choice>,
    /// How many steps come before what is repeated.
    pub(crate) before: usize,
}

#[derive(Clone, Copy)]
struct Edge {
    from: u32,
    to: u32,
    choice: Choice,
}

impl Edge {
    /// Whether a run may take it again and again.
    fn lasts(&self) -> bool {
        self.choice.turn() != Turn::Move
    }

    /// Who takes it, if he has to in the end, as long as he can.
    fn owed_by(&self) -> Option<usize> {
        (!matches!(self.choice.turn(), Turn::Speculate | Turn::Move)).then(|| source(self.choice))
    }
}

/// The states and steps, in the order in which they were met; the initial state is the first.
#[derive(Default)]
struct Graph {
    nodes: usize,
    edges: Vec<Edge>,
    /// Where the edges of each state begin, when they are sorted. Those that last come first.
    begins: Vec<usize>,
}

/// Explores everything, and then looks for a run without an end.
pub(crate) fn search(explorer: &mut Explorer<'_, '_>, report: &mut Report) -> Result<(), Ended> {
    let mut graph = explore(explorer, report)?;
    graph.sort();
    match graph.endless() {
        Some(endless) => Err(Ended::Endless(endless)),
        None => Ok(()),
    }
}

/// A state on the path.
struct Frame {
    node: u32,
    /// Where its choices begin.
    first: usize,
    /// The next of them.
    next: usize,
}

fn explore(explorer: &mut Explorer<'_, '_>, report: &mut Report) -> Result<Graph, Ended> {
    let mut nodes: HashMap<u128, u32, BuildSame> = HashMap::default();
    let mut graph = Graph::default();
    let mut choices: Vec<Choice> = Vec::new();
    let mut frames: Vec<Frame> = Vec::new();
    let found = |frames: &[Frame], choices: &[Choice]| {
        Ended::Found(Found { path: frames.iter().map(|frame| choices[frame.next - 1]).collect() })
    };
    nodes.insert(explorer.core().fingerprint(), 0);
    report.states = 1;
    explorer.core().choices(&mut choices);
    if may_end(&choices) && explorer.end(report).is_err() {
        return Err(Ended::Found(Found { path: Vec::new() }));
    }
    frames.push(Frame { node: 0, first: 0, next: 0 });
    while let Some(frame) = frames.last_mut() {
        if frame.next == choices.len() {
            choices.truncate(frame.first);
            frames.pop();
            if !frames.is_empty() {
                explorer.core().undo();
            }
            continue;
        }
        let choice = choices[frame.next];
        frame.next += 1;
        let from = frame.node;
        if !explorer.apply(choice) {
            let wrong = explorer.core().quiet.is_wrong();
            return Err(if wrong { Ended::WrongAssumption } else { found(&frames, &choices) });
        }
        if explorer.transitions.is_multiple_of(CLOCK_EVERY) {
            explorer.look_at_clock(Phase::Exploring, report.states, explorer.transitions)?;
            let kept = nodes.capacity() * size_of::<(u128, u128)>() + 2 * graph.edges.capacity() * size_of::<Edge>();
            explorer.look_at_memory(kept + choices.len() * size_of::<Choice>())?;
        }
        let new = nodes.len() as u32;
        let to = match nodes.entry(explorer.core().fingerprint()) {
            Entry::Vacant(place) => *place.insert(new),
            Entry::Occupied(place) => *place.get(),
        };
        graph.edges.push(Edge { from, to, choice });
        if to != new {
            if explorer.core().quiet.is_wrong() {
                return Err(Ended::WrongAssumption);
            }
            explorer.core().undo();
            continue;
        }
        report.states += 1;
        report.depth = report.depth.max(explorer.core().depth() as u64);
        let first = choices.len();
        explorer.core().choices(&mut choices);
        if may_end(&choices[first..]) && explorer.end(report).is_err() {
            return Err(found(&frames, &choices));
        }
        frames.push(Frame { node: to, first, next: first });
        explorer.look_at_counts(report)?;
    }
    graph.nodes = nodes.len();
    Ok(graph)
}

impl Graph {
    fn sort(&mut self) {
        self.edges.sort_by_key(|edge| (edge.from, !edge.lasts()));
        self.begins = vec![0; self.nodes + 1];
        for edge in &self.edges {
            self.begins[edge.from as usize + 1] += 1;
        }
        for node in 0..self.nodes {
            self.begins[node + 1] += self.begins[node];
        }
    }

    fn edges(&self, node: u32) -> &[Edge] {
        &self.edges[self.begins[node as usize]..self.begins[node as usize + 1]]
    }

    /// Those that a run may take again and again.
    fn lasting(&self, node: u32) -> &[Edge] {
        let edges = self.edges(node);
        &edges[..edges.partition_point(Edge::lasts)]
    }

    /// The run without an end that begins soonest.
    fn endless(&self) -> Option<Endless> {
        let component = self.components();
        let is_inside = |edge: &Edge, number: u32| edge.lasts() && component[edge.to as usize] == number;
        let mut members: HashMap<u32, Vec<u32>> = HashMap::new();
        for edge in self.edges.iter().filter(|edge| is_inside(edge, component[edge.from as usize])) {
            members.entry(component[edge.from as usize]).or_default();
        }
        for (node, component) in component.iter().enumerate() {
            if let Some(members) = members.get_mut(component) {
                members.push(node as u32);
            }
        }
        let fair: BTreeSet<u32> = members
            .iter()
            .filter(|(number, members)| {
                let moves: BTreeSet<usize> = members
                    .iter()
                    .flat_map(|&node| self.edges(node))
                    .filter(|edge| is_inside(edge, **number))
                    .filter_map(Edge::owed_by)
                    .collect();
                self.always_owed(members).is_subset(&moves)
            })
            .map(|(&number, _)| number)
            .collect();
        if fair.is_empty() {
            return None;
        }
        let (start, mut path) = self.way(0, |node| fair.contains(&component[node as usize]), |_| true)?;
        let before = path.len();
        let number = component[start as usize];
        let mut at = start;
        let is_inside = |edge: &Edge| is_inside(edge, number);
        // Whoever could always move does so once; whoever could not is met where it cannot.
        let always = self.always_owed(&members[&number]);
        let owed: BTreeSet<usize> =
            members[&number].iter().flat_map(|&node| self.edges(node)).filter_map(Edge::owed_by).collect();
        for wanted in owed {
            let is_wanted = |edge: &&Edge| edge.owed_by() == Some(wanted);
            if always.contains(&wanted) {
                let moves = |node: u32| self.edges(node).iter().filter(is_wanted).find(|edge| is_inside(edge)).copied();
                let (node, way) = self.way(at, |node| moves(node).is_some(), is_inside)?;
                path.extend(way);
                let edge = moves(node)?;
                path.push(edge.choice);
                at = edge.to;
            } else {
                let rests = |node: u32| !self.edges(node).iter().any(|edge| is_wanted(&edge));
                let (node, way) = self.way(at, rests, is_inside)?;
                path.extend(way);
                at = node;
            }
        }
        if path.len() == before {
            // Nobody had to move: any step will do.
            let edge = *self.edges(at).iter().find(|edge| is_inside(edge))?;
            path.push(edge.choice);
            at = edge.to;
        }
        path.extend(self.way(at, |node| node == start, is_inside)?.1);
        Some(Endless { path, before })
    }

    /// The sources that could move in each of these states, and have to in the end.
    fn always_owed(&self, nodes: &[u32]) -> BTreeSet<usize> {
        let owed = |node: u32| self.edges(node).iter().filter_map(Edge::owed_by).collect::<BTreeSet<_>>();
        let mut nodes = nodes.iter();
        let mut always = nodes.next().map(|&node| owed(node)).unwrap_or_default();
        for &node in nodes {
            if always.is_empty() {
                break;
            }
            always = always.intersection(&owed(node)).copied().collect();
        }
        always
    }

    /// A shortest way from a state to one that is wanted, along the edges that may be taken.
    fn way(
        &self,
        from: u32,
        is_wanted: impl Fn(u32) -> bool,
        may_take: impl Fn(&Edge) -> bool,
    ) -> Option<(u32, Vec<Choice>)> {
        let mut reached: HashMap<u32, Option<Edge>> = HashMap::from([(from, None)]);
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if is_wanted(node) {
                let mut path = Vec::new();
                let mut at = node;
                while let Some(Some(edge)) = reached.get(&at) {
                    path.push(edge.choice);
                    at = edge.from;
                }
                path.reverse();
                return Some((node, path));
            }
            for &edge in self.edges(node).iter().filter(|edge| may_take(edge)) {
                if let Entry::Vacant(place) = reached.entry(edge.to) {
                    place.insert(Some(edge));
                    queue.push_back(edge.to);
                }
            }
        }
        None
    }

    /// The strongly connected component of each state, along the edges that last (Tarjan 1972, without recursion).
    fn components(&self) -> Vec<u32> {
        const UNSEEN: u32 = u32::MAX;
        let mut index = vec![UNSEEN; self.nodes];
        let mut lowest = vec![0; self.nodes];
        let mut component = vec![UNSEEN; self.nodes];
        let mut open: Vec<u32> = Vec::new();
        let (mut next_index, mut next_component) = (0, 0);
        let mut calls: Vec<(u32, usize)> = Vec::new();
        // All states are reached from the first, but some by a move only.
        for root in 0..self.nodes as u32 {
            if index[root as usize] == UNSEEN {
                calls.push((root, 0));
            }
            while let Some((node, next)) = calls.last_mut() {
                let at = *node as usize;
                if index[at] == UNSEEN {
                    index[at] = next_index;
                    lowest[at] = next_index;
                    next_index += 1;
                    open.push(*node);
                }
                if let Some(edge) = self.lasting(*node).get(*next) {
                    *next += 1;
                    let to = edge.to as usize;
                    if index[to] == UNSEEN {
                        calls.push((edge.to, 0));
                    } else if component[to] == UNSEEN {
                        lowest[at] = lowest[at].min(index[to]);
                    }
                    continue;
                }
                if lowest[at] == index[at] {
                    while let Some(member) = open.pop() {
                        component[member as usize] = next_component;
                        if member as usize == at {
                            break;
                        }
                    }
                    next_component += 1;
                }
                calls.pop();
                if let Some((parent, _)) = calls.last() {
                    let parent = *parent as usize;
                    lowest[parent] = lowest[parent].min(lowest[at]);
                }
            }
        }
        component
    }
}
