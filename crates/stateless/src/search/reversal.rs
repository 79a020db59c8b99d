//! Which other runs a step calls for: those in which it comes before an earlier one that it conflicts with.

use crate::config::Feature;
use crate::footprint::{self, Footprint, Resource, SameCpu, Use};
use crate::memory::Place;
use crate::op::Op;
use crate::state::State;

use super::{Clock, Event, Kind, MOST_PROCESSES, Process, Processes, Search};

/// What an operation waits for.
pub(super) struct Wait {
    place: Place,
    /// How many steps there were when it was asked for: the step that ends a wait may change the word itself.
    steps: usize,
    /// The last of these that changes the word and before which the wait would have been over.
    over_before: Option<usize>,
}

impl Search<'_, '_> {
    /// What happened before the next step of a process that needs these steps.
    fn clock_before(&self, process: Process, after: &[usize]) -> Clock {
        let mut clock = [0; MOST_PROCESSES];
        let own = self.events.iter().rposition(|event| event.process == process);
        for number in own.into_iter().chain(after.iter().copied()) {
            join(&mut clock, &self.events[number].clock);
        }
        clock
    }

    /// The steps that conflict with a use and are not known to come before, and the clocks of all that conflict.
    fn conflicts(
        &self,
        cpu: usize,
        resource: Resource,
        how: Use,
        before: &Clock,
        clock: &mut Clock,
        races: &mut Vec<usize>,
    ) {
        let Some(users) = self.users.get(&resource) else { return };
        // What comes before a change comes before this use, too; but a CPU's own loads do not come before its own drains.
        let mut changed_by = Vec::new();
        for &(number, other) in users.iter().rev() {
            let event = &self.events[number as usize];
            let own_load = other == Use::Loads && changed_by.contains(&event.process.cpu());
            if !changed_by.is_empty() && !own_load {
                if other == Use::Writes {
                    break;
                }
                continue;
            }
            if !how.conflicts(other, SameCpu::of(cpu, event.process.cpu())) {
                continue;
            }
            if before[event.process.index()] <= number && !races.contains(&(number as usize)) {
                races.push(number as usize);
            }
            join(clock, &event.clock);
            match other {
                Use::Writes => break,
                Use::Drains => changed_by.push(event.process.cpu()),
                Use::Reads | Use::Loads => {}
            }
        }
    }

    pub(super) fn enter(&mut self, mut event: Event, wait: Option<&Wait>) {
        let number = self.events.len();
        let before = self.clock_before(event.process, &event.step.after);
        let (mut clock, mut races) = (before, Vec::new());
        for (resource, how) in event.step.footprint.iter() {
            self.conflicts(event.process.cpu(), resource, how, &before, &mut clock, &mut races);
        }
        let with_conflicts = clock;
        clock[event.process.index()] = number as u32 + 1;
        event.clock = clock;
        for (resource, how) in event.step.footprint.iter() {
            self.users.entry(resource).or_default().push((number as u32, how));
        }
        let (process, accessed) = (event.process, event.accessed);
        self.events.push(event);
        if !process.kind().is_on_demand() {
            if let Some(wait) = &wait {
                self.races_of_wait(&mut races, &before, process, wait);
            }
            for race in races {
                self.reverse(race, process, &with_conflicts);
            }
        }
        if let Some(page) = accessed {
            self.want_walks(process.cpu(), page);
        }
        self.want_flags(number);
    }

    /// This step uses entries: flags that could have been set in them before are to be seen. A flag may be set by a pointer that only an unasked walk has left.
    fn want_flags(&mut self, number: usize) {
        if self.run.machine.config.unasked_flags == Feature::Absent {
            return;
        }
        let (event, node) = (&self.events[number], &mut self.nodes[number]);
        for at in 0..node.unasked.len() {
            let (cpu, offsets) = &node.unasked[at];
            let mut sets = Footprint::default();
            offsets.iter().for_each(|offset| sets.add_place(Place::whole(*offset), Use::Writes));
            if event.step.footprint.conflicts(&sets, SameCpu::No) || event.accessed.is_some() {
                node.want(Process::new(Kind::Flags, *cpu), offsets.len());
            }
        }
        for &(cpu, _) in &event.step.last_chance {
            node.want(Process::new(Kind::Walker, cpu), 1);
        }
    }

    /// What `op` waits for, if it waits. The code of the CPU asks for it at this moment.
    pub(super) fn wait(&self, state: &State, cpu: usize, op: &Op) -> Option<Wait> {
        let (place, test) = op.awaits()?;
        let mut value = state.view(cpu, place);
        let over_before = self.events.iter().rposition(|event| {
            let mut changed = false;
            for (written, old) in event.step.overwrote.iter().rev().filter(|(it, _)| it.overlaps(place)) {
                value = replaced(value, place, *written, *old);
                changed = true;
            }
            changed && test.passes(value).is_some()
        });
        Some(Wait { place, steps: self.events.len(), over_before })
    }

