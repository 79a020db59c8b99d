//! The search: one run after the other, each from the start.
//!
//! Dynamic partial-order reduction by source sets, with sleep sets (Abdulla, Aronis, Jonsson, Sagonas: *Source Sets: A Foundation for Optimal Dynamic
//! Partial Order Reduction*, JACM 64(4), 2017, algorithm 1). A process is the code of a CPU with the interrupts that it takes, a store buffer, the
//! broadcasts that arrive at a CPU, the unasked walks of a CPU, or the accessed flags that it sets unasked. After each step its footprint is compared with those of the steps before: where two
//! conflict and nothing else orders them, the run is to be seen in which they come the other way round, so a process is added to
//! those that are tried where the earlier step was made.
//!
//! Three things are not in the paper:
//! * A process may go on in several ways (an access has a choice of translations, a CPU takes an interrupt or does not). All ways are tried where it is tried.
//! * What waits for a value may not be possible before an earlier step. It is tried before the last conflicting step before which the word let
//!   it pass. What would wait for ever, or was cut off, is compared at the end of the run as if it were made there; so is what a CPU waits with when it takes an interrupt, which comes before its next
//!   step and after that of who sent it.
//! * Unasked walks are tried on demand: see `walk.rs`.
//! * So are flags that are set unasked. Nobody can tell when one was set until somebody uses the entry: it is tried just before each step that does, and when nothing else is possible.

mod reversal;

use std::collections::HashMap;
use std::time::Instant;

use crate::config::Feature;
use crate::footprint::{Footprint, Resource, SameCpu, Use};
use crate::op::Op;
use crate::run::{Kind, MOST_PROCESSES, Observer, Process, Run, Ways};
use crate::state::{Machine, Step, Stop};
use crate::verdict::{Budget, Coverage, Report, Violation};

/// A set of processes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Processes(u64);

impl Processes {
    fn add(&mut self, process: Process) {
        self.0 |= 1 << process.index();
    }

    fn has(self, process: Process) -> bool {
        self.0 >> process.index() & 1 != 0
    }

    fn iter(self) -> impl Iterator<Item = Process> {
        Process::all().filter(move |process| self.has(*process))
    }
}

/// For each process how many steps of the run happened before: those with smaller numbers.
type Clock = [u32; MOST_PROCESSES];

/// A step that was made.
struct Event {
    process: Process,
    step: Step,
    clock: Clock,
    /// The page that user code accessed.
    accessed: Option<usize>,
    /// It drops everything that its CPU has cached for any page.
    drops_all: Option<usize>,
}

/// A point of the run, where one step was chosen.
struct Node {
    /// How many ways each process has here.
    ways: Ways,
    /// What is to be tried, or was.
    tried: Processes,
    done: Processes,
    /// Processes whose next step is known from elsewhere, with what it uses.
    sleep: Vec<(Process, Footprint)>,
    process: Process,
    way: u16,
    /// What the ways of the present process use.
    uses: Footprint,
    /// The entries whose accessed flags each CPU may set unasked.
    unasked: Vec<(usize, Vec<usize>)>,
}

impl Node {
    fn new(ways: Ways, sleep: Vec<(Process, Footprint)>, unasked: Vec<(usize, Vec<usize>)>) -> Self {
        let (tried, done) = (Processes::default(), Processes::default());
        let (process, uses) = (Process::new(Kind::Code, 0), Footprint::default());
        Self { ways, tried, done, sleep, process, way: 0, uses, unasked }
    }

    /// A process that makes steps on demand is to make one here, in each of so many ways.
    fn want(&mut self, process: Process, ways: usize) {
        self.ways[process.index()] = ways as u16;
        if !self.sleeps(process) {
            self.tried.add(process);
        }
    }

    fn sleeps(&self, process: Process) -> bool {
        self.sleep.iter().any(|(asleep, _)| *asleep == process)
    }

    fn possible(&self, process: Process) -> bool {
        self.ways[process.index()] != 0
    }
}

/// How a run ended.
enum Ended {
    /// Nothing is possible any more.
    AtRest,
    /// Whatever is possible is known from another run.
    Known,
    Stopped(Stop),
    TooLong,
}

pub(crate) struct Search<'s, 'a> {
    run: Run<'s, 'a>,
    observer: Option<&'s Observer<'a>>,
    budget: Budget,
    /// The search may end when this rule is broken.
    sought: Option<&'s str>,
    cancel: &'s dyn Fn() -> bool,
    nodes: Vec<Node>,
    events: Vec<Event>,
    /// The steps of the run that use a resource, in order.
    users: HashMap<Resource, Vec<(u32, Use)>>,
    report: Report,
}

