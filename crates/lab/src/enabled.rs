//! What may happen next, and taking one of the possibilities.

use crate::agent::{NMI, Status, handler_of, nmi_handler_of, program_of, vector_number, vector_of};
use crate::cells::{self, flag};
use crate::choice::{Choice, Turn};
use crate::core::Core;
use crate::execute::{After, RCU_BEGUN, deed_of};
use crate::machine_config::{FreedWalks, Speculation, Threads};
use crate::op::{Kind, Op};
use machine::Vector;

impl Core<'_> {
    /// Everything that may happen next, in a fixed order.
    pub(crate) fn choices(&self, choices: &mut Vec<Choice>) {
        let first = choices.len();
        for cpu in 0..self.cpus() {
            if let Some(agent) = self.active(cpu) {
                let op = self.op(agent);
                if op.kind == Kind::UserAccess {
                    // Without a page table there is one choice, which says so.
                    let outcomes = self.outcomes(cpu, op.a, deed_of(op)).len().max(1);
                    // A store waits for room, like any other.
                    let moves = op.bytes == 0 || op.b == 0 || self.has_room(cpu);
                    choices.extend((0..outcomes).filter(|_| moves).map(|outcome| Choice::new(Turn::Run, cpu, outcome)));
                } else if self.is_enabled(cpu, op) {
                    choices.push(Choice::new(Turn::Run, cpu, 0));
                }
            }
            let buffered = self.buffered(cpu);
            if buffered != 0 {
                choices.push(Choice::new(Turn::Drain, cpu, 0));
            } else {
                // Taking an interrupt empties the buffer first (MODEL.md, P5): until then it is not taken.
                self.interrupts(cpu, choices);
            }
            // A flush that completes finds no store that it would have had to hold back (MODEL.md, P17).
            let arrivals = if self.data_stores_wait(cpu) { 0 } else { self.reg(cpu, cells::ARRIVALS) as usize };
            for index in 0..arrivals {
                choices.push(Choice::new(Turn::Arrive, cpu, index));
            }
            if self.machine.speculation != Speculation::Fills || self.machine.freed_walks == FreedWalks::Unasked {
                let count = self.speculations(cpu).len();
                choices.extend((0..count).map(|index| Choice::new(Turn::Speculate, cpu, index)));
            }
        }
        if self.machine.threads == Threads::Move {
            self.moves(choices, first);
        }
    }

    /// The interrupts that a CPU may take now.
    #[inline(always)]
    fn interrupts(&self, cpu: usize, choices: &mut Vec<Choice>) {
        let pending = self.reg(cpu, cells::PENDING);
        if pending == 0 {
            return;
        }
        if pending >> NMI & 1 != 0 && !self.has_flag(cpu, flag::IN_NMI) {
            choices.push(Choice::new(Turn::Interrupt, cpu, NMI as usize));
        }
        if !self.interrupts_off(cpu) {
            for vector in [Vector::TlbShootdown, Vector::Synchronise].map(vector_number) {
                if pending >> vector & 1 != 0 {
                    choices.push(Choice::new(Turn::Interrupt, cpu, vector as usize));
                }
            }
        }
    }

    /// Whether an operation can be performed now.
    #[inline(always)]
    pub(crate) fn is_enabled(&self, cpu: usize, op: &Op) -> bool {
        if op.kind.drains() && self.buffered(cpu) != 0 && !self.may_pass_stores(cpu, op) {
            return false;
        }
        match op.kind {
            Kind::AwaitUpdate => op.test(self.get(op.address, op.bytes as usize)).is_some(),
            Kind::AwaitValue => op.test(self.forwarded(cpu, op.address, op.bytes as usize)).is_some(),
            Kind::Store | Kind::Zero => self.has_room(cpu),
            Kind::TlbBroadcastSync => !self.broadcasts(cpu),
            Kind::TlbParavirtual => self.programs_on(op.c).all(|target| !self.data_stores_wait(target)),
            Kind::SynchronizeRcu => matches!(self.reg(cpu, cells::RCU_WAITS), 0 | RCU_BEGUN),
            _ => true,
        }
    }

    /// Whether a weakened operation need not wait for the CPU's own stores: no older one is to the same word.
    fn may_pass_stores(&self, cpu: usize, op: &Op) -> bool {
        op.is_unordered && !self.waits_for(cpu, op.address, usize::from(op.bytes))
    }

    /// Whether every program is over and nothing is left to happen.
    pub(crate) fn is_at_rest(&self) -> bool {
        (0..self.cpus()).all(|cpu| {
            self.agents[program_of(cpu)].state.status == Status::Done
                && !self.has_flag(cpu, flag::IN_HANDLER | flag::IN_NMI)
        })
    }

    /// Takes one step.
    ///
    /// # Safety
    /// `core` is valid, and no reference to it exists. The choice is one of [`Self::choices`] in this state.
    #[inline(always)]
    pub(crate) unsafe fn apply(core: *mut Self, choice: Choice) {
        // SAFETY: the caller's promise.
        if let Some(agent) = unsafe { (*core).begin(choice) } {
            // SAFETY: the caller's promise; `begin` left the agent ready to go on.
            unsafe { Self::resume(core, agent) };
        }
    }

    /// The part of a step that is the machine's: names the agent that is to be [resumed](Self::resume) then, if one is.
    #[inline(always)]
    pub(crate) fn begin(&mut self, choice: Choice) -> Option<usize> {
        let moved = self.perform(choice);
        self.quiet.step();
        moved
    }

    /// Does to the machine what a step does, and names the agent that goes on then.
    #[inline(always)]
    fn perform(&mut self, choice: Choice) -> Option<usize> {
        let (cpu, argument) = (choice.cpu(), choice.argument());
        match choice.turn() {
            Turn::Run => {
                let agent = self.active(cpu).expect("the choice was enabled");
                self.push_mark(cpu, Some(agent));
                self.record(choice);
                self.answer.loaded = None;
                let after = self.execute(cpu, agent, argument);
                if self.stop.is_some() {
                    return None;
                }
                match after {
                    After::Stay => None,
                    After::Retire => {
                        self.retire(agent);
                        None
                    }
                    After::Resume(result) => {
                        self.answer.result = result;
                        let Op { kind, address, bytes, .. } = *self.op(agent);
                        match kind.accesses_word() {
                            Some(_) => self.tell_value(agent, address, usize::from(bytes), result),
                            None => self.tell_agent(agent, result),
                        }
                        Some(agent)
                    }
                }
            }
            Turn::Interrupt => {
                let nmi = argument as u64 == NMI;
                let handled = if nmi { self.nmi_handler.is_some() } else { self.handler.is_some() };
                let agent = if nmi { nmi_handler_of(cpu) } else { handler_of(cpu) };
                self.push_mark(cpu, handled.then_some(agent));
                self.record(choice);
                let pending = self.reg(cpu, cells::PENDING);
                self.set_reg(cpu, cells::PENDING, pending & !(1 << argument));
                if !handled {
                    return None;
                }
                if nmi {
                    self.set_flag(cpu, flag::IN_NMI, true);
                } else {
                    let flags = self.reg(cpu, cells::FLAGS) & 0xff;
                    self.set_reg(cpu, cells::FLAGS, flags | flag::IN_HANDLER | (argument as u64) << 8);
                }
                self.prepare(agent, argument as u64);
                Some(agent)
            }
            Turn::Drain => {
                self.push_mark(cpu, None);
                self.record(choice);
                self.drain(cpu);
                None
            }
            Turn::Arrive => {
                self.push_mark(cpu, None);
                self.record(choice);
                self.arrive(cpu, argument);
                None
            }
            Turn::Speculate => {
                self.push_mark(cpu, None);
                self.record(choice);
                let what = self.speculations(cpu)[argument];
                self.speculate(cpu, what);
                None
            }
            Turn::Move => {
                self.push_mark(cpu, None);
                self.record(choice);
                self.move_thread(cpu, argument);
                None
            }
        }
    }

    /// Starts every program, up to its first operation.
    ///
    /// # Safety
    /// `core` is valid, and no reference to it exists.
    pub(crate) unsafe fn start(core: *mut Self) {
        // SAFETY: the caller's promise.
        let cpus = unsafe { (*core).cpus() };
        for cpu in 0..cpus {
            // SAFETY: as above.
            unsafe { (*core).prepare(program_of(cpu), 0) };
            // SAFETY: as above, and the agent was just prepared.
            unsafe { Self::resume(core, program_of(cpu)) };
        }
    }

    /// Performs an operation at once, while booting.
    pub(crate) fn execute_at_boot(&mut self, cpu: usize, asked: &mut Op) -> u64 {
        // A program that "asks" for it, so that it takes the ordinary way.
        let agent = program_of(cpu);
        self.agents[agent].state.op = &raw const *asked;
        self.agents[agent].state.status = Status::Asks;
        for everyone in 0..self.cpus() {
            self.saturate(everyone);
        }
        let kind = asked.kind;
        let op = *self.op(agent);
        let enabled = self.is_enabled(cpu, &op);
        let choice = if kind == Kind::UserAccess { self.boot_outcome(cpu, &op) } else { 0 };
        let after = self.execute(cpu, agent, choice);
        self.agents[agent].state.status = Status::Idle;
        self.agents[agent].state.op = std::ptr::null();
        if let Some(word) = self.answer.loaded.take() {
            asked.c = word;
        }
        if let Some(stop) = self.stop.take() {
            panic!("while booting: {stop:?}");
        }
        match after {
            After::Resume(result) if enabled => result,
            _ => panic!("while booting nobody else can make {} end", kind.name()),
        }
    }

    fn boot_outcome(&mut self, cpu: usize, op: &Op) -> usize {
        // Flags that the walk sets are set here; then the first way to reach the page, or a fault, is taken.
        for _ in 0..8 {
            let outcomes = self.outcomes(cpu, op.a, deed_of(op));
            match outcomes.iter().find_map(|outcome| match *outcome {
                crate::mmu::Outcome::SetFlags { offset, flags } => Some((offset, flags)),
                _ => None,
            }) {
                Some((offset, flags)) => self.walker_sets(cpu, offset, flags),
                None => break,
            }
        }
        0
    }

    /// The name of a vector for traces.
    pub(crate) fn vector_name(number: usize) -> &'static str {
        if number as u64 == NMI {
            return "NMI";
        }
        match vector_of(number as u64) {
            Vector::TlbShootdown => "TLB shootdown",
            Vector::Synchronise => "synchronise",
        }
    }
}
