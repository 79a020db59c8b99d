//! Which state a step leads to, without taking it.
//!
//! Most steps are accesses of one word by code of which it is known where it goes from there (`foresee.rs`). Of the state they change only what the agent is known by, and perhaps the word. As a fingerprint is a sum, that is
//! enough to say what it becomes. Most states that are reached are old, so most steps are never taken.
//!
//! Nothing is lost by that: a step to an old state breaks no rule that the state does not, owned accesses are looked at here as they are there, and whatever else a step may do makes this say nothing.

use crate::choice::{Choice, Turn};
use crate::core::Core;
use crate::hash;
use crate::op::{Effect, Kind, Op};

impl Core<'_> {
    /// The fingerprint of the state that a choice of this one leads to, if nothing has to be done to know it.
    #[inline(always)]
    pub(crate) fn peek(&mut self, choice: Choice) -> Option<u128> {
        if choice.turn() != Turn::Run || self.replicas.is_some() {
            return None;
        }
        let cpu = choice.cpu();
        let agent = self.active(cpu)?;
        let op = self.op(agent);
        let effect = op.kind.accesses_word()?;
        if op.kind == Kind::Store && self.buffers_stores() {
            return None;
        }
        let (address, bytes) = (op.address, usize::from(op.bytes));
        let old = self.forwarded(cpu, address, bytes);
        let new = if effect == Effect::Writes { op.updated(old) } else { None };
        match (self.block_at(address), new) {
            // The walkers and the monitors see it.
            (Some(_), Some(_)) => return None,
            (None, Some(_)) if self.has_monitors() => return None,
            (Some(block), None) if !self.is_allocated(block) => return None,
            _ => {}
        }
        let told = self.agents[agent].state.chain.with(if op.kind == Kind::Store { 0 } else { old });
        let (arrives, next) = self.where_to(agent, told)?;
        if next.is_some_and(|next| self.is_owned_by_another(cpu, next)) {
            return None;
        }
        let mut fingerprint =
            self.hash.wrapping_sub(self.agents[agent].state.chain.term()).wrapping_add(arrives.term());
        if let Some(new) = new {
            self.note_written(address, bytes);
            let unit = (address / 4) as u32;
            for (unit, shift) in [(unit, 0), (unit + 1, 32)].into_iter().take(bytes / 4) {
                let (old, new) = ((old >> shift) as u32, (new >> shift) as u32);
                if old != new {
                    fingerprint = fingerprint.wrapping_sub(hash::unit(unit, old)).wrapping_add(hash::unit(unit, new));
                }
            }
        }
        Some(fingerprint)
    }

    /// Whether a CPU that stands before this operation stands beside an owned access of another that needs an order.
    fn is_owned_by_another(&self, cpu: usize, op: &Op) -> bool {
        if self.owned.len() == 0 {
            return false;
        }
        let mut others = (0..self.cpus()).filter(|&other| other != cpu);
        others.any(|other| self.owned.of(other).iter().any(|access| access.clashes_with(op)))
    }
}
