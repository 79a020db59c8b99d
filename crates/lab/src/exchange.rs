//! Replicas: sets of CPUs that run the same code, so that states which differ only in which of them does what are one.
//!
//! With five readers, up to 120 states are one. A test says which CPUs correspond to each other, which words are theirs alone, and which bits of shared words stand for
//! them ([`crate::Replica`], [`crate::Lab::interchangeable`]). Everything that belongs to a replica (registers, store buffers, TLBs, what its code was told, its words, its bits) goes into a sum of
//! its own, in which the replica has no name: it is hashed as the first of its group would be. The state's fingerprint takes the sums of a group in no order. There is nothing to sort and no permutation to try.
//!
//! # Why nothing is lost
//!
//! Exchanging two replicas turns runs into runs, if nobody treats them differently. Then of states that differ by an exchange it is enough to go on from one. That nobody does is checked:
//!
//! * words of a replica are accessed by its CPUs only;
//! * operations name bits or CPUs of all other replicas of a group, or of none (`1 << me`, `everybody`, `everybody else`);
//! * an agent that was told *which* of the others (a mask with some of their bits, but not all) may name them. While it remembers (until a boundary without a digest, and for good once it has reported), states are only the same if they are so without any
//!   exchange, and so they are while a grace period or a broadcast names members;
//! * programs of a group that were told the same ask for the same (`known`, the audit for hidden state);
//! * random runs are done again with replicas exchanged, and must lead through the same states. That finds identities in words that nobody declared, and waits for one CPU and not for another.
//!
//! A word that is not a replica's own counts as accessed by many as soon as one member accesses it (`quiet.rs`), since another run has another member do so.

use crate::agent::{cpu_of, neutral_agent};
use crate::buffer::Waiting;
use crate::cells;
use crate::core::Core;
use crate::hash;
use crate::op::{Kind, Op};
use crate::replicas::{Replicas, Role};

/// Which states are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sameness {
    /// Those in which everything is the same.
    Exact,
    /// Those that differ by an exchange of replicas, too.
    UpToExchange,
}

/// Among the agents that were told of replicas: what was told is written down.
const FOR_GOOD: u64 = 1 << 63;

/// Whom quiet words know as an accessor of a word that any member may access.
const ANY_MEMBER: usize = 250;