    /// A wait cannot come before a step before which it would have had to go on waiting. So, of the steps that change its word, the last is of interest
    /// before which it was over.
    fn races_of_wait(&self, races: &mut Vec<usize>, before: &Clock, process: Process, wait: &Wait) {
        let changes = |number: usize| self.events[number].step.overwrote.iter().any(|(it, _)| it.overlaps(wait.place));
        races.retain(|number| !changes(*number));
        let Some(over_before) = wait.over_before else { return };
        let is_before = |number: usize| {
            let event = &self.events[number];
            event.process == process || before[event.process.index()] > number as u32
        };
        if !(over_before..wait.steps).any(|number| changes(number) && is_before(number)) {
            races.push(over_before);
        }
    }

    /// The run is to be seen in which the next step of `process` comes before an earlier one.
    fn reverse(&mut self, earlier: usize, process: Process, before: &Clock) {
        if self.events[earlier].process.kind().is_on_demand() {
            return;
        }
        let first = &self.events[earlier];
        let own = first.process.index();
        // What comes after `earlier`, but not because of it; then the step itself. Of these, those that nothing else of them comes before.
        let mut initials = Processes::default();
        let mut seen: Vec<usize> = Vec::new();
        for (number, event) in self.events.iter().enumerate().skip(earlier + 1) {
            if event.clock[own] > earlier as u32 {
                continue;
            }
            if !seen.iter().any(|one| event.clock[self.events[*one].process.index()] > *one as u32) {
                initials.add(event.process);
            }
            seen.push(number);
        }
        if !seen.iter().any(|one| before[self.events[*one].process.index()] > *one as u32) {
            initials.add(process);
        }
        let node = &mut self.nodes[earlier];
        if initials.iter().any(|one| node.tried.has(one) || node.sleeps(one)) {
            return;
        }
        let possible = |one: &Process| node.possible(*one);
        let wanted = Some(process).filter(|one| initials.has(*one)).filter(possible);
        match wanted.or_else(|| initials.iter().find(possible)) {
            Some(one) => node.tried.add(one),
            None => {
                for one in Process::all() {
                    if node.possible(one) {
                        node.tried.add(one);
                    }
                }
            }
        }
    }

    /// User code of a CPU accessed a page: the walks that could have cached something for it are to be seen.
    fn want_walks(&mut self, cpu: usize, page: usize) {
        let walker = Process::new(Kind::Walker, cpu);
        for (number, event) in self.events.iter().enumerate().rev().skip(1) {
            if event.drops_all == Some(cpu) && event.step.last_chance.is_empty() {
                return;
            }
            if event.step.last_chance.contains(&(cpu, page)) {
                self.nodes[number].want(walker, 1);
            }
            if event.drops_all == Some(cpu) {
                return;
            }
        }
    }

    /// The run ended before everybody was done: compares what was left to do.
    pub(super) fn compare_what_is_left(&mut self) {
        for process in Process::all().filter(|process| process.cpu() < self.run.machine.programs.len()) {
            self.compare_what_comes_next(process);
        }
    }

    /// Compares the next step of a process that does not make it now, as if it were made.
    pub(super) fn compare_what_comes_next(&mut self, process: Process) {
        let cpu = process.cpu();
        let state = self.run.machine.state.borrow();
        let mut uses = Footprint::default();
        let mut wait = None;
        let mut after = Vec::new();
        match process.kind() {
            Kind::Walker | Kind::Flags => return,
            Kind::Buffer => {
                let Some(store) = state.cpus[cpu].buffer.front() else { return };
                store.places().for_each(|place| uses.add_place(place, Use::Drains));
                uses.add(footprint::buffer(cpu), Use::Writes);
                if store.user_frame.is_some() {
                    uses.add(footprint::ANY_BLOCK, Use::Reads);
                }
                after.push(store.since);
            }
            Kind::Arrivals => {
                let Some(broadcast) = state.cpus[cpu].arrivals.first() else { return };
                uses.add(footprint::translations(cpu), Use::Writes);
                uses.add(footprint::buffer(cpu), Use::Reads);
                after.push(broadcast.since);
            }
            Kind::Code => {
                uses.add(footprint::pending(cpu), Use::Reads);
                let Some(op) = self.run.code.asks(cpu) else { return };
                wait = self.wait(&state, cpu, &op);
                uses.add(footprint::SCHEDULER, Use::Reads);
                uses.join(&self.run.machine.expected(&state, cpu, &op));
            }
        }
        drop(state);
        after.retain(|step| *step < self.events.len());
        let before = self.clock_before(process, &after);
        let (mut clock, mut races) = (before, Vec::new());
        for (resource, how) in uses.iter() {
            self.conflicts(cpu, resource, how, &before, &mut clock, &mut races);
        }
        if let Some(wait) = wait {
            self.races_of_wait(&mut races, &before, process, &wait);
        }
        for race in races {
            self.reverse(race, process, &clock);
        }
    }
}

fn join(clock: &mut Clock, other: &Clock) {
    for (one, other) in clock.iter_mut().zip(other) {
        *one = (*one).max(*other);
    }
}

/// What a word held, given what a part of it, or what it is a part of, held.
fn replaced(value: u64, place: Place, written: Place, old: u64) -> u64 {
    let mut bytes = value.to_le_bytes();
    for (index, byte) in old.to_le_bytes().iter().take(written.bytes).enumerate() {
        if let Some(at) = (written.offset + index).checked_sub(place.offset).filter(|at| *at < place.bytes) {
            bytes[at] = *byte;
        }
    }
    u64::from_le_bytes(bytes)
}
