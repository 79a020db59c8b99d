//! Operations that do less than they should: see [`crate::Weakening`].

use std::panic::Location;

use crate::agent::agents_of;
use crate::cells;
use crate::core::Core;
use crate::cpu::LabCpu;
use crate::label::Weakening;
use crate::op::{Kind, Op};
use crate::verdict::MisuseKind;

/// How a lock that was not taken would have been let go: what its word would have changed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Untaken {
    /// Where the word is, and which agent did not take it.
    place: u64,
    /// By how much the word would have grown.
    grown: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Barriers {
    Kept,
    LeftOut,
}

impl LabCpu {
    /// Whether this place is weakened.
    #[inline(always)]
    pub(crate) fn weakens(&self, weakening: Weakening, location: &'static Location<'static>) -> bool {
        let core = self.core();
        if core.labels.is_none() || core.booting || core.unwinding {
            return false;
        }
        core.labels.as_mut().is_some_and(|labels| labels.meet(weakening, location))
    }

    /// An access to a word, perhaps weakened.
    #[cold]
    pub(crate) fn weakened_access(&self, mut op: Op) -> u64 {
        match op.kind {
            Kind::AwaitUpdate if self.weakens(Weakening::Lock, op.location) => {
                let found = self.load_of(&op);
                self.leave_untaken(&op, found);
                return found;
            }
            Kind::AwaitValue if self.weakens(Weakening::Wait, op.location) => return self.load_of(&op),
            Kind::Store | Kind::FetchAdd | Kind::FetchAnd if self.core().lets_go_untaken(self.cpu, self.agent, &op) => {
                // What it is told does not matter: nobody looks at what a release found.
                return 0;
            }
            Kind::Swap
            | Kind::CompareExchange
            | Kind::FetchAdd
            | Kind::FetchAnd
            | Kind::FetchOr
            | Kind::AwaitUpdate => {
                if op.kind != Kind::AwaitUpdate {
                    if self.weakens(Weakening::Atomicity, op.location) {
                        return self.in_two_steps(&op, Barriers::Kept);
                    }
                    if self.core().buffers_stores() && self.weakens(Weakening::LockPrefix, op.location) {
                        return self.in_two_steps(&op, Barriers::LeftOut);
                    }
                }
                if self.core().buffers_stores() && self.weakens(Weakening::Order, op.location) {
                    op.is_unordered = true;
                }
            }
            _ => {}
        }
        self.access_as_it_is(op)
    }

    fn load_of(&self, op: &Op) -> u64 {
        self.access_as_it_is(Op { kind: Kind::Load, ..*op })
    }

    fn in_two_steps(&self, op: &Op, barriers: Barriers) -> u64 {
        let fence = || {
            if barriers == Barriers::Kept {
                self.perform(Op { kind: Kind::Fence, ..*op });
            }
        };
        fence();
        let found = self.load_of(op);
        if let Some(new) = op.updated(found) {
            self.access_as_it_is(Op { kind: Kind::Store, a: new, ..*op });
            fence();
        }
        found
    }

    /// Remembers a lock that is not taken, so that it is not let go either.
    fn leave_untaken(&self, op: &Op, found: u64) {
        let core = self.core();
        // What it would look like if it were free: as it is, or without one of its bits, or empty.
        let free = std::iter::once(found).chain((0..64).map(|bit| found & !(1 << bit))).chain([0]);
        let Some((free, taken)) = free.filter_map(|free| Some((free, op.test(free)?))).next() else {
            core.misuse(
                MisuseKind::Setup,
                format!("nobody can tell what the lock at {} looks like when it is free", op.location),
            );
            return self.stop_if_stopped();
        };
        let untaken = Untaken { place: core.untaken_place(self.cpu, self.agent, op), grown: taken.wrapping_sub(free) };
        let count = core.reg(self.cpu, cells::UNTAKEN) as usize;
        if count == cells::MAX_UNTAKEN {
            core.misuse(MisuseKind::Capacity, format!("more than {count} locks are not taken ({})", op.location));
            return self.stop_if_stopped();
        }
        core.set_untaken(self.cpu, count, untaken);
        core.set_reg(self.cpu, cells::UNTAKEN, count as u64 + 1);
    }
}

impl Core<'_> {
    fn untaken_place(&self, cpu: usize, agent: usize, op: &Op) -> u64 {
        (agent - agents_of(cpu).start) as u64 | (op.address as u64) << 2
    }

    fn untaken(&self, cpu: usize, index: usize) -> Untaken {
        let cell = cells::UNTAKEN.plus(1 + 2 * index);
        Untaken { place: self.reg(cpu, cell), grown: self.reg(cpu, cell.plus(1)) }
    }

    fn set_untaken(&mut self, cpu: usize, index: usize, untaken: Untaken) {
        let cell = cells::UNTAKEN.plus(1 + 2 * index);
        self.set_reg(cpu, cell, untaken.place);
        self.set_reg(cpu, cell.plus(1), untaken.grown);
    }

    /// Whether this operation would let go a lock that was not taken. If so, it is as if it had been done.
    fn lets_go_untaken(&mut self, cpu: usize, agent: usize, op: &Op) -> bool {
        let count = self.reg(cpu, cells::UNTAKEN) as usize;
        let place = self.untaken_place(cpu, agent, op);
        let undoes = |grown: u64| match op.kind {
            Kind::FetchAdd if op.bytes == 4 => op.a as u32 == (grown as u32).wrapping_neg(),
            Kind::FetchAdd => op.a == grown.wrapping_neg(),
            Kind::FetchAnd => !op.a & mask_of(op.bytes) == grown & mask_of(op.bytes),
            // Words of locks are stored to by whoever lets go.
            _ => true,
        };
        let Some(index) = (0..count).find(|&index| {
            let untaken = self.untaken(cpu, index);
            untaken.place == place && undoes(untaken.grown)
        }) else {
            return false;
        };
        let last = self.untaken(cpu, count - 1);
        self.set_untaken(cpu, index, last);
        self.set_untaken(cpu, count - 1, Untaken { place: 0, grown: 0 });
        self.set_reg(cpu, cells::UNTAKEN, count as u64 - 1);
        true
    }
}

const fn mask_of(bytes: u8) -> u64 {
    if bytes == 4 { 0xffff_ffff } else { u64::MAX }
}
