//! What an engine may write to for nobody knows how long, because the driver gave a fence that says nothing.
//!
//! The object stays where it was: its contents are there, and CPUs may go on using them. But until the card is reset
//!
//! * nobody else gets the room that it was to move to, nor frames that were allocated for it: the engine may write them;
//! * it keeps the place that it is in, even if nobody has a handle any more: the engine may read it, and what it reads must not be another's.
//!
//! So such an object does not move, is not evicted, swapped out or destroyed. One that refuses to move can have lost one place only, and the
//! object has room to note it.

use machine::Cpu;

use crate::device::{Destroyed, Device};
use crate::driver::{CpuOf, Driver};
use crate::object::{Object, PagesState, Reserved};
use crate::place::{Kind, Placed};

impl Object<'_> {
    /// The place into which an engine may be writing.
    pub(crate) fn lost<C: Cpu>(&self, cpu: &C) -> Option<Placed> {
        let kind = cpu.owned_load(&self.lost_kind).checked_sub(1)?;
        Some(Placed { kind: Kind::new(kind as u8), start: cpu.owned_load(&self.lost_start) })
    }

    pub(crate) fn set_lost<C: Cpu>(&self, cpu: &C, lost: Option<Placed>) {
        cpu.owned_store(&self.lost_kind, lost.map_or(0, |lost| u32::from(lost.kind.number()) + 1));
        cpu.owned_store(&self.lost_start, lost.map_or(0, |lost| lost.start));
    }
}

impl<C: Cpu> Reserved<'_, '_, C> {
    /// Whether an engine may be at work on the object until the card is reset: a move ended with [`crate::MoveError::BadFence`].
    pub fn is_quarantined(&self) -> bool {
        self.object.lost(self.cpu()).is_some()
    }
}

impl<'d, D: Driver> Device<'d, D> {
    /// An engine that cannot be waited for has begun to copy the object to `to`.
    pub(crate) fn quarantine(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>, to: Placed) {
        let (cpu, from) = (reserved.cpu(), reserved.placed());
        if self.is_pages(to) {
            reserved.object.set_pages_state(cpu, PagesState::Quarantined);
        }
        reserved.object.set_lost(cpu, Some(to));
        self.parts.kinds[from.kind.index()].unlist(cpu, self.parts.objects, reserved.index, from.kind);
    }

    /// The card was reset: none of its engines reads or writes any more what it was told before. Gives back what was in quarantine, and returns how many
    /// objects have left it.
    ///
    /// To be called after the engines were stopped and before the first is given work again, by the driver, which alone knows; what its engines were told
    /// and will not do any more, it says by [`crate::Timeline::signal`].
    ///
    /// Context: interrupts on, no spin lock, no rmap lock, no reservation. Waits for those who have objects reserved.
    pub fn after_reset(&self, cpu: &CpuOf<D>) -> usize {
        let mut freed = 0;
        for (index, object) in self.parts.objects.iter().enumerate() {
            let reserved = Reserved { object, index: index as u16, guard: object.lock.lock_alone(cpu) };
            // Only an object has: a slot that is free has lost nothing.
            let Some(lost) = object.lost(cpu) else { continue };
            if object.pages_state(cpu) == PagesState::Quarantined {
                self.release_pages(&reserved);
            }
            self.parts.kinds[lost.kind.index()].free(cpu, lost.start);
            object.set_lost(cpu, None);
            self.used_just_now(&reserved);
            reserved.unlock();
            freed += 1;
            if object.handles(cpu) == 0 {
                let _: Destroyed = self.destroy(cpu, index as u16);
            }
        }
        freed
    }
}