impl Core<'_> {
    /// The fingerprint of the state, replicas taken as the search takes them.
    #[inline(never)]
    pub(crate) fn fingerprint_with(&self, replicas: &Replicas) -> u128 {
        let sameness = if self.names_replicas() { Sameness::Exact } else { replicas.sameness };
        self.shared_term().wrapping_add(replicas.term(sameness))
    }

    /// Whether somebody remembers which of the replicas did something.
    pub(crate) fn names_replicas(&self) -> bool {
        let Some(replicas) = &self.replicas else { return false };
        let names_members = |set: u64| set & replicas.all_members != 0;
        replicas.told != 0
            || (0..self.cpus()).any(|cpu| {
                names_members(self.reg(cpu, cells::RCU_WAITS))
                    || (0..self.reg(cpu, cells::ARRIVALS) as usize)
                        .any(|index| names_members(1 << self.arrival(cpu, index)[0]))
            })
    }

    /// Exchanges what changed of 32 bits of memory.
    #[inline(never)]
    pub(crate) fn rehash_with(&mut self, unit: u32, old: u32, new: u32) {
        let replicas = self.replicas.as_mut().expect("called with replicas");
        match replicas.roles[unit as usize] {
            Role::Shared => self.replace_shared_term(hash::unit(unit, old), hash::unit(unit, new)),
            Role::Own { replica, neutral } => {
                let sum = &mut replicas.sums[usize::from(replica)];
                *sum = sum.wrapping_sub(hash::unit(neutral, old)).wrapping_add(hash::unit(neutral, new));
            }
            Role::Bits { mask } => {
                let mask = &replicas.masks[usize::from(mask)];
                for &(bit, replica, position) in &mask.bits {
                    if (old ^ new) >> bit & 1 != 0 {
                        // No unit of memory has such a number.
                        let term = hash::spread(1 << 63 | u64::from(position));
                        let sum = &mut replicas.sums[usize::from(replica)];
                        *sum = if new >> bit & 1 != 0 { sum.wrapping_add(term) } else { sum.wrapping_sub(term) };
                    }
                }
                let shared = !mask.named;
                self.replace_shared_term(hash::unit(unit, old & shared), hash::unit(unit, new & shared));
            }
        }
    }

    /// Replaces a term of the fingerprint that is a CPU's.
    #[inline(never)]
    pub(crate) fn replace_term_with(&mut self, cpu: usize, old: u128, new: u128) {
        let replicas = self.replicas.as_mut().expect("called with replicas");
        match replicas.replica_of(cpu) {
            Some(replica) => {
                let sum = &mut replicas.sums[replica];
                *sum = sum.wrapping_sub(old).wrapping_add(new);
            }
            None => self.replace_shared_term(old, new),
        }
    }

    /// Whose registers those of a CPU are hashed as: its own, or those of the first replica.
    #[inline(always)]
    pub(crate) fn neutral_cpu(&self, cpu: usize) -> usize {
        self.replicas.as_ref().map_or(cpu, |replicas| replicas.neutral_cpu(cpu))
    }

    /// Before a step.
    #[inline(always)]
    pub(crate) fn save_replicas(&mut self) {
        if let Some(replicas) = &mut self.replicas {
            replicas.save();
        }
    }

    #[inline(always)]
    pub(crate) fn restore_replicas(&mut self) {
        if let Some(replicas) = &mut self.replicas {
            replicas.restore();
        }
    }

    /// Back to the initial state.
    pub(crate) fn reset_replicas(&mut self) {
        if let Some(replicas) = &mut self.replicas {
            replicas.begin_again();
        }
    }

    pub(crate) fn take_for_same(&mut self, sameness: Sameness) {
        if let Some(replicas) = &mut self.replicas {
            replicas.sameness = sameness;
        }
    }

    /// An agent was told what a word holds.
    #[inline(always)]
    pub(crate) fn tell_value(&mut self, agent: usize, offset: usize, bytes: usize, value: u64) {
        let value = if self.replicas.is_some() { self.as_told_with(agent, offset, bytes, value) } else { value };
        self.tell_agent(agent, value);
    }

    /// What an agent is told, as the first replica would be.
    #[inline(never)]
    fn as_told_with(&mut self, agent: usize, offset: usize, bytes: usize, value: u64) -> u64 {
        let replicas = self.replicas.as_mut().expect("called with replicas");
        let replica = replicas.replica_of(cpu_of(agent));
        if !replicas.is_fair(replica, offset, bytes, value) {
            replicas.told |= 1 << agent;
        }
        match replica {
            Some(replica) => replicas.swapped((replicas.model_of(replica), replica), offset, bytes, value),
            None => value,
        }
    }

    /// An agent forgets what it was told.
    pub(crate) fn forget_names(&mut self, agent: usize) {
        self.foresight.forgets_names();
        if let Some(replicas) = &mut self.replicas {
            replicas.told &= !(1 << agent);
        }
    }

    /// Something that outlasts what an agent was told may name replicas if that did: a report.
    pub(crate) fn keep_names(&mut self, agent: usize) {
        if let Some(replicas) = &mut self.replicas
            && replicas.told >> agent & 1 != 0
        {
            replicas.told |= FOR_GOOD;
        }
    }

    /// An operation as the first replica would ask for it: address and operands.
    pub(crate) fn neutral_op(&self, cpu: usize, op: &Op) -> (usize, [u64; 3]) {
        let as_it_is = (op.address, [op.a, op.b, op.c]);
        let Some(replicas) = &self.replicas else { return as_it_is };
        let Some(replica) = replicas.replica_of(cpu) else { return as_it_is };
        let pair = (replicas.model_of(replica), replica);
        match op.kind {
            Kind::SendIpi | Kind::SendNmi => (op.address, [replicas.swapped_cpus(pair, op.a), op.b, op.c]),
            Kind::TlbParavirtual => (op.address, [op.a, op.b, replicas.swapped_cpus(pair, op.c)]),
            Kind::Zero => (replicas.neutral_place(op.address), [op.a, op.b, op.c]),
            _ if op.kind.accesses_word().is_none() => as_it_is,
            _ => {
                let address = replicas.neutral_place(op.address);
                let swapped = |value| replicas.swapped(pair, op.address, usize::from(op.bytes), value);
                (address, [swapped(op.a), swapped(op.b), op.c])
            }
        }
    }

    /// A store that waits in the buffer of a CPU, as it would in the first replica's.
    pub(crate) fn neutral_store(&self, cpu: usize, store: Waiting) -> Waiting {
        let Some(replicas) = &self.replicas else { return store };
        let Some(replica) = replicas.replica_of(cpu) else { return store };
        let place = |offset| replicas.neutral_place(offset);
        match store {
            Waiting::Store { offset, bytes, value } => {
                let value = replicas.swapped((replicas.model_of(replica), replica), offset, bytes, value);
                Waiting::Store { offset: place(offset), bytes, value }
            }
            Waiting::Zero { offset, bytes } => Waiting::Zero { offset: place(offset), bytes },
        }
    }

    // --- what is known of quiet words ---

    /// Where what is known of a word is kept: where the first replica's is.
    #[inline(always)]
    fn quiet_place(&self, offset: usize) -> usize {
        self.replicas.as_ref().map_or(offset, |replicas| replicas.neutral_place(offset))
    }

    #[inline(always)]
    pub(crate) fn note_accessed(&mut self, agent: usize, offset: usize, bytes: usize) {
        let place = self.quiet_place(offset);
        match &self.replicas {
            None => self.quiet.accessed(agent, offset, bytes),
            Some(replicas) => {
                let is_own = matches!(replicas.roles[offset / 4], Role::Own { .. });
                let is_member = replicas.replica_of(cpu_of(agent)).is_some();
                self.quiet.accessed(neutral_agent(agent, replicas.neutral_cpu(cpu_of(agent))), place, bytes);
                if is_member && !is_own {
                    self.quiet.accessed(ANY_MEMBER, place, bytes);
                }
            }
        }
    }

    #[inline(always)]
    pub(crate) fn note_written(&mut self, offset: usize, bytes: usize) {
        if self.replicas.is_none() {
            return self.quiet.written(offset, bytes);
        }
        // Words next to each other need not correspond to such.
        for unit in (offset..offset + bytes).step_by(4) {
            let place = self.quiet_place(unit);
            self.quiet.written(place, 4);
        }
    }

    pub(crate) fn is_shared(&self, offset: usize, bytes: usize) -> bool {
        self.quiet.is_shared(self.quiet_place(offset), bytes)
    }

    pub(crate) fn is_written(&self, offset: usize, bytes: usize) -> bool {
        self.quiet.is_written(self.quiet_place(offset), bytes)
    }

    #[inline(always)]
    pub(crate) fn assume_constant(&mut self, offset: usize, bytes: usize) -> bool {
        let place = self.quiet_place(offset);
        self.quiet.assume_constant(place, bytes)
    }

    #[inline(always)]
    pub(crate) fn assume_private(&mut self, agent: usize, offset: usize, bytes: usize) -> bool {
        let place = self.quiet_place(offset);
        let cpu = self.neutral_cpu(cpu_of(agent));
        self.quiet.assume_private(neutral_agent(agent, cpu), place, bytes)
    }
}