impl<'s, 'a> Search<'s, 'a> {
    pub(crate) fn new(
        machine: &'s Machine<'a>,
        observer: Option<&'s Observer<'a>>,
        budget: Budget,
        sought: Option<&'s str>,
        cancel: &'s dyn Fn() -> bool,
    ) -> Self {
        let report = Report {
            coverage: Coverage::Complete,
            broken: Default::default(),
            observations: Default::default(),
            runs: 0,
            redundant: 0,
            steps: 0,
            elapsed: Default::default(),
        };
        let run = Run::new(machine);
        let (nodes, events, users) = (Vec::new(), Vec::new(), HashMap::new());
        Self { run, observer, budget, sought, cancel, nodes, events, users, report }
    }

    pub(crate) fn run(mut self) -> Report {
        let began = Instant::now();
        loop {
            let ended = self.one_run();
            let at_rest = matches!(ended, Ended::AtRest);
            if let Some(coverage) = self.judge(ended) {
                self.report.coverage = coverage;
                break;
            }
            let goes_on = at_rest && self.go_on_with_flags();
            if !goes_on && !self.next() {
                break;
            }
            let runs = self.report.runs + self.report.redundant;
            let out_of_time = runs.is_multiple_of(64) && (began.elapsed() > self.budget.time || (self.cancel)());
            if runs >= self.budget.runs || out_of_time {
                self.report.coverage = Coverage::Budget;
                break;
            }
        }
        self.run.machine.reset();
        self.report.elapsed = began.elapsed();
        self.report
    }

    /// Takes the answer of a run; says whether it was the last.
    fn judge(&mut self, ended: Ended) -> Option<Coverage> {
        match ended {
            Ended::Known => self.report.redundant += 1,
            Ended::TooLong => return Some(Coverage::Endless),
            Ended::Stopped(Stop::Misuse(sentence)) => return Some(Coverage::Misuse(sentence)),
            Ended::Stopped(Stop::Violation(violation)) => {
                self.report.runs += 1;
                self.compare_what_is_left();
                return self.broken(violation);
            }
            Ended::AtRest => {
                self.report.runs += 1;
                if !self.run.code.is_over() {
                    self.compare_what_is_left();
                }
                match self.run.judge_rest(self.observer) {
                    Ok(observation) => self.report.observations.extend(observation),
                    Err(violation) => return self.broken(violation),
                }
            }
        }
        None
    }

    fn broken(&mut self, violation: Violation) -> Option<Coverage> {
        let is_sought = self.sought.is_some_and(|sought| sought == violation.rule);
        self.report.broken.entry(violation.rule).or_insert(violation.sentence);
        is_sought.then_some(Coverage::Sought)
    }

    // --- one run ---

    fn one_run(&mut self) -> Ended {
        self.run.start();
        if let Some(stop) = self.run.stop() {
            return Ended::Stopped(stop);
        }
        let mut depth = 0;
        loop {
            if depth == self.nodes.len() {
                if depth >= self.budget.depth {
                    return Ended::TooLong;
                }
                if let Some(ended) = self.new_node() {
                    return ended;
                }
            }
            let (process, way) = (self.nodes[depth].process, self.nodes[depth].way);
            self.make(depth, process, usize::from(way));
            self.report.steps += 1;
            depth += 1;
            if let Some(stop) = self.run.stop() {
                return Ended::Stopped(stop);
            }
        }
    }

    /// The entries whose accessed flags each CPU may set unasked now.
    fn unasked(&self) -> Vec<(usize, Vec<usize>)> {
        let state = self.run.machine.state.borrow();
        let of = |cpu| (cpu, self.run.machine.unasked(&state, cpu));
        (0..state.cpus.len()).map(of).filter(|(_, offsets)| !offsets.is_empty()).collect()
    }

