//! One run: a machine, the code on it, and who may make the next step.

use crate::code::Code;
use crate::config::Feature;
use crate::execute::After;
use crate::footprint::{SCHEDULER, Use, buffer};
use crate::op::Op;
use crate::state::{End, Machine, State, Step, Stop};
use crate::verdict::{Violation, rule};
use crate::watch::Final;

/// The most CPUs.
pub(crate) const MOST_CPUS: usize = 8;
const KINDS: usize = 5;
pub(crate) const MOST_PROCESSES: usize = KINDS * MOST_CPUS;

/// Something that makes steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Process(u8);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The code of a CPU, and the interrupts that it takes.
    Code,
    /// Its store buffer.
    Buffer,
    /// The broadcasts on their way to it.
    Arrivals,
    /// Its unasked walks.
    Walker,
    /// The accessed flags that it sets unasked.
    Flags,
}

impl Kind {
    /// Whether it makes steps only where they are wanted.
    pub(crate) const fn is_on_demand(self) -> bool {
        matches!(self, Self::Walker | Self::Flags)
    }
}

impl Process {
    pub(crate) fn new(kind: Kind, cpu: usize) -> Self {
        Self((kind as usize * MOST_CPUS + cpu) as u8)
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> + Clone {
        (0..MOST_PROCESSES as u8).map(Self)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn cpu(self) -> usize {
        self.index() % MOST_CPUS
    }

    pub(crate) fn kind(self) -> Kind {
        [Kind::Code, Kind::Buffer, Kind::Arrivals, Kind::Walker, Kind::Flags][self.index() / MOST_CPUS]
    }
}

/// How many ways to go on each process has.
pub(crate) type Ways = [u16; MOST_PROCESSES];

/// Reads final states.
pub(crate) type Observer<'o> = Box<dyn Fn(&dyn Final) -> Vec<u64> + 'o>;

/// A machine, and code in the midst of a run on it.
pub(crate) struct Run<'m, 'a> {
    pub(crate) machine: &'m Machine<'a>,
    pub(crate) code: Code<'m, 'a>,
}

impl<'m, 'a> Run<'m, 'a> {
    pub(crate) fn new(machine: &'m Machine<'a>) -> Self {
        Self { machine, code: Code::new(machine) }
    }

    /// Begins anew: all programs come to their first operation.
    pub(crate) fn start(&mut self) {
        self.machine.reset();
        self.code.start();
        self.machine.state.borrow_mut().step = Step::default();
    }

    /// Why it has ended before all was done, if it has.
    pub(crate) fn stop(&self) -> Option<Stop> {
        self.machine.state.borrow().stop.clone()
    }

    /// How many ways each process has now. Those that make steps on demand are not asked.
    pub(crate) fn ways(&self) -> Ways {
        let state = self.machine.state.borrow();
        let mut ways = [0; MOST_PROCESSES];
        for cpu in 0..state.cpus.len() {
            let mut count = self.machine.takeable(&state, cpu).len();
            if let Some(op) = self.code.asks(cpu)
                && self.machine.is_possible(&state, cpu, &op)
            {
                count += self.machine.ways_of(&state, cpu, &op).len().max(1);
            }
            ways[Process::new(Kind::Code, cpu).index()] = count as u16;
            ways[Process::new(Kind::Buffer, cpu).index()] = u16::from(!state.cpus[cpu].buffer.is_empty());
            // A flush that completes finds no store that it would have had to hold back (MODEL.md, P17).
            let arrivals = if state.cpus[cpu].user_stores_wait() { 0 } else { state.cpus[cpu].arrivals.len() };
            ways[Process::new(Kind::Arrivals, cpu).index()] = arrivals as u16;
        }
        // What a thread waits for does not depend on where it waits.
        if ways.iter().any(|count| *count != 0) {
            for cpu in (0..state.cpus.len()).filter(|&cpu| self.is_move_of_interest(&state, cpu)) {
                ways[Process::new(Kind::Code, cpu).index()] += self.moves(&state, cpu).len() as u16;
            }
        }
        ways
    }

    /// The operation that the code of a CPU can make now, and in how many ways.
    pub(crate) fn operation(&self, cpu: usize) -> Option<(Op, usize)> {
        let state = self.machine.state.borrow();
        let op = self.code.asks(cpu).filter(|op| self.machine.is_possible(&state, cpu, op))?;
        Some((op, self.machine.ways_of(&state, cpu, &op).len().max(1)))
    }

    /// Makes the step of this number. The ways of code are those of its operation, then the interrupts that it may take, then the CPUs that it may be moved to.
    pub(crate) fn step(&mut self, number: usize, process: Process, way: usize) -> Step {
        let (machine, cpu) = (self.machine, process.cpu());
        self.begin_step(number);
        match process.kind() {
            Kind::Buffer => self.seen_by_scheduler(cpu, |run| run.machine.drain(&mut machine.state.borrow_mut(), cpu)),
            Kind::Arrivals => machine.arrive(&mut machine.state.borrow_mut(), cpu, way),
            Kind::Walker => machine.fill(&mut machine.state.borrow_mut(), cpu),
            Kind::Flags => machine.set_unasked(&mut machine.state.borrow_mut(), cpu, way),
            Kind::Code => match self.move_of(cpu, way) {
                Some(to) => self.move_thread(cpu, to),
                None => self.seen_by_scheduler(cpu, |run| run.code_step(cpu, way)),
            },
        }
        std::mem::take(&mut machine.state.borrow_mut().step)
    }

    /// Moves a thread.
    pub(crate) fn step_of_scheduler(&mut self, number: usize, from: usize, to: usize) {
        self.begin_step(number);
        self.move_thread(from, to);
    }

    fn begin_step(&self, number: usize) {
        let mut state = self.machine.state.borrow_mut();
        state.step = Step::default();
        state.now = number;
    }

    fn code_step(&mut self, cpu: usize, way: usize) {
        let machine = self.machine;
        let operation = self.operation(cpu);
        let own_ways = operation.map_or(0, |(_, ways)| ways);
        let mut state = machine.state.borrow_mut();
        if !self.code.is_interrupted(cpu) && way < own_ways {
            state.cpus[cpu].has_just_come = false;
        }
        machine.note_interrupts(&mut state, cpu);
        match operation {
            Some((op, own_ways)) if way < own_ways => {
                let after = machine.perform(&mut state, cpu, &op, way);
                let stopped = state.stop.is_some();
                drop(state);
                match after {
                    _ if stopped => {}
                    After::Answered(answer) => self.code.answer(cpu, answer),
                    After::Pending => {}
                    After::Returned => self.code.return_from_handler(cpu),
                }
            }
            _ => {
                let vector = machine.takeable(&state, cpu)[way - own_ways];
                let handled = machine.take(&mut state, cpu, vector);
                drop(state);
                if handled {
                    self.code.interrupt(cpu, vector);
                }
            }
        }
    }

    // --- threads that are moved (MODEL.md, F15) ---

    /// The CPUs that the thread on a CPU may be moved to now: their own programs are over, and they have loaded the same page table.
    pub(crate) fn moves(&self, state: &State<'_>, cpu: usize) -> Vec<usize> {
        let is_settled = |cpu: usize| state.cpus[cpu].buffer.is_empty() && state.cpus[cpu].update.is_none();
        if !self.is_preemptible(state, cpu) || !is_settled(cpu) {
            return Vec::new();
        }
        let takes = |&to: &usize| self.code.is_idle(to) && is_settled(to) && state.cpus[to].cr3 == state.cpus[cpu].cr3;
        (0..state.cpus.len()).filter(takes).collect()
    }

    /// Whether it can make a difference to move the thread on a CPU now rather than later. Of two moves in a row, between which no CPU became free, the first makes none. And where
    /// nobody else runs or will, a thread can as well be moved after an operation that is the same on every CPU.
    fn is_move_of_interest(&self, state: &State<'_>, cpu: usize) -> bool {
        let Some(op) = self.code.asks(cpu) else { return false };
        let is_interrupted = |cpu: usize| state.cpus[cpu].pending.iter().any(Option::is_some);
        let is_alone = || {
            let mut cpus = 0..state.cpus.len();
            cpus.all(|other| !is_interrupted(other) && (other == cpu || self.code.is_idle(other)))
        };
        let can_wait = op.is_same_anywhere(&self.machine.config) && is_alone();
        !state.cpus[cpu].has_just_come && !can_wait
    }

    /// Whether there is a thread on a CPU that may be taken off it.
    fn is_preemptible(&self, state: &State<'_>, cpu: usize) -> bool {
        let processor = &state.cpus[cpu];
        self.machine.config.moves == Feature::Present
            && !self.code.is_interrupted(cpu)
            && self.code.asks(cpu).is_some()
            && !processor.in_section()
            && processor.preempt_off == 0
            && processor.waits_for.is_none()
    }

    /// Where the code of a CPU is moved to, if that is this way of it to go on.
    fn move_of(&self, cpu: usize, way: usize) -> Option<usize> {
        let own_ways = self.operation(cpu).map_or(0, |(_, ways)| ways);
        let state = self.machine.state.borrow();
        let number = way.checked_sub(own_ways + self.machine.takeable(&state, cpu).len())?;
        self.moves(&state, cpu).get(number).copied()
    }

    /// The programs of two CPUs take each other's place. What belongs to the hardware stays where it is; PKRU is saved and restored with the thread.
    fn move_thread(&mut self, from: usize, to: usize) {
        let mut state = self.machine.state.borrow_mut();
        for cpu in [from, to] {
            let (drained, came) = (state.cpus[cpu].drained, state.cpus[cpu].came);
            state.after(drained);
            state.after(came);
        }
        state.uses(SCHEDULER, Use::Writes);
        for place in &mut state.places {
            *place = match *place {
                place if place == from => to,
                place if place == to => from,
                place => place,
            };
        }
        let (left, found) = (state.cpus[from].pkru, state.cpus[to].pkru);
        (state.cpus[to].pkru, state.cpus[from].pkru) = (left, found);
        state.cpus[to].came = Some(state.now);
        state.cpus[to].has_just_come = true;
        drop(state);
        self.code.exchange(from, to);
    }

    /// Does something on a CPU, and notes what that has to do with moves: where the thread might be moved instead, and where the CPU may be moved to from now on, or could before.
    fn seen_by_scheduler(&mut self, cpu: usize, step: impl FnOnce(&mut Self)) {
        if self.machine.config.moves == Feature::Absent {
            return step(self);
        }
        let was_idle = self.code.is_idle(cpu);
        let loads_root = matches!(self.code.asks(cpu), Some(Op::LoadRoot(..)));
        {
            let mut state = self.machine.state.borrow_mut();
            if self.is_preemptible(&state, cpu) {
                state.uses(SCHEDULER, Use::Reads);
                if !state.cpus[cpu].buffer.is_empty() {
                    state.uses(buffer(cpu), Use::Reads);
                }
            }
            let came = state.cpus[cpu].came;
            state.after(came);
        }
        step(self);
        if was_idle || self.code.is_idle(cpu) || loads_root {
            let mut state = self.machine.state.borrow_mut();
            state.uses(SCHEDULER, Use::Writes);
            state.cpus.iter_mut().for_each(|processor| processor.has_just_come = false);
        }
    }

    /// Nothing can happen any more: which rule that breaks, or what is read of it.
    pub(crate) fn judge_rest(&self, observer: Option<&Observer<'a>>) -> Result<Option<Vec<u64>>, Violation> {
        if !self.code.is_over() {
            return Err(Violation::new(rule::DEADLOCK, "nobody can go on"));
        }
        let state = self.machine.state.borrow();
        self.machine.is_over(&state)?;
        Ok(observer.map(|read| read(&End { machine: self.machine, state: &state })))
    }
}
