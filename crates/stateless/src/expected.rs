//! What a step would use that was never made.

use crate::footprint::{self, ANY_BLOCK, Use};
use crate::op::{Op, User, Vector};
use crate::state::{Machine, State, members};

impl Machine<'_> {
    /// What an operation that was not made would use, as far as that can be known.
    pub(crate) fn expected(&self, state: &State<'_>, cpu: usize, op: &Op) -> footprint::Footprint {
        let mut uses = footprint::Footprint::default();
        match *op {
            Op::Load(place) | Op::AwaitValue(place, _) => uses.add_place(place, Use::Loads),
            Op::Swap(place, _)
            | Op::CompareExchange(place, ..)
            | Op::Add(place, _)
            | Op::And(place, _)
            | Op::Or(place, _)
            | Op::AwaitUpdate(place, _) => uses.add_place(place, Use::Writes),
            Op::Store(place, _) if !self.config.stores_wait() => uses.add_place(place, Use::Writes),
            Op::User(User { address, .. }) => {
                uses.add(footprint::translations(cpu), Use::Writes);
                uses.add(ANY_BLOCK, Use::Reads);
                for (number, known) in self.config.pages.iter().enumerate() {
                    if known.as_u64() / machine::addr::PAGE_SIZE == address / machine::addr::PAGE_SIZE {
                        uses.add(footprint::path(number), Use::Writes);
                    }
                }
            }
            Op::Send(targets, vector) => {
                let meant = members(targets, state).filter(|target| *target != cpu || vector == Vector::Nmi);
                meant.for_each(|one| uses.add(footprint::pending(one), Use::Writes));
            }
            Op::Paravirtual(targets, _) => {
                members(targets, state).for_each(|one| uses.add(footprint::translations(one), Use::Writes));
            }
            Op::Broadcast(_) => {
                (0..state.cpus.len()).for_each(|one| uses.add(footprint::arrivals(one), Use::Writes));
            }
            Op::GracePeriod => {
                (0..state.cpus.len()).for_each(|one| uses.add(footprint::section(one), Use::Reads));
            }
            Op::EnterSection | Op::LeaveSection | Op::InterruptsOff | Op::InterruptsBack(_) => {
                uses.add(footprint::section(cpu), Use::Writes);
            }
            Op::Device { .. } => uses.add(ANY_BLOCK, Use::Reads),
            Op::Allocate(pool) => {
                for (number, _) in self.blocks.iter().enumerate().filter(|(_, block)| block.pool == pool) {
                    uses.add(footprint::block(number), Use::Writes);
                }
                uses.add(ANY_BLOCK, Use::Writes);
            }
            Op::Free(_) => uses.add(ANY_BLOCK, Use::Writes),
            _ => {}
        }
        uses
    }
}