    /// At the end of a run that is at rest: flags that are set unasked from now on are seen in what it leaves. In one order, as far as they are one CPU's: it makes no difference.
    fn go_on_with_flags(&mut self) -> bool {
        let latest = self.events.last().filter(|event| event.process.kind() == Kind::Flags);
        let latest = latest.and_then(|event| event.step.overwrote.first()).map(|(place, _)| place.offset);
        let mut node = Node::new([0; MOST_PROCESSES], Vec::new(), Vec::new());
        // Of the first CPU only what comes later in the order; of the others anything, which may be done twice.
        for (cpu, offsets) in self.unasked().into_iter().rev() {
            let Some(first) = offsets.iter().position(|offset| Some(*offset) > latest) else { continue };
            (node.process, node.way) = (Process::new(Kind::Flags, cpu), first as u16);
            node.want(node.process, offsets.len());
        }
        let goes_on = node.tried != Processes::default();
        if goes_on {
            self.nodes.push(node);
        }
        goes_on
    }

    fn new_node(&mut self) -> Option<Ended> {
        let mut sleep = Vec::new();
        if let (Some(node), Some(event)) = (self.nodes.last(), self.events.last()) {
            let awake = |footprint: &Footprint, process: Process| {
                let same_cpu = SameCpu::of(process.cpu(), event.process.cpu());
                process == event.process || footprint.conflicts(&event.step.footprint, same_cpu)
            };
            sleep.extend(node.sleep.iter().filter(|(process, footprint)| !awake(footprint, *process)).cloned());
        }
        let ways = self.run.ways();
        let possible = Process::all().filter(|process| ways[process.index()] != 0);
        let mut node = Node::new(ways, sleep, self.unasked());
        let mut awake = possible.clone().filter(|process| !node.sleeps(*process));
        // Who made the last step goes on, if possible: few changes make runs that are easy to read.
        let latest = self.events.last().map(|event| event.process);
        let first = awake.clone().find(|process| Some(*process) == latest).or_else(|| awake.next());
        let Some(first) = first else {
            let nothing = possible.clone().next().is_none();
            return Some(if nothing { Ended::AtRest } else { Ended::Known });
        };
        node.process = first;
        node.tried.add(first);
        self.nodes.push(node);
        None
    }

    /// Makes a step. If it is new, compares it with those before.
    fn make(&mut self, depth: usize, process: Process, way: usize) {
        if depth < self.events.len() {
            self.run.step(depth, process, way);
            return;
        }
        let (cpu, machine) = (process.cpu(), self.run.machine);
        let op = match process.kind() {
            Kind::Code => self.run.operation(cpu).filter(|(_, own_ways)| way < *own_ways).map(|(op, _)| op),
            _ => None,
        };
        let page_of = |address: u64| address / machine::addr::PAGE_SIZE;
        let accessed = match op {
            Some(Op::User(user)) => {
                machine.config.pages.iter().position(|known| page_of(known.as_u64()) == page_of(user.address))
            }
            _ => None,
        };
        let plain = !machine.has_identifiers() && machine.config.global_pages == Feature::Absent;
        let all = matches!(op, Some(Op::Invalidate(machine::Invalidation::All) | Op::LoadRoot(..)));
        let drops_all = (plain && all).then_some(cpu);
        // Now: the code keeps what it asks with on its stack, and goes on below.
        let wait = op.and_then(|op| self.wait(&machine.state.borrow(), cpu, &op));
        if process.kind() == Kind::Code && self.run.operation(cpu).is_none() {
            // It takes an interrupt, or moves, while it waits: what it waits for could have come before that, and is compared with what it waits for now.
            self.compare_what_comes_next(process);
        }
        let step = self.run.step(depth, process, way);
        self.enter(Event { process, step, clock: [0; MOST_PROCESSES], accessed, drops_all }, wait.as_ref());
    }

    // --- the next run ---

    /// Chooses the next run; `false` if there is none.
    fn next(&mut self) -> bool {
        while let Some(node) = self.nodes.last_mut() {
            let depth_of_node = self.events.len();
            if let Some(event) = self.events.pop() {
                debug_assert!(depth_of_node >= 1);
                for (resource, _) in event.step.footprint.iter() {
                    if let Some(users) = self.users.get_mut(&resource) {
                        users.pop();
                    }
                }
                node.uses.join(&event.step.footprint);
            }
            node.way += 1;
            if node.way < node.ways[node.process.index()] {
                return true;
            }
            let uses = std::mem::take(&mut node.uses);
            node.done.add(node.process);
            node.sleep.push((node.process, uses));
            let next = node.tried.iter().find(|one| !node.done.has(*one) && !node.sleeps(*one));
            if let Some(next) = next {
                node.process = next;
                node.way = 0;
                return true;
            }
            self.nodes.pop();
        }
        false
    }
}
