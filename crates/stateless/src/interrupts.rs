//! Interrupts, and the sections of code that they, or a grace period, wait for.

use crate::execute::After;
use crate::footprint::{self, Use};
use crate::op::{Answer, InterruptFlag, Vector};
use crate::state::{Interrupted, Machine, State};

impl Machine<'_> {
    /// Changes what says whether a CPU is in a read-side section.
    pub(crate) fn change_section(
        &self,
        state: &mut State<'_>,
        cpu: usize,
        change: impl FnOnce(&mut crate::state::Processor),
    ) {
        let before = state.cpus[cpu].in_section();
        change(&mut state.cpus[cpu]);
        let after = state.cpus[cpu].in_section();
        if before == after {
            return;
        }
        state.uses(footprint::section(cpu), Use::Writes);
        if before {
            state.cpus[cpu].left = Some(state.now);
            for waiter in &mut state.cpus {
                waiter.waits_for = waiter.waits_for.map(|set| set & !(1 << cpu));
            }
        }
    }

    pub(crate) fn set_flag(&self, state: &mut State<'_>, cpu: usize, flag: InterruptFlag) -> InterruptFlag {
        let was = state.cpus[cpu].interrupt_flag;
        self.change_section(state, cpu, |processor| processor.interrupt_flag = flag);
        was
    }

    pub(crate) fn grace_period(&self, state: &mut State<'_>, cpu: usize) -> After {
        if state.cpus[cpu].in_section() {
            state.misuse(format!("CPU{cpu} waits for a grace period inside a read-side section"));
            return After::Pending;
        }
        if state.cpus[cpu].waits_for.is_none() {
            let mut readers = 0;
            for other in (0..state.cpus.len()).filter(|&other| other != cpu) {
                state.uses(footprint::section(other), Use::Reads);
                readers |= u64::from(state.cpus[other].in_section()) << other;
            }
            if readers != 0 {
                state.cpus[cpu].waits_for = Some(readers);
                return After::Pending;
            }
        } else {
            for other in 0..state.cpus.len() {
                let left = state.cpus[other].left;
                state.after(left);
            }
        }
        state.cpus[cpu].waits_for = None;
        After::Answered(Answer::value(0))
    }

    /// The interrupts that a CPU may take now.
    pub(crate) fn takeable(&self, state: &State<'_>, cpu: usize) -> Vec<Vector> {
        let processor = &state.cpus[cpu];
        // Taking one empties the store buffer first (MODEL.md, P5): until then it is not taken.
        if !processor.buffer.is_empty() {
            return Vec::new();
        }
        let is_taken = |vector: &Vector| {
            processor.pending[vector.number()].is_some()
                && match vector {
                    Vector::Nmi => !processor.in_nmi(),
                    Vector::Maskable(_) => processor.interrupt_flag == InterruptFlag::Set,
                }
        };
        Vector::ALL.into_iter().filter(is_taken).collect()
    }

    /// A CPU takes an interrupt: whether there is a handler to run.
    pub(crate) fn take(&self, state: &mut State<'_>, cpu: usize, vector: Vector) -> bool {
        let sent = state.cpus[cpu].pending[vector.number()].take();
        let drained = state.cpus[cpu].drained;
        state.after(sent.filter(|step| *step != usize::MAX));
        state.after(drained);
        state.uses(footprint::pending(cpu), Use::Writes);
        let handled = match vector {
            Vector::Nmi => self.nmi_handler.is_some(),
            Vector::Maskable(_) => self.handler.is_some(),
        };
        if handled {
            let was = self.set_flag(state, cpu, InterruptFlag::Clear);
            let sections = state.cpus[cpu].sections;
            state.cpus[cpu].interrupted.push(Interrupted { flag: was, sections, vector });
        }
        handled
    }

    /// Whether interrupts matter to what a CPU does next: then where it stands between them does, too.
    pub(crate) fn note_interrupts(&self, state: &mut State<'_>, cpu: usize) {
        let processor = &state.cpus[cpu];
        let nmis = !processor.in_nmi();
        if processor.interrupt_flag == InterruptFlag::Clear && !nmis {
            return;
        }
        let waits = processor.pending.iter().any(Option::is_some) && !processor.buffer.is_empty();
        state.uses(footprint::pending(cpu), Use::Reads);
        if waits {
            state.uses(footprint::buffer(cpu), Use::Reads);
        }
    }
}
